//! Classification of sequences: one class, several labels or numbers per sequence, from the pooled `[CLS]` or mean.

use cloze_tensor::{Inside as _, Tensor, module};

use super::{BertModel, Linear, Mode, PreTrainedModel};
use crate::weights::Weights;
use crate::{Batch, BertConfig, Result};

/// BERT with a classifier of sequences.
#[derive(Clone)]
pub struct BertForSequenceClassification {
    /// The bare model, with a pooler.
    pub bert: BertModel,
    /// `[C, H]`, for C labels
    pub classifier: Linear,
}
module!(BertForSequenceClassification { bert, classifier });

impl PreTrainedModel for BertForSequenceClassification {
    const ARCHITECTURE: &'static str = "BertForSequenceClassification";

    fn build(weights: Weights<'_>, config: &BertConfig) -> Result<BertForSequenceClassification> {
        Ok(BertForSequenceClassification {
            bert: BertModel::with_pooler(weights.at("bert"), config)?,
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

impl BertForSequenceClassification {
    /// Computes a logit (for regression, the value) for each sequence and label: `[B, C]`.
    ///
    /// # Errors
    /// Returns an error if the batch does not fit the model.
    pub fn forward(&self, batch: &Batch, mode: Mode) -> Result<Tensor> {
        self.classifier.forward(&self.bert.pooled_for_head(batch, mode)?).inside("classifier")
    }

    /// Computes the mean loss of a batch, which depends on the kind of labels. Cross-entropies are in nats.
    ///
    /// # Errors
    /// Returns an error like [`forward`](BertForSequenceClassification::forward), and if the number of labels does not
    /// match the batch or a label is out of range.
    pub fn loss(&self, batch: &Batch, labels: &SequenceLabels, mode: Mode) -> Result<Tensor> {
        let logits = self.forward(batch, mode)?; // [B, C]
        let loss = || match labels {
            SequenceLabels::Classes(classes) => logits.cross_entropy(classes),
            SequenceLabels::MultiLabel(labels) => logits.binary_cross_entropy(labels),
            SequenceLabels::Values(values) => logits.mean_squared_error(values),
        };
        Ok(loss().inside("classifier")?)
    }
}

/// The labels of a batch of sequences. Each kind has its loss.
#[derive(Clone, Debug, PartialEq)]
pub enum SequenceLabels {
    /// One class per sequence, `[B]`; -100 is ignored. The loss is cross-entropy.
    Classes(Vec<i64>),
    /// Whether each label applies to each sequence, 1 or 0, or with which probability: `[B, C]`, row-major. The loss
    /// is binary cross-entropy.
    MultiLabel(Vec<f32>),
    /// Numbers to regress, `[B, C]`, row-major. The loss is the mean squared error.
    Values(Vec<f32>),
}
