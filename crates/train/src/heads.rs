//! Every head joined to the trainer: what each learns from.

use cloze_bert::{
    BertForMaskedLM, BertForMultipleChoice, BertForNextSentencePrediction, BertForQuestionAnswering,
    BertForSequenceClassification, BertForTokenClassification, Mode, SequenceLabels,
};
use cloze_tensor::{CrossEntropy, Tensor};

use crate::trainer::{Learn, share};
use crate::{LabelledBatch, PackedExamples, Result};

/// Labels that count: -100 does not.
fn classes(labels: &[i64]) -> usize {
    let ignored = CrossEntropy::default().ignore_index;
    labels.iter().filter(|&&label| label != ignored).count()
}

/// A class for each sequence: cross-entropy.
impl Learn<LabelledBatch<i64>> for BertForSequenceClassification {
    fn counts(&self, batch: &LabelledBatch<i64>) -> Vec<usize> {
        vec![classes(&batch.labels)]
    }

    fn loss(&self, batch: &LabelledBatch<i64>, counts: &[usize], mode: Mode) -> Result<Tensor> {
        let labels = SequenceLabels::Classes(batch.labels.clone());
        share(self.loss(&batch.batch, &labels, mode)?, classes(&batch.labels), counts)
    }
}

/// A number for each sequence: mean squared error.
impl Learn<LabelledBatch<f32>> for BertForSequenceClassification {
    fn counts(&self, batch: &LabelledBatch<f32>) -> Vec<usize> {
        vec![batch.labels.len()]
    }

    fn loss(&self, batch: &LabelledBatch<f32>, counts: &[usize], mode: Mode) -> Result<Tensor> {
        let labels = SequenceLabels::Values(batch.labels.clone());
        share(self.loss(&batch.batch, &labels, mode)?, batch.labels.len(), counts)
    }
}

/// For each sequence, which labels apply: binary cross-entropy.
impl Learn<LabelledBatch<Vec<bool>>> for BertForSequenceClassification {
    fn counts(&self, batch: &LabelledBatch<Vec<bool>>) -> Vec<usize> {
        vec![batch.labels.len()]
    }

    fn loss(&self, batch: &LabelledBatch<Vec<bool>>, counts: &[usize], mode: Mode) -> Result<Tensor> {
        let labels = batch.labels.iter().flatten().map(|&applies| f32::from(u8::from(applies))).collect();
        let mean = self.loss(&batch.batch, &SequenceLabels::MultiLabel(labels), mode)?;
        share(mean, batch.labels.len(), counts)
    }
}

/// A class for each token: cross-entropy.
impl Learn<LabelledBatch<Vec<i64>>> for BertForTokenClassification {
    fn counts(&self, batch: &LabelledBatch<Vec<i64>>) -> Vec<usize> {
        vec![batch.labels.iter().map(|labels| classes(labels)).sum()]
    }

    fn loss(&self, batch: &LabelledBatch<Vec<i64>>, counts: &[usize], mode: Mode) -> Result<Tensor> {
        let labels = batch.labels.concat();
        share(self.loss(&batch.batch, &labels, mode)?, classes(&labels), counts)
    }
}

/// The first and the last token of each answer: the mean of two cross-entropies.
impl Learn<LabelledBatch<(u32, u32)>> for BertForQuestionAnswering {
    fn counts(&self, batch: &LabelledBatch<(u32, u32)>) -> Vec<usize> {
        vec![batch.labels.len()]
    }

    fn loss(&self, batch: &LabelledBatch<(u32, u32)>, counts: &[usize], mode: Mode) -> Result<Tensor> {
        let spans: Vec<Option<(u32, u32)>> = batch.labels.iter().copied().map(Some).collect();
        share(self.loss(&batch.batch, &spans, mode)?, spans.len(), counts)
    }
}

/// The right choice of each question: cross-entropy.
impl Learn<LabelledBatch<i64>> for BertForMultipleChoice {
    fn counts(&self, batch: &LabelledBatch<i64>) -> Vec<usize> {
        vec![classes(&batch.labels)]
    }

    fn loss(&self, batch: &LabelledBatch<i64>, counts: &[usize], mode: Mode) -> Result<Tensor> {
        let mean = self.loss(&batch.batch, batch.choices(), &batch.labels, mode)?;
        share(mean, classes(&batch.labels), counts)
    }
}

/// 0 where the second sentence follows the first, 1 where not: cross-entropy.
impl Learn<LabelledBatch<i64>> for BertForNextSentencePrediction {
    fn counts(&self, batch: &LabelledBatch<i64>) -> Vec<usize> {
        vec![classes(&batch.labels)]
    }

    fn loss(&self, batch: &LabelledBatch<i64>, counts: &[usize], mode: Mode) -> Result<Tensor> {
        share(self.loss(&batch.batch, &batch.labels, mode)?, classes(&batch.labels), counts)
    }
}

/// The masked words alone: labels of next sentences are not looked at.
impl Learn<PackedExamples> for BertForMaskedLM {
    fn counts(&self, batch: &PackedExamples) -> Vec<usize> {
        vec![batch.target_ids.len()]
    }

    fn loss(&self, batch: &PackedExamples, counts: &[usize], mode: Mode) -> Result<Tensor> {
        let mean = self.loss(&batch.to_batch()?, &batch.target_rows, &batch.target_ids, mode)?;
        share(mean, batch.target_ids.len(), counts)
    }
}
