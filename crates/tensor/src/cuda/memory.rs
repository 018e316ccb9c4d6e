//! Buffers on a device: allocation, and copies to, from and within the device.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytemuck::Pod;
use cudarc::driver::{result, sys};

use super::copy::{self, Elements};
use super::device::CudaDevice;
use super::driver::{Pointer, check};
use super::pool::Block;
use super::work::Work;
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::layout::Layout;
use crate::memory::{MemoryUse, is_dry, size_class, with_gpu};
use crate::profile::{GpuCost, launched};

/// Memory on a device. Dropping the last buffer of a block returns it to the device's pool.
pub(crate) struct DeviceBuffer {
    device: CudaDevice,
    block: Arc<Block>,
    bytes: usize,
    /// The elements, which are f32, in bf16, until they change.
    rounded: Mutex<Option<Arc<DeviceBuffer>>>,
}

impl CudaDevice {
    /// Allocates memory with arbitrary contents.
    ///
    /// # Errors
    /// Returns an error with the amount of free memory if there is not enough. The device stays usable.
    pub(crate) fn allocate(&self, op: &'static str, bytes: usize) -> Result<DeviceBuffer> {
        let capacity = size_class(bytes).ok_or_else(|| self.out_of_memory(op, bytes))?;
        if let Some(block) = with_gpu(|pool| pool.block(capacity)) {
            return Ok(DeviceBuffer::of(self, Arc::new(block), bytes));
        }
        let block = match self.block(op, capacity)? {
            None => {
                self.release(op)?;
                self.block(op, capacity)?
            }
            block => block,
        };
        let block = Arc::new(block.ok_or_else(|| self.out_of_memory(op, bytes))?);
        Ok(DeviceBuffer::of(self, block, bytes))
    }

    /// Takes a block from the pool or else from the driver; `None` if the driver has none.
    fn block(&self, op: &'static str, capacity: usize) -> Result<Option<Block>> {
        let kept = self.0.pool.take(capacity);
        if kept.is_some() {
            return Ok(kept);
        }
        self.0.stream.enter(op)?;
        // SAFETY: plain memory, which only `release` frees.
        match unsafe { result::malloc_sync(capacity) } {
            Err(error) if error.0 == sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY => Ok(None),
            answer => Ok(Some(self.0.pool.adopt(check(op, "cuMemAlloc", answer)?, capacity))),
        }
    }

    /// Returns free blocks and graphs to the driver, which waits for the device.
    fn release(&self, op: &'static str) -> Result<()> {
        // Recorded work may still use these blocks, so they leave the pool before `flush` launches it. The pool is not
        // locked meanwhile, because a launch drops inputs, which go back to the pool.
        let free = self.0.pool.take_free();
        if let Err(error) = self.0.stream.flush(op) {
            self.0.pool.put_back(free);
            return Err(error);
        }
        self.0.stream.forget_graphs();
        for pointer in free.into_pointers() {
            // SAFETY: the block came from `malloc_sync` and no `Block` owns it: `take_free` removed it from the pool. The
            // call waits for work that uses it. An error would not change what happens next: the allocation is retried.
            let _ = unsafe { result::free_sync(pointer) };
        }
        Ok(())
    }

    /// Returns how much memory the tensors of this process take.
    pub(crate) fn memory_use(&self) -> MemoryUse {
        self.0.pool.memory_use()
    }

    /// Returns the memory that is left for tensors, in bytes, with the free blocks of the pool; `None` if the driver fails.
    pub(crate) fn free_memory(&self) -> Option<usize> {
        self.0.stream.enter("memory").ok()?;
        let (free, _) = result::mem_get_info().ok()?;
        Some(free + self.memory_use().kept)
    }

    fn out_of_memory(&self, op: &'static str, bytes: usize) -> Error {
        let free = self.0.stream.enter("memory").ok().and_then(|_| result::mem_get_info().ok());
        let free = free.map_or(String::new(), |(free, all)| {
            let (free, all) = (mebibytes(free), mebibytes(all));
            format!(", {free} of {all} are free")
        });
        let (index, more, used) = (self.index(), mebibytes(bytes), mebibytes(self.memory_use().used));
        let reason = format!(
            "no memory on cuda:{index} for {more} more{free}, this process uses {used}: lower the batch size or the \
             sequence length"
        );
        Error::device(op, reason)
    }

    /// Allocates memory and sets it to zero.
    pub(crate) fn zeroed(&self, op: &'static str, bytes: usize) -> Result<DeviceBuffer> {
        let buffer = self.allocate(op, bytes)?;
        buffer.clear(op, 0, bytes)?;
        Ok(buffer)
    }

    /// Copies elements to a new buffer.
    pub(crate) fn upload<T: Pod>(&self, op: &'static str, elements: &[T]) -> Result<DeviceBuffer> {
        let buffer = self.allocate(op, size_of_val(elements))?;
        buffer.write(op, 0, elements)?;
        Ok(buffer)
    }

    /// Copies elements to a buffer that must not be written. Within a graph, equal elements share one copy: what every
    /// layer reads is copied once.
    pub(crate) fn input<T: Pod>(&self, op: &'static str, elements: &[T]) -> Result<Arc<DeviceBuffer>> {
        let bytes: &[u8] = bytemuck::cast_slice(elements);
        if let Some(block) = self.0.stream.known_input(bytes) {
            return Ok(Arc::new(DeviceBuffer::of(self, block, bytes.len())));
        }
        let buffer = self.allocate(op, bytes.len())?;
        if !bytes.is_empty() {
            self.0.stream.submit_input(op, &buffer.block, bytes)?;
        }
        Ok(Arc::new(buffer))
    }
}

