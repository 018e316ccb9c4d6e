//! Copies of elements between layouts, element types and devices: the one thing that views, gradients and operations
//! all do with memory.
//!
//! On the CPU a copy is a loop over runs of the layout; on a GPU it is a kernel, or a plain copy where both sides lie
//! the same way.

use crate::cpu::{convert, strided};
#[cfg(feature = "cuda")]
use crate::cuda::copy as cuda;
use crate::device::Device;
use crate::dtype::DType;
use crate::element::{Element, element, float};
use crate::error::Result;
use crate::storage::Storage;
use crate::tensor::Tensor;

impl Tensor {
    /// Copies the elements, row-major, into memory of their own.
    pub(crate) fn copied(&self) -> Result<Tensor> {
        copied(self, "contiguous", self.dtype())
    }
}

/// Copies the elements, row-major and converted to `dtype`, into memory of their own.
pub(crate) fn copied(from: &Tensor, op: &'static str, dtype: DType) -> Result<Tensor> {
    if !from.is_on_cpu() {
        let to = Tensor::uninitialised(op, from.shape(), dtype, &from.device())?;
        // SAFETY: `to` was made above and is not shared yet.
        unsafe { copy(op, from, &to)? };
        return Ok(to);
    }
    if dtype == from.dtype() {
        return element!(op, dtype, T => {
            let (elements, layout) = (from.strided_slice::<T>(), from.layout());
            Tensor::build(op, from.shape(), &Device::Cpu, |to: &mut [T]| strided::copy(elements, layout, to))
        });
    }
    if !from.layout().is_contiguous() {
        return copied(&from.copied()?, op, dtype);
    }
    element!(op, from.dtype(), From => element!(op, dtype, To => {
        let elements = from.slice::<From>();
        Tensor::build(op, from.shape(), &Device::Cpu, |to: &mut [To]| convert::convert(elements, to))
    }))
}

/// Copies the elements of `from` to those of `to`, which has the same shape and, on the CPU, the same element type.
///
/// # Safety
/// Nothing else may read or write the elements of `to` meanwhile, through any handle on their memory: it was made by the
/// caller, or is a gradient's place.
pub(crate) unsafe fn copy(op: &'static str, from: &Tensor, to: &Tensor) -> Result<()> {
    if let Some(result) = on_gpu(op, from, to, false) {
        return result;
    }
    let from = from.values()?;
    // SAFETY: nothing else accesses the elements of `to` by this function's contract.
    element!(op, to.dtype(), T => unsafe { assign::<T>(&from, to, |to, from| *to = from) });
    Ok(())
}

/// Adds the elements of `from` to those of `to`.
///
/// # Safety
/// As for [`copy`].
pub(crate) unsafe fn add(op: &'static str, from: &Tensor, to: &Tensor) -> Result<()> {
    if let Some(result) = on_gpu(op, from, to, true) {
        return result;
    }
    if to.dtype().is_half() {
        let sum = to.add(from)?;
        // SAFETY: the contract is the same, and `sum` has memory of its own.
        return unsafe { copy(op, &sum, to) };
    }
    let from = from.values()?;
    // SAFETY: nothing else accesses the elements of `to` by this function's contract.
    float!(op, to.dtype(), T => unsafe { assign::<T>(&from, to, |to, from| *to += from) });
    Ok(())
}

/// Copies or adds on a GPU; `None` if both tensors are on the CPU.
#[cfg(feature = "cuda")]
fn on_gpu(op: &'static str, from: &Tensor, to: &Tensor, accumulate: bool) -> Option<Result<()>> {
    let elements = |tensor: &'_ Tensor| match tensor.storage() {
        Storage::Cuda(buffer) => {
            Some(cuda::Elements { buffer: buffer.clone(), layout: *tensor.layout(), dtype: tensor.dtype() })
        }
        Storage::Cpu(_) => None,
    };
    match (elements(from), elements(to)) {
        (None, None) => None,
        (Some(from), Some(to)) => Some(cuda::copy(op, &from, &to, accumulate)),
        _ => {
            let reason =
                format!("one operand is on {}, another on {}: move them with to_device", from.device(), to.device());
            Some(Err(crate::error::Error::invalid(op, reason)))
        }
    }
}

#[cfg(not(feature = "cuda"))]
fn on_gpu(_: &'static str, _: &Tensor, _: &Tensor, _: bool) -> Option<Result<()>> {
    None
}

/// Combines each element of `to`, laid out in any way, with that of the row-major `from`.
///
/// # Safety
/// As for [`copy`].
unsafe fn assign<T: Element>(from: &Tensor, to: &Tensor, combine: impl Fn(&mut T, T)) {
    let start = to.layout().offset;
    // SAFETY: nothing else accesses the elements by this function's contract. What lies between them is not accessed through
    // this slice, but must not be borrowed elsewhere either: all who write to a view hold all of its memory exclusively.
    let elements = unsafe { to.storage().cpu_mut::<T>(start..start + to.layout().span()) };
    strided::assign(elements, to.layout(), from.slice::<T>(), combine);
}

/// Copies the elements, row-major, to another device.
pub(crate) fn moved(op: &'static str, tensor: &Tensor, device: &Device) -> Result<Tensor> {
    let source = tensor.values()?;
    let to = Tensor::uninitialised(op, source.shape(), source.dtype(), device)?;
    match (source.storage(), to.storage()) {
        // SAFETY: `to` was made above and is not shared yet.
        (Storage::Cpu(_), Storage::Cpu(_)) => unsafe { copy(op, &source, &to)? },
        #[cfg(feature = "cuda")]
        (Storage::Cpu(_), Storage::Cuda(there)) => there.write(op, 0, source.bytes())?,
        #[cfg(feature = "cuda")]
        (Storage::Cuda(there), Storage::Cpu(_)) => {
            let size = source.dtype().size();
            let (start, bytes) = (source.layout().offset * size, source.elements() * size);
            // SAFETY: `to` was made above and is not shared yet.
            there.read(op, start, unsafe { to.storage().cpu_mut::<u8>(0..bytes) })?;
        }
        #[cfg(feature = "cuda")]
        (Storage::Cuda(_), Storage::Cuda(_)) => return moved(op, &moved(op, &source, &Device::Cpu)?, device),
    }
    Ok(to)
}
