//! The memory behind a tensor: one variant per backend that is compiled in.

use std::any::Any;
use std::ops::Range;
use std::sync::Arc;

use bytemuck::Pod;

#[cfg(feature = "cuda")]
use crate::cuda::DeviceBuffer;
use crate::memory::Buffer;
use crate::{Device, Result};

/// What it would be to take memory of a GPU for the host's: every operation looks first.
#[cfg(feature = "cuda")]
const ON_A_GPU: &str = "elements on a GPU are not read as the host's";

/// Shared memory on some device. Tensors that are views of one another share it.
#[derive(Clone)]
pub(crate) enum Storage {
    Cpu(Arc<Buffer>),
    #[cfg(feature = "cuda")]
    Cuda(Arc<DeviceBuffer>),
}

impl Storage {
    /// Uninitialised in the sense of "arbitrary contents".
    pub(crate) fn new(op: &'static str, device: &Device, bytes: usize) -> Result<Storage> {
        match device {
            Device::Cpu => Ok(Storage::Cpu(Arc::new(Buffer::new(op, bytes)?))),
            #[cfg(feature = "cuda")]
            Device::Cuda(device) => Ok(Storage::Cuda(Arc::new(device.allocate(op, bytes)?))),
        }
    }

    pub(crate) fn zeroed(op: &'static str, device: &Device, bytes: usize) -> Result<Storage> {
        match device {
            Device::Cpu => Ok(Storage::Cpu(Arc::new(Buffer::zeroed(op, bytes)?))),
            #[cfg(feature = "cuda")]
            Device::Cuda(device) => Ok(Storage::Cuda(Arc::new(device.zeroed(op, bytes)?))),
        }
    }

    /// As [`Buffer::derive`] for what is derived from all of the `bytes` bytes that a tensor has; `None` where it is only
    /// a part of this memory.
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

    pub(crate) fn device(&self) -> Device {
        match self {
            Storage::Cpu(_) => Device::Cpu,
            #[cfg(feature = "cuda")]
            Storage::Cuda(buffer) => Device::Cuda(buffer.device().clone()),
        }
    }

    /// The elements, on the CPU.
    pub(crate) fn cpu<T: Pod>(&self) -> &[T] {
        match self {
            Storage::Cpu(buffer) => buffer.slice(),
            #[cfg(feature = "cuda")]
            Storage::Cuda(_) => unreachable!("{ON_A_GPU}"),
        }
    }

    /// Elements `range` for writing, on the CPU.
    ///
    /// # Safety
    /// As `Buffer::slice_mut`: nobody else reads or writes them meanwhile.
    #[allow(clippy::mut_from_ref, reason = "the contract above takes the place of the borrow checker")]
    pub(crate) unsafe fn cpu_mut<T: Pod>(&self, range: Range<usize>) -> &mut [T] {
        match self {
            // SAFETY: passed on.
            Storage::Cpu(buffer) => unsafe { buffer.slice_mut(range) },
            #[cfg(feature = "cuda")]
            Storage::Cuda(_) => unreachable!("{ON_A_GPU}"),
        }
    }

    /// Makes the bytes `range` zero.
    ///
    /// # Safety
    /// As `Buffer::slice_mut`: nobody else reads or writes them meanwhile.
    pub(crate) unsafe fn clear(&self, range: Range<usize>) {
        match self {
            // SAFETY: passed on.
            Storage::Cpu(buffer) => unsafe { buffer.slice_mut::<u8>(range) }.fill(0),
            // A device that cannot do that says so at the next call that can.
            #[cfg(feature = "cuda")]
            Storage::Cuda(buffer) => _ = buffer.clear("clear", range.start, range.len()),
        }
    }

    /// How many tensors share this memory.
    pub(crate) fn handles(&self) -> usize {
        match self {
            Storage::Cpu(buffer) => Arc::strong_count(buffer),
            #[cfg(feature = "cuda")]
            Storage::Cuda(buffer) => Arc::strong_count(buffer),
        }
    }

    /// Whether nobody else shares this memory and it may be written.
    pub(crate) fn is_exclusive(&mut self) -> bool {
        match self {
            Storage::Cpu(buffer) => Arc::get_mut(buffer).is_some_and(|buffer| !buffer.is_mapped()),
            #[cfg(feature = "cuda")]
            Storage::Cuda(buffer) => Arc::get_mut(buffer).is_some(),
        }
    }

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
