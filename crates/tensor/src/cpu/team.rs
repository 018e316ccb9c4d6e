//! The threads that share an operation with the thread that calls it.
//!
//! The forward pass of BERT is hundreds of operations of about 100 microseconds, one after the other, and waking a sleeping
//! thread takes a good part of that. So the helpers of a team spin for [`SPIN`] after an operation before they sleep, and
//! are usually awake when the next one starts. The caller works along, and waits only for the helpers that have started.
//!
//! An operation is one round. The caller publishes its task, opens the round, wakes the helpers that sleep, runs the task
//! itself, closes the round and waits until every helper that entered has left. A helper enters a round by counting itself
//! in, which fails once the round is closed: a helper that wakes late does no harm, it finds nothing to do. The task may
//! therefore borrow from the stack of the caller.
//!
//! A process has one team, of as many threads as rayon's global pool including the caller. It serves one operation at a
//! time. If it is busy, or if the caller is itself a thread of rayon, the operation runs on rayon's threads instead.

use std::any::Any;
use std::cell::UnsafeCell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Condvar, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

/// How long a helper without work spins before it sleeps.
const SPIN: Duration = Duration::from_micros(200);
/// The bit of [`Team::inside`] that is set while no helper may enter.
const CLOSED: usize = 1 << (usize::BITS - 1);

/// Runs `task` on the calling thread and, concurrently, on the team's threads or on `threads - 1` threads of rayon.
///
/// Any number of threads may run `task`, including the caller alone, and a thread may run it more than once: each call has
/// to take the work that the others have left.
pub(crate) fn work_together(threads: usize, task: &(dyn Fn() + Sync)) {
    let by_team = rayon::current_thread_index().is_none() && team().is_some_and(|team| team.run(task));
    if !by_team {
        rayon::in_place_scope(|scope| {
            for _ in 1..threads {
                scope.spawn(|_| task());
            }
            task();
        });
    }
}

/// Returns the team, after starting its threads at the first call; `None` on a single thread.
fn team() -> Option<&'static Team> {
    static TEAM: OnceLock<Option<Team>> = OnceLock::new();
    static HELPERS: std::sync::Once = std::sync::Once::new();
    let helpers = rayon::current_num_threads() - 1;
    let team = TEAM.get_or_init(|| (helpers > 0).then(Team::default)).as_ref()?;
    HELPERS.call_once(|| {
        for number in 0..helpers {
            let thread = std::thread::Builder::new().name(format!("cloze-{number}"));
            // If a thread cannot be started, the others do its share of the work.
            let _ = thread.spawn(|| team.help());
        }
    });
    Some(team)
}

type Task<'a> = dyn Fn() + Sync + 'a;

