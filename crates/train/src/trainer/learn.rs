//! A model that learns, and the terms of its loss.

use cloze_bert::Mode;
use cloze_tensor::{CrossEntropy, Inside as _, Module, Reduction, Tensor};

use crate::Result;

/// A model that learns from batches `B`.
///
/// The loss is a sum of terms, each a mean over predictions: the masked tokens, the sentence pairs. The trainer takes the
/// mean over a whole optimizer step, so a prediction counts the same in a small batch as in a large one when
/// gradients are [accumulated](crate::Trainer::accumulate). An implementation only sees its own batch.
///
/// ```
/// use cloze_bert::{Batch, BertForSequenceClassification, Mode, SequenceLabels};
/// use cloze_tensor::{Module, Tensor};
/// use cloze_train::{Learn, LossTerm};
/// struct Scored { batch: Batch, scores: Vec<f32> }
/// struct Model(BertForSequenceClassification);
/// # impl Module for Model {
/// #     fn visit(&self, name: &str, visitor: &mut dyn FnMut(&str, &Tensor)) { self.0.visit(name, visitor) }
/// #     fn visit_mut(&mut self, name: &str, visitor: &mut dyn FnMut(&str, &mut Tensor)) { self.0.visit_mut(name, visitor) }
/// # }
/// impl Learn<Scored> for Model {
///     fn total_weights(&self, batch: &Scored) -> Vec<f64> {
///         vec![batch.scores.len() as f64]
///     }
///
///     fn loss_terms(&self, batch: &Scored, mode: Mode) -> cloze_train::Result<Vec<LossTerm>> {
///         let mean = self.0.loss(&batch.batch, &SequenceLabels::Values(batch.scores.clone()), mode)?;
///         Ok(vec![LossTerm::Mean(mean)])
///     }
/// }
/// ```
pub trait Learn<B>: Module {
    /// Returns the weight of all predictions in a batch, one number per term of the loss: how many there are, unless some
    /// count more than others.
    ///
    /// The trainer adds them up over the batches of a step before the first forward pass. It skips a batch whose
    /// predictions weigh nothing if another batch of the step has some that do.
    fn total_weights(&self, batch: &B) -> Vec<f64>;

    /// Runs the forward pass and returns the terms of the loss, in the order of [`total_weights`](Learn::total_weights).
    ///
    /// Before training, the trainer predicts its memory by a [dry run](cloze_tensor::DryRun), in which values are arbitrary. If
    /// that fails, the run is refused, unless [the check](crate::Trainer::check_memory) is off.
    ///
    /// # Errors
    /// Returns an error if the batch does not fit the model.
    fn loss_terms(&self, batch: &B, mode: Mode) -> Result<Vec<LossTerm>>;

    /// Returns whether the loss of an example depends on the other examples of its batch; the default is that it does not.
    ///
    /// Several [ranks](crate::Trainer::communicator) usually compute a part of each batch. If this returns true, each
    /// computes some of the batches of a step.
    fn compares_examples(&self) -> bool {
        false
    }

    /// Returns whether batches like `batch` train the parameter `name`; the default is that they train all.
    fn is_trainable(&self, _name: &str, _batch: &B) -> bool {
        true
    }
}

/// A term of a loss.
#[derive(Clone, Debug)]
pub enum LossTerm {
    /// The mean over the predictions of the batch: a scalar with a graph.
    Mean(Tensor),
    /// The cross-entropy of `logits` with `labels`. It is divided by the weight of the step inside the loss operation: this
    /// rounds once, and a batch may have no label.
    CrossEntropy {
        /// `[N, C]`
        logits: Tensor,
        /// `[N]` Classes; each one counts as a prediction, with the weight of its class.
        labels: Vec<i64>,
        /// Class weights and label smoothing. The trainer sets the reduction.
        settings: CrossEntropy,
        /// The module that made the logits, for errors: `cls.predictions`.
        module: &'static str,
    },
}

impl LossTerm {
    /// Returns the weighted sum of the losses of this batch's predictions, which weigh `own`, divided by the weight
    /// `of_step` of the whole step.
    pub(super) fn per_step(self, own: f64, of_step: f64) -> Result<Tensor> {
        let is_whole = own == of_step;
        match self {
            LossTerm::Mean(mean) if is_whole => Ok(mean),
            LossTerm::Mean(mean) => Ok(mean.mul_scalar(own / of_step)?),
            LossTerm::CrossEntropy { logits, labels, settings, module } => {
                // The mean reports a step without labels.
                let reduction = if is_whole { Reduction::Mean } else { Reduction::Divide(of_step) };
                let settings = CrossEntropy { reduction, ..settings };
                Ok(logits.cross_entropy_with(&labels, &settings).inside(module)?)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use cloze_tensor::Device;

    use super::*;

    /// The terms of three rows and of two add up to the term of five.
    #[test]
    fn terms_of_batches_add_up() {
        let logits = Tensor::from_vec((0..10).map(|x| (x * 7 % 5) as f32).collect(), &[5, 2], &Device::Cpu).unwrap();
        let labels = [0, 1, 1, 0, 1];
        let weighted = CrossEntropy { class_weights: Some(vec![0.5, 3.0]), label_smoothing: 0.1, ..Default::default() };
        for settings in [CrossEntropy::default(), weighted] {
            let cross_entropy = |rows: std::ops::Range<usize>| LossTerm::CrossEntropy {
                logits: logits.narrow(0, rows.start, rows.len()).unwrap(),
                labels: labels[rows].to_vec(),
                settings: settings.clone(),
                module: "head",
            };
            let weight = |rows: std::ops::Range<usize>| settings.total_weight(&labels[rows]);
            let mean = |rows: std::ops::Range<usize>| {
                let own = weight(rows.clone());
                LossTerm::Mean(cross_entropy(rows).per_step(own, own).unwrap())
            };
            let terms: [&dyn Fn(std::ops::Range<usize>) -> LossTerm; 2] = [&cross_entropy, &mean];
            for term in terms {
                let value = |rows: std::ops::Range<usize>| {
                    let own = weight(rows.clone());
                    term(rows).per_step(own, weight(0..5)).unwrap().item().unwrap()
                };
                let (whole, parts) = (value(0..5), value(0..3) + value(3..5));
                assert!((whole - parts).abs() < 1e-6, "{whole} and {parts}");
            }
            assert_eq!(cross_entropy(0..0).per_step(0.0, 5.0).unwrap().item().unwrap(), 0.0);
            let error = cross_entropy(0..0).per_step(0.0, 0.0).unwrap_err().to_string();
            assert!(error.starts_with("head: cross_entropy: "), "{error}");
        }
    }
}
