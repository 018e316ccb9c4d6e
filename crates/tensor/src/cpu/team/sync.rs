//! What [`round`](super::round) waits and shares with: the standard library.
//!
//! The model of `tests/unsafe/loom` puts a module of the same names in this place, so that loom sees every access.

use std::time::Instant;

use super::SPIN;

pub(super) use std::sync::atomic::AtomicUsize;
pub(super) use std::sync::{Condvar, Mutex, MutexGuard};

/// A cell with the interface of loom's, which checks the accesses.
pub(super) struct UnsafeCell<T>(std::cell::UnsafeCell<T>);

impl<T> UnsafeCell<T> {
    pub(super) fn new(value: T) -> UnsafeCell<T> {
        UnsafeCell(std::cell::UnsafeCell::new(value))
    }

    /// Calls `read` with a pointer to the value.
    #[inline(always)]
    pub(super) fn with<R>(&self, read: impl FnOnce(*const T) -> R) -> R {
        read(self.0.get())
    }

    /// Calls `write` with a pointer to the value.
    #[inline(always)]
    pub(super) fn with_mut<R>(&self, write: impl FnOnce(*mut T) -> R) -> R {
        write(self.0.get())
    }
}

/// Nothing. Where this is called, loom needs a fence, because it does not know that all sequentially consistent accesses
/// have one order.
#[inline(always)]
pub(super) fn model_fence() {}

/// Spins until `done` returns true.
pub(super) fn spin_until(done: impl Fn() -> bool) {
    spin(None, done);
}

/// Spins until `done` returns true or [`SPIN`] is over, and returns whether it did.
pub(super) fn spin_a_while_until(done: impl Fn() -> bool) -> bool {
    spin(Some(SPIN), done)
}

/// Yields the processor to other threads now and then.
fn spin(limit: Option<std::time::Duration>, done: impl Fn() -> bool) -> bool {
    let start = Instant::now();
    loop {
        for _ in 0..64 {
            if done() {
                return true;
            }
            std::hint::spin_loop();
        }
        if limit.is_some_and(|limit| start.elapsed() > limit) {
            return false;
        }
        std::thread::yield_now();
    }
}
