//! The lines printed during pre-training.

use cloze::train::Step;

use crate::held_out::{ACCURACY, MASKED, UNIGRAM};

/// Steps between lines with the loss, as in the course.
const LOSS_EVERY: u32 = 20;

/// Prints mean losses, and evaluations on held-out text.
#[derive(Default)]
pub struct Log {
    /// Losses of the steps since the last line.
    recent: Vec<f64>,
}

impl Log {
    /// Records an optimizer step.
    pub fn step(&mut self, step: &Step) -> cloze::train::Result<()> {
        self.recent.push(step.loss);
        if step.step.is_multiple_of(LOSS_EVERY) {
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
