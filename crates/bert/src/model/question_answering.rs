//! Extractive question answering: scoring each token as the first and as the last one of the answer.

use cloze_tensor::{CrossEntropy, Inside as _, Reduction, Tensor, module};

use super::{BertModel, Linear, Mode, PreTrainedModel};
use crate::weights::Weights;
use crate::{Batch, BertConfig, Error, Result};

/// BERT with a head that points at spans.
#[derive(Clone)]
pub struct BertForQuestionAnswering {
    /// The bare model, without a pooler.
    pub bert: BertModel,
    /// `[2, H]`: first and last token.
    pub qa_outputs: Linear,
}
module!(BertForQuestionAnswering { bert, qa_outputs });

impl PreTrainedModel for BertForQuestionAnswering {
    const ARCHITECTURE: &'static str = "BertForQuestionAnswering";

    fn build(weights: Weights<'_>, config: &BertConfig) -> Result<BertForQuestionAnswering> {
        Ok(BertForQuestionAnswering {
            bert: BertModel::without_pooler(weights.at("bert"), config)?,
            qa_outputs: Linear::new(weights.at("qa_outputs"), config.hidden_size, 2)?,
        })
    }

    fn bert(&self) -> &BertModel {
        &self.bert
    }

    fn bert_mut(&mut self) -> &mut BertModel {
        &mut self.bert
    }
}

impl BertForQuestionAnswering {
    /// Computes for each token the logits of being the first and the last one of the answer: `[T, 2]`.
    ///
    /// # Errors
    /// Returns an error if the batch does not fit the model.
    pub fn forward(&self, batch: &Batch, mode: Mode) -> Result<Tensor> {
        let p = self.config().qa_dropout_prob();
        self.qa_outputs.forward(&self.bert.tokens_for_head(batch, p, mode)?).inside("qa_outputs")
    }

    /// Computes the mean of two cross-entropies, in nats: that of the first and that of the last token of each answer
    /// among the tokens of its sequence. `spans` has both positions within each sequence: `(0, 0)`, the `[CLS]`, if
    /// there is no answer; `None` to ignore the sequence.
    ///
    /// In `transformers` the padding of a batch enters the softmax, so the loss of a sequence depends on the others in
    /// its batch. A packed batch has no padding.
    ///
    /// # Errors
    /// Returns an error like [`forward`](BertForQuestionAnswering::forward), and if the number of spans differs from
    /// the number of sequences, a span is outside its sequence, or all are `None`.
    pub fn loss(&self, batch: &Batch, spans: &[Option<(u32, u32)>], mode: Mode) -> Result<Tensor> {
        if spans.len() != batch.len() {
            return Err(Error::batch(format!("{} spans for {} sequences", spans.len(), batch.len())));
        }
        let answered = spans.iter().flatten().count();
        let settings = CrossEntropy { reduction: Reduction::Divide(2.0 * answered as f64), ..CrossEntropy::default() };
        let logits = self.forward(batch, mode)?; // [T, 2]
        let mut sum: Option<Tensor> = None;
        for (ends, span) in batch.sequences().cu_seqlens().windows(2).zip(spans) {
            let &Some((first, last)) = span else { continue };
            let own = logits.narrow(0, ends[0] as usize, (ends[1] - ends[0]) as usize)?.t()?; // [2, L]
            let loss = own.cross_entropy_with(&[first.into(), last.into()], &settings).inside("qa_outputs")?;
            sum = Some(sum.map_or(Ok(loss.clone()), |sum| sum.add(&loss))?);
        }
        sum.ok_or_else(|| Error::batch("no sequence has a span: at least one is needed for a mean loss"))
    }
}
