//! The operations. One family is one file: its shape rule, forward, backward, documentation and cases for
//! the conformance harness. The CPU loops it needs are in `cpu/` under the same name.

use crate::tensor::Tensor;
use crate::{DType, Error, ErrorKind, Result};

/// Declares the modules of differentiable operations and, in brackets, the names under which they record
/// themselves: the registry that the coverage test reads.
macro_rules! ops {
    ($($module:ident: [$($name:literal),* $(,)?]),* $(,)?) => {
        $(mod $module;)*

        /// Every operation that can record a node, by name.
        #[cfg(test)]
        pub(crate) const REGISTRY: &[&str] = &[$($($name),*),*];

        /// The cases of all operations.
        #[cfg(test)]
        pub(crate) fn cases() -> crate::conformance::Cases {
            let mut cases = crate::conformance::Cases::default();
            $($module::cases(&mut cases);)*
            cases
        }
    };
}

ops! {
    arithmetic: ["add", "sub", "mul", "div", "add_scalar", "mul_scalar"],
    attention: ["attention"],
    cast: ["to_dtype"],
    concat: ["concat"],
    cross_entropy: ["cross_entropy", "soft_cross_entropy"],
    dropout: ["dropout"],
    embedding: ["embedding", "embeddings_layer_norm"],
    feed_forward: ["feed_forward"],
    gelu: ["gelu"],
    layer_norm: ["layer_norm", "residual_layer_norm"],
    linear: ["linear", "linear_gelu", "projections"],
    matmul: ["matmul"],
    pointwise_loss: ["binary_cross_entropy", "mean_squared_error"],
    pooling: ["pool"],
    recompute: ["recompute"],
    reduce: ["sum"],
    rows: ["gather_rows", "scatter_rows"],
    softmax: ["softmax", "log_softmax"],
    unary: ["exp", "ln", "sqrt", "tanh", "relu", "reciprocal"],
    view: ["reshape", "permute", "narrow", "broadcast_to"],
}

mod top_k;

pub use attention::Sequences;
pub use cross_entropy::{CrossEntropy, Reduction};
pub use embedding::EmbeddingIds;
pub use gelu::Gelu;
pub use pooling::Pooling;
pub use recompute::recompute;

/// Runs `$body` with `$T` as the Rust type of a float dtype that the CPU computes in.
macro_rules! float {
    ($op:expr, $dtype:expr, $T:ident => $body:expr) => {
        match $dtype {
            $crate::DType::F32 => {
                type $T = f32;
                $body
            }
            $crate::DType::F64 => {
                type $T = f64;
                $body
            }
            other => return Err($crate::ops::wrong_dtype($op, "tensor", other, "f32 or f64")),
        }
    };
}
pub(crate) use float;

/// Runs `$body` with `$T` as the Rust type of any dtype.
macro_rules! element {
    ($op:expr, $dtype:expr, $T:ident => $body:expr) => {
        match $dtype {
            $crate::DType::BF16 => {
                type $T = half::bf16;
                $body
            }
            $crate::DType::F16 => {
                type $T = half::f16;
                $body
            }
            $crate::DType::U32 => {
                type $T = u32;
                $body
            }
            $crate::DType::I64 => {
                type $T = i64;
                $body
            }
            dtype => $crate::ops::float!($op, dtype, $T => $body),
        }
    };
}
pub(crate) use element;

/// `$cuda` where `$tensor` is on a GPU, else `$cpu`.
macro_rules! on_device {
    ($tensor:expr, cpu => $cpu:expr, cuda => $cuda:expr $(,)?) => {{
        #[cfg(feature = "cuda")]
        let value = if $tensor.is_on_cpu() { $cpu } else { $cuda };
        #[cfg(not(feature = "cuda"))]
        let value = $cpu;
        value
    }};
}
pub(crate) use on_device;

pub(crate) fn wrong_dtype(op: &'static str, operand: &'static str, found: DType, expected: &str) -> Error {
    ErrorKind::DType { op, operand, found, expected: expected.to_string() }.into()
}

/// Checks that the operands of a computation have one float type and live on one device.
pub(crate) fn alike(op: &'static str, operands: &[(&'static str, &Tensor)]) -> Result<()> {
    let Some(((_, first), rest)) = operands.split_first() else { return Ok(()) };
    if !first.dtype().is_float() {
        return Err(wrong_dtype(op, operands[0].0, first.dtype(), "a float type"));
    }
    for (name, operand) in rest {
        if operand.dtype() != first.dtype() {
            return Err(wrong_dtype(op, name, operand.dtype(), &format!("{} as {}", first.dtype(), operands[0].0)));
        }
        if operand.device() != first.device() {
            let reason = format!("{name} is on {}, {} on {}", operand.device(), operands[0].0, first.device());
            return Err(Error::invalid(op, reason));
        }
    }
    Ok(())
}

/// The CPU computes two-byte floats in f32: where that is the type of all operands, converts them, runs `op`
/// and rounds its result to their type. `None` otherwise: operands of different types are refused, by `alike`.
pub(crate) fn in_f32<const N: usize>(
    operands: [&Tensor; N],
    op: impl FnOnce([&Tensor; N]) -> Result<Tensor>,
) -> Result<Option<Tensor>> {
    let dtype = operands[0].dtype();
    if !dtype.is_half() || operands.iter().any(|operand| operand.dtype() != dtype) {
        return Ok(None);
    }
    let widened = operands.iter().map(|operand| operand.to_dtype(DType::F32)).collect::<Result<Vec<_>>>()?;
    let mut widened = widened.iter();
    let output = op(operands.map(|operand| widened.next().unwrap_or(operand)))?;
    output.to_dtype(dtype).map(Some)
}

/// Splits a shape into (product of all but the last dimension, last dimension).
pub(crate) fn rows_and_width(shape: &[usize]) -> (usize, usize) {
    match shape.split_last() {
        Some((&width, rest)) => (rest.iter().product(), width),
        None => (1, 1),
    }
}

/// Checks that each value indexes something of `limit` entries.
pub(crate) fn check_indices(op: &'static str, what: &'static str, values: &[u32], limit: usize) -> Result<()> {
    match values.iter().position(|&value| value as usize >= limit) {
        None => Ok(()),
        Some(position) => {
            Err(ErrorKind::OutOfRange { op, what, value: values[position].into(), position, limit }.into())
        }
    }
}
