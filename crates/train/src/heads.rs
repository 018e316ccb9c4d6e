//! Every head joined to the trainer: what each learns from.

use cloze_bert::{
    BertForMaskedLM, BertForMultipleChoice, BertForNextSentencePrediction, BertForQuestionAnswering,
    BertForSequenceClassification, BertForTokenClassification, Mode, SequenceLabels,
};
use cloze_tensor::Tensor;

use crate::trainer::Learn;
use crate::{LabelledBatch, PackedExamples, Result};

/// A class for each sequence: cross-entropy.
impl Learn<LabelledBatch<i64>> for BertForSequenceClassification {
    fn loss(&self, batch: &LabelledBatch<i64>, mode: Mode) -> Result<Tensor> {
        Ok(self.loss(&batch.batch, &SequenceLabels::Classes(batch.labels.clone()), mode)?)
    }
}

/// A number for each sequence: mean squared error.
impl Learn<LabelledBatch<f32>> for BertForSequenceClassification {
    fn loss(&self, batch: &LabelledBatch<f32>, mode: Mode) -> Result<Tensor> {
        Ok(self.loss(&batch.batch, &SequenceLabels::Values(batch.labels.clone()), mode)?)
    }
}

/// For each sequence, which labels apply: binary cross-entropy.
impl Learn<LabelledBatch<Vec<bool>>> for BertForSequenceClassification {
    fn loss(&self, batch: &LabelledBatch<Vec<bool>>, mode: Mode) -> Result<Tensor> {
        let labels = batch.labels.iter().flatten().map(|&applies| f32::from(u8::from(applies))).collect();
        Ok(self.loss(&batch.batch, &SequenceLabels::MultiLabel(labels), mode)?)
    }
}

/// A class for each token: cross-entropy.
impl Learn<LabelledBatch<Vec<i64>>> for BertForTokenClassification {
    fn loss(&self, batch: &LabelledBatch<Vec<i64>>, mode: Mode) -> Result<Tensor> {
        Ok(self.loss(&batch.batch, &batch.labels.concat(), mode)?)
    }
}

/// The first and the last token of each answer: the mean of two cross-entropies.
impl Learn<LabelledBatch<(u32, u32)>> for BertForQuestionAnswering {
    fn loss(&self, batch: &LabelledBatch<(u32, u32)>, mode: Mode) -> Result<Tensor> {
        let spans: Vec<Option<(u32, u32)>> = batch.labels.iter().copied().map(Some).collect();
        Ok(self.loss(&batch.batch, &spans, mode)?)
    }
}

/// The right choice of each question: cross-entropy.
impl Learn<LabelledBatch<i64>> for BertForMultipleChoice {
    fn loss(&self, batch: &LabelledBatch<i64>, mode: Mode) -> Result<Tensor> {
        Ok(self.loss(&batch.batch, batch.choices(), &batch.labels, mode)?)
    }
}

/// 0 where the second sentence follows the first, 1 where not: cross-entropy.
impl Learn<LabelledBatch<i64>> for BertForNextSentencePrediction {
    fn loss(&self, batch: &LabelledBatch<i64>, mode: Mode) -> Result<Tensor> {
        Ok(self.loss(&batch.batch, &batch.labels, mode)?)
    }
}

/// The masked words alone: labels of next sentences are not looked at.
impl Learn<PackedExamples> for BertForMaskedLM {
    fn loss(&self, batch: &PackedExamples, mode: Mode) -> Result<Tensor> {
        Ok(self.loss(&batch.to_batch()?, &batch.target_rows, &batch.target_ids, mode)?)
    }
}
