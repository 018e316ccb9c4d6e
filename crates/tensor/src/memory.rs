//! CPU memory: aligned blocks that are kept for reuse.
//!
//! A training step allocates and frees the same sizes over and over. A large block that is returned to the system comes back
//! as untouched pages, and faulting those in costs as much as computing on them. So freed blocks stay in a pool, sorted by
//! capacity, and the next tensor of about that size takes one. Sizes are rounded up to classes, so that batches of slightly
//! different lengths share blocks. The pool and the tensors together hold little more than the tensors held at their peak;
//! beyond that the largest free blocks are returned to the system.
//!
//! A block is zeroed when the system provides it, so it is always initialised memory; a reused block has its old contents.
//!
//! Blocks of several mebibytes are mapped individually, in huge pages if the system has them: with pages of 4 KiB, a pass
//! over the parameters of BERT-base has hundreds of thousands of TLB misses.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::any::Any;
use std::collections::BTreeMap;
use std::ops::Range;
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytemuck::Pod;

use crate::error::{Error, Result};
use crate::files::FileMap;

/// The alignment of buffers: a cache line, which is also the widest vector.
const ALIGNMENT: usize = 64;
/// Whether each buffer is an allocation of its own and of exactly its size, so that Miri and the sanitizers see what is read or
/// written past its end or after it was freed. The latter are built with `--cfg sanitized`.
const EXACT: bool = cfg!(any(miri, sanitized));
/// The alignment that is requested from the system allocator. With a larger alignment the allocator would zero the memory
/// itself and touch every page, instead of taking pages that the system has zeroed.
const SYSTEM_ALIGNMENT: usize = if EXACT { ALIGNMENT } else { 16 };
/// The pool keeps memory as long as used and free blocks together exceed the peak of the used ones by no more than one part
/// in `SLACK_PART`, plus [`SLACK`] bytes.
const SLACK_PART: usize = 32;
/// See [`SLACK_PART`].
const SLACK: usize = 32 << 20;

/// Blocks of at least this size are mapped individually.
const MAPPED: usize = 4 << 20;

/// Memory from the system: `capacity` bytes from the first aligned one on.
struct Block {
    memory: Memory,
    capacity: usize,
}

enum Memory {
    /// From the system allocator, with its alignment.
    Heap(NonNull<u8>),
    Mapped(memmap2::MmapMut),
}

// SAFETY: a block owns plain memory, which any thread may use and free.
unsafe impl Send for Block {}

impl Block {
    /// The layout of a heap block, or `None` if the capacity is too large for any allocation.
    fn layout(capacity: usize) -> Option<Layout> {
        let bytes = capacity.checked_add(ALIGNMENT - SYSTEM_ALIGNMENT)?;
        Layout::from_size_align(bytes, SYSTEM_ALIGNMENT).ok()
    }

    /// Allocates a zeroed block, or returns `None` if the system does not have that much memory.
    fn new(capacity: usize) -> Option<Block> {
        let layout = Block::layout(capacity)?;
        let memory = if capacity >= MAPPED && !EXACT {
            let map = memmap2::MmapMut::map_anon(capacity).ok()?;
            // Without huge pages, small ones work too.
            #[cfg(target_os = "linux")]
            let _ = map.advise(memmap2::Advice::HugePage);
            Memory::Mapped(map)
        } else {
            // SAFETY: the layout has a size above zero, because `size_class` returns at least 1.
            Memory::Heap(NonNull::new(unsafe { alloc_zeroed(layout) })?)
        };
        Some(Block { memory, capacity })
    }

