//! How well a model classifies labelled data.

use cloze_bert::{
    BertForMultipleChoice, BertForNextSentencePrediction, BertForSequenceClassification, BertForTokenClassification,
    Mode,
};
use cloze_tensor::{CrossEntropy, Reduction, Tensor, no_grad};

use crate::metrics::{self, Average};
use crate::{Error, LabelledBatch, LabelledData, Result};

/// A model that chooses a class, for a sequence, a token or a question.
pub trait Classify<L> {
    /// Logits `[N, C]` of a batch, without dropout, and the N classes that are right; -100 for what has none.
    ///
    /// # Errors
    /// When the batch does not fit the model.
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

/// What a model says of labelled data, and what it should have said: of each sequence, or of each token that has a
/// label.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct ClassificationEvaluation {
    /// Mean cross-entropy, in nats.
    pub loss: f64,
    /// The most probable classes, in the order of the data.
    pub predictions: Vec<i64>,
    /// The right classes.
    pub labels: Vec<i64>,
}

impl ClassificationEvaluation {
    /// Evaluates `model` on `data`, `batch_size` examples at a time.
    ///
    /// # Errors
    /// When `batch_size` is 0, an example does not fit the model, or a label is none of its classes.
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
                evaluation.loss += logits.cross_entropy_with(&labels, sum)?.item()?;
                let said = logits.argmax()?.into_iter().map(|class| class as i64).zip(labels);
                let (predictions, labels): (Vec<i64>, Vec<i64>) =
                    said.filter(|(_, label)| *label != sum.ignore_index).unzip();
                evaluation.predictions.extend(predictions);
                evaluation.labels.extend(labels);
                Ok(())
            })?;
        }
        match evaluation.labels.len() {
            0 => Err(Error::data("evaluation", "no example has a label that counts")),
            count => Ok(ClassificationEvaluation { loss: evaluation.loss / count as f64, ..evaluation }),
        }
    }

    /// The part of the predictions that are right.
    ///
    /// # Errors
    /// None after [`run`](ClassificationEvaluation::run); see [`metrics::accuracy`].
    pub fn accuracy(&self) -> Result<f64> {
        metrics::accuracy(&self.predictions, &self.labels)
    }

    /// F1.
    ///
    /// # Errors
    /// None after [`run`](ClassificationEvaluation::run); see [`metrics::f1`].
    pub fn f1(&self, average: Average) -> Result<f64> {
        metrics::f1(&self.predictions, &self.labels, average)
    }
}
