//! Time per operation.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant};

/// The time that each operation of a computation took, measured by [`profile`].
#[derive(Clone, Debug, Default)]
pub struct Profile {
    /// The total time, including what is not an operation.
    pub elapsed: Duration,
    operations: BTreeMap<(&'static str, Pass), (usize, Duration)>,
}

/// The direction of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Pass {
    /// Computing its output.
    Forward,
    /// Computing the gradients of its inputs.
    Backward,
}

/// The time of one operation in all its calls.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct OperationTime {
    /// The name of the operation, as in error messages.
    pub op: &'static str,
    /// The direction.
    pub pass: Pass,
    /// The number of calls.
    pub calls: usize,
    /// The time of all calls together.
    pub time: Duration,
}

impl Profile {
    /// Returns the time of each operation, the longest first.
    pub fn operations(&self) -> Vec<OperationTime> {
        let entry =
            |(&(op, pass), &(calls, time)): (&(&'static str, Pass), &_)| OperationTime { op, pass, calls, time };
        let mut operations: Vec<OperationTime> = self.operations.iter().map(entry).collect();
        operations.sort_by_key(|operation| std::cmp::Reverse(operation.time));
        operations
    }
}

/// Formats a table: operation, direction, calls, milliseconds, share of the total.
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

/// Runs `f` and measures the operations that the current thread calls, whichever threads compute them.
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

/// Runs `f` as a call of the operation `op` and adds its time to the profile, if there is one. Operations that `f` calls in
/// turn are counted as part of `op`.
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
