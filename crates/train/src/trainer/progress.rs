//! The progress line of a run: loss, learning rate, gradient norm, tokens per second, time left.

use std::time::{Duration, Instant};

use cloze_tensor::IS_OPTIMIZED;
use indicatif::{HumanDuration, ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::Step;

/// The weight of the newest loss in the smoothed loss.
const SMOOTHING: f64 = 0.05;

/// The interval of progress lines without a terminal.
const BETWEEN_LINES: Duration = Duration::from_secs(30);

/// The first line of a program that was built without optimisation.
const UNOPTIMIZED: &str = "cloze is compiled without optimization and many times slower: build with --release, or add \
                           [profile.dev.package.\"*\"] with opt-level = 3 to Cargo.toml";

pub(super) struct RunProgress {
    bar: ProgressBar,
    shown: bool,
    loss: Option<f64>,
    start: Instant,
    /// The steps and tokens before the run was resumed.
    before: (u32, usize),
    last_line: Instant,
    /// Whether lines were printed, as without a terminal.
    has_lines: bool,
}

impl RunProgress {
    /// Shows progress on stderr: a line that is redrawn on a terminal, or a new line at intervals elsewhere.
    pub(super) fn new(steps: u32, before: (u32, usize), shown: bool) -> RunProgress {
        let target = if shown { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let bar = ProgressBar::with_draw_target(Some(steps.into()), target).with_position(before.0.into());
        let template = "{wide_bar} {pos}/{len} {msg}";
        bar.set_style(ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()));
        if shown && !IS_OPTIMIZED {
            eprintln!("{UNOPTIMIZED}");
        }
        let start = Instant::now();
        RunProgress { bar, shown, loss: None, start, before, last_line: start, has_lines: false }
    }

    pub(super) fn update(&mut self, step: &Step) {
        let loss = self.loss.map_or(step.loss, |loss| loss + SMOOTHING * (step.loss - loss));
        self.loss = Some(loss);
        let is_line = self.bar.is_hidden() && self.last_line.elapsed() >= BETWEEN_LINES;
        if !self.shown || (self.bar.is_hidden() && !is_line) {
            return;
        }
        let seconds = self.start.elapsed().as_secs_f64().max(1e-9);
        let (done, left) = (step.step - self.before.0, step.steps - step.step);
        let rate = (step.tokens - self.before.1) as f64 / seconds;
        let left = HumanDuration(Duration::from_secs_f64(seconds / f64::from(done.max(1)) * f64::from(left)));
        let (learning_rate, norm) = (step.learning_rate, step.gradient_norm);
        let line = format!("loss {loss:.3}  lr {learning_rate:.1e}  |g| {norm:.2}  {rate:.0} tokens/s  {left:#} left");
        if is_line {
            self.last_line = Instant::now();
            self.has_lines = true;
            eprintln!("step {}/{}  {line}", step.step, step.steps);
        } else {
            self.bar.set_position(step.step.into());
            self.bar.set_message(line);
        }
    }

    /// Hides the bar while `f` runs, which may print.
    pub(super) fn aside<R>(&self, f: impl FnOnce() -> R) -> R {
        if self.bar.is_hidden() { f() } else { self.bar.suspend(f) }
    }

    /// Removes the progress line and, if progress was seen, prints `last`.
    pub(super) fn finish(&self, last: &str) {
        let was_seen = self.shown && (self.has_lines || !self.bar.is_hidden());
        self.bar.finish_and_clear();
        if was_seen && !last.is_empty() {
            eprintln!("{last}");
        }
    }
}
