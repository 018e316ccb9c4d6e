//! The lines printed during pre-training.

use cloze::train::Step;

use crate::held_out::{ACCURACY, MASKED, UNIGRAM};

/// Steps between lines with the loss, as in the course, if the run is short.
const LOSS_EVERY: u32 = 20;
/// The most such lines.
const LINES: u32 = 20;

/// Prints mean losses, and evaluations on held-out text.
pub struct Log {
    /// Steps between lines with the loss.
    every: u32,
    /// Losses of the steps since the last line.
    recent: Vec<f64>,
}

impl Log {
    /// Creates the log of a run of this many steps.
    pub fn new(steps: u32) -> Log {
        Log { every: LOSS_EVERY * steps.div_ceil(LOSS_EVERY * LINES).max(1), recent: Vec::new() }
    }

    /// Records an optimizer step.
    pub fn step(&mut self, step: &Step) -> cloze::train::Result<()> {
        self.recent.push(step.loss);
        if step.step.is_multiple_of(self.every) {
            let mean = self.recent.iter().sum::<f64>() / self.recent.len() as f64;
            println!("[epoch {} step {:03}] loss={mean:.4}", step.epoch, step.step);
            self.recent.clear();
        }
        if let Some(found) = &step.evaluation {
            let [masked, unigram, accuracy] =
                [MASKED, UNIGRAM, ACCURACY].map(|name| found.get(name).unwrap_or(f64::NAN));
            let accuracy = 100.0 * accuracy;
            println!("held out: loss of masked words {masked:.3} (unigram {unigram:.3}), accuracy {accuracy:.1} %");
        }
        Ok(())
    }
}
