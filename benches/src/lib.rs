//! Shared by the benches: made-up data, the work that a measurement contains, and the ceilings of the machine.

pub mod batch;
mod ceiling;
mod data;
mod stats;
mod work;

use std::time::{Duration, Instant};

pub use ceiling::{Ceilings, Memory, peak_now};
pub use data::{Texts, leaf, lengths, noise, tokenizer};
pub use stats::{Spread, median};
pub use work::{EncoderForward, Work, linear_backward, linear_forward, weight_bytes};

/// The result of a bench: any error ends it.
pub type Result<T = (), E = Box<dyn std::error::Error>> = std::result::Result<T, E>;

/// Returns whether benches only show that they run, once each, as with `--test` and `--list`. Data should then be
/// small.
pub fn testing() -> bool {
    let given = |argument: &str| std::env::args().any(|given| given == argument);
    !given("--bench") || given("--test") || given("--list")
}

/// Measures how long `f` takes. The time to drop its value is not included.
///
/// # Errors
/// Returns the error of `f`.
pub fn timed<T, E: Into<Box<dyn std::error::Error>>>(
    f: impl FnOnce() -> std::result::Result<T, E>,
) -> Result<Duration> {
    let start = Instant::now();
    let value = std::hint::black_box(f());
    let elapsed = start.elapsed();
    value.map_err(Into::into).map(|_| elapsed)
}
