//! Device memory that is kept for reuse.
//!
//! Asking the driver for memory waits for the device, so freed blocks stay here, by capacity, for the next tensor of about
//! that size. Handing a block on immediately is safe even though the device may still be using it: there is one stream,
//! so the new owner's work runs after the old owner's.
//!
//! Among blocks of one capacity the lowest address goes first. Equal steps therefore get equal addresses, and the CUDA
//! graph of the previous step needs few changes to serve the next one.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::driver::Pointer;
use crate::memory::MemoryUse;

/// The memory that a device has given us: how much is in use, and the blocks that are free.
#[derive(Default)]
pub(super) struct Pool(Mutex<Blocks>);

#[derive(Default)]
struct Blocks {
    free: FreeBlocks,
    /// Capacity of all blocks in use, in bytes.
    used: usize,
    /// The largest value of `used` so far.
    peak: usize,
}

/// Addresses of free blocks, by capacity.
#[derive(Default)]
pub(super) struct FreeBlocks(BTreeMap<usize, BTreeSet<Pointer>>);

impl FreeBlocks {
    fn insert(&mut self, capacity: usize, pointer: Pointer) {
        self.0.entry(capacity).or_default().insert(pointer);
    }

    /// Returns the addresses of all blocks.
    pub(super) fn into_pointers(self) -> impl Iterator<Item = Pointer> {
        self.0.into_values().flatten()
    }
}

/// Memory in use. Dropping it returns it to the pool.
pub(super) struct Block {
    pool: Arc<Pool>,
    pointer: Pointer,
    capacity: usize,
}

impl Block {
    /// Returns whether the block belongs to this pool, and not to that of a dry run.
    pub(super) fn is_of(&self, pool: &Arc<Pool>) -> bool {
        Arc::ptr_eq(&self.pool, pool)
    }
}

impl Pool {
    fn blocks(&self) -> MutexGuard<'_, Blocks> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a free block of `capacity` bytes, or of up to twice as many.
    pub(super) fn take(self: &Arc<Pool>, capacity: usize) -> Option<Block> {
        let mut blocks = self.blocks();
        let mut fitting = blocks.free.0.range_mut(capacity..=capacity.saturating_mul(2));
        let (capacity, pointer) = fitting.find_map(|(&capacity, free)| Some((capacity, free.pop_first()?)))?;
        blocks.count(capacity);
        Some(Block { pool: self.clone(), pointer, capacity })
    }

    /// Adds a block that the driver just allocated, as one in use.
    pub(super) fn adopt(self: &Arc<Pool>, pointer: Pointer, capacity: usize) -> Block {
        self.blocks().count(capacity);
        Block { pool: self.clone(), pointer, capacity }
    }

    /// Removes all free blocks.
    pub(super) fn take_free(&self) -> FreeBlocks {
        std::mem::take(&mut self.blocks().free)
    }

    /// Puts back blocks that [`Pool::take_free`] removed.
    pub(super) fn put_back(&self, free: FreeBlocks) {
        let mut blocks = self.blocks();
        free.0.into_iter().for_each(|(capacity, pointers)| blocks.free.0.entry(capacity).or_default().extend(pointers));
    }

    /// Returns how many bytes are in use, how many are free, and the most that were in use at the same time.
    pub(super) fn memory_use(&self) -> MemoryUse {
        let blocks = self.blocks();
        let kept = blocks.free.0.iter().map(|(capacity, pointers)| capacity * pointers.len()).sum();
        MemoryUse { used: blocks.used, kept, peak: blocks.peak }
    }
}

impl Blocks {
    /// Counts a block as used.
    fn count(&mut self, capacity: usize) {
        self.used += capacity;
        self.peak = self.peak.max(self.used);
    }
}

/// The memory on a GPU of a dry run: blocks with addresses that nothing reads.
#[derive(Clone, Default)]
pub(crate) struct DryPool(Arc<Pool>);

impl DryPool {
    /// Returns a block of `capacity` bytes.
    pub(super) fn block(&self, capacity: usize) -> Block {
        /// Addresses start at multiples of 512 bytes, as the driver's do.
        static NEXT: AtomicU64 = AtomicU64::new(512);
        let fresh = || NEXT.fetch_add(capacity.next_multiple_of(512) as u64, Ordering::Relaxed);
        self.0.take(capacity).unwrap_or_else(|| self.0.adopt(fresh(), capacity))
    }

    pub(crate) fn used(&self) -> usize {
        self.0.memory_use().used
    }

    pub(crate) fn peak(&self) -> usize {
        self.0.memory_use().peak
    }
}

impl Block {
    pub(super) fn pointer(&self) -> Pointer {
        self.pointer
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        let mut blocks = self.pool.blocks();
        blocks.used -= self.capacity;
        blocks.free.insert(self.capacity, self.pointer);
    }
}
