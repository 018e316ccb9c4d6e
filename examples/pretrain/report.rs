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

/// What evaluations while training find, as reports call it.
const MASKED: &str = "loss of masked words";
const UNIGRAM: &str = "loss of the unigram model";
const ACCURACY: &str = "accuracy of masked words";

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

/// Those of `examples` that the last evaluation is on.
pub fn last_examples(examples: &[PairExample]) -> &[PairExample] {
    &examples[..examples.len().min(EXAMPLES.1)]
}

/// Text that is held out.
pub struct HeldOutText<'a> {
    data: &'a PreTraining,
    examples: &'a [PairExample],
    unigram: &'a Unigram,
}

impl<'a> HeldOutText<'a> {
    /// `examples` of `data`.
    pub fn new(data: &'a PreTraining, examples: &'a [PairExample], unigram: &'a Unigram) -> HeldOutText<'a> {
        HeldOutText { data, examples, unigram }
    }

    /// When it is evaluated on in a run of so many steps, if there is any.
    pub fn every(&self, steps: u32) -> Option<Every> {
        (!self.examples.is_empty()).then_some(Every::Steps((steps / EVALUATIONS).max(EVERY)))
    }

    /// An evaluation while training: on some examples.
    pub fn evaluate(&self, model: &BertForPreTraining) -> cloze::train::Result<Evaluation> {
        let found = self.on(model, EXAMPLES.0)?;
        Ok(Evaluation::minimize(MASKED, found.masked_loss)
            .and(UNIGRAM, found.unigram_loss)
            .and("loss", found.mlm_loss)
            .and(ACCURACY, found.mlm_accuracy))
    }

    /// The last evaluation, which is printed; `None` where nothing is held out.
    pub fn at_the_end(&self, model: &BertForPreTraining) -> Result<Option<HeldOut>> {
        if self.examples.is_empty() {
            return Ok(None);
        }
        let e = self.on(model, EXAMPLES.1)?;
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

    fn on(&self, model: &BertForPreTraining, examples: usize) -> cloze::train::Result<PreTrainingEvaluation> {
        let examples = &self.examples[..self.examples.len().min(examples)];
        PreTrainingEvaluation::run(model, self.data, examples, self.unigram, 32)
    }
}

/// Prints mean losses, and what was found on text that is held out.
#[derive(Default)]
pub struct Log {
    recent: Vec<f64>,
}

impl Log {
    /// Called after every step.
    pub fn step(&mut self, step: &Step) -> cloze::train::Result<()> {
        self.recent.push(step.loss);
        if step.step.is_multiple_of(EVERY) {
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
