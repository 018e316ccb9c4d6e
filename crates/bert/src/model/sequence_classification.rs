//! What kind of text is it? Classes, several labels at once, or numbers, from the pooled `[CLS]` or mean.

use cloze_tensor::{Inside as _, Pooling, Tensor, module};

use super::{BertModel, Linear, Mode, PreTrainedModel, Rows};
use crate::error::Inside as _;
use crate::weights::Weights;
use crate::{Batch, BertConfig, ClassifierPooling, Result};

/// BERT with a classifier of sequences.
#[derive(Clone)]
pub struct BertForSequenceClassification {
    /// The bare model.
    pub bert: BertModel,
    /// `[C, H]`, for C labels.
    pub classifier: Linear,
}
module!(BertForSequenceClassification { bert, classifier });

/// What a classifier should have said of a batch. Each kind has its loss.
#[derive(Clone, Debug, PartialEq)]
pub enum SequenceLabels {
    /// One class for each sequence, `[B]`; -100 is ignored. Cross-entropy.
    Classes(Vec<i64>),
    /// For each sequence and label whether it applies, 1 or 0, or how probably: `[B, C]`, row after row. Binary
    /// cross-entropy.
    MultiLabel(Vec<f32>),
    /// Numbers, `[B, C]`, row after row: regression. Mean squared error.
    Values(Vec<f32>),
}

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
    /// A logit (for regression, the value) for each sequence and label: `[B, C]`.
    ///
    /// # Errors
    /// When the batch does not fit the model.
    pub fn forward(&self, batch: &Batch, mode: Mode) -> Result<Tensor> {
        classified(&self.bert, &self.classifier, batch, mode)
    }

    /// The mean loss of a batch, by the kind of labels; cross-entropies in nats.
    ///
    /// # Errors
    /// As [`forward`](BertForSequenceClassification::forward), and when the labels are not as many as they should
    /// be, or one is no class.
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

/// `[CLS]` of each sequence, or the mean of its tokens, through the pooler, dropped, through a classifier: `[B, C]`.
pub(super) fn classified(bert: &BertModel, classifier: &Linear, batch: &Batch, mode: Mode) -> Result<Tensor> {
    let rows = Rows::cls(batch.sequences());
    let seen = match bert.config().classifier_pooling() {
        ClassifierPooling::Cls => bert.forward_rows(batch, &rows, mode)?,
        ClassifierPooling::Mean => bert.forward(batch, mode)?.pool(batch.sequences(), Pooling::Mean)?,
    };
    let pooled = bert.pool(&seen)?; // [B, H]
    let dropout = bert.head_dropout(bert.config().classifier_dropout_prob(), mode)?;
    classifier.forward(&pooled.dropout(&dropout, rows.coordinates())?).inside("classifier")
}