    /// The first aligned byte.
    fn pointer(&mut self) -> NonNull<u8> {
        match &mut self.memory {
            // SAFETY: `Block::layout` adds room for moving up to the next multiple of `ALIGNMENT`, or has that alignment.
            Memory::Heap(start) => unsafe { start.add(start.align_offset(ALIGNMENT)) },
            // Pages are aligned to more than `ALIGNMENT`, and the address of a map is not null.
            Memory::Mapped(map) => NonNull::new(map.as_mut_ptr()).unwrap_or(NonNull::dangling()),
        }
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        if let (Memory::Heap(start), Some(layout)) = (&self.memory, Block::layout(self.capacity)) {
            // SAFETY: `Block::new` allocated this memory with the same layout, and only this drop frees it.
            unsafe { dealloc(start.as_ptr(), layout) }
        }
    }
}

struct Pool {
    free: BTreeMap<usize, Vec<Block>>,
    free_bytes: usize,
    used_bytes: usize,
    /// The largest value of `used_bytes` so far.
    peak_bytes: usize,
}

static POOL: Mutex<Pool> = Mutex::new(Pool { free: BTreeMap::new(), free_bytes: 0, used_bytes: 0, peak_bytes: 0 });

fn pool() -> MutexGuard<'static, Pool> {
    POOL.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Rounds a size up to its class, so that batches of slightly different sizes share blocks. This wastes at most an eighth.
/// Returns `None` for sizes beyond the address space.
pub(crate) fn size_class(bytes: usize) -> Option<usize> {
    if EXACT {
        return Some(bytes.max(1));
    }
    let bytes = bytes.max(ALIGNMENT);
    let step = (bytes.checked_next_power_of_two()? / 16).max(ALIGNMENT);
    bytes.checked_next_multiple_of(step)
}

impl Pool {
    /// Takes a free block of this capacity or up to twice that. Between forward and backward, when most memory is in use,
    /// there is no room for a free block of every size.
    fn take(&mut self, capacity: usize) -> Option<Block> {
        let fitting = self.free.range_mut(capacity..=capacity.saturating_mul(2));
        let block = fitting.filter_map(|(_, blocks)| blocks.pop()).next()?;
        self.free_bytes -= block.capacity;
        self.count(block.capacity);
        Some(block)
    }

    /// Counts a block as used.
    fn count(&mut self, capacity: usize) {
        self.used_bytes += capacity;
        self.peak_bytes = self.peak_bytes.max(self.used_bytes);
    }

    /// Frees blocks until a new one is within the limit.
    fn make_room(&mut self, capacity: usize) {
        let limit = self.limit(self.peak_bytes.max(self.used_bytes.saturating_add(capacity)));
        self.trim(limit.saturating_sub(capacity));
    }

    /// The most bytes that used and free blocks may have together, given the peak of the used ones.
    fn limit(&self, peak: usize) -> usize {
        peak.saturating_add(peak / SLACK_PART).saturating_add(SLACK)
    }

    fn put(&mut self, block: Block) {
        self.used_bytes -= block.capacity;
        if EXACT {
            return;
        }
        self.free_bytes += block.capacity;
        self.free.entry(block.capacity).or_default().push(block);
        self.trim(self.limit(self.peak_bytes));
    }

    /// Returns free blocks to the system, the largest first, until used and free blocks are within `limit`.
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
    #[cfg_attr(any(miri, not(unix)), expect(dead_code, reason = "keeps the file mapped"))]
    Mapped(Arc<FileMap>),
}

/// The bytes that tensors view: memory of the pool, or a part of a mapped file, which is never written.
pub(crate) struct Buffer {
    pointer: NonNull<u8>,
    bytes: usize,
    source: Source,
    /// Values computed from the contents, which are kept until the contents change.
    derived: Mutex<Vec<Arc<dyn Any + Send + Sync>>>,
}

// SAFETY: a buffer owns or shares plain memory, which any thread may use and free.
unsafe impl Send for Buffer {}
// SAFETY: shared access only reads; writes go through `slice_mut`, whose contract excludes other accesses.
unsafe impl Sync for Buffer {}

