//! BERT's pre-training: which words were masked, and does the second sentence follow the first?
//! (J. Devlin, M.-W. Chang, K. Lee, K. Toutanova, 2018.)

use cloze_tensor::{CrossEntropy, Inside as _, Reduction, Tensor, module};

use super::masked_lm::masked_lm_loss;
use super::next_sentence::seq_relationship;
use super::{BertModel, Linear, LmPredictionHead, Mode, PreTrainedModel, Rows};
use crate::error::Inside as _;
use crate::weights::Weights;
use crate::{Batch, BertConfig, Error, Result};

/// `cls`: both heads.
#[derive(Clone)]
pub struct PreTrainingHeads {
    /// Masked language model.
    pub predictions: LmPredictionHead,
    /// Next sentence: `[2, H]`.
    pub seq_relationship: Linear,
}
module!(PreTrainingHeads { predictions, seq_relationship });

/// BERT with both pre-training heads.
#[derive(Clone)]
pub struct BertForPreTraining {
    /// The bare model.
    pub bert: BertModel,
    /// The heads.
    pub cls: PreTrainingHeads,
}
module!(BertForPreTraining { bert, cls });

/// What the model should have said of a batch.
#[derive(Clone, Debug, Default)]
pub struct PreTrainingTargets {
    /// Packed rows that are to be predicted: `[M]`.
    pub rows: Vec<u32>,
    /// The token that stood there: `[M]`.
    pub labels: Vec<i64>,
    /// 0: the second segment follows the first, 1: it does not; `[B]`. Empty: next sentences are not trained.
    pub next_sentence: Vec<i64>,
    /// What the two losses are divided by, where a step is made of several batches: the number of targets
    /// and of sequences of the whole step. `None`: of this batch.
    pub divisors: Option<(f64, f64)>,
}

/// Losses in nats, as numbers with a graph.
pub struct PreTrainingLoss {
    /// The sum of the two.
    pub loss: Tensor,
    /// Per masked token.
    pub mlm: Tensor,
    /// Per pair of sentences, where there are labels.
    pub nsp: Option<Tensor>,
}

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
    /// Logits over the vocabulary for the hidden states `[M, H]` of masked tokens: `[M, V]`.
    ///
    /// # Errors
    /// When the hidden states are not of this model.
    pub fn mlm_logits(&self, hidden: &Tensor) -> Result<Tensor> {
        self.cls.predictions.forward(hidden, &self.bert.embeddings.word_embeddings.weight)
    }

    /// Logits of "follows" and "does not follow" from the hidden states of the `[CLS]` tokens, `[B, H]`: `[B, 2]`.
    ///
    /// # Errors
    /// When the hidden states are not of this model.
    pub fn nsp_logits(&self, cls: &Tensor) -> Result<Tensor> {
        self.cls.seq_relationship.forward(&self.bert.pool(cls)?).inside("cls.seq_relationship")
    }

    /// The loss of a batch: mean cross-entropy of the masked tokens plus, where `targets` has labels, that of
    /// the next sentences.
    ///
    /// # Errors
    /// When the batch or the targets do not fit the model, or there is nothing to take the mean of.
    pub fn loss(&self, batch: &Batch, targets: &PreTrainingTargets, mode: Mode) -> Result<PreTrainingLoss> {
        if let Some((targets, sequences)) = targets.divisors
            && !(targets > 0.0 && sequences > 0.0)
        {
            return Err(Error::batch(format!("divisors are {targets} and {sequences}: must be above 0")));
        }
        let wanted = [batch.sequences().starts(), &targets.rows].concat();
        let hidden = self.bert.forward_rows(batch, &Rows::some(batch.sequences(), &wanted), mode)?; // [B + M, H]
        let (cls, masked) = (hidden.narrow(0, 0, batch.len())?, hidden.narrow(0, batch.len(), targets.rows.len())?);
        let logits = self.mlm_logits(&masked)?; // [M, V]
        let reduction = |divisor: Option<f64>| divisor.map_or(Reduction::Mean, Reduction::Divide);
        let mlm = masked_lm_loss(&logits, &targets.labels, reduction(targets.divisors.map(|(targets, _)| targets)))?;
        if targets.next_sentence.is_empty() {
            return Ok(PreTrainingLoss { loss: mlm.clone(), mlm, nsp: None });
        }
        let logits = self.nsp_logits(&cls)?; // [B, 2]
        let reduction = reduction(targets.divisors.map(|(_, sequences)| sequences));
        let settings = CrossEntropy { reduction, ..CrossEntropy::default() };
        let nsp = logits.cross_entropy_with(&targets.next_sentence, settings).inside("cls.seq_relationship")?;
        Ok(PreTrainingLoss { loss: mlm.add(&nsp)?, mlm, nsp: Some(nsp) })
    }
}
