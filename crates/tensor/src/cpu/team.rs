//! The threads that share an operation with the thread that calls it.
//!
//! A forward of BERT is hundreds of operations of some 100 microseconds, one after the other. To wake a sleeping
//! thread takes as long as a part of one, so the helpers stay awake from one operation to the next: they look for
//! work for [`AWAKE`] before they sleep. The calling thread works along, and waits only for helpers that did begin;
//! one that wakes late finds the door closed.
//!
//! There is one team a process, of as many threads as rayon's global pool, the caller counted. It serves one operation
//! at a time: one that finds it busy, or is called on a thread of rayon, shares its work over rayon's threads.

use std::any::Any;
use std::cell::UnsafeCell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Condvar, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

/// For how long a helper without work looks for some before it sleeps.
const AWAKE: Duration = Duration::from_micros(200);
/// Set in [`Team::door`] while there is no work to enter.
const CLOSED: usize = 1 << (usize::BITS - 1);

/// Runs `work` on the calling thread and, at the same time, on the team's or on `threads - 1` of rayon's. It must be such that
/// any number of threads may run it, once or again, or only one: each takes what the others left.
pub(crate) fn work_together(threads: usize, work: &(dyn Fn() + Sync)) {
    let by_team = rayon::current_thread_index().is_none() && team().is_some_and(|team| team.run(work));
    if !by_team {
        rayon::in_place_scope(|scope| {
            for _ in 1..threads {
                scope.spawn(|_| work());
            }
            work();
        });
    }
}

/// Starts the helpers at the first call; nothing, where there is no thread beside the caller.
fn team() -> Option<&'static Team> {
    static TEAM: OnceLock<Option<Team>> = OnceLock::new();
    static HELPERS: std::sync::Once = std::sync::Once::new();
    let helpers = rayon::current_num_threads() - 1;
    let team = TEAM.get_or_init(|| (helpers > 0).then(Team::default)).as_ref()?;
    HELPERS.call_once(|| {
        for number in 0..helpers {
            let thread = std::thread::Builder::new().name(format!("cloze-{number}"));
            // With fewer helpers than wished for the others have more to do.
            let _ = thread.spawn(|| team.help());
        }
    });
    Some(team)
}

type Work<'a> = dyn Fn() + Sync + 'a;

struct Team {
    /// Held by the thread whose operation is the team's.
    owner: Mutex<()>,
    /// The work of the owner: written while the door is closed, read by those who entered.
    work: UnsafeCell<Option<&'static Work<'static>>>,
    /// How many helpers are at work, with [`CLOSED`] where no more may enter.
    door: AtomicUsize,
    /// Operations so far, so that a helper enters each but once.
    round: AtomicUsize,
    sleepers: AtomicUsize,
    bed: Mutex<()>,
    call: Condvar,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
}

// SAFETY: `work` is written by the owner alone, and only while the door is closed and nobody is inside.
unsafe impl Sync for Team {}

impl Default for Team {
    fn default() -> Team {
        Team {
            owner: Mutex::default(),
            work: UnsafeCell::new(None),
            door: AtomicUsize::new(CLOSED),
            round: AtomicUsize::new(0),
            sleepers: AtomicUsize::new(0),
            bed: Mutex::default(),
            call: Condvar::new(),
            panic: Mutex::default(),
        }
    }
}

impl Team {
    /// Runs `work` on the team's threads and this one; `false`, with nothing done, if another thread's work has them.
    fn run(&self, work: &Work<'_>) -> bool {
        let Ok(owner) = self.owner.try_lock() else { return false };
        // SAFETY: the door is closed and nobody inside, so this is the only access; and whoever enters has left, and the
        // reference is gone, before this returns.
        unsafe { *self.work.get() = Some(std::mem::transmute::<&Work<'_>, &'static Work<'static>>(work)) };
        self.door.store(0, SeqCst);
        self.round.fetch_add(1, SeqCst);
        if self.sleepers.load(SeqCst) > 0 {
            let _bed = self.bed.lock().unwrap_or_else(PoisonError::into_inner);
            self.call.notify_all();
        }
        let own = catch_unwind(AssertUnwindSafe(work));
        self.door.fetch_or(CLOSED, SeqCst);
        wait(None, || self.door.load(SeqCst) == CLOSED);
        // SAFETY: as above.
        unsafe { *self.work.get() = None };
        let others = self.panic.lock().unwrap_or_else(PoisonError::into_inner).take();
        drop(owner);
        if let Some(panic) = own.err().or(others) {
            resume_unwind(panic);
        }
        true
    }

    /// The life of a helper.
    fn help(&self) {
        let mut seen = 0;
        loop {
            if !wait(Some(AWAKE), || self.round.load(SeqCst) != seen) {
                let mut bed = self.bed.lock().unwrap_or_else(PoisonError::into_inner);
                self.sleepers.fetch_add(1, SeqCst);
                // The caller counts the round first and then the sleepers, this counts itself first: one sees the other.
                while self.round.load(SeqCst) == seen {
                    bed = self.call.wait(bed).unwrap_or_else(PoisonError::into_inner);
                }
                self.sleepers.fetch_sub(1, SeqCst);
            }
            seen = self.round.load(SeqCst);
            let enter = |inside| (inside & CLOSED == 0).then_some(inside + 1);
            if self.door.fetch_update(SeqCst, SeqCst, enter).is_ok() {
                // SAFETY: whoever is inside reads what was written before the door opened.
                let work = unsafe { *self.work.get() };
                if let Some(Err(panic)) = work.map(|work| catch_unwind(AssertUnwindSafe(work))) {
                    *self.panic.lock().unwrap_or_else(PoisonError::into_inner) = Some(panic);
                }
                self.door.fetch_sub(1, SeqCst);
            }
        }
    }
}

/// Looks until `done`, or until the time is over: whether it is done. Other threads may have the processor meanwhile.
fn wait(limit: Option<Duration>, done: impl Fn() -> bool) -> bool {
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

    /// Takes each of `count` numbers once and adds them up.
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
    fn callers_at_the_same_time_get_their_own_work_done() {
        std::thread::scope(|scope| {
            for caller in 0..4 {
                scope.spawn(move || {
                    for round in 0..2000 {
                        let count = 1 + (caller * 7 + round) % 50;
                        assert_eq!(sum(count), count * (count - 1) / 2);
                        if round % 500 == 0 {
                            // Long enough for helpers to sleep.
                            std::thread::sleep(2 * AWAKE);
                        }
                    }
                });
            }
        });
    }

    #[test]
    fn a_panic_is_the_callers_and_the_team_goes_on() {
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
