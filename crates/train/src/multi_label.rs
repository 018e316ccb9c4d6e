//! Evaluation of classifiers of several labels that may all apply.

use cloze_bert::{BertForSequenceClassification, Mode, PreTrainedModel};
use cloze_tensor::no_grad;

use crate::metrics::{self, MultiLabelScores};
use crate::{Error, LabelledData, Result};

/// The labels that a model predicts for labelled data, with the true ones. A label is predicted if its probability is
/// above a half.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct MultiLabelEvaluation {
    /// Mean binary cross-entropy over examples and labels, in nats.
    pub loss: f64,
    /// Which labels are predicted, in the order of the data.
    pub predictions: Vec<Vec<bool>>,
    /// Which labels apply.
    pub labels: Vec<Vec<bool>>,
}

impl MultiLabelEvaluation {
    /// Evaluates `model` on `data`, `batch_size` examples at a time.
    ///
    /// # Errors
    /// Returns an error if `batch_size` is 0, an example does not fit the model, or has another number of labels.
    pub fn run(
        model: &BertForSequenceClassification,
        data: &LabelledData<Vec<bool>>,
        batch_size: usize,
    ) -> Result<MultiLabelEvaluation> {
        let mut evaluation = MultiLabelEvaluation::default();
        for batch in data.batches(batch_size)? {
            let batch = batch?;
            let logits = no_grad(|| model.forward(&batch.batch, Mode::Eval))?; // [B, C]
            let width = model.config().num_labels();
            if let Some(labels) = batch.labels.iter().find(|labels| labels.len() != width) {
                let why = format!("an example has {} labels, the model has {width}", labels.len());
                return Err(Error::data("evaluation", why));
            }
            let logits = logits.to_vec::<f32>()?;
            for (logits, labels) in logits.chunks_exact(width).zip(&batch.labels) {
                let loss = |(&logit, &applies): (&f32, &bool)| {
                    let logit = f64::from(if applies { logit } else { -logit });
                    (-logit).max(0.0) + (-logit.abs()).exp().ln_1p()
                };
                evaluation.loss += logits.iter().zip(labels).map(loss).sum::<f64>() / width as f64;
                evaluation.predictions.push(logits.iter().map(|&logit| logit > 0.0).collect());
            }
            evaluation.labels.extend(batch.labels);
        }
        evaluation.loss /= evaluation.labels.len() as f64;
        Ok(evaluation)
    }

    /// Returns precision, recall and F1, per label and averaged.
    ///
    /// # Errors
    /// Never fails on the result of [`run`](MultiLabelEvaluation::run); see [`metrics::multi_label`].
    pub fn scores(&self) -> Result<MultiLabelScores> {
        metrics::multi_label(&self.predictions, &self.labels)
    }
}
