//! The progress bar: loss, learning rate, tokens a second, time left.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::Step;

/// Weight of the newest loss in the smoothed one that is shown.
const SMOOTHING: f64 = 0.05;

pub(super) struct Progress {
    bar: ProgressBar,
    loss: Option<f64>,
}

impl Progress {
    /// A bar over `steps` steps, on standard error where that is a terminal.
    pub(super) fn new(steps: u32, shown: bool) -> Progress {
        let target = if shown { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let bar = ProgressBar::with_draw_target(Some(steps.into()), target);
        let template = "{wide_bar} {pos}/{len} {msg} left {eta}";
        bar.set_style(ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()));
        Progress { bar, loss: None }
    }

    pub(super) fn update(&mut self, step: &Step, tokens: usize) {
        let loss = self.loss.map_or(step.loss, |loss| loss + SMOOTHING * (step.loss - loss));
        self.loss = Some(loss);
        if self.bar.is_hidden() {
            return;
        }
        let rate = tokens as f64 / step.elapsed.as_secs_f64().max(1e-9);
        self.bar.set_position(step.step.into());
        self.bar.set_message(format!("loss {loss:.3} lr {:.1e} {rate:.0} tokens/s", step.learning_rate));
    }

    /// Runs `f`, which may print, with the bar out of the way.
    pub(super) fn aside<R>(&self, f: impl FnOnce() -> R) -> R {
        if self.bar.is_hidden() { f() } else { self.bar.suspend(f) }
    }

    pub(super) fn finish(&self) {
        self.bar.finish_and_clear();
    }
}
