//! Tensors and numbers in the form that kernels take them.

use std::sync::Arc;

use bytemuck::{NoUninit, Zeroable};

use crate::cuda::{CudaDevice, DeviceBuffer, Pointer};
use crate::device::Device;
use crate::dropout::Dropout;
use crate::dropout::RowCoordinate;
use crate::dtype::DType;
use crate::element::wrong_dtype;
use crate::error::{Error, Result};
use crate::gradients::{Destination, Slot};
use crate::storage::Storage;
use crate::tensor::Tensor;

/// Returns the device of a tensor.
///
/// # Errors
/// Returns an error if the tensor is on the CPU, as when the operands of an operation are on different devices.
pub(crate) fn device_of(op: &'static str, tensor: &Tensor) -> Result<CudaDevice> {
    match tensor.storage() {
        Storage::Cuda(buffer) => Ok(buffer.device().clone()),
        Storage::Cpu(_) => {
            Err(Error::invalid(op, "one operand is on the CPU, others on a GPU: move them with to_device"))
        }
    }
}

/// Returns the address of the first element of a tensor, which must be on a GPU.
pub(super) fn pointer(tensor: &Tensor) -> Pointer {
    match tensor.storage() {
        Storage::Cuda(buffer) => buffer.pointer() + (tensor.layout().offset * tensor.dtype().size()) as u64,
        Storage::Cpu(_) => 0,
    }
}

/// Allocates a row-major tensor with arbitrary contents.
pub(super) fn fresh(op: &'static str, shape: &[usize], dtype: DType, device: &CudaDevice) -> Result<Tensor> {
    Tensor::uninitialised(op, shape, dtype, &Device::Cuda(device.clone()))
}

/// Checks that tensors, in whatever layout, are f32.
///
/// # Errors
/// Returns an error that names the type of the first one that is not.
pub(super) fn check_f32(op: &'static str, tensors: &[&Tensor]) -> Result<()> {
    match tensors.iter().find(|tensor| tensor.dtype() != DType::F32) {
        Some(tensor) => Err(wrong_dtype(op, "tensor", tensor.dtype(), "f32, bf16 or f16 on a GPU")),
        None => Ok(()),
    }
}

/// As [`check_f32`], also for bf16.
pub(super) fn check_float(op: &'static str, tensor: &Tensor) -> Result<()> {
    if tensor.dtype() == DType::BF16 { Ok(()) } else { check_f32(op, &[tensor]) }
}

/// Returns the elements of an f32 tensor, row-major and aligned to 16 bytes, which kernels read at a time.
///
/// # Errors
/// Returns an error if the dtype is not f32. The narrower floats are widened before they get here, unless the operation
/// [reads](crate::dispatch::gpu::CudaOp::reads_bf16) them.
pub(super) fn f32s(op: &'static str, tensor: &Tensor) -> Result<Tensor> {
    check_f32(op, &[tensor])?;
    aligned(tensor)
}

/// As [`f32s`], also for bf16.
pub(super) fn floats(op: &'static str, tensor: &Tensor) -> Result<Tensor> {
    check_float(op, tensor)?;
    aligned(tensor)
}

fn aligned(tensor: &Tensor) -> Result<Tensor> {
    let values = tensor.values()?;
    let start = values.layout().offset * values.dtype().size();
    if start.is_multiple_of(16) { Ok(values) } else { values.copied() }
}

/// Returns the name of a kernel for elements of this type: the first for f32, the second for bf16.
pub(super) fn kernel_for(dtype: DType, [of_f32, of_bf16]: [&'static str; 2]) -> &'static str {
    if dtype == DType::BF16 { of_bf16 } else { of_f32 }
}

/// Lets a kernel write a gradient where it stays, if it is needed. `launch` is given that place, and whether to add to
/// what is there.
pub(super) fn write_gradient(slot: Slot<'_>, launch: impl FnOnce(&Tensor, bool) -> Result<()>) -> Result<()> {
    let Some(mut gradient) = slot.open()? else { return Ok(()) };
    let add = gradient.accumulates();
    launch(gradient.tensor(), add)
}

/// Returns the place of a gradient, if it is needed, and whether to add to it.
pub(super) fn place<'d>(destination: &'d mut Option<Destination<'_>>) -> Option<(&'d Tensor, bool)> {
    let destination = destination.as_mut()?;
    let add = destination.accumulates();
    Some((destination.tensor(), add))
}

/// Returns a count as a C `int`.
///
/// # Errors
/// Returns an error if it is 2^31 or more.
pub(super) fn int(op: &'static str, value: usize) -> Result<i32> {
    i32::try_from(value).map_err(|_| Error::invalid(op, format!("{value} is too large for a kernel: 2^31 - 1 at most")))
}

/// A dropout, as `Dropout` in random.cuh.
#[repr(C)]
#[derive(Clone, Copy, NoUninit, Zeroable)]
pub(super) struct KernelDropout {
    threshold: u32,
    key: [u32; 2],
    site: u32,
    step: u32,
}

impl KernelDropout {
    pub(super) fn new(dropout: &Dropout) -> KernelDropout {
        let (key, site, step) = dropout.identity();
        KernelDropout { threshold: dropout.threshold(), key, site, step }
    }
}

/// Copies row coordinates to the device. Only dropout reads them, so without dropout the buffer is empty.
pub(crate) fn coordinates(
    op: &'static str,
    device: &CudaDevice,
    dropout: &Dropout,
    rows: &[RowCoordinate],
) -> Result<Arc<DeviceBuffer>> {
    device.input(op, if dropout.is_none() { &[] } else { rows })
}
