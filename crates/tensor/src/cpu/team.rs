//! The threads that share an operation with the thread that calls it.
//!
//! The forward pass of BERT is hundreds of operations of about 100 microseconds, one after the other, and waking a sleeping
//! thread takes a good part of that. So the helpers of a team spin for [`SPIN`] after an operation before they sleep, and
//! are usually awake when the next one starts. The caller works along, and waits only for the helpers that have started:
//! [`round`] says how.
//!
//! A process has one team, of as many threads as rayon's global pool including the caller. It serves one operation at a
//! time. If it is busy, or if the caller is itself a thread of rayon, the operation runs on rayon's threads instead.

mod round;
mod sync;

use std::sync::OnceLock;
use std::time::Duration;

use self::round::Team;

/// How long a helper without work spins before it sleeps.
const SPIN: Duration = Duration::from_micros(200);

/// Returns the number of threads that an operation of this thread is shared among.
pub(crate) fn threads() -> usize {
    // Miri finds fault with rayon's queues, so it gets to see the team alone.
    if cfg!(miri) { 3 } else { rayon::current_num_threads() }
}

/// Runs `task` on the calling thread and, concurrently, on the team's threads or on `threads - 1` threads of rayon.
///
/// Any number of threads may run `task`, including the caller alone, and a thread may run it more than once: each call has
/// to take the work that the others have left.
pub(crate) fn work_together(threads: usize, task: &(dyn Fn() + Sync)) {
    let is_of_rayon = !cfg!(miri) && rayon::current_thread_index().is_some();
    if !is_of_rayon && team().is_some_and(|team| team.run(task)) {
        return;
    }
    if cfg!(miri) {
        return task();
    }
    rayon::in_place_scope(|scope| {
        for _ in 1..threads {
            scope.spawn(|_| task());
        }
        task();
    });
}

/// Returns the team, after starting its threads at the first call; `None` on a single thread.
fn team() -> Option<&'static Team> {
    static TEAM: OnceLock<Option<Team>> = OnceLock::new();
    static HELPERS: std::sync::Once = std::sync::Once::new();
    let helpers = threads() - 1;
    let team = TEAM.get_or_init(|| (helpers > 0).then(Team::default)).as_ref()?;
    HELPERS.call_once(|| {
        for number in 0..helpers {
            let thread = std::thread::Builder::new().name(format!("cloze-{number}"));
            // If a thread cannot be started, the others do its share of the work.
            let _ = thread.spawn(|| {
                let mut seen = 0;
                loop {
                    seen = team.help(seen);
                }
            });
        }
    });
    Some(team)
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::sync::atomic::AtomicUsize;
    use std::sync::atomic::Ordering::SeqCst;

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
                    for round in 0..if cfg!(miri) { 10 } else { 2000 } {
                        let count = 1 + (caller * 7 + round) % 50;
                        assert_eq!(sum(count), count * (count - 1) / 2);
                        if round % if cfg!(miri) { 5 } else { 500 } == 0 {
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
        for _ in 0..if cfg!(miri) { 3 } else { 100 } {
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
