//! CPU memory: aligned blocks that are kept for reuse.
//!
//! A training step allocates and frees the same sizes over and over. Large blocks that go back to the
//! system come back as untouched pages, and faulting those in costs as much as computing on them; so
//! freed blocks wait here, by size class, for the next tensor of about that size. Blocks are zeroed when
//! they are first made and so are always initialised memory, with old contents when reused.
//!
//! Blocks of several mebibytes are mapped on their own, in huge pages where the system gives them: with pages of 4 KiB
//! a pass over the parameters of BERT-base misses the processor's table of pages hundreds of thousands of times.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::any::Any;
use std::collections::BTreeMap;
use std::ops::Range;
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytemuck::Pod;

use crate::{Error, Result};

/// Cache lines and the widest vectors.
const ALIGNMENT: usize = 64;
/// What the system's allocator aligns to without clearing the memory itself: a larger alignment would make it
/// touch every page of a block that is to be zero anyway.
const SYSTEM_ALIGNMENT: usize = 16;
/// Memory in use and kept together may exceed the most that was ever in use by this part of it,
const SLACK_PART: usize = 32;
/// and by this much.
const SLACK: usize = 32 << 20;

/// Blocks at least this large are mapped on their own.
const MAPPED: usize = 4 << 20;

/// Memory of the system's: `capacity` bytes from the first aligned one on.
struct Block {
    memory: Memory,
    capacity: usize,
}

enum Memory {
    /// As the allocator gave it.
    Heap(NonNull<u8>),
    Mapped(memmap2::MmapMut),
}

// SAFETY: a block is plain memory without thread affinity.
unsafe impl Send for Block {}

impl Block {
    /// `None` for a capacity that no allocation has.
    fn layout(capacity: usize) -> Option<Layout> {
        let bytes = capacity.checked_add(ALIGNMENT - SYSTEM_ALIGNMENT)?;
        Layout::from_size_align(bytes, SYSTEM_ALIGNMENT).ok()
    }

    /// `None` where the system has not so much memory.
    fn new(capacity: usize) -> Option<Block> {
        let layout = Block::layout(capacity)?;
        let memory = if capacity >= MAPPED {
            let map = memmap2::MmapMut::map_anon(capacity).ok()?;
            // Where there are no huge pages, small ones do.
            #[cfg(target_os = "linux")]
            let _ = map.advise(memmap2::Advice::HugePage);
            Memory::Mapped(map)
        } else {
            // SAFETY: `capacity` comes from `size_class`, which is never zero.
            Memory::Heap(NonNull::new(unsafe { alloc_zeroed(layout) })?)
        };
        Some(Block { memory, capacity })
    }

