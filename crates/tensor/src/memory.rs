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
/// What the system's allocator aligns to without clearing the memory itself: a larger alignment would make it
/// touch every page of a block that is to be zero anyway.
const SYSTEM_ALIGNMENT: usize = 16;
/// Memory in use and kept together may exceed the most that was ever in use by this part of it,
const SLACK_PART: usize = 32;
/// and by this much.
const SLACK: usize = 32 << 20;

struct Block {
    /// As the system gave it.
    start: NonNull<u8>,
    capacity: usize,
}

// SAFETY: a block is plain memory without thread affinity.
unsafe impl Send for Block {}

impl Block {
    fn layout(capacity: usize) -> Layout {
        Layout::from_size_align(capacity + ALIGNMENT - SYSTEM_ALIGNMENT, SYSTEM_ALIGNMENT)
            .expect("tensor sizes are checked against isize::MAX / 8")
    }

    fn new(capacity: usize) -> Block {
        let layout = Block::layout(capacity);
        // SAFETY: `capacity` comes from `size_class`, which is never zero.
        let start = unsafe { alloc_zeroed(layout) };
        let start = NonNull::new(start).unwrap_or_else(|| handle_alloc_error(layout));
        Block { start, capacity }
    }

    /// The first aligned byte.
    fn pointer(&self) -> NonNull<u8> {
        // SAFETY: the layout has room for moving up to the next multiple of ALIGNMENT.
        unsafe { self.start.add(self.start.align_offset(ALIGNMENT)) }
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        // SAFETY: made by `Block::new` with this very layout, and dropped once.
        unsafe { dealloc(self.start.as_ptr(), Block::layout(self.capacity)) }
    }
}

struct Pool {
    free: BTreeMap<usize, Vec<Block>>,
    free_bytes: usize,
    used_bytes: usize,
    /// The most that was ever in use.
    peak_bytes: usize,
}

static POOL: Mutex<Pool> = Mutex::new(Pool { free: BTreeMap::new(), free_bytes: 0, used_bytes: 0, peak_bytes: 0 });

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
    /// A kept block of this capacity; where there is none, makes room for a new one.
    fn take(&mut self, capacity: usize) -> Option<Block> {
        self.used_bytes += capacity;
        self.peak_bytes = self.peak_bytes.max(self.used_bytes);
        if let Some(block) = self.free.get_mut(&capacity).and_then(Vec::pop) {
            self.free_bytes -= capacity;
            return Some(block);
        }
        self.trim();
        None
    }

    fn put(&mut self, block: Block) {
        self.used_bytes -= block.capacity;
        self.free_bytes += block.capacity;
        self.free.entry(block.capacity).or_default().push(block);
        self.trim();
    }

    /// Gives what is too much back to the system, largest blocks first.
    fn trim(&mut self) {
        let limit = self.peak_bytes + self.peak_bytes / SLACK_PART + SLACK;
        while self.used_bytes + self.free_bytes > limit {
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
        Buffer::pooled(bytes).0
    }

    /// A buffer, and whether its memory is fresh: zero.
    fn pooled(bytes: usize) -> (Buffer, bool) {
        let capacity = size_class(bytes);
        let reused = pool().take(capacity);
        let is_fresh = reused.is_none();
        let block = reused.unwrap_or_else(|| Block::new(capacity));
        (Buffer { pointer: block.pointer(), bytes, source: Source::Pooled(Some(block)) }, is_fresh)
    }

    /// `bytes` zero bytes.
    pub(crate) fn zeroed(bytes: usize) -> Buffer {
        let (buffer, is_fresh) = Buffer::pooled(bytes);
        if !is_fresh {
            // SAFETY: the buffer was made here, nobody else has it, and `bytes` bytes belong to it.
            unsafe { std::ptr::write_bytes(buffer.pointer.as_ptr(), 0, bytes) };
        }
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
