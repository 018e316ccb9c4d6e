//! The losses that each head learns from.

use cloze_bert::{
    BertForMaskedLM, BertForMultipleChoice, BertForNextSentencePrediction, BertForPreTraining,
    BertForQuestionAnswering, BertForSequenceClassification, BertForTokenClassification, Mode, PreTrainedModel,
    ProblemType, SentenceEncoder, SequenceLabels,
};
use cloze_tensor::{CrossEntropy, Tensor};

use crate::sentence_losses::{cosines, ranking_loss};
use crate::trainer::{Learn, LossTerm};
use crate::{LabelledBatch, PreTrainingBatch, Result};

/// Returns the cross-entropy of classes, with the settings of their data.
fn classes<L>(batch: &LabelledBatch<L>, logits: Tensor, labels: Vec<i64>, module: &'static str) -> Vec<LossTerm> {
    vec![LossTerm::CrossEntropy { logits, labels, settings: batch.loss.clone(), module }]
}

/// The masked tokens and, if the batch has labels for them, the next sentences.
impl Learn<PreTrainingBatch> for BertForPreTraining {
    fn total_weights(&self, batch: &PreTrainingBatch) -> Vec<f64> {
        let targets = batch.targets();
        let next_sentence = Some(targets.next_sentence.len()).filter(|&labels| labels > 0);
        std::iter::once(targets.labels.len()).chain(next_sentence).map(|labels| labels as f64).collect()
    }

    fn loss_terms(&self, batch: &PreTrainingBatch, mode: Mode) -> Result<Vec<LossTerm>> {
        let targets = batch.targets();
        let (cls, masked) = self.cls_and_rows(batch.batch(), &targets.rows, mode)?;
        let settings = CrossEntropy::default();
        let term = |logits, labels: &[i64], module| LossTerm::CrossEntropy {
            logits,
            labels: labels.to_vec(),
            settings: settings.clone(),
            module,
        };
        let mlm = self.cls.predictions.logits_for_loss(&masked, &self.bert.embeddings.word_embeddings.weight)?;
        let mut terms = vec![term(mlm, &targets.labels, "cls.predictions")];
        if !targets.next_sentence.is_empty() {
            terms.push(term(self.nsp_logits(&cls)?, &targets.next_sentence, "cls.seq_relationship"));
        }
        Ok(terms)
    }

    /// Without next-sentence labels, the pooler and the next-sentence head have no gradient.
    fn is_trainable(&self, name: &str, batch: &PreTrainingBatch) -> bool {
        let is_next_sentence = name.starts_with("bert.pooler.") || name.starts_with("cls.seq_relationship.");
        !is_next_sentence || !batch.targets().next_sentence.is_empty()
    }
}

/// The masked tokens; next-sentence labels are ignored.
impl Learn<PreTrainingBatch> for BertForMaskedLM {
    fn total_weights(&self, batch: &PreTrainingBatch) -> Vec<f64> {
        vec![batch.targets().labels.len() as f64]
    }

    fn loss_terms(&self, batch: &PreTrainingBatch, mode: Mode) -> Result<Vec<LossTerm>> {
        let targets = batch.targets();
        let logits = self.logits_for_loss(batch.batch(), &targets.rows, mode)?;
        let (labels, settings) = (targets.labels.clone(), CrossEntropy::default());
        Ok(vec![LossTerm::CrossEntropy { logits, labels, settings, module: "cls.predictions" }])
    }
}

/// A class per sequence: cross-entropy.
impl Learn<LabelledBatch<i64>> for BertForSequenceClassification {
    fn total_weights(&self, batch: &LabelledBatch<i64>) -> Vec<f64> {
        vec![batch.loss.total_weight(&batch.labels)]
    }

    fn loss_terms(&self, batch: &LabelledBatch<i64>, mode: Mode) -> Result<Vec<LossTerm>> {
        let logits = self.forward(&batch.batch, mode)?;
        Ok(classes(batch, logits, batch.labels.clone(), "classifier"))
    }
}

/// A number per sequence: mean squared error. If the problem type of the model is multi-label classification, it is the
/// probability that a label applies, and the loss is binary cross-entropy, as in `transformers`.
impl Learn<LabelledBatch<f32>> for BertForSequenceClassification {
    fn total_weights(&self, batch: &LabelledBatch<f32>) -> Vec<f64> {
        vec![batch.labels.len() as f64]
    }

    fn loss_terms(&self, batch: &LabelledBatch<f32>, mode: Mode) -> Result<Vec<LossTerm>> {
        let labels = batch.labels.clone();
        let labels = match self.config().named_problem_type() {
            Some(ProblemType::MultiLabel) => SequenceLabels::MultiLabel(labels),
            _ => SequenceLabels::Values(labels),
        };
        Ok(vec![LossTerm::Mean(self.loss(&batch.batch, &labels, mode)?)])
    }
}

