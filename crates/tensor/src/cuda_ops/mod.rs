//! The GPU halves of the operations of `ops`. The first line of each file names the kernels of `kernels/cuda` that it
//! launches.
//!
//! Operations compute in f32. With [`Precision::Bf16`](crate::Precision) or `F16` the operands of matrix products and of
//! attention are rounded to that type; sums stay in f32. Kernels that read and write bf16 as it is are those that a layer of
//! a transformer is made of ([`CudaOp::reads_bf16`]); parameters are f32 beside it. A gradient is written, or added, by the kernel
//! that computes it, where it stays: gradients of parameters go into the arena.

mod arguments;
mod attention;
mod column_sums;
mod cross_entropy;
mod dropout;
mod elementwise;
mod embedding;
mod gemm;
mod layer_norm;
mod linear;
mod matmul;
mod operand;
pub(crate) mod optimizer;
mod pooling;
mod scaled;
mod softmax;
mod stacked;

use std::any::Any;

use crate::device::Device;
use crate::dispatch::Arity;
use crate::dispatch::gpu::{CudaOp, GpuOutput, Kernels, register};
use crate::dtype::DType;
use crate::error::Result;
use crate::ops;
use crate::tensor::Tensor;

/// Lists the operations that have GPU kernels.
macro_rules! kernels {
    ($($op:ty),* $(,)?) => {
        /// Runs the kernels of an operation; `None` if it has none.
        fn kernels_of(op: &dyn Any, inputs: &[&Tensor], recorded: bool) -> Option<Result<GpuOutput>> {
            $(if let Some(op) = op.downcast_ref::<$op>() {
                return Some(op.forward(<$op as CudaOp>::Arity::of(inputs.to_vec()), recorded));
            })*
            None
        }

        /// See [`Kernels::reads`].
        fn reads(op: &dyn Any, inputs: &[&Tensor]) -> bool {
            if inputs[0].dtype() != DType::BF16 {
                return false;
            }
            $(if let Some(op) = op.downcast_ref::<$op>() {
                return op.reads_bf16(inputs);
            })*
            false
        }
    };
}

kernels! {
    ops::arithmetic::Pairwise,
    ops::attention::PackedAttention,
    ops::cross_entropy::LabelCrossEntropy,
    ops::cross_entropy::SoftCrossEntropy,
    ops::dropout::HiddenDropout,
    ops::embedding::EmbeddingsLayerNorm,
    ops::feed_forward::FeedForward,
    ops::layer_norm::LayerNorm,
    ops::layer_norm::ResidualLayerNorm,
    ops::linear::Linear,
    ops::matmul::MatMul,
    ops::pointwise_loss::PointwiseLoss,
    ops::pooling::Pool,
    ops::reduce::Sum,
    ops::rows::GatherRows,
    ops::rows::ScatterRows,
    ops::scalar::Curve,
    ops::scalar::Scalar,
    ops::softmax::Softmax,
    ops::unary::Unary,
}

impl Device {
    /// Opens GPU number `index`, from 0.
    ///
    /// # Errors
    /// Returns an error without the feature `cuda`, if the driver is missing or too old, if the GPU does not exist, and if it
    /// has an architecture without kernels.
    pub fn cuda(index: usize) -> Result<Device> {
        register(Kernels { forward: kernels_of, reads });
        crate::cuda::open(index).map(Device::Cuda)
    }
}

#[cfg(test)]
mod tests {
    use crate::cpu::Target;
    use crate::device::Device;
    use crate::dispatch::{Float, Keep, Op, apply};
    use crate::dtype::DType;
    use crate::error::Result;
    use crate::layout::Dims;
    use crate::tensor::Tensor;

    struct Unknown;

    impl Op<1, 1, 0> for Unknown {
        const OPERANDS: [&'static str; 1] = ["tensor"];

        fn name(&self) -> &'static str {
            "unknown"
        }

        fn shapes(&self, [x]: [&Tensor; 1]) -> Result<[Dims; 1]> {
            Ok([x.dims()])
        }

        fn forward<T: Float>(&mut self, [x]: [&[T]; 1], [y]: [&mut [T]; 1]) {
            y.copy_from_slice(x);
        }

        fn keeps(&self) -> [Keep; 0] {
            []
        }

        fn backward<T: Float>(&self, []: [&[T]; 0], _: &[T], _: [Option<Target<'_, T>>; 1]) {}
    }

    #[test]
    fn an_operation_without_kernels_says_so_on_a_gpu() -> Result<()> {
        let device = match Device::cuda(0) {
            Ok(device) => device,
            Err(error) if std::env::var_os("CLOZE_REQUIRE_GPU").is_some() => return Err(error),
            Err(error) => {
                println!("SKIPPED: {error}");
                return Ok(());
            }
        };
        let x = Tensor::zeros(&[3], DType::F32, &device)?;
        let error = apply(Unknown, [&x]).err().map(|error| error.to_string()).unwrap_or_default();
        assert_eq!(error, "unknown: has no GPU kernel: move its inputs with to_device(&Device::Cpu)");
        assert!(apply(Unknown, [&x.to_device(&Device::Cpu)?]).is_ok());
        Ok(())
    }

    #[test]
    fn a_gpu_refuses_f64() -> Result<()> {
        let Ok(device) = Device::cuda(0) else { return Ok(()) };
        let matrix = Tensor::zeros(&[2, 2], DType::F64, &device)?;
        let bias = Tensor::zeros(&[2], DType::F64, &device)?;
        for result in [matrix.matmul(&matrix), matrix.linear(&matrix, &bias), matrix.add(&matrix), matrix.softmax()] {
            let error = result.err().map(|error| error.to_string()).unwrap_or_default();
            assert!(error.contains("f64") && error.contains("on a GPU"), "{error}");
        }
        Ok(())
    }
}
