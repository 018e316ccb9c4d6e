//! Optimizer arithmetic over flat parameters: one pass over memory each.

use crate::cpu::adamw;
use crate::gradients::Flat;
use crate::profile::{Pass, timed};
use crate::{DType, Error, Gradients, Result};

/// One step of AdamW (I. Loshchilov, F. Hutter, "Decoupled weight decay regularization", 2017) with bias
/// correction (D. P. Kingma, J. Ba, 2014), as PyTorch computes it.
#[derive(Clone, Copy, Debug)]
pub struct AdamWStep {
    /// What gradients are multiplied with first: the clip factor.
    pub gradient_scale: f64,
    /// Learning rate.
    pub learning_rate: f64,
    /// Parameters shrink by `learning_rate * weight_decay` first.
    pub weight_decay: f64,
    /// Decay of the mean of gradients.
    pub beta1: f64,
    /// Decay of the mean of squared gradients.
    pub beta2: f64,
    /// Added to the root of the mean of squared gradients.
    pub eps: f64,
    /// Number of this step, from 1.
    pub step: u32,
}

impl AdamWStep {
    /// Updates `parameters` and the two `moments`, all as long as `gradients`.
    ///
    /// # Panics
    /// When the lengths differ.
    pub fn apply(&self, parameters: &mut [f32], gradients: &[f32], moments: (&mut [f32], &mut [f32])) {
        let correction = |beta: f64| 1.0 - beta.powi(self.step.min(i32::MAX as u32) as i32);
        let step = adamw::AdamW {
            clip: self.gradient_scale,
            learning_rate: self.learning_rate,
            weight_decay: self.weight_decay,
            beta1: self.beta1,
            beta2: self.beta2,
            eps: self.eps,
            correction1: correction(self.beta1),
            correction2: correction(self.beta2),
        };
        timed("adamw", Pass::Forward, || adamw::step(parameters, gradients, moments.0, moments.1, &step));
    }
}

impl Gradients {
    /// The Euclidean norm of all gradients together, from the flat buffer that mirrors an arena. Parameters
    /// without a gradient do not count. The order of additions does not depend on the number of threads.
    ///
    /// # Errors
    /// When these gradients do not mirror an arena of f32 parameters.
    pub fn norm(&self) -> Result<f64> {
        match &self.flat {
            Some(Flat { storage, dtype: DType::F32, .. }) => {
                let flat = storage.cpu::<f32>();
                let squares = self.written(flat.len()).into_iter().map(|range| adamw::sum_of_squares(&flat[range]));
                Ok(timed("gradient norm", Pass::Forward, || squares.sum::<f64>()).sqrt())
            }
            _ => Err(Error::gradient("norm", "the gradients do not mirror an arena of f32 parameters")),
        }
    }
}
