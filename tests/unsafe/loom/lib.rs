//! Runs the rounds of `crates/tensor/src/cpu/team/round.rs`, the same file, in every order that its threads can take with
//! few preemptions, and with every value that the memory model lets a load return.
//!
//! loom also tracks the accesses to [`UnsafeCell`]s: two that are not ordered, one of them a write, fail the model. So a
//! helper that were still inside a round when its owner goes on would be seen, and so would work that the owner does not see.

#![cfg(test)]

#[path = "../../../crates/tensor/src/cpu/team/round.rs"]
mod round;

/// loom in the place of the standard library.
mod sync {
    use std::sync::atomic::Ordering::SeqCst;

    pub(crate) use loom::cell::UnsafeCell;
    pub(crate) use loom::sync::atomic::AtomicUsize;
    pub(crate) use loom::sync::{Condvar, Mutex, MutexGuard};

    /// loom takes sequentially consistent accesses for acquire and release, which lets a helper and the caller miss each
    /// other. It knows fences.
    pub(crate) fn model_fence() {
        loom::sync::atomic::fence(SeqCst);
    }

    pub(crate) fn spin_until(done: impl Fn() -> bool) {
        while !done() {
            loom::thread::yield_now();
        }
    }

    /// A helper that finds nothing to do sleeps at once.
    pub(crate) fn spin_a_while_until(done: impl Fn() -> bool) -> bool {
        done()
    }
}

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::Ordering::{Relaxed, SeqCst};

use loom::sync::Arc;
use loom::sync::atomic::AtomicUsize;
use loom::thread::{self, JoinHandle};

use round::Team;
use sync::UnsafeCell;

/// Work on the stack of a caller: items that threads take in turns, each with a cell that only its taker writes.
struct Work<const ITEMS: usize> {
    next: AtomicUsize,
    items: [UnsafeCell<usize>; ITEMS],
}

// SAFETY: an item is written only by the thread that took its number, which loom checks.
unsafe impl<const ITEMS: usize> Sync for Work<ITEMS> {}

impl<const ITEMS: usize> Work<ITEMS> {
    fn new() -> Self {
        Work { next: AtomicUsize::new(0), items: std::array::from_fn(|_| UnsafeCell::new(0)) }
    }

    /// Does what is left, as a task of a team.
    fn take_turns(&self) {
        while let Some(item) = self.items.get(self.next.fetch_add(1, Relaxed)) {
            // SAFETY: this thread took the item.
            item.with_mut(|count| unsafe { *count += 1 });
        }
    }

    /// Checks, as the owner, that every item was done once. As a write, it also fails if a helper may still be at work.
    fn assert_done(&self) {
        for item in &self.items {
            // SAFETY: the round is over.
            item.with_mut(|count| assert_eq!(unsafe { std::mem::take(&mut *count) }, 1));
        }
    }
}

/// Starts a helper that ends after round number `last`.
fn helper(team: &Arc<Team>, last: usize) -> JoinHandle<()> {
    let team = team.clone();
    thread::spawn(move || {
        let mut seen = 0;
        while seen < last {
            seen = team.help(seen);
        }
    })
}

/// Runs a model in all orders with up to `preemptions` switches away from threads that could go on.
fn check(preemptions: usize, model: impl Fn() + Sync + Send + 'static) {
    let orders = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counted = orders.clone();
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.check(move || {
        counted.fetch_add(1, Relaxed);
        model();
    });
    let orders = orders.load(Relaxed);
    println!("{orders} orders");
    assert!(orders > 1000, "the threads hardly meet");
}

#[test]
fn one_helper_and_two_rounds() {
    check(4, || {
        let team = Arc::new(Team::default());
        let helper = helper(&team, 2);
        for _ in 0..2 {
            let work = Work::<2>::new();
            assert!(team.run(&|| work.take_turns()));
            work.assert_done();
        }
        helper.join().unwrap();
    });
}

#[test]
fn two_helpers() {
    check(3, || {
        let team = Arc::new(Team::default());
        let helpers = [helper(&team, 1), helper(&team, 1)];
        let work = Work::<2>::new();
        assert!(team.run(&|| work.take_turns()));
        work.assert_done();
        helpers.into_iter().for_each(|helper| helper.join().unwrap());
    });
}

#[test]
fn two_callers_get_their_own_work_done() {
    check(3, || {
        let team = Arc::new(Team::default());
        let helper = helper(&team, 2);
        let call = |team: &Team| {
            let work = Work::<1>::new();
            let is_shared = team.run(&|| work.take_turns());
            if !is_shared {
                work.take_turns();
            }
            work.assert_done();
            is_shared
        };
        let other = {
            let team = team.clone();
            thread::spawn(move || call(&team))
        };
        let mut rounds = usize::from(call(&team));
        rounds += usize::from(other.join().unwrap());
        // The helper waits for a second round, even if a caller found the team busy.
        for _ in rounds..2 {
            assert!(team.run(&|| {}));
        }
        helper.join().unwrap();
    });
}

#[test]
fn a_panic_of_any_thread_reaches_the_caller_after_all_have_left() {
    check(4, || {
        let team = Arc::new(Team::default());
        let helper = helper(&team, 2);
        let (work, panics) = (Work::<1>::new(), AtomicUsize::new(0));
        let spoilt = || {
            work.take_turns();
            // One thread panics, the caller or the helper; without a message on standard error.
            if panics.fetch_add(1, SeqCst) == 0 {
                resume_unwind(Box::new("spoilt"));
            }
        };
        let panic = catch_unwind(AssertUnwindSafe(|| team.run(&spoilt))).unwrap_err();
        assert_eq!(panic.downcast_ref::<&str>(), Some(&"spoilt"));
        work.assert_done();
        let work = Work::<1>::new();
        assert!(team.run(&|| work.take_turns()));
        work.assert_done();
        helper.join().unwrap();
    });
}
