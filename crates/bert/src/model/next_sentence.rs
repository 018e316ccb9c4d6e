//! Next-sentence prediction: deciding whether the second segment follows the first (J. Devlin, M.-W. Chang, K. Lee,
//! K. Toutanova, "BERT", 2018).

use cloze_tensor::{Inside as _, Tensor, module};

use super::{BertModel, Linear, Mode, PreTrainedModel};
use crate::weights::Weights;
use crate::{Batch, BertConfig, Error, ModelType, Result};

/// Creates `cls.seq_relationship`, which computes the logits of "follows" and "does not follow": `[2, H]`.
///
/// # Errors
/// Returns an error if the weights do not fit the configuration, or the model is a DistilBERT, which has no such head.
pub(super) fn seq_relationship(weights: Weights<'_>, config: &BertConfig) -> Result<Linear> {
    match config.model_type {
        ModelType::Bert => Linear::new(weights, config.hidden_size, 2),
        ModelType::DistilBert => {
            Err(Error::config("model_type is distilbert, which has no next-sentence head: use a model of type bert"))
        }
    }
}

/// `cls` of [`BertForNextSentencePrediction`].
#[derive(Clone)]
pub struct NextSentenceHead {
    /// `cls.seq_relationship`, `[2, H]`
    pub seq_relationship: Linear,
}
module!(NextSentenceHead { seq_relationship });

/// BERT with the next-sentence head.
#[derive(Clone)]
pub struct BertForNextSentencePrediction {
    /// The bare model, with a pooler.
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

impl BertForNextSentencePrediction {
    /// Computes the logits of "follows" (0) and "does not follow" (1): `[B, 2]`.
    ///
    /// # Errors
    /// Returns an error if the batch does not fit the model.
    pub fn forward(&self, batch: &Batch, mode: Mode) -> Result<Tensor> {
        self.cls.seq_relationship.forward(&self.bert.pooled(batch, mode)?).inside("cls.seq_relationship")
    }

    /// Computes the mean cross-entropy, in nats, of the labels `[B]`: 0 if the second segment follows the first,
    /// 1 if not.
    ///
    /// # Errors
    /// Returns an error like [`forward`](BertForNextSentencePrediction::forward), and if the number of labels differs
    /// from the number of sequences or a label is out of range.
    pub fn loss(&self, batch: &Batch, labels: &[i64], mode: Mode) -> Result<Tensor> {
        Ok(self.forward(batch, mode)?.cross_entropy(labels).inside("cls.seq_relationship")?)
    }
}
