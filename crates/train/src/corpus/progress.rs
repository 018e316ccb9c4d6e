//! How far reading is: bytes, bytes a second, time left.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{DecimalBytes, ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Between two lines, where standard error is no terminal.
const PERIOD: Duration = Duration::from_secs(10);

/// A bar where standard error is a terminal, a line now and then where it is not.
pub(super) struct Progress {
    bar: ProgressBar,
    what: &'static str,
    total: Option<u64>,
    done: u64,
    is_plain: bool,
    start: Instant,
    last: Instant,
}

impl Progress {
    /// Of `what`, such as `tokenizing`, of so many bytes, where that is known.
    pub(super) fn new(what: &'static str, total: Option<u64>, shown: bool) -> Progress {
        let is_plain = shown && !std::io::stderr().is_terminal();
        let target = if shown { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let bar = ProgressBar::with_draw_target(total, target);
        let template = match total {
            Some(_) => "{msg} {wide_bar} {decimal_bytes}/{decimal_total_bytes} {decimal_bytes_per_sec} left {eta}",
            None => "{msg} {decimal_bytes} {decimal_bytes_per_sec}",
        };
        bar.set_style(ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()));
        bar.set_message(what);
        let now = Instant::now();
        Progress { bar, what, total, done: 0, is_plain, start: now, last: now }
    }

    /// Shows nothing.
    #[cfg(test)]
    pub(super) fn hidden() -> Progress {
        Progress::new("", None, false)
    }

    /// So many bytes more are done.
    pub(super) fn advance(&mut self, bytes: u64) {
        self.done += bytes;
        self.bar.set_position(self.done);
        if self.is_plain && self.last.elapsed() >= PERIOD {
            self.last = Instant::now();
            eprintln!("{}", self.line(self.start.elapsed()));
        }
    }

    fn line(&self, elapsed: Duration) -> String {
        let rate = self.done as f64 / elapsed.as_secs_f64().max(1e-9);
        let (what, done, a_second) = (self.what, DecimalBytes(self.done), DecimalBytes(rate as u64));
        match self.total {
            Some(total) => {
                let left = total.saturating_sub(self.done) as f64 / rate.max(1.0);
                format!("{what}: {done} of {}, {a_second}/s, {left:.0} s left", DecimalBytes(total))
            }
            None => format!("{what}: {done}, {a_second}/s"),
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_how_far_and_how_fast() {
        let mut progress = Progress::new("tokenizing", Some(3_000_000), false);
        progress.advance(500_000);
        progress.advance(500_000);
        let line = progress.line(Duration::from_secs(10));
        assert_eq!(line, "tokenizing: 1.00 MB of 3.00 MB, 100.00 kB/s, 20 s left");
        let mut progress = Progress::hidden();
        progress.advance(2_000);
        assert_eq!(progress.line(Duration::from_secs(1)), ": 2.00 kB, 2.00 kB/s");
    }
}
