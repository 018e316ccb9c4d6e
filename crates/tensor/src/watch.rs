//! The state of [`check_finite`](crate::check_finite): whether the current thread looks for results that are not finite, and
//! the first one that it has found.

use std::cell::Cell;

/// An element of a result that is not finite.
#[derive(Clone, Copy)]
pub(crate) struct NotFinite {
    /// The operation.
    pub(crate) op: &'static str,
    /// The element and its index.
    pub(crate) value: f64,
    pub(crate) position: usize,
}

#[derive(Clone, Copy)]
enum Watch {
    Off,
    On,
    Found(NotFinite),
}

thread_local! {
    static WATCH: Cell<Watch> = const { Cell::new(Watch::Off) };
}

/// Runs `f` while the current thread looks for results that are not finite.
pub(crate) fn watching<R>(f: impl FnOnce() -> R) -> R {
    struct Restore(Watch);
    impl Drop for Restore {
        fn drop(&mut self) {
            WATCH.set(self.0);
        }
    }
    let _restore = Restore(WATCH.replace(Watch::On));
    f()
}

/// If the current thread is looking, passes the outcome of `look` on to [`found`]. The operations of `look` are not looked
/// at.
pub(crate) fn look(look: impl FnOnce() -> Option<NotFinite>) {
    if matches!(WATCH.get(), Watch::On) {
        WATCH.set(Watch::Off);
        WATCH.set(look().map_or(Watch::On, Watch::Found));
    }
}

/// Takes what the current thread has found.
pub(crate) fn found() -> Option<NotFinite> {
    match WATCH.get() {
        Watch::Found(found) => {
            WATCH.set(Watch::Off);
            Some(found)
        }
        _ => None,
    }
}
