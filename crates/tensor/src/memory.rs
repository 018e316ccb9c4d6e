//! CPU memory: aligned blocks that are kept for reuse.
//!
//! A training step allocates and frees the same sizes over and over. Large blocks that go back to the
//! system come back as untouched pages, and faulting those in costs as much as computing on them; so
//! freed blocks wait here, by size class, for the next tensor of about that size. Blocks are zeroed when
//! they are first made and so are always initialised memory, with old contents when reused.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::collections::BTreeMap;
use std::ops::Range;
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytemuck::Pod;

/// Cache lines and the widest vectors.
const ALIGNMENT: usize = 64;
/// Freed memory beyond this part of what is in use goes back to the system.
const KEPT_PART: usize = 4;
/// ... but this much is always kept.
const KEPT_AT_LEAST: usize = 64 << 20;

struct Block {
    pointer: NonNull<u8>,
    capacity: usize,
}

// SAFETY: a block is plain memory without thread affinity.
unsafe impl Send for Block {}

impl Block {
    fn layout(capacity: usize) -> Layout {
        Layout::from_size_align(capacity, ALIGNMENT).expect("tensor sizes are checked against isize::MAX")
    }

    fn new(capacity: usize) -> Block {
        let layout = Block::layout(capacity);
        // SAFETY: `capacity` comes from `size_class`, which is never zero.
        let pointer = unsafe { alloc_zeroed(layout) };
        let pointer = NonNull::new(pointer).unwrap_or_else(|| handle_alloc_error(layout));
        Block { pointer, capacity }
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        // SAFETY: made by `Block::new` with this very layout, and dropped once.
        unsafe { dealloc(self.pointer.as_ptr(), Block::layout(self.capacity)) }
    }
}

#[derive(Default)]
struct Pool {
    free: BTreeMap<usize, Vec<Block>>,
    free_bytes: usize,
    used_bytes: usize,
}

static POOL: Mutex<Pool> = Mutex::new(Pool { free: BTreeMap::new(), free_bytes: 0, used_bytes: 0 });

fn pool() -> MutexGuard<'static, Pool> {
    POOL.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Rounds up so that batches of slightly different sizes share blocks: at most an eighth is wasted.
fn size_class(bytes: usize) -> usize {
    let bytes = bytes.max(ALIGNMENT);
    let step = (bytes.next_power_of_two() / 16).max(ALIGNMENT);
    bytes.next_multiple_of(step)
}

impl Pool {
    fn take(&mut self, capacity: usize) -> Option<Block> {
        let block = self.free.get_mut(&capacity)?.pop()?;
        self.free_bytes -= capacity;
        Some(block)
    }

    /// Takes `block` back, and gives what is too much back to the system, largest blocks first.
    fn put(&mut self, block: Block) {
        self.used_bytes -= block.capacity;
        self.free_bytes += block.capacity;
        self.free.entry(block.capacity).or_default().push(block);
        let limit = KEPT_AT_LEAST.max(self.used_bytes / KEPT_PART);
        while self.free_bytes > limit {
            let Some(mut largest) = self.free.last_entry() else { break };
            match largest.get_mut().pop() {
                Some(block) => self.free_bytes -= block.capacity,
                None => drop(largest.remove()),
            }
        }
    }
}

enum Source {
    Pooled(Option<Block>),
    Mapped(#[allow(dead_code, reason = "keeps the mapping alive")] Arc<memmap2::Mmap>),
}

/// Bytes that tensors view: memory of the pool, or part of a mapped file (never written).
pub(crate) struct Buffer {
    pointer: NonNull<u8>,
    bytes: usize,
    source: Source,
}

// SAFETY: `Buffer` is memory; who may write to it is decided by `slice_mut`'s contract.
unsafe impl Send for Buffer {}
// SAFETY: as above: shared reads are plain reads, writes need `slice_mut`'s contract.
unsafe impl Sync for Buffer {}

impl Buffer {
    /// `bytes` of initialised memory with arbitrary contents.
    pub(crate) fn new(bytes: usize) -> Buffer {
        let capacity = size_class(bytes);
        let reused = {
            let mut pool = pool();
            pool.used_bytes += capacity;
            pool.take(capacity)
        };
        let block = reused.unwrap_or_else(|| Block::new(capacity));
        Buffer { pointer: block.pointer, bytes, source: Source::Pooled(Some(block)) }
    }

    /// `bytes` zero bytes.
    pub(crate) fn zeroed(bytes: usize) -> Buffer {
        let buffer = Buffer::new(bytes);
        // SAFETY: the buffer was made here, nobody else has it, and `bytes` bytes belong to it.
        unsafe { std::ptr::write_bytes(buffer.pointer.as_ptr(), 0, bytes) };
        buffer
    }

    /// The bytes `range` of a mapped file; `None` when the range is not in it.
    pub(crate) fn mapped(map: Arc<memmap2::Mmap>, range: Range<usize>) -> Option<Buffer> {
        let bytes = map.get(range)?;
        let pointer = NonNull::new(bytes.as_ptr().cast_mut())?;
        Some(Buffer { pointer, bytes: bytes.len(), source: Source::Mapped(map) })
    }

    /// Whether this is a view of a file, which must not be written.
    pub(crate) fn is_mapped(&self) -> bool {
        matches!(self.source, Source::Mapped(_))
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        // SAFETY: pointer and length describe initialised memory that lives as long as `self`.
        unsafe { std::slice::from_raw_parts(self.pointer.as_ptr(), self.bytes) }
    }

    /// The whole buffer as elements.
    pub(crate) fn slice<T: Pod>(&self) -> &[T] {
        bytemuck::cast_slice(self.as_bytes())
    }

    /// Elements `range` for writing.
    ///
    /// # Safety
    /// Nobody else may read or write these elements while the slice lives: the buffer was just made and
    /// not yet shared, or its owner checked that no other tensor sees it. It must not be mapped.
    #[allow(clippy::mut_from_ref, reason = "the contract above takes the place of the borrow checker")]
    pub(crate) unsafe fn slice_mut<T: Pod>(&self, range: Range<usize>) -> &mut [T] {
        let size = size_of::<T>();
        assert!(range.start <= range.end && range.end <= self.bytes / size && !self.is_mapped());
        // SAFETY: in bounds by the assertion, aligned to 64 bytes at the start, initialised, and exclusive by
        // this function's contract.
        unsafe { std::slice::from_raw_parts_mut(self.pointer.cast::<T>().as_ptr().add(range.start), range.len()) }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if let Source::Pooled(block) = &mut self.source
            && let Some(block) = block.take()
        {
            pool().put(block);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_waste_at_most_an_eighth() {
        for bytes in (1..5_000).chain([1 << 20, (1 << 20) + 1, 10_000_001]) {
            let class = size_class(bytes);
            assert!(class >= bytes && class <= bytes + (bytes / 8).max(ALIGNMENT), "{bytes} -> {class}");
        }
    }

    #[test]
    fn blocks_come_back_and_zeroed_is_zero() {
        let bytes = 123_457;
        let first = Buffer::new(bytes);
        // SAFETY: just made, not shared.
        unsafe { first.slice_mut::<u8>(0..bytes) }.fill(7);
        drop(first);
        assert!(Buffer::zeroed(bytes).as_bytes().iter().all(|&byte| byte == 0));
    }
}
