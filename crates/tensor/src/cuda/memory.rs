//! Memory of a device. Blocks that are freed are kept, by size class, for the next tensor of about that size: asking the driver
//! would wait for the device. There is one stream, so whoever gets a block next uses it after whoever had it before.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{MutexGuard, PoisonError};

use bytemuck::Pod;
use cudarc::driver::{result, sys};

use super::Pointer;
use super::device::{CudaDevice, check};
use super::work::Work;
use crate::memory::size_class;
use crate::{Error, Result};

/// The blocks of a device that nobody uses, by capacity and address.
#[derive(Default)]
pub(super) struct Pool {
    free: BTreeMap<usize, BTreeSet<Pointer>>,
    used: usize,
}

impl Pool {
    /// A kept block of this capacity, or of up to twice that: the first, so that equal calls from equal pools get equal blocks.
    fn take(&mut self, capacity: usize) -> Option<(Pointer, usize)> {
        let fitting = self.free.range_mut(capacity..=capacity.saturating_mul(2));
        let (capacity, pointer) = fitting.filter_map(|(&size, blocks)| Some((size, blocks.pop_first()?))).next()?;
        Some((pointer, capacity))
    }
}

/// Memory on a device. Dropping it gives it back to the pool.
pub(crate) struct DeviceBuffer {
    device: CudaDevice,
    pointer: Pointer,
    capacity: usize,
    bytes: usize,
}

impl CudaDevice {
    /// Memory with arbitrary contents.
    ///
    /// # Errors
    /// When there is not so much: says how much is free. The process goes on.
    pub(crate) fn allocate(&self, op: &'static str, bytes: usize) -> Result<DeviceBuffer> {
        let capacity = size_class(bytes).ok_or_else(|| self.lacking(op, bytes))?;
        let block = match self.block(op, capacity)? {
            None => {
                self.release(op)?;
                self.block(op, capacity)?
            }
            block => block,
        };
        let (pointer, capacity) = block.ok_or_else(|| self.lacking(op, bytes))?;
        self.pool().used += capacity;
        Ok(DeviceBuffer { device: self.clone(), pointer, capacity, bytes })
    }

    fn pool(&self) -> MutexGuard<'_, Pool> {
        self.0.pool.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A block that was kept, or else one of the driver's, if there is any.
    fn block(&self, op: &'static str, capacity: usize) -> Result<Option<(Pointer, usize)>> {
        let kept = self.pool().take(capacity);
        if kept.is_some() {
            return Ok(kept);
        }
        self.enter(op)?;
        // SAFETY: plain memory, which `Drop` gives back.
        match unsafe { result::malloc_sync(capacity) } {
            Err(error) if error.0 == sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY => Ok(None),
            answer => Ok(Some((check(op, "cuMemAlloc", answer)?, capacity))),
        }
    }

    /// Gives what is kept back to the driver, which waits for the device: graphs and blocks.
    fn release(&self, op: &'static str) -> Result<()> {
        // What still uses these blocks was asked for before now, so it is launched by the next line; the lock is not held, for
        // what is launched gives blocks back.
        let kept = std::mem::take(&mut self.pool().free);
        if let Err(error) = self.flush(op) {
            let mut pool = self.pool();
            kept.into_iter().for_each(|(capacity, blocks)| pool.free.entry(capacity).or_default().extend(blocks));
            return Err(error);
        }
        self.forget_graphs();
        for pointer in kept.into_values().flatten() {
            // SAFETY: nobody has the block any more. What the driver says of it would not help anybody.
            let _ = unsafe { result::free_sync(pointer) };
        }
        Ok(())
    }

    fn lacking(&self, op: &'static str, bytes: usize) -> Error {
        let free = self.memory().map_or(String::new(), |(free, all)| {
            let (free, all) = (mebibytes(free), mebibytes(all));
            format!(", {free} of {all} are free")
        });
        let (index, more, used) = (self.index(), mebibytes(bytes), mebibytes(self.pool().used));
        let reason = format!(
            "no memory on cuda:{index} for {more} more{free}, {used} are in use here: lower the batch size or the length of \
             sequences"
        );
        Error::device(op, reason)
    }

    /// As [`CudaDevice::allocate`], zero.
    pub(crate) fn zeroed(&self, op: &'static str, bytes: usize) -> Result<DeviceBuffer> {
        let buffer = self.allocate(op, bytes)?;
        buffer.clear(op, 0, bytes)?;
        Ok(buffer)
    }

    /// These elements on the device.
    pub(crate) fn upload<T: Pod>(&self, op: &'static str, elements: &[T]) -> Result<DeviceBuffer> {
        let buffer = self.allocate(op, size_of_val(elements))?;
        buffer.write(op, 0, elements)?;
        Ok(buffer)
    }
}

impl DeviceBuffer {
    pub(crate) fn device(&self) -> &CudaDevice {
        &self.device
    }

    pub(super) fn pointer(&self) -> Pointer {
        self.pointer
    }

    pub(crate) fn len(&self) -> usize {
        self.bytes
    }

    /// Copies elements to the device, from byte `start` on. They are read before this returns.
    pub(crate) fn write<T: Pod>(&self, op: &'static str, start: usize, elements: &[T]) -> Result<()> {
        assert!(start + size_of_val(elements) <= self.bytes, "a copy stays within the buffer");
        if elements.is_empty() {
            return Ok(());
        }
        self.device.submit_write(op, self.pointer + start as u64, bytemuck::cast_slice(elements))
    }

    /// Waits for the device, and copies elements from byte `start` on.
    pub(crate) fn read<T: Pod>(&self, op: &'static str, start: usize, elements: &mut [T]) -> Result<()> {
        assert!(start + size_of_val(elements) <= self.bytes, "a copy stays within the buffer");
        if elements.is_empty() {
            return Ok(());
        }
        self.device.flush(op)?;
        let stream = self.device.enter(op)?;
        // SAFETY: there are so many, as was checked; the next line waits for them.
        let copied = unsafe { result::memcpy_dtoh_async(elements, self.pointer + start as u64, stream) };
        self.device.waited(copied)?;
        self.device.settle(stream)
    }

    /// Makes `bytes` bytes from `start` on zero.
    pub(crate) fn clear(&self, op: &'static str, start: usize, bytes: usize) -> Result<()> {
        assert!(start + bytes <= self.bytes, "what is cleared is within the buffer");
        if bytes == 0 {
            return Ok(());
        }
        self.device.submit(op, Work::Clear { to: self.pointer + start as u64, bytes })
    }
}

/// Copies `bytes` bytes on the device.
pub(super) fn copy(device: &CudaDevice, op: &'static str, from: Pointer, to: Pointer, bytes: usize) -> Result<()> {
    // A copy in a graph has a row of at most 2 GiB.
    for start in (0..bytes as u64).step_by(LONGEST_COPY) {
        let bytes = LONGEST_COPY.min(bytes - start as usize);
        device.submit(op, Work::Copy { to: to + start, from: from + start, bytes })?;
    }
    Ok(())
}

const LONGEST_COPY: usize = 1 << 30;

impl Drop for DeviceBuffer {
    fn drop(&mut self) {
        let mut pool = self.device.pool();
        pool.used -= self.capacity;
        pool.free.entry(self.capacity).or_default().insert(self.pointer);
    }
}

impl fmt::Debug for DeviceBuffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DeviceBuffer({} bytes)", self.bytes)
    }
}

fn mebibytes(bytes: usize) -> String {
    format!("{:.1} MiB", bytes as f64 / (1 << 20) as f64)
}
