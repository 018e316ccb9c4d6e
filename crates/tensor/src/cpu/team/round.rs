//! The rounds of a team: how a task is handed to the helpers, and how its owner knows that they have left it.
//!
//! An operation is one round. The caller publishes its task, opens the round, wakes the helpers that sleep, runs the task
//! itself, closes the round and waits until every helper that entered has left. A helper enters a round by counting itself
//! in, which fails once the round is closed: a helper that wakes late does no harm, it finds nothing to do. The task may
//! therefore borrow from the stack of the caller.
//!
//! `tests/unsafe/loom` compiles this file with loom in place of [`sync`](super::sync), and checks every order of its steps.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::PoisonError;
use std::sync::atomic::Ordering::SeqCst;

use super::sync::{AtomicUsize, Condvar, Mutex, MutexGuard, UnsafeCell, model_fence, spin_a_while_until, spin_until};

/// The bit of [`Team::inside`] that is set while no helper may enter.
const CLOSED: usize = 1 << (usize::BITS - 1);

type Task<'a> = dyn Fn() + Sync + 'a;

/// The threads that share operations, as they see each other.
pub(super) struct Team {
    /// Held by the thread whose operation the team runs.
    owner: Mutex<()>,
    /// The task of the owner: written while the round is closed and empty, read by helpers inside.
    task: UnsafeCell<Option<&'static Task<'static>>>,
    /// The number of helpers inside the round, and the bit [`CLOSED`].
    inside: AtomicUsize,
    /// The number of rounds so far, by which a helper notices a new one.
    round: AtomicUsize,
    sleeping: AtomicUsize,
    sleep: Mutex<()>,
    wake: Condvar,
    /// The panic of a helper, for the caller.
    panic: Mutex<Option<Box<dyn Any + Send>>>,
}

// SAFETY: all fields but `task` are `Sync`, and what `task` refers to is `Sync` too. `task` is written only by the thread
// that holds `owner`, and only while `inside` is `CLOSED` with no helper counted; helpers read it only while they are
// counted. Both go through `inside`, so a write and a read of the cell are ordered.
unsafe impl Sync for Team {}
// SAFETY: the reference in `task` is to a value that is `Sync`; all other fields are `Send`.
unsafe impl Send for Team {}

impl Default for Team {
    fn default() -> Team {
        Team {
            owner: Mutex::new(()),
            task: UnsafeCell::new(None),
            inside: AtomicUsize::new(CLOSED),
            round: AtomicUsize::new(0),
            sleeping: AtomicUsize::new(0),
            sleep: Mutex::new(()),
            wake: Condvar::new(),
            panic: Mutex::new(None),
        }
    }
}

impl Team {
    /// Runs `task` on the threads of the team and on this one. Returns `false` without running it if the team is busy.
    pub(super) fn run(&self, task: &Task<'_>) -> bool {
        let Ok(owner) = self.owner.try_lock() else { return false };
        // SAFETY: only the lifetime changes, and it is not relied on: before `run` returns, also by a panic of the task,
        // every helper inside has left and the cell is cleared.
        let task_for_helpers = unsafe { std::mem::transmute::<&Task<'_>, &'static Task<'static>>(task) };
        // SAFETY: the round is closed and empty, and this thread holds `owner`, so no other thread accesses the cell.
        self.task.with_mut(|cell| unsafe { *cell = Some(task_for_helpers) });
        self.inside.store(0, SeqCst);
        self.round.fetch_add(1, SeqCst);
        model_fence();
        if self.sleeping.load(SeqCst) > 0 {
            let _sleep = lock(&self.sleep);
            self.wake.notify_all();
        }
        let own = catch_unwind(AssertUnwindSafe(task));
        self.inside.fetch_or(CLOSED, SeqCst);
        spin_until(|| self.inside.load(SeqCst) == CLOSED);
        // SAFETY: the round is closed and empty again, and this thread still holds `owner`.
        self.task.with_mut(|cell| unsafe { *cell = None });
        let others = lock(&self.panic).take();
        drop(owner);
        if let Some(panic) = own.err().or(others) {
            resume_unwind(panic);
        }
        true
    }

    /// Waits, as a helper, for a round after number `seen`, works on it unless it is over, and returns its number.
    pub(super) fn help(&self, seen: usize) -> usize {
        if !spin_a_while_until(|| self.round.load(SeqCst) != seen) {
            let mut sleep = lock(&self.sleep);
            self.sleeping.fetch_add(1, SeqCst);
            model_fence();
            // The caller counts the round and then looks for sleepers; this thread counts itself as a sleeper and then
            // looks for a round. So at least one of them sees the other, and no wake-up is lost.
            while self.round.load(SeqCst) == seen {
                sleep = self.wake.wait(sleep).unwrap_or_else(PoisonError::into_inner);
            }
            self.sleeping.fetch_sub(1, SeqCst);
        }
        let round = self.round.load(SeqCst);
        let enter = |inside| (inside & CLOSED == 0).then_some(inside + 1);
        if self.inside.fetch_update(SeqCst, SeqCst, enter).is_ok() {
            // SAFETY: this thread is counted in `inside`, so the owner does not write the cell; the owner wrote it before it
            // opened the round, and the value that `fetch_update` read from `inside` is that or a later one.
            let task = self.task.with(|cell| unsafe { *cell });
            if let Some(Err(panic)) = task.map(|task| catch_unwind(AssertUnwindSafe(task))) {
                *lock(&self.panic) = Some(panic);
            }
            self.inside.fetch_sub(1, SeqCst);
        }
        round
    }
}

/// Locks a mutex. No code that can leave its contents in disorder runs while one is held here.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