impl DeviceBuffer {
    fn of(device: &CudaDevice, block: Arc<Block>, bytes: usize) -> DeviceBuffer {
        DeviceBuffer { device: device.clone(), block, bytes, rounded: Mutex::default() }
    }

    fn kept(&self) -> MutexGuard<'_, Option<Arc<DeviceBuffer>>> {
        self.rounded.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the elements, which are f32, rounded to bf16. They are computed at the first call and kept until the elements
    /// change: weights are rounded once, not in every product.
    ///
    /// # Errors
    /// Returns an error if there is not enough memory.
    pub(crate) fn rounded(self: &Arc<DeviceBuffer>, op: &'static str) -> Result<Arc<DeviceBuffer>> {
        let mut kept = self.kept();
        if let Some(rounded) = &*kept {
            return Ok(rounded.clone());
        }
        let layout = Layout::contiguous(op, &[self.bytes / DType::F32.size()])?;
        let rounded = Arc::new(self.device.allocate(op, layout.elements() * DType::BF16.size())?);
        let elements = |buffer: &Arc<DeviceBuffer>, dtype| Elements { buffer: buffer.clone(), layout, dtype };
        copy::copy(op, &elements(self, DType::F32), &elements(&rounded, DType::BF16), false)?;
        // A dry run computes nothing, so nothing of it may stay with memory that is real.
        if !is_dry() || !self.block.is_of(&self.device.0.pool) {
            *kept = Some(rounded.clone());
        }
        Ok(rounded)
    }

    /// Announces that the elements are going to be written by whoever does not know about [`rounded`](DeviceBuffer::rounded)
    /// elements: these are forgotten.
    pub(crate) fn changes(&self) {
        self.kept().take();
    }

    /// Returns the address of the rounded elements for a kernel that changes both; null if nobody asked for them, or if a graph
    /// still holds those before the change, in which case they are forgotten.
    pub(crate) fn rounded_beside(&self) -> Pointer {
        let mut kept = self.kept();
        kept.take_if(|rounded| Arc::strong_count(rounded) > 1);
        kept.as_ref().map_or(0, |rounded| rounded.pointer())
    }

    pub(crate) fn device(&self) -> &CudaDevice {
        &self.device
    }

    pub(crate) fn pointer(&self) -> Pointer {
        self.block.pointer()
    }

    pub(crate) fn len(&self) -> usize {
        self.bytes
    }

    /// Copies elements to the device, starting at byte `start`. They are read before this returns.
    pub(crate) fn write<T: Pod>(&self, op: &'static str, start: usize, elements: &[T]) -> Result<()> {
        // An empty tensor may be a view that starts past the end.
        if elements.is_empty() {
            return Ok(());
        }
        assert!(start + size_of_val(elements) <= self.bytes, "a copy must stay within the buffer");
        self.changes();
        self.device.0.stream.submit_write(op, self.pointer() + start as u64, bytemuck::cast_slice(elements))
    }

    /// Waits for the device and copies elements to the host, starting at byte `start`.
    pub(crate) fn read<T: Pod>(&self, op: &'static str, start: usize, elements: &mut [T]) -> Result<()> {
        if elements.is_empty() || is_dry() {
            return Ok(());
        }
        assert!(start + size_of_val(elements) <= self.bytes, "a copy must stay within the buffer");
        self.device.0.stream.flush(op)?;
        let stream = self.device.0.stream.enter(op)?;
        // SAFETY: the assertion above keeps the copy within the buffer, and `settle` waits for it while `elements` is
        // still borrowed.
        let copied = unsafe { result::memcpy_dtoh_async(elements, self.pointer() + start as u64, stream) };
        self.device.waited(copied)?;
        self.device.settle(stream)
    }

    /// Sets `bytes` bytes to zero, starting at byte `start`.
    pub(crate) fn clear(&self, op: &'static str, start: usize, bytes: usize) -> Result<()> {
        // An empty tensor may be a view that starts past the end.
        if bytes == 0 {
            return Ok(());
        }
        assert!(start + bytes <= self.bytes, "a memset must stay within the buffer");
        self.changes();
        launched("memset", GpuCost { bytes: bytes as u64, operations: 0 });
        self.device.0.stream.submit(op, Work::Clear { to: self.pointer() + start as u64, bytes })
    }
}

/// Copies `bytes` bytes on the device.
pub(super) fn copy_bytes(
    device: &CudaDevice,
    op: &'static str,
    from: Pointer,
    to: Pointer,
    bytes: usize,
) -> Result<()> {
    for start in (0..bytes as u64).step_by(LONGEST_COPY) {
        let bytes = LONGEST_COPY.min(bytes - start as usize);
        launched("copy on the device", GpuCost { bytes: 2 * bytes as u64, operations: 0 });
        device.0.stream.submit(op, Work::Copy { to: to + start, from: from + start, bytes })?;
    }
    Ok(())
}

/// A copy node of a graph takes rows of at most 2 GiB; longer copies are split.
const LONGEST_COPY: usize = 1 << 30;

impl fmt::Debug for DeviceBuffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DeviceBuffer({} bytes)", self.bytes)
    }
}

fn mebibytes(bytes: usize) -> String {
    format!("{:.1} MiB", bytes as f64 / (1 << 20) as f64)
}
