//! The GPU half of operations: how [`run`] finds it, and what it returns.
//!
//! `cuda_ops` implements [`CudaOp`] for the types that `ops` defines, so it stands above both and registers itself here
//! when the first GPU is opened. An operation without kernels is an error that says so.

use std::any::Any;
use std::sync::OnceLock;

use super::{Arity, TensorOp};
use crate::autograd::{differentiable_many, is_recorded};
use crate::error::{Error, Result};
use crate::gradients::Slot;
use crate::tensor::Tensor;

/// The GPU half of an operation.
pub(crate) trait CudaOp {
    /// The number of inputs, as that of the operation.
    type Arity: Arity;

    /// Whether the kernels read inputs in bf16 directly, with parameters in f32, and write an output in bf16. If not, the inputs are
    /// converted to f32 first, as f16 always is.
    const READS_BF16: bool = false;

    /// As [`READS_BF16`](CudaOp::READS_BF16), for operations that do so for some inputs in bf16 only. Shapes are not checked before
    /// this call.
    fn reads_bf16(&self, _inputs: &[&Tensor]) -> bool {
        Self::READS_BF16
    }

    /// Computes the output. `recorded` says whether a backward may follow.
    fn forward(&self, inputs: <Self::Arity as Arity>::Of<&Tensor>, recorded: bool) -> Result<GpuOutput>;
}

/// Writes the gradients of the inputs, given that of the output.
type Backward = Box<dyn FnOnce(Tensor, Vec<Slot<'_>>) -> Result<()> + Send>;

/// The result of a forward pass on a GPU, by the kind of its backward.
pub(crate) enum GpuOutput {
    /// The backward launches kernels.
    Kernels(Tensor, Backward),
    /// The backward is that of the operation itself, which composes other operations and reads these tensors.
    Operation(Tensor, Vec<Tensor>),
    /// The output was computed by other operations, which have recorded the graph.
    Composed(Tensor),
}

impl GpuOutput {
    /// An output with the backward that writes the gradients of its `N` inputs.
    pub(crate) fn new<const N: usize>(
        output: Tensor,
        backward: impl FnOnce(Tensor, [Slot<'_>; N]) -> Result<()> + Send + 'static,
    ) -> GpuOutput {
        GpuOutput::of_any(output, move |dy, slots| backward(dy, <[(); N]>::of(slots)))
    }

    /// As [`GpuOutput::new`], for any number of inputs.
    pub(crate) fn of_any(
        output: Tensor,
        backward: impl FnOnce(Tensor, Vec<Slot<'_>>) -> Result<()> + Send + 'static,
    ) -> GpuOutput {
        GpuOutput::Kernels(output, Box::new(backward))
    }
}

/// Runs the kernels of an operation; `None` if it has none.
type Forward = fn(op: &dyn Any, inputs: &[&Tensor], recorded: bool) -> Option<Result<GpuOutput>>;

/// Where the GPU halves of operations are found.
pub(crate) struct Kernels {
    /// [`CudaOp::forward`].
    pub(crate) forward: Forward,
    /// Whether the inputs are bf16 that the operation [reads](CudaOp::reads_bf16). There is at least one.
    pub(crate) reads: fn(op: &dyn Any, inputs: &[&Tensor]) -> bool,
}

static KERNELS: OnceLock<Kernels> = OnceLock::new();

/// Sets where kernels are found.
pub(crate) fn register(kernels: Kernels) {
    KERNELS.get_or_init(|| kernels);
}

/// See [`Kernels::reads`].
pub(super) fn reads(op: &dyn Any, inputs: &[&Tensor]) -> bool {
    KERNELS.get().is_some_and(|kernels| (kernels.reads)(op, inputs))
}

/// Runs an operation on inputs that are on a GPU.
pub(super) fn run<O: TensorOp>(op: O, inputs: &[&Tensor]) -> Result<Tensor> {
    let name = op.name();
    let computed = KERNELS.get().and_then(|kernels| (kernels.forward)(op.key(), inputs, is_recorded(inputs)));
    let Some(computed) = computed else {
        return Err(Error::invalid(name, "has no GPU kernel: move its inputs with to_device(&Device::Cpu)"));
    };
    Ok(match computed? {
        GpuOutput::Kernels(output, backward) => {
            differentiable_many(name, inputs, &[], output, move |_, dy, slots| backward(dy, slots))
        }
        GpuOutput::Operation(output, kept) => {
            let kept: Vec<&Tensor> = kept.iter().collect();
            differentiable_many(name, inputs, &kept, output, move |kept, dy, slots| {
                // GPUs compute in f32; a composed backward goes by the dtype of its tensors anyway.
                op.backward::<f32>(kept, dy, O::Arity::of(slots))
            })
        }
        GpuOutput::Composed(output) => output,
    })
}
