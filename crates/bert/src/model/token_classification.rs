//! What is each token? Names of people and places, parts of speech.

use cloze_tensor::{Inside as _, Tensor, module};

use super::{BertModel, Linear, Mode, PreTrainedModel};
use crate::error::Inside as _;
use crate::weights::Weights;
use crate::{Batch, BertConfig, ModelType, Result};

/// BERT with a classifier of tokens.
#[derive(Clone)]
pub struct BertForTokenClassification {
    /// The bare model.
    pub bert: BertModel,
    /// `[C, H]`, for C labels.
    pub classifier: Linear,
}
module!(BertForTokenClassification { bert, classifier });

impl PreTrainedModel for BertForTokenClassification {
    const ARCHITECTURE: &'static str = "BertForTokenClassification";

    fn build(weights: Weights<'_>, config: &BertConfig) -> Result<BertForTokenClassification> {
        Ok(BertForTokenClassification {
            bert: BertModel::without_pooler(weights.at("bert"), config)?,
            classifier: Linear::new(weights.at("classifier"), config.hidden_size, config.num_labels())?,
        })
    }

    fn bert(&self) -> &BertModel {
        &self.bert
    }

    fn bert_mut(&mut self) -> &mut BertModel {
        &mut self.bert
    }
}

impl BertForTokenClassification {
    /// A logit for each token and label: `[T, C]`.
    ///
    /// # Errors
    /// When the batch does not fit the model.
    pub fn forward(&self, batch: &Batch, mode: Mode) -> Result<Tensor> {
        let config = self.config();
        let p = match config.model_type {
            ModelType::Bert => config.classifier_dropout_prob(),
            ModelType::DistilBert => config.hidden_dropout_prob,
        };
        let hidden = self.bert.forward(batch, mode)?; // [T, H]
        let dropped = hidden.dropout(&self.bert.head_dropout(p, mode)?, batch.sequences().rows())?;
        self.classifier.forward(&dropped).inside("classifier")
    }

    /// Mean cross-entropy, in nats, of the labels `[T]` of the tokens; -100 ignores one, as the later pieces of a
    /// word.
    ///
    /// # Errors
    /// As [`forward`](BertForTokenClassification::forward), and when there are not as many labels as tokens, one is
    /// out of range, or none counts.
    pub fn loss(&self, batch: &Batch, labels: &[i64], mode: Mode) -> Result<Tensor> {
        Ok(self.forward(batch, mode)?.cross_entropy(labels).inside("classifier")?)
    }
}