struct Team {
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

// SAFETY: all fields but `task` are `Sync`. `task` is written only by the thread that holds `owner`, and only while
// `inside` is `CLOSED` with no helper counted; helpers read it only while they are counted.
unsafe impl Sync for Team {}

impl Default for Team {
    fn default() -> Team {
        Team {
            owner: Mutex::default(),
            task: UnsafeCell::new(None),
            inside: AtomicUsize::new(CLOSED),
            round: AtomicUsize::new(0),
            sleeping: AtomicUsize::new(0),
            sleep: Mutex::default(),
            wake: Condvar::new(),
            panic: Mutex::default(),
        }
    }
}

impl Team {
    /// Runs `task` on the threads of the team and on this one. Returns `false` without running it if the team is busy.
    fn run(&self, task: &Task<'_>) -> bool {
        let Ok(owner) = self.owner.try_lock() else { return false };
        // SAFETY: the round is closed and empty, and this thread holds `owner`, so no other thread accesses the cell. The
        // extended lifetime is not relied on: before `run` returns, every helper inside has left and the cell is cleared.
        unsafe { *self.task.get() = Some(std::mem::transmute::<&Task<'_>, &'static Task<'static>>(task)) };
        self.inside.store(0, SeqCst);
        self.round.fetch_add(1, SeqCst);
        if self.sleeping.load(SeqCst) > 0 {
            let _sleep = self.sleep.lock().unwrap_or_else(PoisonError::into_inner);
            self.wake.notify_all();
        }
        let own = catch_unwind(AssertUnwindSafe(task));
        self.inside.fetch_or(CLOSED, SeqCst);
        spin_until(None, || self.inside.load(SeqCst) == CLOSED);
        // SAFETY: the round is closed and empty again, and this thread still holds `owner`.
        unsafe { *self.task.get() = None };
        let others = self.panic.lock().unwrap_or_else(PoisonError::into_inner).take();
        drop(owner);
        if let Some(panic) = own.err().or(others) {
            resume_unwind(panic);
        }
        true
    }

    /// The loop of a helper thread.
    fn help(&self) {
        let mut seen = 0;
        loop {
            if !spin_until(Some(SPIN), || self.round.load(SeqCst) != seen) {
                let mut sleep = self.sleep.lock().unwrap_or_else(PoisonError::into_inner);
                self.sleeping.fetch_add(1, SeqCst);
                // The caller counts the round and then looks for sleepers; this thread counts itself as a sleeper and then
                // looks for a round. So at least one of them sees the other, and no wake-up is lost.
                while self.round.load(SeqCst) == seen {
                    sleep = self.wake.wait(sleep).unwrap_or_else(PoisonError::into_inner);
                }
                self.sleeping.fetch_sub(1, SeqCst);
            }
            seen = self.round.load(SeqCst);
            let enter = |inside| (inside & CLOSED == 0).then_some(inside + 1);
            if self.inside.fetch_update(SeqCst, SeqCst, enter).is_ok() {
                // SAFETY: this thread is counted in `inside`, so the owner does not write the cell; the owner wrote it
                // before it opened the round.
                let task = unsafe { *self.task.get() };
                if let Some(Err(panic)) = task.map(|task| catch_unwind(AssertUnwindSafe(task))) {
                    *self.panic.lock().unwrap_or_else(PoisonError::into_inner) = Some(panic);
                }
                self.inside.fetch_sub(1, SeqCst);
            }
        }
    }
}

/// Spins until `done` returns true or `limit` is over, and returns whether it did. Yields the processor to other threads
/// now and then.
fn spin_until(limit: Option<Duration>, done: impl Fn() -> bool) -> bool {
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Sums the numbers below `count`, each taken by one thread.
    fn sum(count: usize) -> usize {
        let (next, sum) = (AtomicUsize::new(0), AtomicUsize::new(0));
        work_together(2, &|| {
            loop {
                match next.fetch_add(1, SeqCst) {
                    number if number < count => sum.fetch_add(number, SeqCst),
                    _ => return,
                };
            }
        });
        sum.into_inner()
    }

    #[test]
    fn concurrent_callers_get_their_own_work_done() {
        std::thread::scope(|scope| {
            for caller in 0..4 {
                scope.spawn(move || {
                    for round in 0..2000 {
                        let count = 1 + (caller * 7 + round) % 50;
                        assert_eq!(sum(count), count * (count - 1) / 2);
                        if round % 500 == 0 {
                            // Long enough for the helpers to sleep.
                            std::thread::sleep(2 * SPIN);
                        }
                    }
                });
            }
        });
    }

    #[test]
    fn a_panic_reaches_the_caller_and_leaves_the_team_usable() {
        for _ in 0..100 {
            let next = AtomicUsize::new(0);
            let spoilt = || {
                work_together(2, &|| {
                    while next.fetch_add(1, SeqCst) < 20 {
                        std::thread::sleep(Duration::from_micros(10));
                    }
                    panic!("spoilt");
                });
            };
            let panic = catch_unwind(AssertUnwindSafe(spoilt)).unwrap_err();
            assert_eq!(panic.downcast_ref::<&str>(), Some(&"spoilt"));
            assert_eq!(sum(10), 45);
        }
    }
}
