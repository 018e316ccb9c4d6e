//! The settings of AdamW.

use cloze_tensor::Module;

use super::groups::Rules;
use super::{Optimizer, ParameterGroup, check_learning_rate};
use crate::{Error, Result};

/// The settings of AdamW (I. Loshchilov, F. Hutter, "Decoupled weight decay regularization", 2017). The defaults are
/// BERT's: betas 0.9 and 0.999, eps 1e-8, weight decay 0.01 except for biases and LayerNorm.
///
/// ```
/// let adamw = cloze_train::AdamW::new(5e-5).weight_decay(0.01).decay_everything();
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct AdamW {
    pub(crate) learning_rate: f64,
    pub(super) betas: (f64, f64),
    pub(super) eps: f64,
    pub(super) rules: Rules,
}

impl AdamW {
    /// Makes the settings with this peak learning rate, which the schedule of a [`Trainer`](crate::Trainer) scales.
    /// [`Optimizer::step_at`] takes the learning rate of each step instead.
    pub fn new(learning_rate: f64) -> AdamW {
        let rules = Rules { weight_decay: 0.01, decay_everything: false, layer_decay: 1.0, groups: Vec::new() };
        AdamW { learning_rate, betas: (0.9, 0.999), eps: 1e-8, rules }
    }

    /// Sets the weight decay: each step shrinks the parameters by `learning_rate * weight_decay`.
    pub fn weight_decay(mut self, weight_decay: f64) -> AdamW {
        self.rules.weight_decay = weight_decay;
        self
    }

    /// Also decays biases and LayerNorm, as PyTorch does for a single group of all parameters.
    pub fn decay_everything(mut self) -> AdamW {
        self.rules.decay_everything = true;
        self
    }

    /// Multiplies the learning rate of each encoder layer by `factor` once per layer above it and once for the head. The
    /// embeddings get one more factor than the first layer.
    ///
    /// Source: J. Howard, S. Ruder, "Universal language model fine-tuning for text classification", 2018, section 3.2,
    /// where the factor is 1 / 2.6. For BERT, 0.9 to 0.95 is common.
    pub fn layer_decay(mut self, factor: f64) -> AdamW {
        self.rules.layer_decay = factor;
        self
    }

    /// Adds a parameter group. If several groups match a parameter, the last one wins.
    pub fn group(mut self, group: ParameterGroup) -> AdamW {
        self.rules.groups.push(group);
        self
    }

    /// Sets the decay rates of the running means of gradients and squared gradients.
    pub fn betas(self, beta1: f64, beta2: f64) -> AdamW {
        AdamW { betas: (beta1, beta2), ..self }
    }

    /// Sets the term added to the root of the mean of squared gradients.
    pub fn eps(self, eps: f64) -> AdamW {
        AdamW { eps, ..self }
    }

    /// Makes an optimizer of all parameters of a model, for a loop of your own.
    ///
    /// # Errors
    /// Returns an error like [`Optimizer::new`].
    pub fn optimizer(self, model: &mut impl Module) -> Result<Optimizer> {
        Optimizer::new(self, model, |_| true)
    }

    /// Returns the names and values of the settings, in words, without those that are switched off.
    pub(crate) fn settings(&self) -> Vec<(String, String)> {
        let (beta1, beta2) = self.betas;
        let mut settings = vec![
            ("optimizer".to_string(), format!("AdamW, betas {beta1} and {beta2}, eps {:e}", self.eps)),
            ("learning rate".to_string(), format!("{:e}", self.learning_rate)),
        ];
        settings.extend(self.rules.settings());
        settings
    }

    pub(super) fn check(&self) -> Result<()> {
        let below_one = |x: f64| (0.0..1.0).contains(&x);
        check_learning_rate(self.learning_rate)?;
        self.rules.check()?;
        if !below_one(self.betas.0) || !below_one(self.betas.1) {
            return Err(Error::invalid("betas", format!("{:?}", self.betas), "at least 0 and below 1"));
        }
        if !(self.eps > 0.0 && self.eps.is_finite()) {
            return Err(Error::invalid("eps", self.eps, "above 0 and finite"));
        }
        Ok(())
    }
}