impl Buffer {
    /// Returns `bytes` bytes of initialised memory with arbitrary contents.
    ///
    /// # Errors
    /// Returns an error for the operation `op` if there is not enough memory.
    pub(crate) fn new(op: &'static str, bytes: usize) -> Result<Buffer> {
        Ok(Buffer::pooled(op, bytes)?.0)
    }

    fn of(pointer: NonNull<u8>, bytes: usize, source: Source) -> Buffer {
        Buffer { pointer, bytes, source, derived: Mutex::new(Vec::new()) }
    }

    /// Returns a buffer, and whether its memory is fresh and therefore zero.
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

    /// Returns `bytes` zero bytes.
    ///
    /// # Errors
    /// As for [`Buffer::new`].
    pub(crate) fn zeroed(op: &'static str, bytes: usize) -> Result<Buffer> {
        let (buffer, is_fresh) = Buffer::pooled(op, bytes)?;
        if !is_fresh {
            // SAFETY: the block has at least `bytes` bytes, and no other reference to it exists: the buffer was just made.
            unsafe { std::ptr::write_bytes(buffer.pointer.as_ptr(), 0, bytes) };
        }
        Ok(buffer)
    }

    /// Returns the bytes `range` of a mapped file, or `None` if the range is out of bounds.
    pub(crate) fn mapped(map: Arc<FileMap>, range: Range<usize>) -> Option<Buffer> {
        let bytes = map.get(range)?;
        let pointer = NonNull::new(bytes.as_ptr().cast_mut())?;
        let bytes = bytes.len();
        Some(Buffer::of(pointer, bytes, Source::Mapped(map)))
    }

    /// Whether this is a part of a file, which must not be written.
    pub(crate) fn is_mapped(&self) -> bool {
        matches!(self.source, Source::Mapped(_))
    }

