//! The settings of cross-entropy.

use super::CROSS_ENTROPY;
use crate::error::{Error, Result};

/// The divisor of the sum of the rows' losses.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Reduction {
    /// Divides by the [total weight](CrossEntropy::total_weight) of the targets: without class weights, the number of
    /// non-ignored rows (at least one).
    #[default]
    Mean,
    /// Does not divide.
    Sum,
    /// Divides by this: the total weight of the targets of the whole optimizer step, if a step has several batches.
    Divide(f64),
}

/// Settings of [`Tensor::cross_entropy_with`](crate::Tensor::cross_entropy_with), those of `torch.nn.CrossEntropyLoss`. The
/// default ignores targets of -100 and takes the mean, without class weights and label smoothing.
///
/// ```
/// use cloze_tensor::{CrossEntropy, Device, Tensor};
/// let logits = Tensor::new([[2.0f32, 0.0], [1.0, 3.0]], &Device::Cpu)?;
/// let settings = CrossEntropy { class_weights: Some(vec![1.0, 4.0]), label_smoothing: 0.1, ..CrossEntropy::default() };
/// println!("{}", logits.cross_entropy_with(&[0, 1], &settings)?.item()?);
/// # Ok::<(), cloze_tensor::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct CrossEntropy {
    /// Rows with this target are ignored.
    pub ignore_index: i64,
    /// The divisor of the sum.
    pub reduction: Reduction,
    /// A factor for the loss of each class, `[V]`, at least 0; all are 1 if there are none.
    pub class_weights: Option<Vec<f32>>,
    /// The part of each target, from 0 to 1, that is shared equally between all classes: the target is
    /// (1 - `label_smoothing`) onehot + `label_smoothing` / V.
    ///
    /// Source: C. Szegedy et al., "Rethinking the Inception architecture for computer vision", 2015, section 7.
    pub label_smoothing: f64,
}

impl Default for CrossEntropy {
    fn default() -> CrossEntropy {
        CrossEntropy { ignore_index: -100, reduction: Reduction::Mean, class_weights: None, label_smoothing: 0.0 }
    }
}

impl CrossEntropy {
    /// Returns the sum of the class weights of all targets that are not ignored: without class weights, their number.
    pub fn total_weight(&self, targets: &[i64]) -> f64 {
        let counted = targets.iter().filter(|&&target| target != self.ignore_index);
        let Some(weights) = &self.class_weights else { return counted.count() as f64 };
        let weight = |&target: &i64| usize::try_from(target).ok().and_then(|class| weights.get(class));
        counted.filter_map(weight).map(|&weight| f64::from(weight)).sum()
    }

    pub(super) fn check(&self, classes: usize) -> Result<()> {
        if !(0.0..=1.0).contains(&self.label_smoothing) {
            let reason = format!("label_smoothing is {}, must be from 0 to 1", self.label_smoothing);
            return Err(Error::invalid(CROSS_ENTROPY, reason));
        }
        let Some(weights) = &self.class_weights else { return Ok(()) };
        if weights.len() != classes {
            let reason = format!("{} class weights given for {classes} classes", weights.len());
            return Err(Error::invalid(CROSS_ENTROPY, reason));
        }
        match weights.iter().position(|&weight| !(weight >= 0.0 && weight.is_finite())) {
            Some(class) => {
                let reason =
                    format!("the weight of class {class} is {}, must be finite and at least 0", weights[class]);
                Err(Error::invalid(CROSS_ENTROPY, reason))
            }
            None => Ok(()),
        }
    }
}
