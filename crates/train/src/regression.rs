//! How well a model predicts numbers.

use cloze_bert::{BertForSequenceClassification, Mode, SentenceEncoder};
use cloze_tensor::no_grad;

use crate::sentence_losses::cosines;
use crate::{Error, LabelledBatch, LabelledData, Result, metrics};

/// A model that says a number of each example.
pub trait Regress {
    /// A number for each example of a batch, without dropout.
    ///
    /// # Errors
    /// When the batch does not fit the model.
    fn regress(&self, batch: &LabelledBatch<f32>) -> Result<Vec<f32>>;
}

impl Regress for BertForSequenceClassification {
    fn regress(&self, batch: &LabelledBatch<f32>) -> Result<Vec<f32>> {
        Ok(self.forward(&batch.batch, Mode::Eval)?.to_vec()?)
    }
}

/// The cosine of the sentences of each pair.
impl Regress for SentenceEncoder {
    fn regress(&self, batch: &LabelledBatch<f32>) -> Result<Vec<f32>> {
        Ok(cosines(self, batch, Mode::Eval)?.to_vec()?)
    }
}

/// The numbers that a model says of labelled data, and those it should have said.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct RegressionEvaluation {
    /// Mean squared error.
    pub loss: f64,
    /// What the model says, in the order of the data.
    pub predictions: Vec<f64>,
    /// What is right.
    pub labels: Vec<f64>,
}

impl RegressionEvaluation {
    /// Evaluates `model` on `data`, `batch_size` examples at a time.
    ///
    /// # Errors
    /// When `batch_size` is 0, an example does not fit the model, or the model says more than one number of each.
    pub fn run(model: &impl Regress, data: &LabelledData<f32>, batch_size: usize) -> Result<RegressionEvaluation> {
        let mut evaluation = RegressionEvaluation::default();
        for batch in data.batches(batch_size)? {
            let batch = batch?;
            let said = no_grad(|| model.regress(&batch))?;
            if said.len() != batch.labels.len() {
                let each = said.len() / batch.labels.len().max(1);
                return Err(Error::data(
                    "evaluation",
                    format!("the model says {each} numbers of an example, must be 1"),
                ));
            }
            evaluation.predictions.extend(said.into_iter().map(f64::from));
            evaluation.labels.extend(batch.labels.into_iter().map(f64::from));
        }
        let pairs = evaluation.predictions.iter().zip(&evaluation.labels);
        evaluation.loss =
            pairs.map(|(said, right)| (said - right).powi(2)).sum::<f64>() / evaluation.labels.len() as f64;
        Ok(evaluation)
    }

    /// Pearson's correlation.
    ///
    /// # Errors
    /// None after [`run`](RegressionEvaluation::run); see [`metrics::pearson`].
    pub fn pearson(&self) -> Result<f64> {
        metrics::pearson(&self.predictions, &self.labels)
    }

    /// Spearman's correlation.
    ///
    /// # Errors
    /// None after [`run`](RegressionEvaluation::run); see [`metrics::spearman`].
    pub fn spearman(&self) -> Result<f64> {
        metrics::spearman(&self.predictions, &self.labels)
    }
}
