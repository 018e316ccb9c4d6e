//! The memory of tensors, with one variant per backend that is compiled in.

use std::any::Any;
use std::ops::Range;
use std::sync::Arc;

use bytemuck::Pod;

#[cfg(feature = "cuda")]
use crate::cuda::DeviceBuffer;
use crate::device::Device;
use crate::error::Result;
use crate::memory::{Buffer, is_dry};

/// The message of a panic that cannot happen: operations check the device before they access elements.
#[cfg(feature = "cuda")]
const ON_A_GPU: &str = "the host cannot access elements on a GPU";

/// Shared memory on a device. A tensor and its views share one.
#[derive(Clone)]
pub(crate) enum Storage {
    Cpu(Arc<Buffer>),
    #[cfg(feature = "cuda")]
    Cuda(Arc<DeviceBuffer>),
}

impl Storage {
    /// Allocates initialised memory with arbitrary contents.
    pub(crate) fn new(op: &'static str, device: &Device, bytes: usize) -> Result<Storage> {
        match device {
            Device::Cpu => Ok(Storage::Cpu(Arc::new(Buffer::new(op, bytes)?))),
            #[cfg(feature = "cuda")]
            Device::Cuda(device) => Ok(Storage::Cuda(Arc::new(device.allocate(op, bytes)?))),
        }
    }

    /// Allocates memory of zeros.
    pub(crate) fn zeroed(op: &'static str, device: &Device, bytes: usize) -> Result<Storage> {
        match device {
            Device::Cpu => Ok(Storage::Cpu(Arc::new(Buffer::zeroed(op, bytes)?))),
            #[cfg(feature = "cuda")]
            Device::Cuda(device) => Ok(Storage::Cuda(Arc::new(device.zeroed(op, bytes)?))),
        }
    }

    /// Returns a value derived from the contents, as [`Buffer::derive`] does, for a tensor of `bytes` bytes. Returns `None` if
    /// the tensor is only a part of this memory, or on a GPU.
    pub(crate) fn derive<D: Any + Send + Sync>(
        &self,
        bytes: usize,
        is_wanted: impl Fn(&D) -> bool,
        make: impl FnOnce() -> Option<D>,
    ) -> Option<Arc<D>> {
        match self {
            Storage::Cpu(buffer) if buffer.len() == bytes => buffer.derive(is_wanted, make),
            Storage::Cpu(_) => None,
            #[cfg(feature = "cuda")]
            Storage::Cuda(_) => None,
        }
    }

    /// Returns the number of bytes.
    pub(crate) fn len(&self) -> usize {
        match self {
            Storage::Cpu(buffer) => buffer.len(),
            #[cfg(feature = "cuda")]
            Storage::Cuda(buffer) => buffer.len(),
        }
    }

    /// Returns a number that no other memory has at the same time.
    pub(crate) fn address(&self) -> usize {
        match self {
            Storage::Cpu(buffer) => Arc::as_ptr(buffer).addr(),
            #[cfg(feature = "cuda")]
            Storage::Cuda(buffer) => Arc::as_ptr(buffer).addr(),
        }
    }

    pub(crate) fn device(&self) -> Device {
        match self {
            Storage::Cpu(_) => Device::Cpu,
            #[cfg(feature = "cuda")]
            Storage::Cuda(buffer) => Device::Cuda(buffer.device().clone()),
        }
    }

    /// Returns the elements `range` of memory on the CPU. Others may be written meanwhile.
    ///
    /// # Panics
    /// Panics if the range is out of bounds.
    pub(crate) fn cpu<T: Pod>(&self, range: Range<usize>) -> &[T] {
        match self {
            Storage::Cpu(buffer) => buffer.slice(range),
            #[cfg(feature = "cuda")]
            Storage::Cuda(_) => unreachable!("{ON_A_GPU}"),
        }
    }

    /// Returns the elements `range` of memory on the CPU, for writing.
    ///
    /// # Safety
    /// As for [`Buffer::slice_mut`]: nothing else may read or write these elements while the slice is alive.
    #[allow(clippy::mut_from_ref, reason = "the contract above replaces the borrow checker")]
    pub(crate) unsafe fn cpu_mut<T: Pod>(&self, range: Range<usize>) -> &mut [T] {
        match self {
            // SAFETY: this function has the same contract.
            Storage::Cpu(buffer) => unsafe { buffer.slice_mut(range) },
            #[cfg(feature = "cuda")]
            Storage::Cuda(_) => unreachable!("{ON_A_GPU}"),
        }
    }

    /// Sets the bytes `range` to zero.
    ///
    /// # Safety
    /// As for `Buffer::slice_mut`: no other reference to these bytes may exist meanwhile.
    pub(crate) unsafe fn clear(&self, range: Range<usize>) -> Result<()> {
        match self {
            Storage::Cpu(_) if is_dry() => {}
            // SAFETY: the caller upholds the contract of `Buffer::slice_mut`.
            Storage::Cpu(buffer) => unsafe { buffer.slice_mut::<u8>(range) }.fill(0),
            #[cfg(feature = "cuda")]
            Storage::Cuda(buffer) => buffer.clear("clear", range.start, range.len())?,
        }
        Ok(())
    }

    /// Returns the number of bytes.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Storage::Cpu(buffer) => buffer.len(),
            #[cfg(feature = "cuda")]
            Storage::Cuda(buffer) => buffer.len(),
        }
    }

    /// Returns the number of handles on this memory.
    pub(crate) fn handles(&self) -> usize {
        match self {
            Storage::Cpu(buffer) => Arc::strong_count(buffer),
            #[cfg(feature = "cuda")]
            Storage::Cuda(buffer) => Arc::strong_count(buffer),
        }
    }

    /// Returns whether this is the only handle on the memory and the memory may be written.
    pub(crate) fn is_exclusive(&mut self) -> bool {
        match self {
            Storage::Cpu(buffer) => Arc::get_mut(buffer).is_some_and(|buffer| !buffer.is_mapped()),
            #[cfg(feature = "cuda")]
            Storage::Cuda(buffer) => Arc::get_mut(buffer).inspect(|buffer| buffer.changes()).is_some(),
        }
    }

    /// Announces that kernels are going to write the memory: what was derived from its contents is forgotten.
    #[cfg(feature = "cuda")]
    pub(crate) fn changes(&self) {
        if let Storage::Cuda(buffer) = self {
            buffer.changes();
        }
    }

    /// Returns whether both are the same memory.
    pub(crate) fn is_same(&self, other: &Storage) -> bool {
        match (self, other) {
            (Storage::Cpu(a), Storage::Cpu(b)) => Arc::ptr_eq(a, b),
            #[cfg(feature = "cuda")]
            (Storage::Cuda(a), Storage::Cuda(b)) => Arc::ptr_eq(a, b),
            #[cfg(feature = "cuda")]
            _ => false,
        }
    }
}
