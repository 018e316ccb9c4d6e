//! Multiple choice: scoring several continuations of the same text, each paired with it in a sequence.

use cloze_tensor::{Inside as _, Tensor, module};

use super::{BertModel, Linear, Mode, PreTrainedModel};
use crate::weights::Weights;
use crate::{Batch, BertConfig, Error, Result};

/// BERT with a score for each choice.
#[derive(Clone)]
pub struct BertForMultipleChoice {
    /// The bare model, with a pooler.
    pub bert: BertModel,
    /// `[1, H]`
    pub classifier: Linear,
}
module!(BertForMultipleChoice { bert, classifier });

impl PreTrainedModel for BertForMultipleChoice {
    const ARCHITECTURE: &'static str = "BertForMultipleChoice";

    fn build(weights: Weights<'_>, config: &BertConfig) -> Result<BertForMultipleChoice> {
        Ok(BertForMultipleChoice {
            bert: BertModel::with_pooler(weights.at("bert"), config)?,
            classifier: Linear::new(weights.at("classifier"), config.hidden_size, 1)?,
        })
    }

    fn bert(&self) -> &BertModel {
        &self.bert
    }

    fn bert_mut(&mut self) -> &mut BertModel {
        &mut self.bert
    }
}

impl BertForMultipleChoice {
    /// Computes the logit of each choice of Q questions: `[Q, choices]`. The batch has `choices` sequences per
    /// question, question after question.
    ///
    /// # Errors
    /// Returns an error if the batch does not fit the model or its length is not a multiple of `choices`.
    pub fn forward(&self, batch: &Batch, choices: usize, mode: Mode) -> Result<Tensor> {
        if choices == 0 || !batch.len().is_multiple_of(choices) {
            let reason = format!("{} sequences are not a multiple of {choices} choices", batch.len());
            return Err(Error::batch(reason));
        }
        let input = self.bert.pooled_for_head(batch, mode)?; // [B, H]
        let logits = self.classifier.forward(&input).inside("classifier")?; // [B, 1]
        Ok(logits.reshape(&[batch.len() / choices, choices])?)
    }

    /// Computes the mean cross-entropy, in nats, of the correct choices `labels`, `[Q]`.
    ///
    /// # Errors
    /// Returns an error like [`forward`](BertForMultipleChoice::forward), and if the number of labels differs from the
    /// number of questions or a label is out of range.
    pub fn loss(&self, batch: &Batch, choices: usize, labels: &[i64], mode: Mode) -> Result<Tensor> {
        Ok(self.forward(batch, choices, mode)?.cross_entropy(labels).inside("classifier")?)
    }
}
