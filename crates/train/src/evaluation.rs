//! Evaluation of pre-training on held-out examples.

use cloze_bert::Mode;
use cloze_tensor::{CrossEntropy, Reduction, Tensor, no_grad};

use crate::{Error, Learn, LossTerm, PairExample, PreTraining, PreTrainingBatch, Result, TargetKind, Unigram};

/// The scores of a model on held-out examples. Losses are means in nats.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct PreTrainingEvaluation {
    /// The masked-language-model loss over all targets.
    pub mlm_loss: f64,
    /// The fraction of targets whose most probable token is the original one.
    pub mlm_accuracy: f64,
    /// The number of targets.
    pub targets: usize,
    /// The loss over the targets that `[MASK]` replaced: their input gives nothing away.
    pub masked_loss: f64,
    /// The number of these targets.
    pub masked_targets: usize,
    /// The loss of a unigram model on the same targets.
    pub unigram_loss: f64,
    /// The loss of next-sentence prediction, if it is trained.
    pub nsp_loss: Option<f64>,
    /// The fraction of pairs with the right label, if next-sentence prediction is trained.
    pub nsp_accuracy: Option<f64>,
}

impl PreTrainingEvaluation {
    /// Evaluates `model` on `examples` of `data`, `batch_size` at a time, and `unigram` on the same targets. The targets
    /// are the same in every evaluation.
    ///
    /// The model is a `BertForPreTraining`, a `BertForMaskedLM`, or one of your own whose terms of the loss are
    /// [cross-entropies](LossTerm::CrossEntropy). The first term is that of the masked tokens; the second, if there is one,
    /// that of next sentences.
    ///
    /// # Errors
    /// Returns an error if no target was replaced by `[MASK]`, for instance because there is no example, if an example
    /// does not fit the model, or if a term of its loss is no cross-entropy.
    pub fn run(
        model: &impl Learn<PreTrainingBatch>,
        data: &PreTraining,
        examples: &[PairExample],
        unigram: &Unigram,
        batch_size: usize,
    ) -> Result<PreTrainingEvaluation> {
        let mut sums = Sums::default();
        for batch in data.evaluation_batches(examples, batch_size)? {
            no_grad(|| sums.add(model, &batch?))?;
        }
        let (targets, masked, pairs) = (sums.mlm.rows, sums.masked_ids.len(), sums.nsp.rows);
        if masked == 0 {
            let why = format!(
                "none of the {targets} targets of {} examples was replaced by [MASK]: evaluate on more examples or mask \
                 more tokens",
                examples.len()
            );
            return Err(Error::data("evaluation", why));
        }
        Ok(PreTrainingEvaluation {
            mlm_loss: sums.mlm.loss / targets as f64,
            mlm_accuracy: sums.mlm.right as f64 / targets as f64,
            targets,
            masked_loss: sums.masked_loss / masked as f64,
            masked_targets: masked,
            unigram_loss: unigram.cross_entropy(sums.masked_ids.iter().copied())?,
            nsp_loss: (pairs > 0).then(|| sums.nsp.loss / pairs as f64),
            nsp_accuracy: (pairs > 0).then(|| sums.nsp.right as f64 / pairs as f64),
        })
    }
}

/// Sums over the batches of an evaluation.
#[derive(Default)]
struct Sums {
    mlm: Score,
    nsp: Score,
    masked_loss: f64,
    /// The original tokens of the targets that `[MASK]` replaced.
    masked_ids: Vec<u32>,
}

impl Sums {
    fn add(&mut self, model: &impl Learn<PreTrainingBatch>, batch: &PreTrainingBatch) -> Result<()> {
        let mut terms = model.loss_terms(batch, Mode::Eval)?.into_iter();
        let (logits, labels) = cross_entropy(terms.next())?;
        self.mlm.add(&logits, &labels)?;
        // The loss ignores targets of other kinds.
        let label = |(&label, &kind): (&i64, &TargetKind)| match kind {
            TargetKind::Masked => label,
            _ => sum().ignore_index,
        };
        let labels: Vec<i64> = labels.iter().zip(batch.target_kinds()).map(label).collect();
        self.masked_loss += logits.cross_entropy_with(&labels, &sum())?.item()?;
        self.masked_ids.extend(labels.iter().filter_map(|&label| u32::try_from(label).ok()));
        if let Some(term) = terms.next() {
            let (logits, labels) = cross_entropy(Some(term))?;
            self.nsp.add(&logits, &labels)?;
        }
        Ok(())
    }
}

/// Returns the logits and the labels of a term of the loss.
fn cross_entropy(term: Option<LossTerm>) -> Result<(Tensor, Vec<i64>)> {
    match term {
        Some(LossTerm::CrossEntropy { logits, labels, .. }) => Ok((logits, labels)),
        _ => Err(Error::data("evaluation", "a term of the model's loss is no LossTerm::CrossEntropy")),
    }
}

/// The summed cross-entropy of some rows, and how many of them are predicted right.
#[derive(Default)]
struct Score {
    loss: f64,
    right: usize,
    rows: usize,
}

impl Score {
    fn add(&mut self, logits: &Tensor, labels: &[i64]) -> Result<()> {
        self.loss += logits.cross_entropy_with(labels, &sum())?.item()?;
        self.right += logits.argmax()?.iter().zip(labels).filter(|&(&class, &label)| class as i64 == label).count();
        self.rows += labels.len();
        Ok(())
    }
}

fn sum() -> CrossEntropy {
    CrossEntropy { reduction: Reduction::Sum, ..CrossEntropy::default() }
}
