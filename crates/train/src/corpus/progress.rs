//! Progress of reading: bytes, bytes per second, time left.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{DecimalBytes, ProgressBar, ProgressDrawTarget, ProgressStyle};

/// The interval of progress lines if stderr is not a terminal.
const PERIOD: Duration = Duration::from_secs(10);

/// A progress bar if stderr is a terminal, otherwise a line at intervals.
pub(super) struct ReadProgress {
    bar: ProgressBar,
    activity: &'static str,
    total: Option<u64>,
    done: u64,
    is_plain: bool,
    start: Instant,
    last: Instant,
}

impl ReadProgress {
    /// Starts the progress of an activity, such as `tokenizing`, over `total` bytes if that is known.
    pub(super) fn new(activity: &'static str, total: Option<u64>, shown: bool) -> ReadProgress {
        let is_plain = shown && !std::io::stderr().is_terminal();
        let target = if shown { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let bar = ProgressBar::with_draw_target(total, target);
        let template = match total {
            Some(_) => "{msg} {wide_bar} {decimal_bytes}/{decimal_total_bytes} {decimal_bytes_per_sec} left {eta}",
            None => "{msg} {decimal_bytes} {decimal_bytes_per_sec}",
        };
        bar.set_style(ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()));
        bar.set_message(activity);
        let now = Instant::now();
        ReadProgress { bar, activity, total, done: 0, is_plain, start: now, last: now }
    }

    /// Makes a progress that shows nothing.
    #[cfg(test)]
    pub(super) fn hidden() -> ReadProgress {
        ReadProgress::new("", None, false)
    }

    /// Advances to `bytes` in total.
    pub(super) fn advance_to(&mut self, bytes: u64) {
        self.done = bytes;
        self.bar.set_position(self.done);
        if self.is_plain && self.last.elapsed() >= PERIOD {
            self.last = Instant::now();
            eprintln!("{}", self.line(self.start.elapsed()));
        }
    }

    fn line(&self, elapsed: Duration) -> String {
        let rate = self.done as f64 / elapsed.as_secs_f64().max(1e-9);
        let (activity, done, per_second) = (self.activity, DecimalBytes(self.done), DecimalBytes(rate as u64));
        match self.total {
            Some(total) => {
                let left = total.saturating_sub(self.done) as f64 / rate.max(1.0);
                format!("{activity}: {done} of {}, {per_second}/s, {left:.0} s left", DecimalBytes(total))
            }
            None => format!("{activity}: {done}, {per_second}/s"),
        }
    }
}

impl Drop for ReadProgress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_bytes_and_rate() {
        let mut progress = ReadProgress::new("tokenizing", Some(3_000_000), false);
        progress.advance_to(500_000);
        progress.advance_to(1_000_000);
        let line = progress.line(Duration::from_secs(10));
        assert_eq!(line, "tokenizing: 1.00 MB of 3.00 MB, 100.00 kB/s, 20 s left");
        let mut progress = ReadProgress::hidden();
        progress.advance_to(2_000);
        assert_eq!(progress.line(Duration::from_secs(1)), ": 2.00 kB, 2.00 kB/s");
    }
}
