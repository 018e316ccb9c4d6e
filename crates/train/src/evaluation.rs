//! Pre-training joined to the trainer, and its evaluation on held-out examples.

use cloze_bert::{Batch, BertForPreTraining, Mode, PreTrainingTargets, Rows};
use cloze_tensor::{CrossEntropy, Reduction, Sequences, Tensor, no_grad};

use crate::trainer::{DataSet, Learn, Size};
use crate::{Error, PackedExamples, PairExample, PreTraining, Result, TargetKind, Unigram};

impl PackedExamples {
    /// As the model takes it.
    ///
    /// # Errors
    /// When there is no example.
    pub fn to_batch(&self) -> Result<Batch> {
        let lengths: Vec<usize> = self.cu_seqlens.windows(2).map(|ends| (ends[1] - ends[0]) as usize).collect();
        let sequences = Sequences::numbered(&lengths, &self.sequence_numbers)?;
        Ok(Batch::packed(self.ids.clone(), self.token_types.clone(), sequences)?)
    }

    /// What the model is to say of it.
    pub fn targets(&self) -> PreTrainingTargets {
        PreTrainingTargets {
            rows: self.target_rows.clone(),
            labels: self.target_ids.clone(),
            next_sentence: self.next_sentence_labels.clone(),
            divisors: None,
        }
    }
}

impl Learn<PackedExamples> for BertForPreTraining {
    /// Of masked words and of pairs.
    fn counts(&self, batch: &PackedExamples) -> Vec<usize> {
        vec![batch.target_ids.len(), batch.next_sentence_labels.len()]
    }

    fn loss(&self, batch: &PackedExamples, counts: &[usize], mode: Mode) -> Result<Tensor> {
        let own = Learn::counts(self, batch);
        // A batch that is a step is divided by its own numbers, which says better what is wrong where it has none.
        let divisors = match counts {
            [targets, pairs] if own != counts => Some((*targets as f64, (*pairs).max(1) as f64)),
            _ => None,
        };
        let targets = PreTrainingTargets { divisors, ..batch.targets() };
        Ok(BertForPreTraining::loss(self, &batch.to_batch()?, &targets, mode)?.loss)
    }

    /// Without labels for next sentences their head, and the pooler before it, is not trained.
    fn is_trainable(&self, name: &str, batch: &PackedExamples) -> bool {
        let of_next_sentence = name.starts_with("bert.pooler.") || name.starts_with("cls.seq_relationship.");
        !of_next_sentence || !batch.next_sentence_labels.is_empty()
    }
}

impl DataSet for PreTraining {
    type Example = PairExample;
    type Batch = PackedExamples;

    fn epoch(&self, epoch: u32) -> Result<impl Iterator<Item = Result<PairExample>> + '_> {
        PreTraining::stream(self, epoch, 0)
    }

    fn batch(&self, examples: &[PairExample], step: u32, first_sequence: u32) -> Result<PackedExamples> {
        PreTraining::batch(self, examples, step, first_sequence)
    }

    fn size(&self, example: &PairExample) -> Size {
        Size { sequences: 1, tokens: example.token_count() }
    }

    fn fingerprint(&self) -> Option<u64> {
        Some(PreTraining::fingerprint(self))
    }
}

/// How well a model does on held-out examples. Losses are means in nats.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct PreTrainingEvaluation {
    /// Over all masked-language-model targets.
    pub mlm_loss: f64,
    /// Part of the targets whose most probable token is the right one.
    pub mlm_accuracy: f64,
    /// Number of targets.
    pub targets: usize,
    /// Over the targets that were replaced by `[MASK]` alone: nothing gives those away.
    pub masked_loss: f64,
    /// Number of them.
    pub masked_targets: usize,
    /// The loss of a unigram model on those same targets.
    pub unigram_loss: f64,
    /// Loss of next-sentence prediction, where it is trained.
    pub nsp_loss: Option<f64>,
    /// Part of the pairs judged rightly, where it is trained.
    pub nsp_accuracy: Option<f64>,
}

impl PreTrainingEvaluation {
    /// Evaluates `model` on `examples` of `data`, `batch_size` at a time, with the targets that every
    /// evaluation draws; and `unigram` on the same targets.
    ///
    /// # Errors
    /// When no target was replaced by `[MASK]`, as when there is no example; or when an example does not fit
    /// the model.
    pub fn run(
        model: &BertForPreTraining,
        data: &PreTraining,
        examples: &[PairExample],
        unigram: &Unigram,
        batch_size: usize,
    ) -> Result<PreTrainingEvaluation> {
        let sum = CrossEntropy { reduction: Reduction::Sum, ..CrossEntropy::default() };
        let mut total = PreTrainingEvaluation::default();
        let (mut nsp_loss, mut nsp_right, mut pairs) = (0.0, 0, 0);
        let mut right = 0;
        let mut masked_ids = Vec::new();
        for packed in data.evaluation_batches(examples, batch_size)? {
            let packed = packed?;
            let batch = packed.to_batch()?;
            no_grad(|| -> Result<()> {
                let wanted = [batch.sequences().starts(), &packed.target_rows].concat();
                let rows = Rows::some(batch.sequences(), &wanted);
                let hidden = model.bert.forward_rows(&batch, &rows, Mode::Eval)?;
                let logits = model.mlm_logits(&hidden.narrow(0, batch.len(), packed.target_rows.len())?)?;
                total.mlm_loss += logits.cross_entropy_with(&packed.target_ids, sum)?.item()?;
                let guesses = logits.argmax()?;
                right += guesses.iter().zip(&packed.target_ids).filter(|&(&guess, &id)| guess as i64 == id).count();
                // The other targets are ignored.
                let kinds = packed.target_ids.iter().zip(&packed.target_kinds);
                let masked: Vec<i64> =
                    kinds.map(|(&id, &kind)| if kind == TargetKind::Masked { id } else { sum.ignore_index }).collect();
                total.masked_loss += logits.cross_entropy_with(&masked, sum)?.item()?;
                masked_ids.extend(masked.iter().filter_map(|&id| u32::try_from(id).ok()));
                if !packed.next_sentence_labels.is_empty() {
                    let logits = model.nsp_logits(&hidden.narrow(0, 0, batch.len())?)?;
                    nsp_loss += logits.cross_entropy_with(&packed.next_sentence_labels, sum)?.item()?;
                    let labels = packed.next_sentence_labels.iter();
                    nsp_right += logits.argmax()?.iter().zip(labels).filter(|&(&guess, &l)| guess as i64 == l).count();
                    pairs += packed.sequence_count();
                }
                Ok(())
            })?;
            total.targets += packed.target_ids.len();
        }
        if masked_ids.is_empty() {
            let (examples, targets) = (examples.len(), total.targets);
            let why = format!(
                "none of the {targets} targets of {examples} examples was replaced by [MASK]: evaluate on more \
                 examples, or mask more"
            );
            return Err(Error::data("evaluation", why));
        }
        total.unigram_loss = unigram.cross_entropy(masked_ids.iter().copied())?;
        total.masked_targets = masked_ids.len();
        total.masked_loss /= masked_ids.len() as f64;
        total.mlm_loss /= total.targets as f64;
        total.mlm_accuracy = right as f64 / total.targets as f64;
        if pairs > 0 {
            total.nsp_loss = Some(nsp_loss / pairs as f64);
            total.nsp_accuracy = Some(nsp_right as f64 / pairs as f64);
        }
        Ok(total)
    }
}
