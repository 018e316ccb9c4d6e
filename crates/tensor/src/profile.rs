//! Where the time goes, by operation.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant};

/// What the operations of a computation took; made by [`profile`].
#[derive(Clone, Debug, Default)]
pub struct Profile {
    /// The time from beginning to end, of what is no operation too.
    pub elapsed: Duration,
    operations: BTreeMap<(&'static str, Pass), (usize, Duration)>,
}

/// What an operation was doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Pass {
    /// Computing its output.
    Forward,
    /// Computing the gradients of its inputs.
    Backward,
}

/// What one operation took in all its calls.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct OperationTime {
    /// Its name, as in error messages.
    pub op: &'static str,
    /// In which direction.
    pub pass: Pass,
    /// How often it was computed.
    pub calls: usize,
    /// How long that took, together.
    pub time: Duration,
}

impl Profile {
    /// What each operation took, the longest first.
    pub fn operations(&self) -> Vec<OperationTime> {
        let entry =
            |(&(op, pass), &(calls, time)): (&(&'static str, Pass), &_)| OperationTime { op, pass, calls, time };
        let mut operations: Vec<OperationTime> = self.operations.iter().map(entry).collect();
        operations.sort_by_key(|operation| std::cmp::Reverse(operation.time));
        operations
    }
}

/// A table: operation, direction, calls, milliseconds, share of the whole.
impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole = self.elapsed.as_secs_f64();
        let mut line = |op: &str, pass: &str, calls: usize, time: Duration| {
            let (ms, share) = (time.as_secs_f64() * 1e3, 100.0 * time.as_secs_f64() / whole);
            writeln!(f, "{op:<24}{pass:<10}{calls:>7}{ms:>12.2} ms{share:>7.1} %")
        };
        let mut rest = self.elapsed;
        for OperationTime { op, pass, calls, time } in self.operations() {
            rest = rest.saturating_sub(time);
            line(op, if pass == Pass::Forward { "forward" } else { "backward" }, calls, time)?;
        }
        line("anything else", "", 0, rest)?;
        line("all", "", 0, self.elapsed)
    }
}

thread_local! {
    static CURRENT: RefCell<Option<Profile>> = const { RefCell::new(None) };
}

/// Runs `f` and measures what the operations that this thread asks for take, whichever threads compute them.
///
/// ```
/// use cloze_tensor::{Device, Tensor, profile};
/// let x = Tensor::new([[1f32, 2.0], [3.0, 4.0]], &Device::Cpu)?;
/// let (product, profile) = profile(|| x.matmul(&x));
/// println!("{profile}");
/// assert_eq!(profile.operations()[0].op, "matmul");
/// # product?;
/// # Ok::<(), cloze_tensor::Error>(())
/// ```
pub fn profile<R>(f: impl FnOnce() -> R) -> (R, Profile) {
    struct Restore(Option<Profile>);
    impl Drop for Restore {
        fn drop(&mut self) {
            CURRENT.replace(self.0.take());
        }
    }
    let _restore = Restore(CURRENT.replace(Some(Profile::default())));
    let start = Instant::now();
    let result = f();
    let profile = CURRENT.take().unwrap_or_default();
    (result, Profile { elapsed: start.elapsed(), ..profile })
}

/// Runs a computation of `op`, for the profile if there is one. What it computes in turn counts as its own.
pub(crate) fn timed<R>(op: &'static str, pass: Pass, f: impl FnOnce() -> R) -> R {
    let Some(mut profile) = CURRENT.take() else { return f() };
    let start = Instant::now();
    let result = f();
    let (calls, time) = profile.operations.entry((op, pass)).or_default();
    *calls += 1;
    *time += start.elapsed();
    CURRENT.replace(Some(profile));
    result
}
