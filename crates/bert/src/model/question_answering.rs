//! Where in the text is the answer? Scores of each token as the first and as the last one of it.

use cloze_tensor::{CrossEntropy, Inside as _, Reduction, Tensor, module};

use super::{BertModel, Linear, Mode, PreTrainedModel};
use crate::error::Inside as _;
use crate::weights::Weights;
use crate::{Batch, BertConfig, Error, Result};

/// BERT with a head that points at spans.
#[derive(Clone)]
pub struct BertForQuestionAnswering {
    /// The bare model.
    pub bert: BertModel,
    /// `[2, H]`: start and end.
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
    /// For each token the logits of being the first and the last one of the answer: `[T, 2]`.
    ///
    /// # Errors
    /// When the batch does not fit the model.
    pub fn forward(&self, batch: &Batch, mode: Mode) -> Result<Tensor> {
        let hidden = self.bert.forward(batch, mode)?; // [T, H]
        let dropout = self.bert.head_dropout(self.config().qa_dropout_prob(), mode)?;
        self.qa_outputs.forward(&hidden.dropout(&dropout, batch.sequences().rows())?).inside("qa_outputs")
    }

    /// The mean of two cross-entropies, in nats: of the first and of the last token of each answer among the tokens
    /// of its sequence. `spans` has for each sequence the two positions in it, `(0, 0)`, the `[CLS]`, where there is
    /// no answer; `None` leaves a sequence out.
    ///
    /// `transformers` lets a batch's padding into the softmax, so that its loss depends on what a sequence is
    /// batched with. Here, as in everything, there is no padding.
    ///
    /// # Errors
    /// As [`forward`](BertForQuestionAnswering::forward), and when there are not as many spans as sequences, one
    /// lies outside its sequence, or all are `None`.
    pub fn loss(&self, batch: &Batch, spans: &[Option<(u32, u32)>], mode: Mode) -> Result<Tensor> {
        if spans.len() != batch.len() {
            return Err(Error::batch(format!("{} spans given for {} sequences", spans.len(), batch.len())));
        }
        let answered = spans.iter().flatten().count();
        let settings = CrossEntropy { reduction: Reduction::Divide(2.0 * answered as f64), ..CrossEntropy::default() };
        let logits = self.forward(batch, mode)?; // [T, 2]
        let mut sum: Option<Tensor> = None;
        for (ends, span) in batch.sequences().cu_seqlens().windows(2).zip(spans) {
            let &Some((first, last)) = span else { continue };
            let own = logits.narrow(0, ends[0] as usize, (ends[1] - ends[0]) as usize)?.t()?; // [2, L]
            let loss = own.cross_entropy_with(&[first.into(), last.into()], settings).inside("qa_outputs")?;
            sum = Some(sum.map_or(Ok(loss.clone()), |sum| sum.add(&loss))?);
        }
        sum.ok_or_else(|| Error::batch("no sequence has a span, so there is no mean loss: give at least one"))
    }
}
