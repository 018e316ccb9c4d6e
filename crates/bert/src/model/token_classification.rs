//! Classification of tokens, for example named entities or parts of speech.

use cloze_tensor::{Inside as _, Tensor, module};

use super::{BertModel, Linear, Mode, PreTrainedModel};
use crate::weights::Weights;
use crate::{Batch, BertConfig, ModelType, Result};

/// BERT with a classifier of tokens.
#[derive(Clone)]
pub struct BertForTokenClassification {
    /// The bare model, without a pooler.
    pub bert: BertModel,
    /// `[C, H]`, for C labels
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
    /// Computes a logit for each token and label: `[T, C]`.
    ///
    /// # Errors
    /// Returns an error if the batch does not fit the model.
    pub fn forward(&self, batch: &Batch, mode: Mode) -> Result<Tensor> {
        let config = self.config();
        let p = match config.model_type {
            ModelType::Bert => config.classifier_dropout_prob(),
            ModelType::DistilBert => config.hidden_dropout_prob,
        };
        self.classifier.forward(&self.bert.tokens_for_head(batch, p, mode)?).inside("classifier")
    }

    /// Computes the mean cross-entropy, in nats, of the labels of the tokens, `[T]`. The label -100 is ignored, for
    /// example at the continuation pieces of a word.
    ///
    /// # Errors
    /// Returns an error like [`forward`](BertForTokenClassification::forward), and if the number of labels differs
    /// from the number of tokens, a label is out of range, or all are ignored.
    pub fn loss(&self, batch: &Batch, labels: &[i64], mode: Mode) -> Result<Tensor> {
        Ok(self.forward(batch, mode)?.cross_entropy(labels).inside("classifier")?)
    }
}