    fn derived(&self) -> MutexGuard<'_, Vec<Arc<dyn Any + Send + Sync>>> {
        self.derived.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns a value of type `D` that is derived from the contents and satisfies `is_wanted`. It is computed by `make` at
    /// the first call and kept until the contents change. Concurrent first calls do not wait for each other: each computes
    /// the value, and one of them is kept.
    ///
    /// The contents are rarely read afterwards, so the pages of a mapped file are released; the system reads them again when
    /// they are needed.
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
        #[cfg(all(unix, not(miri)))]
        if let Source::Mapped(map) = &self.source {
            let start = self.pointer.as_ptr().addr() - map.as_ptr().addr();
            // If the system refuses, the pages stay.
            // SAFETY: the map is of a file and is never written, so released pages come back with the same contents.
            let _ = unsafe { map.unchecked_advise_range(memmap2::UncheckedAdvice::DontNeed, start, self.bytes) };
        }
    }

    /// The number of bytes.
    pub(crate) fn len(&self) -> usize {
        self.bytes
    }

    /// Whether the buffer begins where elements of type `T` may.
    pub(crate) fn is_aligned_for<T>(&self) -> bool {
        self.pointer.cast::<T>().is_aligned()
    }

    /// The elements `range`. Others may be written meanwhile, so the slice covers no more than these.
    ///
    /// # Panics
    /// Panics if the range is out of bounds, or the buffer is a part of a file that is not aligned for `T`.
    pub(crate) fn slice<T: Pod>(&self, range: Range<usize>) -> &[T] {
        self.check::<T>(&range);
        // SAFETY: `check` found the elements aligned and within `bytes` bytes from `pointer` on, which are initialised and which
        // `source` keeps alive as long as `self`. Whoever writes elements holds a slice of `slice_mut`, whose contract excludes
        // this one.
        unsafe { std::slice::from_raw_parts(self.pointer.cast::<T>().as_ptr().wrapping_add(range.start), range.len()) }
    }

    /// Panics unless the elements `range` lie in the buffer and are aligned.
    fn check<T>(&self, range: &Range<usize>) {
        assert!(range.start <= range.end && range.end <= self.bytes / size_of::<T>() && self.is_aligned_for::<T>());
    }

    /// The elements `range` for writing.
    ///
    /// # Panics
    /// Panics if the range is out of bounds or the buffer is a part of a file.
    ///
    /// # Safety
    /// Nothing else may read or write these elements while the slice is alive: either the buffer was just made and is not
    /// shared yet, or its owner checked that no other tensor views it.
    #[allow(clippy::mut_from_ref, reason = "the contract above replaces the borrow checker")]
    pub(crate) unsafe fn slice_mut<T: Pod>(&self, range: Range<usize>) -> &mut [T] {
        self.check::<T>(&range);
        assert!(!self.is_mapped(), "a mapped file is not written");
        self.derived().clear();
        // SAFETY: `check` found the elements aligned and within `bytes` bytes from `pointer` on, which are initialised and which
        // `source` keeps alive as long as `self`; nothing else accesses them by this function's contract. The memory is a block,
        // not a file, so it may be written.
        unsafe {
            std::slice::from_raw_parts_mut(self.pointer.cast::<T>().as_ptr().wrapping_add(range.start), range.len())
        }
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

/// Working memory of a kernel, with arbitrary contents. As for a `Vec`, running out of memory aborts the process.
pub(crate) struct Scratch(Buffer);

impl Scratch {
    pub(crate) fn new(bytes: usize) -> Scratch {
        Scratch(Buffer::new("scratch", bytes).unwrap_or_else(|_| {
            handle_alloc_error(Layout::from_size_align(bytes, ALIGNMENT).unwrap_or(Layout::new::<u8>()))
        }))
    }

    /// The memory as elements.
    pub(crate) fn slice_mut<T: Pod>(&mut self) -> &mut [T] {
        // SAFETY: the buffer is never shared, and `self` is borrowed exclusively.
        unsafe { self.0.slice_mut(0..self.0.bytes / size_of::<T>()) }
    }

    /// The memory as elements, for reading. Nothing may write it meanwhile through [`pointer`](Scratch::pointer).
    pub(crate) fn slice<T: Pod>(&self) -> &[T] {
        self.0.slice(0..self.0.bytes / size_of::<T>())
    }

    /// The number of bytes.
    pub(crate) fn len(&self) -> usize {
        self.0.bytes
    }

    /// The address of the first byte, aligned to a cache line.
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
        let bytes = if cfg!(miri) { 1_257 } else { 123_457 };
        let first = Buffer::new("test", bytes)?;
        // SAFETY: the buffer was just made and is not shared.
        unsafe { first.slice_mut::<u8>(0..bytes) }.fill(7);
        drop(first);
        assert!(Buffer::zeroed("test", bytes)?.slice::<u8>(0..bytes).iter().all(|&byte| byte == 0));
        Ok(())
    }

    #[test]
    fn derived_values_are_kept_until_the_contents_change() -> Result<()> {
        let buffer = Buffer::new("test", 64)?;
        let first = |make: u32| buffer.derive(|_: &u32| true, || Some(make)).map(|derived| *derived);
        assert_eq!((first(1), first(2)), (Some(1), Some(1)));
        let other = buffer.derive(|&derived: &u32| derived > 5, || Some(7));
        assert_eq!((other.as_deref(), first(3)), (Some(&7), Some(1)));
        assert!(buffer.derive(|_: &u64| true, || None).is_none());
        // SAFETY: the buffer is not shared.
        unsafe { buffer.slice_mut::<u8>(0..1).fill(1) };
        assert_eq!(first(4), Some(4));
        Ok(())
    }

    #[test]
    #[cfg_attr(miri, ignore = "Miri ends where an allocation should fail")]
    fn too_large_an_allocation_is_an_error() {
        for bytes in [1 << 60, usize::MAX / 2, usize::MAX] {
            let Err(error) = Buffer::new("zeros", bytes) else { panic!("{bytes} bytes were allocated") };
            assert_eq!(error.to_string(), format!("zeros: cannot allocate {bytes} bytes"));
        }
    }
}
