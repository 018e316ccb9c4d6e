//! Does the second sentence follow the first? BERT with the next-sentence head alone.

use cloze_tensor::{Inside as _, Tensor, module};

use super::{BertForPreTraining, BertModel, Linear, Mode, PreTrainedModel};
use crate::error::Inside as _;
use crate::weights::Weights;
use crate::{Batch, BertConfig, Error, ModelType, Result};

/// `cls.seq_relationship`: logits of "follows" and "does not follow", `[2, H]`.
///
/// # Errors
/// When the weights do not fit, or the model is a DistilBERT, which has no such head.
pub(super) fn seq_relationship(weights: Weights<'_>, config: &BertConfig) -> Result<Linear> {
    match config.model_type {
        ModelType::Bert => Linear::new(weights, config.hidden_size, 2),
        ModelType::DistilBert => Err(Error::config("model_type is distilbert: it has no next-sentence head, bert has")),
    }
}

/// `cls` of a model with this head alone.
#[derive(Clone)]
pub struct NextSentenceHead {
    /// `[2, H]`
    pub seq_relationship: Linear,
}
module!(NextSentenceHead { seq_relationship });

/// BERT with the next-sentence head.
#[derive(Clone)]
pub struct BertForNextSentencePrediction {
    /// The bare model.
    pub bert: BertModel,
    /// The head.
    pub cls: NextSentenceHead,
}
module!(BertForNextSentencePrediction { bert, cls });

impl PreTrainedModel for BertForNextSentencePrediction {
    const ARCHITECTURE: &'static str = "BertForNextSentencePrediction";

    fn build(weights: Weights<'_>, config: &BertConfig) -> Result<BertForNextSentencePrediction> {
        let seq_relationship = seq_relationship(weights.at("cls").at("seq_relationship"), config)?;
        Ok(BertForNextSentencePrediction {
            bert: BertModel::with_pooler(weights.at("bert"), config)?,
            cls: NextSentenceHead { seq_relationship },
        })
    }

    fn bert(&self) -> &BertModel {
        &self.bert
    }

    fn bert_mut(&mut self) -> &mut BertModel {
        &mut self.bert
    }
}

/// The next-sentence model in a model with both pre-training heads. The two share their weights: drop this one before
/// the other trains on.
impl From<&BertForPreTraining> for BertForNextSentencePrediction {
    fn from(model: &BertForPreTraining) -> BertForNextSentencePrediction {
        BertForNextSentencePrediction {
            bert: model.bert.clone(),
            cls: NextSentenceHead { seq_relationship: model.cls.seq_relationship.clone() },
        }
    }
}

impl BertForNextSentencePrediction {
    /// Logits of "follows" (0) and "does not follow" (1): `[B, 2]`.
    ///
    /// # Errors
    /// When the batch does not fit the model.
    pub fn forward(&self, batch: &Batch, mode: Mode) -> Result<Tensor> {
        self.cls.seq_relationship.forward(&self.bert.pooled(batch, mode)?).inside("cls.seq_relationship")
    }

    /// Mean cross-entropy, in nats, of `labels`: 0 where the second sentence follows the first, 1 where not.
    ///
    /// # Errors
    /// As [`forward`](BertForNextSentencePrediction::forward), and when there are not as many labels as sequences,
    /// or one is neither.
    pub fn loss(&self, batch: &Batch, labels: &[i64], mode: Mode) -> Result<Tensor> {
        Ok(self.forward(batch, mode)?.cross_entropy(labels).inside("cls.seq_relationship")?)
    }
}
