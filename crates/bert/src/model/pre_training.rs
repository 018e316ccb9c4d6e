//! Pre-training: masked-language modelling and next-sentence prediction together (J. Devlin, M.-W. Chang, K. Lee,
//! K. Toutanova, "BERT", 2018).

use cloze_tensor::{Inside as _, Tensor, module};

use super::masked_lm::{MaskedLmHead, masked_lm_loss};
use super::next_sentence::{NextSentenceHead, seq_relationship};
use super::{
    BertForMaskedLM, BertForNextSentencePrediction, BertModel, Linear, LmPredictionHead, Mode, PreTrainedModel, Rows,
};
use crate::weights::Weights;
use crate::{Batch, BertConfig, Result};

/// `cls` of [`BertForPreTraining`]: both heads.
#[derive(Clone)]
pub struct PreTrainingHeads {
    /// `cls.predictions`: the masked-language-model head.
    pub predictions: LmPredictionHead,
    /// `cls.seq_relationship`, `[2, H]`: the next-sentence head.
    pub seq_relationship: Linear,
}
module!(PreTrainingHeads { predictions, seq_relationship });

/// BERT with both pre-training heads.
#[derive(Clone)]
pub struct BertForPreTraining {
    /// The bare model, with a pooler.
    pub bert: BertModel,
    /// The heads.
    pub cls: PreTrainingHeads,
}
module!(BertForPreTraining { bert, cls });

impl PreTrainedModel for BertForPreTraining {
    const ARCHITECTURE: &'static str = "BertForPreTraining";

    fn build(weights: Weights<'_>, config: &BertConfig) -> Result<BertForPreTraining> {
        let cls = weights.at("cls");
        Ok(BertForPreTraining {
            bert: BertModel::with_pooler(weights.at("bert"), config)?,
            cls: PreTrainingHeads {
                predictions: LmPredictionHead::new(cls.at("predictions"), config)?,
                seq_relationship: seq_relationship(cls.at("seq_relationship"), config)?,
            },
        })
    }

    fn bert(&self) -> &BertModel {
        &self.bert
    }

    fn bert_mut(&mut self) -> &mut BertModel {
        &mut self.bert
    }
}

impl BertForPreTraining {
    /// Computes logits over the vocabulary from the hidden states of masked tokens: `[M, H]` to `[M, V]`.
    ///
    /// # Errors
    /// Returns an error if the shapes do not match.
    pub fn mlm_logits(&self, hidden: &Tensor) -> Result<Tensor> {
        self.cls.predictions.forward(hidden, &self.bert.embeddings.word_embeddings.weight)
    }

    /// Computes the logits of "follows" and "does not follow" from the hidden states of the `[CLS]` tokens: `[B, H]`
    /// to `[B, 2]`.
    ///
    /// # Errors
    /// Returns an error if the shapes do not match.
    pub fn nsp_logits(&self, cls: &Tensor) -> Result<Tensor> {
        self.cls.seq_relationship.forward(&self.bert.pool(cls)?).inside("cls.seq_relationship")
    }

    /// Runs the encoder and returns the hidden states of the `[CLS]` tokens, `[B, H]`, and of `rows`, `[M, H]`.
    ///
    /// # Errors
    /// Returns an error if the batch does not fit the model or a row is out of range.
    pub fn cls_and_rows(&self, batch: &Batch, rows: &[u32], mode: Mode) -> Result<(Tensor, Tensor)> {
        let wanted = [batch.sequences().starts(), rows].concat();
        let hidden = self.bert.forward_rows(batch, &Rows::some(batch.sequences(), &wanted), mode)?; // [B + M, H]
        Ok((hidden.narrow(0, 0, batch.len())?, hidden.narrow(0, batch.len(), rows.len())?))
    }

    /// Computes the loss of a batch, in nats: the mean cross-entropy of the masked tokens plus, if `targets` has
    /// labels for them, that of the next sentences.
    ///
    /// # Errors
    /// Returns an error if the batch or the targets do not fit the model, or there is no target.
    pub fn loss(&self, batch: &Batch, targets: &PreTrainingTargets, mode: Mode) -> Result<PreTrainingLoss> {
        let (cls, masked) = self.cls_and_rows(batch, &targets.rows, mode)?;
        let table = &self.bert.embeddings.word_embeddings.weight;
        let mlm = masked_lm_loss(&self.cls.predictions.logits_for_loss(&masked, table)?, &targets.labels)?;
        if targets.next_sentence.is_empty() {
            return Ok(PreTrainingLoss { loss: mlm.clone(), mlm, nsp: None });
        }
        let nsp = self.nsp_logits(&cls)?.cross_entropy(&targets.next_sentence).inside("cls.seq_relationship")?;
        Ok(PreTrainingLoss { loss: mlm.add(&nsp)?, mlm, nsp: Some(nsp) })
    }
}

/// The labels of a batch for pre-training.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PreTrainingTargets {
    /// The packed rows of the masked tokens, `[M]`.
    pub rows: Vec<u32>,
    /// The original tokens at these rows, `[M]`.
    pub labels: Vec<i64>,
    /// 0 if the second segment follows the first, 1 if not, `[B]`. Empty to train without next sentences.
    pub next_sentence: Vec<i64>,
}

/// The losses of a batch, in nats. Each is a scalar that records a graph.
pub struct PreTrainingLoss {
    /// The sum of the two losses.
    pub loss: Tensor,
    /// The loss of masked-language modelling.
    pub mlm: Tensor,
    /// The loss of next-sentence prediction, if the batch has labels for it.
    pub nsp: Option<Tensor>,
}

/// Returns the masked-language model within. The two models share their weights: drop this one before training the
/// other.
impl From<&BertForPreTraining> for BertForMaskedLM {
    fn from(model: &BertForPreTraining) -> BertForMaskedLM {
        BertForMaskedLM {
            bert: BertModel { pooler: None, ..model.bert.clone() },
            cls: MaskedLmHead { predictions: model.cls.predictions.clone() },
        }
    }
}

/// Returns the next-sentence model within. The two models share their weights: drop this one before training the other.
impl From<&BertForPreTraining> for BertForNextSentencePrediction {
    fn from(model: &BertForPreTraining) -> BertForNextSentencePrediction {
        BertForNextSentencePrediction {
            bert: model.bert.clone(),
            cls: NextSentenceHead { seq_relationship: model.cls.seq_relationship.clone() },
        }
    }
}