/// Any number of labels per sequence: binary cross-entropy.
impl Learn<LabelledBatch<Vec<bool>>> for BertForSequenceClassification {
    fn total_weights(&self, batch: &LabelledBatch<Vec<bool>>) -> Vec<f64> {
        vec![batch.labels.len() as f64]
    }

    fn loss_terms(&self, batch: &LabelledBatch<Vec<bool>>, mode: Mode) -> Result<Vec<LossTerm>> {
        let labels = batch.labels.iter().flatten().map(|&applies| f32::from(u8::from(applies))).collect();
        Ok(vec![LossTerm::Mean(self.loss(&batch.batch, &SequenceLabels::MultiLabel(labels), mode)?)])
    }
}

/// A class per token: cross-entropy.
impl Learn<LabelledBatch<Vec<i64>>> for BertForTokenClassification {
    fn total_weights(&self, batch: &LabelledBatch<Vec<i64>>) -> Vec<f64> {
        vec![batch.loss.total_weight(&batch.labels.concat())]
    }

    fn loss_terms(&self, batch: &LabelledBatch<Vec<i64>>, mode: Mode) -> Result<Vec<LossTerm>> {
        Ok(classes(batch, self.forward(&batch.batch, mode)?, batch.labels.concat(), "classifier"))
    }
}

/// The first and the last token of each answer: the mean of two cross-entropies.
impl Learn<LabelledBatch<(u32, u32)>> for BertForQuestionAnswering {
    fn total_weights(&self, batch: &LabelledBatch<(u32, u32)>) -> Vec<f64> {
        vec![batch.labels.len() as f64]
    }

    fn loss_terms(&self, batch: &LabelledBatch<(u32, u32)>, mode: Mode) -> Result<Vec<LossTerm>> {
        let spans: Vec<Option<(u32, u32)>> = batch.labels.iter().copied().map(Some).collect();
        Ok(vec![LossTerm::Mean(self.loss(&batch.batch, &spans, mode)?)])
    }
}

/// The right choice of each question: cross-entropy.
impl Learn<LabelledBatch<i64>> for BertForMultipleChoice {
    fn total_weights(&self, batch: &LabelledBatch<i64>) -> Vec<f64> {
        vec![batch.loss.total_weight(&batch.labels)]
    }

    fn loss_terms(&self, batch: &LabelledBatch<i64>, mode: Mode) -> Result<Vec<LossTerm>> {
        let logits = self.forward(&batch.batch, batch.choices(), mode)?;
        Ok(classes(batch, logits, batch.labels.clone(), "classifier"))
    }
}

/// Label 0 if the second sentence follows the first, 1 if it does not: cross-entropy.
impl Learn<LabelledBatch<i64>> for BertForNextSentencePrediction {
    fn total_weights(&self, batch: &LabelledBatch<i64>) -> Vec<f64> {
        vec![batch.loss.total_weight(&batch.labels)]
    }

    fn loss_terms(&self, batch: &LabelledBatch<i64>, mode: Mode) -> Result<Vec<LossTerm>> {
        let logits = self.forward(&batch.batch, mode)?;
        Ok(classes(batch, logits, batch.labels.clone(), "cls.seq_relationship"))
    }
}

/// The similarity of two sentences, in [-1, 1]: the mean squared error of their cosine.
///
/// Source: N. Reimers, I. Gurevych, "Sentence-BERT", 2019, section 3; `CosineSimilarityLoss` of `sentence-transformers`.
impl Learn<LabelledBatch<f32>> for SentenceEncoder {
    fn total_weights(&self, batch: &LabelledBatch<f32>) -> Vec<f64> {
        vec![batch.labels.len() as f64]
    }

    fn loss_terms(&self, batch: &LabelledBatch<f32>, mode: Mode) -> Result<Vec<LossTerm>> {
        Ok(vec![LossTerm::Mean(cosines(self, batch, mode)?.mean_squared_error(&batch.labels)?)])
    }
}

/// Pairs of sentences that belong together: cross-entropy over the second sentences of the batch.
impl Learn<LabelledBatch<()>> for SentenceEncoder {
    fn total_weights(&self, batch: &LabelledBatch<()>) -> Vec<f64> {
        vec![batch.labels.len() as f64]
    }

    fn loss_terms(&self, batch: &LabelledBatch<()>, mode: Mode) -> Result<Vec<LossTerm>> {
        Ok(vec![LossTerm::Mean(ranking_loss(self, batch, mode)?)])
    }

    fn compares_examples(&self) -> bool {
        true
    }
}
