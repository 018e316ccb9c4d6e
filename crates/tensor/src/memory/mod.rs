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

mod dry_run;
mod pool;

use std::alloc::{Layout, handle_alloc_error};
use std::any::Any;
use std::ops::Range;
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytemuck::Pod;

use crate::error::{Error, Result};
use crate::files::FileMap;
pub use dry_run::DryRun;
#[cfg(feature = "cuda")]
pub(crate) use dry_run::with_gpu;
pub(crate) use dry_run::{bytes_of, is_dry};
pub(crate) use pool::size_class;
use pool::{ALIGNMENT, Block, Pool};

/// The memory of tensors on a device, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct MemoryUse {
    /// In use: tensors, graphs, gradients, optimizer state, and working memory of operations.
    pub used: usize,
    /// Free, and kept for the next tensors.
    pub kept: usize,
    /// The most that was used at the same time since the process started.
    pub peak: usize,
}

/// Returns the memory of tensors in the host's memory, without mapped files.
pub(crate) fn host_memory() -> MemoryUse {
    let pool = lock(&POOL);
    MemoryUse { used: pool.used_bytes, kept: pool.free_bytes, peak: pool.peak_bytes }
}

static POOL: Mutex<Pool> = Mutex::new(Pool::new());

fn lock(pool: &Mutex<Pool>) -> MutexGuard<'_, Pool> {
    pool.lock().unwrap_or_else(PoisonError::into_inner)
}

enum Source {
    Pooled {
        block: Option<Block>,
        /// The pool of the dry run that the block belongs to, if it is no memory.
        dry: Option<Arc<Mutex<Pool>>>,
    },
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
        let dry = dry_run::pool();
        let pool = || lock(dry.as_deref().unwrap_or(&POOL));
        let reused = pool().take(capacity);
        let is_fresh = reused.is_none();
        let mut block = match reused {
            Some(block) => block,
            None => {
                pool().make_room(capacity);
                let block = if dry.is_some() { Block::reserve(capacity) } else { Block::new(capacity) };
                let block = block.ok_or_else(lacking)?;
                pool().count(capacity);
                block
            }
        };
        Ok((Buffer::of(block.pointer(), bytes, Source::Pooled { block: Some(block), dry }), is_fresh))
    }

    /// Returns `bytes` zero bytes.
    ///
    /// # Errors
    /// As for [`Buffer::new`].
    pub(crate) fn zeroed(op: &'static str, bytes: usize) -> Result<Buffer> {
        let (buffer, is_fresh) = Buffer::pooled(op, bytes)?;
        if !is_fresh && !is_dry() {
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

    /// Returns the bytes of memory that this takes, beside mapped files.
    fn capacity(&self) -> usize {
        match &self.source {
            Source::Pooled { block, .. } => block.as_ref().map_or(0, Block::capacity),
            Source::Mapped(_) => 0,
        }
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
        if is_dry() && !matches!(self.source, Source::Pooled { dry: Some(_), .. }) {
            // Nothing was computed, so nothing may stay with values that are real.
            return Some(made);
        }
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

    /// The elements `range`. Others may be written meanwhile, so the slice covers no more than these. An empty range may be
    /// anywhere, because an empty tensor may be a view that starts past the end.
    ///
    /// # Panics
    /// Panics if the range is out of bounds, or the buffer is a part of a file that is not aligned for `T`.
    pub(crate) fn slice<T: Pod>(&self, range: Range<usize>) -> &[T] {
        if range.start == range.end {
            return &[];
        }
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

    /// The elements `range` for writing. An empty range may be anywhere.
    ///
    /// # Panics
    /// Panics if the range is out of bounds or the buffer is a part of a file.
    ///
    /// # Safety
    /// Nothing else may read or write these elements while the slice is alive: either the buffer was just made and is not
    /// shared yet, or its owner checked that no other tensor views it.
    #[allow(clippy::mut_from_ref, reason = "the contract above replaces the borrow checker")]
    pub(crate) unsafe fn slice_mut<T: Pod>(&self, range: Range<usize>) -> &mut [T] {
        if range.start == range.end {
            return &mut [];
        }
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
        if let Source::Pooled { block, dry } = &mut self.source
            && let Some(block) = block.take()
        {
            lock(dry.as_deref().unwrap_or(&POOL)).put(block);
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
