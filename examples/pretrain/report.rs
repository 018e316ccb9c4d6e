//! Lines that pre-training prints as it goes: losses, and how the model does on held-out text.

use cloze::prelude::*;
use cloze::train::{PairExample, Step};
use serde::Serialize;

use crate::common::Result;

/// Steps between two lines, as in the course.
const EVERY: u32 = 20;
/// Evaluations on held-out text in a run.
const EVALUATIONS: u32 = 5;
/// Examples of an evaluation while training, and of the last one.
const EXAMPLES: (usize, usize) = (256, 2048);

/// The last evaluation, for `--json`.
#[derive(Serialize)]
pub struct HeldOut {
    examples: usize,
    mlm_loss: f64,
    mlm_accuracy: f64,
    masked_targets: usize,
    masked_loss: f64,
    unigram_loss: f64,
    below_unigram: f64,
    nsp_loss: Option<f64>,
    nsp_accuracy: Option<f64>,
}

/// Prints mean losses and evaluates now and then.
pub struct Log<'a> {
    data: &'a PreTraining,
    examples: &'a [PairExample],
    unigram: &'a Unigram,
    sum: f64,
}

impl<'a> Log<'a> {
    /// A log that evaluates on `examples` of `data`.
    pub fn new(data: &'a PreTraining, examples: &'a [PairExample], unigram: &'a Unigram) -> Log<'a> {
        Log { data, examples, unigram, sum: 0.0 }
    }

    /// Called after every step.
    pub fn step(&mut self, model: &BertForPreTraining, step: &Step) -> cloze::train::Result<()> {
        self.sum += step.loss;
        if step.step.is_multiple_of(EVERY) {
            let mean = self.sum / f64::from(EVERY);
            println!("[epoch {} step {:03}] loss={mean:.4}", step.epoch, step.step);
            self.sum = 0.0;
        }
        let between = (step.steps / EVALUATIONS).max(EVERY);
        if step.step.is_multiple_of(between) && step.step < step.steps {
            let held_out = self.evaluate(model, EXAMPLES.0)?;
            println!(
                "held out: loss of masked words {:.3} (unigram {:.3}), accuracy {:.1} %",
                held_out.masked_loss,
                held_out.unigram_loss,
                100.0 * held_out.mlm_accuracy
            );
        }
        Ok(())
    }

    /// The last evaluation; `None` where nothing is held out.
    pub fn finish(&self, model: &BertForPreTraining) -> Result<Option<HeldOut>> {
        if self.examples.is_empty() {
            return Ok(None);
        }
        let e = self.evaluate(model, EXAMPLES.1)?;
        let examples = self.examples.len().min(EXAMPLES.1);
        println!("\n=== Held out: {examples} examples, {} targets ===", e.targets);
        println!("loss of all targets            {:.4} nats, accuracy {:.2} %", e.mlm_loss, 100.0 * e.mlm_accuracy);
        println!("loss of those behind [MASK]    {:.4} nats ({} targets)", e.masked_loss, e.masked_targets);
        println!("unigram model on the same      {:.4} nats", e.unigram_loss);
        println!("below the unigram model by     {:.4} nats", e.unigram_loss - e.masked_loss);
        if let (Some(loss), Some(accuracy)) = (e.nsp_loss, e.nsp_accuracy) {
            println!("next sentence                  {loss:.4} nats, accuracy {:.2} %", 100.0 * accuracy);
        }
        Ok(Some(HeldOut {
            examples,
            mlm_loss: e.mlm_loss,
            mlm_accuracy: e.mlm_accuracy,
            masked_targets: e.masked_targets,
            masked_loss: e.masked_loss,
            unigram_loss: e.unigram_loss,
            below_unigram: e.unigram_loss - e.masked_loss,
            nsp_loss: e.nsp_loss,
            nsp_accuracy: e.nsp_accuracy,
        }))
    }

    fn evaluate(&self, model: &BertForPreTraining, examples: usize) -> cloze::train::Result<PreTrainingEvaluation> {
        let examples = &self.examples[..self.examples.len().min(examples)];
        PreTrainingEvaluation::run(model, self.data, examples, self.unigram, 32)
    }
}
