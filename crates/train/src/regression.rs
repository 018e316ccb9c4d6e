//! Evaluation of models that predict numbers.

use cloze_bert::{BertForSequenceClassification, Mode, SentenceEncoder};
use cloze_tensor::no_grad;

use crate::sentence_losses::cosines;
use crate::{Error, LabelledBatch, LabelledData, Result, metrics};

/// A model that predicts a number for each example.
pub trait Regress {
    /// Returns a number for each example of a batch, computed without dropout.
    ///
    /// # Errors
    /// Returns an error if the batch does not fit the model.
    fn regress(&self, batch: &LabelledBatch<f32>) -> Result<Vec<f32>>;
}

impl Regress for BertForSequenceClassification {
    fn regress(&self, batch: &LabelledBatch<f32>) -> Result<Vec<f32>> {
        Ok(self.forward(&batch.batch, Mode::Eval)?.to_vec()?)
    }
}

/// Predicts the cosine similarity of the two sentences of each pair.
impl Regress for SentenceEncoder {
    fn regress(&self, batch: &LabelledBatch<f32>) -> Result<Vec<f32>> {
        Ok(cosines(self, batch, Mode::Eval)?.to_vec()?)
    }
}

/// Numbers predicted by a model on labelled data, with the labels.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct RegressionEvaluation {
    /// Mean squared error.
    pub loss: f64,
    /// The predicted numbers, in the order of the data.
    pub predictions: Vec<f64>,
    /// The true numbers.
    pub labels: Vec<f64>,
}

impl RegressionEvaluation {
    /// Evaluates `model` on `data`, `batch_size` examples at a time.
    ///
    /// # Errors
    /// Returns an error if `batch_size` is 0, an example does not fit the model, or the model does not predict exactly
    /// one number per example.
    pub fn run(model: &impl Regress, data: &LabelledData<f32>, batch_size: usize) -> Result<RegressionEvaluation> {
        let mut evaluation = RegressionEvaluation::default();
        for batch in data.batches(batch_size)? {
            let batch = batch?;
            let predictions = no_grad(|| model.regress(&batch))?;
            if predictions.len() != batch.labels.len() {
                let each = predictions.len() / batch.labels.len().max(1);
                let why = format!("the model predicts {each} numbers per example, regression needs 1");
                return Err(Error::data("evaluation", why));
            }
            evaluation.predictions.extend(predictions.into_iter().map(f64::from));
            evaluation.labels.extend(batch.labels.into_iter().map(f64::from));
        }
        let pairs = evaluation.predictions.iter().zip(&evaluation.labels);
        let squares = pairs.map(|(prediction, label)| (prediction - label).powi(2));
        evaluation.loss = squares.sum::<f64>() / evaluation.labels.len() as f64;
        Ok(evaluation)
    }

    /// Returns the Pearson correlation of predictions and labels.
    ///
    /// # Errors
    /// Never fails on the result of [`run`](RegressionEvaluation::run); see [`metrics::pearson`].
    pub fn pearson(&self) -> Result<f64> {
        metrics::pearson(&self.predictions, &self.labels)
    }

    /// Returns the Spearman rank correlation of predictions and labels.
    ///
    /// # Errors
    /// Never fails on the result of [`run`](RegressionEvaluation::run); see [`metrics::spearman`].
    pub fn spearman(&self) -> Result<f64> {
        metrics::spearman(&self.predictions, &self.labels)
    }
}
