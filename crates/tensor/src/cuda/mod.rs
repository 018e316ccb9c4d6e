//! Tensors on NVIDIA GPUs, with the feature `cuda`: kernels of our own, which `cloze-kernels` brings compiled, and the driver
//! alone: no toolkit when building, no compiler when running.
//!
//! What is computed on a GPU is computed in f32; with [`Precision::Bf16`](crate::Precision) or `F16` the operands of matrix
//! products and of attention are rounded to that, and sums stay in f32. Everything goes through one stream of the device, in the order of
//! the calls; a call returns before it is done, and what reads numbers back waits for them.
//!
//! - `device`: the driver, the device, its stream; what can be wrong with them.
//! - `memory`: memory of the device, kept for reuse; copies from and to the host.
//! - `launch`: kernels by their names, and launches.
//! - `scaled`: operands in bf16 and, scaled, in f16.
//! - `tensor_map`: matrices as sm_90a copies them.
//! - `work`, `graph`, `staging`: what is asked for, launched at once or gathered into a CUDA graph.
//! - the others: the operations, a file for each of the files of kernels.

pub(crate) mod attention;
pub(crate) mod cross_entropy;
mod device;
pub(crate) mod dropout;
pub(crate) mod elementwise;
pub(crate) mod embedding;
mod graph;
mod launch;
pub(crate) mod layer_norm;
pub(crate) mod linear;
pub(crate) mod matmul;
pub(crate) mod memory;
pub(crate) mod optimizer;
pub(crate) mod pooling;
pub(crate) mod scaled;
pub(crate) mod softmax;
mod staging;
mod tensor_map;
mod work;

pub use device::CudaDevice;
pub(crate) use device::open;
pub use graph::GraphUse;
pub(crate) use memory::DeviceBuffer;

use std::sync::Arc;

use bytemuck::NoUninit;

use crate::dropout::RowCoordinate;
use crate::storage::Storage;
use crate::tensor::Tensor;
use crate::{DType, Device, Dropout, Error, Result};

/// An address on the device; 0 is none, as in C.
type Pointer = cudarc::driver::sys::CUdeviceptr;

/// The device that a tensor lives on.
///
/// # Errors
/// When that is the CPU: an operand of an operation is elsewhere than the others.
pub(crate) fn device_of(op: &'static str, tensor: &Tensor) -> Result<CudaDevice> {
    match tensor.storage() {
        Storage::Cuda(buffer) => Ok(buffer.device().clone()),
        Storage::Cpu(_) => {
            Err(Error::invalid(op, "one operand is on the CPU, others on a GPU: move them with to_device"))
        }
    }
}

/// Where the elements of a tensor begin.
fn pointer(tensor: &Tensor) -> Pointer {
    match tensor.storage() {
        Storage::Cuda(buffer) => buffer.pointer() + (tensor.layout().offset * tensor.dtype().size()) as u64,
        Storage::Cpu(_) => 0,
    }
}

/// A fresh row-major tensor with arbitrary contents.
fn fresh(op: &'static str, shape: &[usize], dtype: DType, device: &CudaDevice) -> Result<Tensor> {
    Tensor::uninitialised(op, shape, dtype, &Device::Cuda(device.clone()))
}

/// The elements of a tensor in f32, row-major, from an address on that kernels may read 16 bytes at.
///
/// # Errors
/// When they are of a type that GPUs are not used for.
fn f32s(op: &'static str, tensor: &Tensor) -> Result<Tensor> {
    if tensor.dtype() != DType::F32 {
        return Err(crate::ops::wrong_dtype(op, "tensor", tensor.dtype(), "f32, bf16 or f16 on a GPU"));
    }
    let values = tensor.values()?;
    if values.layout().offset.is_multiple_of(4) { Ok(values) } else { values.copied() }
}

/// A number that a kernel takes as an int.
fn int(op: &'static str, value: usize) -> Result<i32> {
    i32::try_from(value).map_err(|_| Error::invalid(op, format!("{value} is more than a kernel counts to, 2^31 - 1")))
}

/// A dropout as kernels take it.
#[repr(C)]
#[derive(Clone, Copy, NoUninit)]
struct KernelDropout {
    threshold: u32,
    key: [u32; 2],
    site: u32,
    step: u32,
}

impl KernelDropout {
    fn new(dropout: &Dropout) -> KernelDropout {
        let (key, site, step) = dropout.identity();
        KernelDropout { threshold: dropout.threshold(), key, site, step }
    }
}

/// Coordinates of rows on the device; nothing where there is no dropout, which alone reads them.
pub(crate) fn coordinates(
    op: &'static str,
    device: &CudaDevice,
    dropout: &Dropout,
    rows: &[RowCoordinate],
) -> Result<Arc<DeviceBuffer>> {
    device.input(op, if dropout.is_none() { &[] } else { rows })
}
