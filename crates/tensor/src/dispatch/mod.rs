//! Runs operations: it chooses the device and the element type, and records the graph.
//!
//! An operation is a value: whatever it depends on besides its inputs. Most implement [`Op`], which computes slices from
//! slices; those that work on whole tensors (views of any layout, packed weights, a backward composed of other
//! operations) implement [`TensorOp`], on which `Op` is built. [`apply`] and [`apply_tensors`] do everything else:
//!
//! 1. check that the inputs have one float type and live on one device, naming the operand that does not; parameters may
//!    also be f32 beside inputs of two bytes, and the result has the type of these, unless it is a loss, which is f32;
//! 2. compute two-byte floats in f32, and round the result, unless the GPU kernels read them as they are;
//! 3. on the CPU, call the operation with the Rust type of the elements; on a GPU, look up its kernels (`gpu`);
//! 4. record the node of the graph, with what the operation keeps for its backward.
//!
//! Views, copies (`to_dtype`, `to_device`, `concat`) and `recompute` compute nothing that depends on the type, so they
//! record their nodes themselves.
//!
//! `docs/src/decisions.md` says which other forms were tried.

#[cfg(feature = "cuda")]
pub(crate) mod gpu;
mod slices;

use std::any::Any;

use crate::autograd::{differentiable_many, is_recorded};
use crate::cpu::Real;
use crate::dtype::DType;
use crate::element::{Element, wrong_dtype};
use crate::error::{Error, Result};
use crate::gradients::Slot;
use crate::profile::{Pass, timed};
use crate::tensor::Tensor;

pub(crate) use slices::{Keep, Op, apply};

/// A type that the CPU computes in: f32 or f64.
pub(crate) trait Float: Real + Element {}
impl Float for f32 {}
impl Float for f64 {}

/// The number of inputs of an operation: `[(); N]`, or `Vec<()>` for any number.
pub(crate) trait Arity: 'static {
    /// One `X` per input.
    type Of<X>: IntoIterator<Item = X>;

    /// Converts a list back. It was made from such a collection, so its length is right.
    fn of<X>(items: Vec<X>) -> Self::Of<X>;
}

impl<const N: usize> Arity for [(); N] {
    type Of<X> = [X; N];

    fn of<X>(items: Vec<X>) -> [X; N] {
        items.try_into().unwrap_or_else(|_| unreachable!("the number of inputs never changes"))
    }
}

impl Arity for Vec<()> {
    type Of<X> = Vec<X>;

    fn of<X>(items: Vec<X>) -> Vec<X> {
        items
    }
}

/// Something for each input of an operation.
pub(crate) type Inputs<O, X> = <<O as TensorOp>::Arity as Arity>::Of<X>;

/// An operation on whole tensors.
pub(crate) trait TensorOp: Any + Send + Sync + Sized {
    /// The number of inputs.
    type Arity: Arity;

    /// Returns the name in errors, profiles and the registry of operations.
    fn name(&self) -> &'static str;

    /// Returns the names of the inputs in errors; the last one also stands for any further inputs.
    fn operands(&self) -> &[&'static str] {
        &["tensor"]
    }

    /// Returns the index of the first input that is a parameter, such as a weight, which all after it are too.
    fn first_parameter(&self) -> usize {
        usize::MAX
    }

    /// Checks the shapes, on whatever device the inputs are.
    fn check(&self, _inputs: Inputs<Self, &Tensor>) -> Result<()> {
        Ok(())
    }

    /// Returns the type of the output for inputs of this two-byte type: the same, or f32 for the mean of many numbers.
    fn output_dtype(&self, dtype: DType) -> DType {
        dtype
    }

    /// Computes the output on the CPU. `recorded` says whether a backward may follow; otherwise nothing needs to be kept.
    fn forward<T: Float>(&mut self, inputs: Inputs<Self, &Tensor>, recorded: bool) -> Result<Forward>;

