//! Evaluation on held-out text, always masked by BERT's rule, so that the losses of different runs can be compared.

use cloze::prelude::*;
use cloze::train::{DataSet, PairExample};
use cloze_examples::Result;
use serde::Serialize;

use crate::model::Pretrained;

/// Evaluations in a run, before the final one.
const EVALUATIONS: u32 = 5;
/// Minimum number of steps between them.
const MIN_STEPS: u32 = 20;
/// Maximum number of examples in each of them, and in the final one.
const EXAMPLES: usize = 256;
const FINAL_EXAMPLES: usize = 2048;
/// Sequences in a batch.
const BATCH: usize = 32;

/// Names of the metrics in logs and reports.
pub const MASKED: &str = "loss of masked words";
pub const UNIGRAM: &str = "loss of the unigram model";
pub const ACCURACY: &str = "accuracy of masked words";

/// The final evaluation, for `--json`.
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

/// Examples that are not trained on, and a unigram model to compare with.
pub struct HeldOutText {
    data: PreTraining,
    examples: Vec<PairExample>,
    unigram: Unigram,
}

impl HeldOutText {
    /// Creates held-out text from `examples` of `data`.
    pub fn new(data: PreTraining, examples: Vec<PairExample>, unigram: Unigram) -> HeldOutText {
        HeldOutText { data, examples, unigram }
    }

    /// Returns a number that differs for other text.
    pub fn fingerprint(&self) -> Option<u64> {
        self.data.fingerprint()
    }

    /// Returns when to evaluate in a run of `steps`, or `None` if nothing is held out.
    pub fn every(&self, steps: u32) -> Option<Every> {
        (!self.examples.is_empty()).then_some(Every::Steps((steps / EVALUATIONS).max(MIN_STEPS)))
    }

    /// Evaluates during training, on the first examples.
    pub fn evaluate(&self, model: &impl Pretrained) -> cloze::train::Result<Evaluation> {
        let found = self.run(model, EXAMPLES)?;
        Ok(Evaluation::minimize(MASKED, found.masked_loss)
            .and(UNIGRAM, found.unigram_loss)
            .and("loss", found.mlm_loss)
            .and(ACCURACY, found.mlm_accuracy))
    }

    /// Evaluates after training and prints the result. Returns `None` if nothing is held out.
    pub fn evaluate_finally(&self, model: &impl Pretrained) -> Result<Option<HeldOut>> {
        if self.examples.is_empty() {
            return Ok(None);
        }
        let e = self.run(model, FINAL_EXAMPLES)?;
        let examples = self.first(FINAL_EXAMPLES).len();
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

    /// Calls `each` with every batch of the final evaluation.
    pub fn final_batches(&self, mut each: impl FnMut(&cloze::train::PreTrainingBatch) -> Result) -> Result {
        for batch in self.data.evaluation_batches(self.first(FINAL_EXAMPLES), BATCH)? {
            each(&batch?)?;
        }
        Ok(())
    }

    fn run(&self, model: &impl Pretrained, examples: usize) -> cloze::train::Result<PreTrainingEvaluation> {
        PreTrainingEvaluation::run(model, &self.data, self.first(examples), &self.unigram, BATCH)
    }

    fn first(&self, examples: usize) -> &[PairExample] {
        &self.examples[..self.examples.len().min(examples)]
    }
}
