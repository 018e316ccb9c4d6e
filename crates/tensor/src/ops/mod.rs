//! The operations. One family is one file: its formula, the method on `Tensor`, its shape rule, forward and backward, and
//! its cases for the conformance harness. Longer CPU loops are in `cpu/`, launches of GPU kernels in `cuda_ops/`.
//! `dispatch` runs it.

use crate::error::{ErrorKind, Result};

/// Declares the modules of differentiable operations and, in brackets, the names under which they record
/// themselves: the registry that the coverage test reads.
macro_rules! ops {
    ($($module:ident: [$($name:literal),* $(,)?]),* $(,)?) => {
        $(pub(crate) mod $module;)*

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
    arithmetic: ["add", "sub", "mul", "div"],
    attention: ["attention"],
    cast: ["to_dtype"],
    comparison: ["maximum", "minimum"],
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
    scalar: ["add_scalar", "mul_scalar", "pow", "clamp"],
    softmax: ["softmax", "log_softmax"],
    unary: ["abs", "exp", "ln", "relu", "reciprocal", "sigmoid", "sqrt", "tanh"],
    view: ["reshape", "permute", "narrow", "broadcast_to"],
}

mod custom;
mod operators;
mod top_k;
mod transfer;

pub use cross_entropy::{CrossEntropy, Reduction};
pub use custom::custom_op;
pub use embedding::EmbeddingIds;
pub use pooling::Pooling;
pub use recompute::recompute;

/// Checks that each value indexes something of `limit` entries.
pub(crate) fn check_indices(op: &'static str, what: &'static str, values: &[u32], limit: usize) -> Result<()> {
    match values.iter().position(|&value| value as usize >= limit) {
        None => Ok(()),
        Some(position) => {
            Err(ErrorKind::OutOfRange { op, what, value: values[position].into(), position, limit }.into())
        }
    }
}
