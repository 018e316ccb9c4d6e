//! Panics of the crates that decode files, as values.

use std::cell::Cell;
use std::panic::{self, AssertUnwindSafe, catch_unwind};
use std::sync::Once;

/// Runs `read`, and returns `None` if it panics, as the crates that decode Parquet and zstd do on some damaged files.
/// Nothing is printed. What `read` worked on must not be used after a panic.
///
/// A program that is built with `panic = "abort"` ends at the panic.
pub(crate) fn without_panic<T>(read: impl FnOnce() -> T) -> Option<T> {
    quietly(|| catch_unwind(AssertUnwindSafe(read))).ok()
}

/// Runs `f` without the messages of panics in this thread.
fn quietly<T>(f: impl FnOnce() -> T) -> T {
    thread_local! {
        static IS_QUIET: Cell<bool> = const { Cell::new(false) };
    }
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let usual = panic::take_hook();
        panic::set_hook(Box::new(move |panic| {
            if !IS_QUIET.get() {
                usual(panic);
            }
        }));
    });
    let before = IS_QUIET.replace(true);
    let result = f();
    IS_QUIET.set(before);
    result
}
