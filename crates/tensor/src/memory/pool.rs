//! The pool of blocks, and the blocks.

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::collections::BTreeMap;
use std::ptr::NonNull;

/// The alignment of buffers: a cache line, which is also the widest vector.
pub(super) const ALIGNMENT: usize = 64;
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
pub(super) struct Block {
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
    pub(super) fn new(capacity: usize) -> Option<Block> {
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

    /// Reserves addresses for a block that nothing will write, so that it takes no memory.
    pub(super) fn reserve(capacity: usize) -> Option<Block> {
        let map = memmap2::MmapOptions::new().len(capacity).no_reserve_swap().map_anon().ok()?;
        Some(Block { memory: Memory::Mapped(map), capacity })
    }

    pub(super) fn capacity(&self) -> usize {
        self.capacity
    }

    /// The first aligned byte.
    pub(super) fn pointer(&mut self) -> NonNull<u8> {
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

/// Free blocks, and how much memory is in use.
#[derive(Default)]
pub(super) struct Pool {
    free: BTreeMap<usize, Vec<Block>>,
    pub(super) free_bytes: usize,
    pub(super) used_bytes: usize,
    /// The largest value of `used_bytes` so far.
    pub(super) peak_bytes: usize,
    /// The largest sum of `used_bytes` and `free_bytes` so far.
    pub(super) most_held: usize,
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
    pub(super) const fn new() -> Pool {
        Pool { free: BTreeMap::new(), free_bytes: 0, used_bytes: 0, peak_bytes: 0, most_held: 0 }
    }

    /// Takes a free block of this capacity or up to twice that. Between forward and backward, when most memory is in use,
    /// there is no room for a free block of every size.
    pub(super) fn take(&mut self, capacity: usize) -> Option<Block> {
        let fitting = self.free.range_mut(capacity..=capacity.saturating_mul(2));
        let block = fitting.filter_map(|(_, blocks)| blocks.pop()).next()?;
        self.free_bytes -= block.capacity;
        self.count(block.capacity);
        Some(block)
    }

    /// Counts a block as used.
    pub(super) fn count(&mut self, capacity: usize) {
        self.used_bytes += capacity;
        self.peak_bytes = self.peak_bytes.max(self.used_bytes);
        self.most_held = self.most_held.max(self.used_bytes + self.free_bytes);
    }

    /// Frees blocks until a new one is within the limit.
    pub(super) fn make_room(&mut self, capacity: usize) {
        let limit = self.limit(self.peak_bytes.max(self.used_bytes.saturating_add(capacity)));
        self.trim(limit.saturating_sub(capacity));
    }

    /// The most bytes that used and free blocks may have together, given the peak of the used ones.
    fn limit(&self, peak: usize) -> usize {
        peak.saturating_add(peak / SLACK_PART).saturating_add(SLACK)
    }

    pub(super) fn put(&mut self, block: Block) {
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
}
