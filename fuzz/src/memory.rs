//! A limit on the memory that an input may take.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// An allocator that counts what is allocated.
struct Limited;

/// The bytes that are allocated, and the most that may be.
static HELD: AtomicUsize = AtomicUsize::new(0);
static MOST: AtomicUsize = AtomicUsize::new(usize::MAX);

/// What an input may take beside four times its size: what a parser sets up, the pages of a file, a tiny model.
const BASE: usize = 16 << 20;

#[global_allocator]
static ALLOCATOR: Limited = Limited;

/// Runs `f` on an input of this size, and aborts if it takes more memory than four times that and 16 MiB.
pub fn limited<R>(bytes: usize, f: impl FnOnce() -> R) -> R {
    MOST.store(HELD.load(Relaxed) + 4 * bytes + BASE, Relaxed);
    let result = f();
    MOST.store(usize::MAX, Relaxed);
    result
}

fn take(bytes: usize) {
    let held = HELD.fetch_add(bytes, Relaxed) + bytes;
    if held > MOST.load(Relaxed) {
        let most = MOST.swap(usize::MAX, Relaxed);
        eprintln!("an allocation of {bytes} bytes exceeds the limit by {}", held - most);
        // Panicking is not allowed here. libFuzzer keeps the input of an abort too.
        std::process::abort();
    }
}

// SAFETY: all memory comes from the system's allocator, with the same arguments.
unsafe impl GlobalAlloc for Limited {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        take(layout.size());
        // SAFETY: the caller keeps the contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        take(layout.size());
        // SAFETY: the caller keeps the contract.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        take(size.saturating_sub(layout.size()));
        HELD.fetch_sub(layout.size().saturating_sub(size), Relaxed);
        // SAFETY: the caller keeps the contract.
        unsafe { System.realloc(block, layout, size) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        HELD.fetch_sub(layout.size(), Relaxed);
        // SAFETY: the caller keeps the contract.
        unsafe { System.dealloc(block, layout) }
    }
}
