//! Which of several endings fits? Each is paired with the beginning, and a score compares the pairs.

use cloze_tensor::{Inside as _, Tensor, module};

use super::sequence_classification::classified;
use super::{BertModel, Linear, Mode, PreTrainedModel};
use crate::weights::Weights;
use crate::{Batch, BertConfig, Error, Result};

/// BERT with a score for each choice.
#[derive(Clone)]
pub struct BertForMultipleChoice {
    /// The bare model.
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
    /// The logit of each choice of Q questions: `[Q, choices]`. The batch has `choices` sequences for each question,
    /// question after question.
    ///
    /// # Errors
    /// When the batch does not fit the model, or its sequences are no multiple of `choices`.
    pub fn forward(&self, batch: &Batch, choices: usize, mode: Mode) -> Result<Tensor> {
        if choices == 0 || !batch.len().is_multiple_of(choices) {
            let reason = format!("{} sequences are no whole number of questions with {choices} choices", batch.len());
            return Err(Error::batch(reason));
        }
        let logits = classified(&self.bert, &self.classifier, batch, mode)?; // [B, 1]
        Ok(logits.reshape(&[batch.len() / choices, choices])?)
    }

    /// Mean cross-entropy, in nats, of the right choices `labels` `[Q]`.
    ///
    /// # Errors
    /// As [`forward`](BertForMultipleChoice::forward), and when there are not as many labels as questions, or one is
    /// no choice.
    pub fn loss(&self, batch: &Batch, choices: usize, labels: &[i64], mode: Mode) -> Result<Tensor> {
        Ok(self.forward(batch, choices, mode)?.cross_entropy(labels).inside("classifier")?)
    }
}
