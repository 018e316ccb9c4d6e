//! Evaluation of classifiers on labelled data.

use cloze_bert::{
    BertForMultipleChoice, BertForNextSentencePrediction, BertForSequenceClassification, BertForTokenClassification,
    Mode,
};
use cloze_tensor::{CrossEntropy, Reduction, Tensor, no_grad};

use crate::metrics::{self, Average};
use crate::{Error, LabelledBatch, LabelledData, Result};

/// A model that predicts a class for each sequence, token or question.
pub trait Classify<L> {
    /// Returns the logits `[N, C]` of a batch, computed without dropout, and the N labels, with -100 for what has none.
    ///
    /// # Errors
    /// Returns an error if the batch does not fit the model.
    fn classify(&self, batch: &LabelledBatch<L>) -> Result<(Tensor, Vec<i64>)>;
}

impl Classify<i64> for BertForSequenceClassification {
    fn classify(&self, batch: &LabelledBatch<i64>) -> Result<(Tensor, Vec<i64>)> {
        Ok((self.forward(&batch.batch, Mode::Eval)?, batch.labels.clone()))
    }
}

impl Classify<i64> for BertForNextSentencePrediction {
    fn classify(&self, batch: &LabelledBatch<i64>) -> Result<(Tensor, Vec<i64>)> {
        Ok((self.forward(&batch.batch, Mode::Eval)?, batch.labels.clone()))
    }
}

impl Classify<i64> for BertForMultipleChoice {
    fn classify(&self, batch: &LabelledBatch<i64>) -> Result<(Tensor, Vec<i64>)> {
        Ok((self.forward(&batch.batch, batch.choices(), Mode::Eval)?, batch.labels.clone()))
    }
}

impl Classify<Vec<i64>> for BertForTokenClassification {
    fn classify(&self, batch: &LabelledBatch<Vec<i64>>) -> Result<(Tensor, Vec<i64>)> {
        Ok((self.forward(&batch.batch, Mode::Eval)?, batch.labels.concat()))
    }
}

/// Predictions of a model on labelled data, with the labels: one of each per sequence, or per token that has a label.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct ClassificationEvaluation {
    /// Mean cross-entropy, in nats.
    pub loss: f64,
    /// The most probable classes, in the order of the data.
    pub predictions: Vec<i64>,
    /// The true classes.
    pub labels: Vec<i64>,
}

impl ClassificationEvaluation {
    /// Evaluates `model` on `data`, `batch_size` examples at a time.
    ///
    /// # Errors
    /// Returns an error if `batch_size` is 0, an example does not fit the model, a label is not one of its classes, or
    /// no example has a label.
    pub fn run<L: Clone>(
        model: &impl Classify<L>,
        data: &LabelledData<L>,
        batch_size: usize,
    ) -> Result<ClassificationEvaluation> {
        let sum = CrossEntropy { reduction: Reduction::Sum, ..CrossEntropy::default() };
        let mut evaluation = ClassificationEvaluation::default();
        for batch in data.batches(batch_size)? {
            let batch = batch?;
            no_grad(|| -> Result<()> {
                let (logits, labels) = model.classify(&batch)?;
                evaluation.loss += logits.cross_entropy_with(&labels, &sum)?.item()?;
                let pairs = logits.argmax()?.into_iter().map(|class| class as i64).zip(labels);
                let (predictions, labels): (Vec<i64>, Vec<i64>) =
                    pairs.filter(|(_, label)| *label != sum.ignore_index).unzip();
                evaluation.predictions.extend(predictions);
                evaluation.labels.extend(labels);
                Ok(())
            })?;
        }
        match evaluation.labels.len() {
            0 => Err(Error::data("evaluation", "no example has a label: all are ignored")),
            count => Ok(ClassificationEvaluation { loss: evaluation.loss / count as f64, ..evaluation }),
        }
    }

    /// Returns the fraction of predictions that equal their label.
    ///
    /// # Errors
    /// Never fails on the result of [`run`](ClassificationEvaluation::run); see [`metrics::accuracy`].
    pub fn accuracy(&self) -> Result<f64> {
        metrics::accuracy(&self.predictions, &self.labels)
    }

    /// Returns the F1 score, averaged over classes as `average` says.
    ///
    /// # Errors
    /// Never fails on the result of [`run`](ClassificationEvaluation::run); see [`metrics::f1`].
    pub fn f1(&self, average: Average) -> Result<f64> {
        metrics::f1(&self.predictions, &self.labels, average)
    }
}