    /// Computes the gradient of each input from what was kept and from `dy`, the row-major gradient of the output.
    fn backward<T: Float>(self, kept: Vec<Tensor>, dy: Tensor, slots: Inputs<Self, Slot<'_>>) -> Result<()>;

    /// Returns the value for which GPU kernels are looked up: the operation itself.
    #[cfg_attr(not(feature = "cuda"), allow(dead_code, reason = "only GPUs look up kernels"))]
    fn key(&self) -> &dyn Any {
        self
    }
}

/// The result of a forward pass.
pub(crate) struct Forward {
    pub(crate) output: Tensor,
    /// The tensors that the backward reads: as few as it needs.
    pub(crate) kept: Vec<Tensor>,
}

/// Runs an operation on whole tensors.
///
/// # Errors
/// Returns an error if the inputs differ in dtype, other than parameters in f32 beside inputs of two bytes, or in device, for
/// the shapes that the operation refuses, and on a GPU if it has no kernels.
pub(crate) fn apply_tensors<O: TensorOp>(op: O, inputs: Inputs<O, &Tensor>) -> Result<Tensor> {
    let inputs: Vec<&Tensor> = inputs.into_iter().collect();
    alike(&op, &inputs)?;
    let dtype = inputs.first().map_or(DType::F32, |input| input.dtype());
    if !dtype.is_half() {
        return run(op, &inputs);
    }
    let (output, narrow) = (op.output_dtype(dtype), if reads(&op, &inputs) { op.first_parameter() } else { 0 });
    let read = |(index, input): (usize, &&Tensor)| match index < narrow {
        true => Ok((*input).clone()),
        false => input.to_dtype(DType::F32),
    };
    let inputs = inputs.iter().enumerate().map(read).collect::<Result<Vec<_>>>()?;
    run(op, &inputs.iter().collect::<Vec<_>>())?.to_dtype(output)
}

/// Returns whether the kernels of a GPU read two-byte inputs as they are, and write such an output.
#[cfg(feature = "cuda")]
fn reads<O: TensorOp>(op: &O, inputs: &[&Tensor]) -> bool {
    inputs.first().is_some_and(|input| !input.is_on_cpu()) && gpu::reads(op.key(), inputs)
}

#[cfg(not(feature = "cuda"))]
fn reads<O: TensorOp>(_: &O, _: &[&Tensor]) -> bool {
    false
}

/// Runs an operation on inputs of one type on one device.
fn run<O: TensorOp>(op: O, inputs: &[&Tensor]) -> Result<Tensor> {
    op.check(O::Arity::of(inputs.to_vec()))?;
    #[cfg(feature = "cuda")]
    if inputs.iter().any(|input| !input.is_on_cpu()) {
        return gpu::run(op, inputs);
    }
    match inputs.first().map(|input| input.dtype()) {
        Some(DType::F64) => on_cpu::<f64, O>(op, inputs),
        _ => on_cpu::<f32, O>(op, inputs),
    }
}

fn on_cpu<T: Float, O: TensorOp>(mut op: O, inputs: &[&Tensor]) -> Result<Tensor> {
    let name = op.name();
    let recorded = is_recorded(inputs);
    let forward = || op.forward::<T>(O::Arity::of(inputs.to_vec()), recorded);
    let Forward { output, kept } = timed(name, Pass::Forward, forward)?;
    let kept: Vec<&Tensor> = kept.iter().collect();
    Ok(differentiable_many(name, inputs, &kept, output, move |kept, dy, slots| {
        op.backward::<T>(kept, dy, O::Arity::of(slots))
    }))
}

/// Checks that the inputs have one float type, apart from parameters in f32, and live on one device.
fn alike<O: TensorOp>(op: &O, inputs: &[&Tensor]) -> Result<()> {
    let Some((first, rest)) = inputs.split_first() else { return Ok(()) };
    let (names, op_name) = (op.operands(), op.name());
    let name = |index: usize| names.get(index).or(names.last()).copied().unwrap_or("tensor");
    if !first.dtype().is_float() {
        return Err(wrong_dtype(op_name, name(0), first.dtype(), "a float type"));
    }
    for (index, input) in (1..).zip(rest) {
        let name_of_input = name(index);
        let is_wide = first.dtype().is_half() && input.dtype() == DType::F32 && index >= op.first_parameter();
        if input.dtype() != first.dtype() && !is_wide {
            return Err(wrong_dtype(
                op_name,
                name_of_input,
                input.dtype(),
                &format!("{} as {}", first.dtype(), name(0)),
            ));
        }
        if input.device() != first.device() {
            let reason = format!("{name_of_input} is on {}, {} on {}", input.device(), name(0), first.device());
            return Err(Error::invalid(op_name, reason));
        }
    }
    Ok(())
}