    /// The first aligned byte.
    fn pointer(&mut self) -> NonNull<u8> {
        match &mut self.memory {
            // SAFETY: the layout has room for moving up to the next multiple of ALIGNMENT.
            Memory::Heap(start) => unsafe { start.add(start.align_offset(ALIGNMENT)) },
            // Pages are aligned to more than that. A map of 4 MiB or more has an address.
            Memory::Mapped(map) => NonNull::new(map.as_mut_ptr()).unwrap_or(NonNull::dangling()),
        }
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        if let (Memory::Heap(start), Some(layout)) = (&self.memory, Block::layout(self.capacity)) {
            // SAFETY: made by `Block::new` with this very layout, and dropped once.
            unsafe { dealloc(start.as_ptr(), layout) }
        }
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
/// `None` for more than can be addressed.
pub(crate) fn size_class(bytes: usize) -> Option<usize> {
    let bytes = bytes.max(ALIGNMENT);
    let step = (bytes.checked_next_power_of_two()? / 16).max(ALIGNMENT);
    bytes.checked_next_multiple_of(step)
}

impl Pool {
    /// A kept block of this capacity, or of up to twice that: at the turn from forward to backward, when the most is in
    /// use, there is no room for a free block of every size.
    fn take(&mut self, capacity: usize) -> Option<Block> {
        let fitting = self.free.range_mut(capacity..=capacity.saturating_mul(2));
        let block = fitting.filter_map(|(_, blocks)| blocks.pop()).next()?;
        self.free_bytes -= block.capacity;
        self.count(block.capacity);
        Some(block)
    }

    /// Counts a block that is handed out.
    fn count(&mut self, capacity: usize) {
        self.used_bytes += capacity;
        self.peak_bytes = self.peak_bytes.max(self.used_bytes);
    }

    /// Makes room for a new block.
    fn make_room(&mut self, capacity: usize) {
        let limit = self.limit(self.peak_bytes.max(self.used_bytes.saturating_add(capacity)));
        self.trim(limit.saturating_sub(capacity));
    }

    /// The most that may be in use and kept together, given the most that was ever in use.
    fn limit(&self, peak: usize) -> usize {
        peak.saturating_add(peak / SLACK_PART).saturating_add(SLACK)
    }

    fn put(&mut self, block: Block) {
        self.used_bytes -= block.capacity;
        self.free_bytes += block.capacity;
        self.free.entry(block.capacity).or_default().push(block);
        self.trim(self.limit(self.peak_bytes));
    }

    /// Gives what is too much back to the system, largest blocks first.
    fn trim(&mut self, limit: usize) {
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
    Mapped(Arc<memmap2::Mmap>),
}

/// Bytes that tensors view: memory of the pool, or part of a mapped file (never written).
pub(crate) struct Buffer {
    pointer: NonNull<u8>,
    bytes: usize,
    source: Source,
    /// What was computed from the contents and is kept for as long as they stay.
    derived: Mutex<Vec<Arc<dyn Any + Send + Sync>>>,
}

// SAFETY: `Buffer` is memory; who may write to it is decided by `slice_mut`'s contract.
unsafe impl Send for Buffer {}
// SAFETY: as above: shared reads are plain reads, writes need `slice_mut`'s contract.
unsafe impl Sync for Buffer {}

impl Buffer {
    /// `bytes` of initialised memory with arbitrary contents.
    ///
    /// # Errors
    /// For `op`: when there is not so much.
    pub(crate) fn new(op: &'static str, bytes: usize) -> Result<Buffer> {
        Ok(Buffer::pooled(op, bytes)?.0)
    }

    fn of(pointer: NonNull<u8>, bytes: usize, source: Source) -> Buffer {
        Buffer { pointer, bytes, source, derived: Mutex::new(Vec::new()) }
    }

    /// A buffer, and whether its memory is fresh: zero.
    fn pooled(op: &'static str, bytes: usize) -> Result<(Buffer, bool)> {
        let lacking = || Error::invalid(op, format!("cannot allocate {bytes} bytes"));
        let capacity = size_class(bytes).ok_or_else(lacking)?;
        let reused = pool().take(capacity);
        let is_fresh = reused.is_none();
        let mut block = match reused {
            Some(block) => block,
            None => {
                pool().make_room(capacity);
                let block = Block::new(capacity).ok_or_else(lacking)?;
                pool().count(capacity);
                block
            }
        };
        Ok((Buffer::of(block.pointer(), bytes, Source::Pooled(Some(block))), is_fresh))
    }

    /// `bytes` zero bytes.
    ///
    /// # Errors
    /// As [`Buffer::new`].
    pub(crate) fn zeroed(op: &'static str, bytes: usize) -> Result<Buffer> {
        let (buffer, is_fresh) = Buffer::pooled(op, bytes)?;
        if !is_fresh {
            // SAFETY: the buffer was made here, nobody else has it, and `bytes` bytes belong to it.
            unsafe { std::ptr::write_bytes(buffer.pointer.as_ptr(), 0, bytes) };
        }
        Ok(buffer)
    }

    /// The bytes `range` of a mapped file; `None` when the range is not in it.
    pub(crate) fn mapped(map: Arc<memmap2::Mmap>, range: Range<usize>) -> Option<Buffer> {
        let bytes = map.get(range)?;
        let pointer = NonNull::new(bytes.as_ptr().cast_mut())?;
        let bytes = bytes.len();
        Some(Buffer::of(pointer, bytes, Source::Mapped(map)))
    }

    /// Whether this is a view of a file, which must not be written.
    pub(crate) fn is_mapped(&self) -> bool {
        matches!(self.source, Source::Mapped(_))
    }

    fn derived(&self) -> MutexGuard<'_, Vec<Arc<dyn Any + Send + Sync>>> {
        self.derived.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something computed from the contents, which `is_wanted` tells from others of its type: as it was kept, or made
    /// now and kept until the contents change. Whoever asks at the same time may make it too: nobody waits.
    ///
    /// The contents are then read less, so the pages of a mapped file are given back to the system, which reads them
    /// again when they are needed.
    pub(crate) fn derive<D: Any + Send + Sync>(
        &self,
        is_wanted: impl Fn(&D) -> bool,
        make: impl FnOnce() -> Option<D>,
    ) -> Option<Arc<D>> {
        let find = |kept: &[Arc<dyn Any + Send + Sync>]| {
            kept.iter().filter_map(|derived| derived.clone().downcast::<D>().ok()).find(|derived| is_wanted(derived))
        };
        if let Some(derived) = find(&self.derived()) {
            return Some(derived);
        }
        let made = Arc::new(make()?);
        let mut kept = self.derived();
        let derived = find(&kept).unwrap_or_else(|| {
            kept.push(made.clone());
            made
        });
        drop(kept);
        self.give_pages_back();
        Some(derived)
    }

    fn give_pages_back(&self) {
        #[cfg(unix)]
        if let Source::Mapped(map) = &self.source {
            let start = self.pointer.as_ptr().addr() - map.as_ptr().addr();
            // SAFETY: the map is of a file and never written, so what comes back is what is there now.
            // Where the system refuses, the pages stay.
            let _ = unsafe { map.unchecked_advise_range(memmap2::UncheckedAdvice::DontNeed, start, self.bytes) };
        }
    }

    /// Number of bytes.
    pub(crate) fn len(&self) -> usize {
        self.bytes
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
        self.derived().clear();
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

/// Working memory of a kernel, with arbitrary contents. As with a `Vec`, the process ends where there is none.
pub(crate) struct Scratch(Buffer);

impl Scratch {
    pub(crate) fn new(bytes: usize) -> Scratch {
        Scratch(Buffer::new("scratch", bytes).unwrap_or_else(|_| {
            handle_alloc_error(Layout::from_size_align(bytes, ALIGNMENT).unwrap_or(Layout::new::<u8>()))
        }))
    }

    /// It as elements.
    pub(crate) fn slice_mut<T: Pod>(&mut self) -> &mut [T] {
        // SAFETY: nobody else has this memory.
        unsafe { self.0.slice_mut(0..self.0.bytes / size_of::<T>()) }
    }

    /// Number of bytes.
    pub(crate) fn len(&self) -> usize {
        self.0.bytes
    }

    /// Its first byte, aligned to a cache line.
    pub(crate) fn pointer(&self) -> NonNull<u8> {
        self.0.pointer
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_waste_at_most_an_eighth() {
        for bytes in (1..5_000).chain([1 << 20, (1 << 20) + 1, 10_000_001]) {
            let class = size_class(bytes).expect("small");
            assert!(class >= bytes && class <= bytes + (bytes / 8).max(ALIGNMENT), "{bytes} -> {class}");
        }
    }

    #[test]
    fn blocks_come_back_and_zeroed_is_zero() -> Result<()> {
        let bytes = 123_457;
        let first = Buffer::new("test", bytes)?;
        // SAFETY: just made, not shared.
        unsafe { first.slice_mut::<u8>(0..bytes) }.fill(7);
        drop(first);
        assert!(Buffer::zeroed("test", bytes)?.as_bytes().iter().all(|&byte| byte == 0));
        Ok(())
    }

    #[test]
    fn what_is_derived_is_kept_until_the_contents_change() -> Result<()> {
        let buffer = Buffer::new("test", 64)?;
        let first = |make: u32| buffer.derive(|_: &u32| true, || Some(make)).map(|derived| *derived);
        assert_eq!((first(1), first(2)), (Some(1), Some(1)));
        let other = buffer.derive(|&derived: &u32| derived > 5, || Some(7));
        assert_eq!((other.as_deref(), first(3)), (Some(&7), Some(1)));
        assert!(buffer.derive(|_: &u64| true, || None).is_none());
        // SAFETY: nobody else has it.
        unsafe { buffer.slice_mut::<u8>(0..1).fill(1) };
        assert_eq!(first(4), Some(4));
        Ok(())
    }

    #[test]
    fn what_the_system_cannot_give_is_an_error() {
        for bytes in [1 << 60, usize::MAX / 2, usize::MAX] {
            let Err(error) = Buffer::new("zeros", bytes) else { panic!("{bytes} bytes were allocated") };
            assert_eq!(error.to_string(), format!("zeros: cannot allocate {bytes} bytes"));
        }
    }
}
