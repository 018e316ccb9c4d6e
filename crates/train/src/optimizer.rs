//! AdamW over the flat parameters of a model, with clipping by the global norm.

use cloze_tensor::optim::AdamWStep;
use cloze_tensor::{Gradients, Module, ParameterArena, Tensor};

use crate::{Error, Result};

/// Settings of AdamW (I. Loshchilov, F. Hutter, "Decoupled weight decay regularization", 2017). The defaults
/// are BERT's: betas 0.9 and 0.999, eps 1e-8, decay 0.01 on everything but biases and LayerNorm.
///
/// ```
/// let adamw = cloze_train::AdamW::new(5e-5).weight_decay(0.01).decay_everything();
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamW {
    pub(crate) learning_rate: f64,
    weight_decay: f64,
    decay_everything: bool,
    betas: (f64, f64),
    eps: f64,
}

impl AdamW {
    /// With this learning rate: the peak that the schedule of a [`Trainer`](crate::Trainer) scales.
    /// [`Optimizer::step`] is given the learning rate of each step instead.
    pub fn new(learning_rate: f64) -> AdamW {
        AdamW { learning_rate, weight_decay: 0.01, decay_everything: false, betas: (0.9, 0.999), eps: 1e-8 }
    }

    /// Parameters shrink by `learning_rate * weight_decay` in each step.
    pub fn weight_decay(self, weight_decay: f64) -> AdamW {
        AdamW { weight_decay, ..self }
    }

    /// Decays biases and LayerNorm too, as PyTorch does when it is given all parameters in one group.
    pub fn decay_everything(self) -> AdamW {
        AdamW { decay_everything: true, ..self }
    }

    /// Decays of the means of gradients and of squared gradients.
    pub fn betas(self, beta1: f64, beta2: f64) -> AdamW {
        AdamW { betas: (beta1, beta2), ..self }
    }

    /// Added to the root of the mean of squared gradients.
    pub fn eps(self, eps: f64) -> AdamW {
        AdamW { eps, ..self }
    }

    fn check(&self) -> Result<()> {
        let below_one = |x: f64| (0.0..1.0).contains(&x);
        check_learning_rate(self.learning_rate)?;
        if !(self.weight_decay >= 0.0 && self.weight_decay.is_finite()) {
            return Err(Error::invalid("weight decay", self.weight_decay, "0 or more, and finite"));
        }
        if !below_one(self.betas.0) || !below_one(self.betas.1) {
            return Err(Error::invalid("betas", format!("{:?}", self.betas), "0 or more and below 1"));
        }
        if !(self.eps > 0.0 && self.eps.is_finite()) {
            return Err(Error::invalid("eps", self.eps, "above 0, and finite"));
        }
        Ok(())
    }

    /// The decay of the parameter `name`.
    fn decay_of(&self, name: &str) -> f64 {
        let spared = name.ends_with("bias") || name.contains("LayerNorm");
        if spared && !self.decay_everything { 0.0 } else { self.weight_decay }
    }
}

fn check_learning_rate(learning_rate: f64) -> Result<()> {
    match learning_rate >= 0.0 && learning_rate.is_finite() {
        true => Ok(()),
        false => Err(Error::invalid("learning rate", learning_rate, "0 or more, and finite")),
    }
}

pub(crate) fn check_clip_norm(clip_norm: Option<f64>) -> Result<()> {
    match clip_norm {
        Some(norm) if !(norm > 0.0 && norm.is_finite()) => {
            Err(Error::invalid("clip_norm", norm, "above 0, and finite"))
        }
        _ => Ok(()),
    }
}

/// The optimizer of one model: its flat parameters, their gradients, and AdamW's two means.
///
/// ```
/// use cloze_tensor::{module, Device, Tensor};
/// use cloze_train::{AdamW, Optimizer};
/// struct Model { weight: Tensor }
/// module!(Model { weight });
/// let mut model = Model { weight: Tensor::new(&[3f32, -2.0], &Device::Cpu)? };
/// let mut optimizer = Optimizer::new(AdamW::new(0.5), &mut model, |_| true)?;
/// for _ in 0..100 {
///     optimizer.backward(&model.weight.mul(&model.weight)?.sum_all()?)?;
///     optimizer.step(&mut model, 0.1, Some(1.0))?;
/// }
/// assert!(model.weight.to_vec::<f32>()?.iter().all(|x| x.abs() < 0.1));
/// # Ok::<(), cloze_train::Error>(())
/// ```
pub struct Optimizer {
    adamw: AdamW,
    arena: ParameterArena,
    gradients: Gradients,
    moments: (Vec<f32>, Vec<f32>),
    steps: u32,
}

impl Optimizer {
    /// Moves the parameters of `model` that are `trainable`, by name, to the optimizer's arena.
    ///
    /// # Errors
    /// When a setting makes no sense, nothing is trainable, or parameters are not f32.
    pub fn new(adamw: AdamW, model: &mut impl Module, trainable: impl Fn(&str) -> bool) -> Result<Optimizer> {
        adamw.check()?;
        let arena = ParameterArena::gather(model, trainable)?;
        let gradients = arena.gradients()?;
        let zeros = || vec![0.0; arena.elements()];
        let moments = (zeros(), zeros());
        Ok(Optimizer { adamw, arena, gradients, moments, steps: 0 })
    }

    /// Adds the gradients of `loss` to those of this step.
    ///
    /// # Errors
    /// As [`Tensor::backward_into`]; the gradients of this step are then forgotten.
    pub fn backward(&mut self, loss: &Tensor) -> Result<()> {
        let walked = loss.backward_into(&mut self.gradients);
        if walked.is_err() {
            self.gradients.clear();
        }
        Ok(walked?)
    }

    /// The gradients of this step so far.
    pub fn gradients(&self) -> &Gradients {
        &self.gradients
    }

    /// Number of trainable parameter elements.
    pub fn parameter_count(&self) -> usize {
        self.arena.parameters().iter().map(|parameter| parameter.range.len()).sum()
    }

    /// One step with this learning rate: an absolute one, whatever [`AdamW::new`] was given. Gradients are scaled so that their norm, over all parameters
    /// together, is at most `clip_norm`; gives the norm before that.
    ///
    /// # Errors
    /// When the learning rate is not 0 or more and finite, or `clip_norm` not above 0 and finite; when a
    /// parameter has no gradient or is still held by a graph (see [`ParameterArena::update`]); or when the
    /// gradients are not finite, which forgets them. The parameters are then as they were.
    pub fn step(&mut self, model: &mut impl Module, learning_rate: f64, clip_norm: Option<f64>) -> Result<f64> {
        check_learning_rate(learning_rate)?;
        check_clip_norm(clip_norm)?;
        let norm = self.gradients.norm()?;
        if !norm.is_finite() {
            let why = format!(
                "the norm of the gradients is {norm} in optimizer step {}: lower the learning rate",
                self.steps + 1
            );
            self.gradients.clear();
            return Err(Error::data("gradients", why));
        }
        // As PyTorch: the small number keeps the factor finite for gradients of zero.
        let gradient_scale = clip_norm.map_or(1.0, |limit| (limit / (norm + 1e-6)).min(1.0));
        let (adamw, steps, moments) = (self.adamw, self.steps + 1, &mut self.moments);
        self.arena.update(model, &self.gradients, |values: &mut [f32], gradients, parameters| {
            for parameter in parameters {
                let range = parameter.range.clone();
                let step = AdamWStep {
                    gradient_scale,
                    learning_rate,
                    weight_decay: adamw.decay_of(&parameter.name),
                    beta1: adamw.betas.0,
                    beta2: adamw.betas.1,
                    eps: adamw.eps,
                    step: steps,
                };
                let moments = (&mut moments.0[range.clone()], &mut moments.1[range.clone()]);
                step.apply(&mut values[range.clone()], &gradients[range], moments);
            }
        })?;
        self.steps = steps;
        self.gradients.clear();
        Ok(norm)
    }

    /// Forgets the steps so far: zero means, step 0. The parameters stay.
    pub fn reset(&mut self) {
        self.moments.0.fill(0.0);
        self.moments.1.fill(0.0);
        self.gradients.clear();
        self.steps = 0;
    }
}

#[cfg(test)]
mod tests {
    use cloze_tensor::{Device, module};

    use super::*;

    struct Model {
        weight: Tensor,
    }
    module!(Model { weight });

    impl Model {
        fn optimized() -> (Model, Optimizer) {
            let mut model = Model { weight: Tensor::new([3f32, -2.0], &Device::Cpu).unwrap() };
            let optimizer = Optimizer::new(AdamW::new(0.5), &mut model, |_| true).unwrap();
            (model, optimizer)
        }

        fn loss(&self, factor: f64) -> Tensor {
            self.weight.mul(&self.weight).unwrap().sum_all().unwrap().mul_scalar(factor).unwrap()
        }

        fn bits(&self) -> Vec<u32> {
            self.weight.to_vec::<f32>().unwrap().into_iter().map(f32::to_bits).collect()
        }
    }

    #[test]
    fn gradients_that_are_not_finite_do_not_reach_the_next_step() {
        for factor in [f64::NAN, f64::INFINITY] {
            let (mut model, mut optimizer) = Model::optimized();
            let before = model.bits();
            optimizer.backward(&model.loss(factor)).unwrap();
            assert!(optimizer.step(&mut model, 0.1, Some(1.0)).unwrap_err().to_string().contains("optimizer step 1"));
            assert_eq!(model.bits(), before);
            optimizer.backward(&model.loss(1.0)).unwrap();
            let norm = optimizer.step(&mut model, 0.1, Some(1.0)).unwrap();
            assert!((norm - 52f64.sqrt()).abs() < 1e-5, "{norm}");
        }
    }

    #[test]
    fn a_backward_that_fails_leaves_no_gradients() {
        let (model, mut optimizer) = Model::optimized();
        let loss = model.loss(1.0);
        optimizer.backward(&loss).unwrap();
        assert!(optimizer.gradients().contains(&model.weight));
        assert!(optimizer.backward(&loss).is_err(), "the graph has been walked");
        assert!(!optimizer.gradients().contains(&model.weight));
    }

    #[test]
    fn settings_of_a_step_are_checked_before_it() {
        let (mut model, mut optimizer) = Model::optimized();
        let before = model.bits();
        optimizer.backward(&model.loss(1.0)).unwrap();
        for rate in [f64::NAN, -0.1, f64::INFINITY] {
            let error = optimizer.step(&mut model, rate, None).unwrap_err().to_string();
            assert_eq!(error, format!("learning rate is {rate}, must be 0 or more, and finite"));
        }
        for norm in [f64::NAN, 0.0, -1.0, f64::INFINITY] {
            let error = optimizer.step(&mut model, 0.1, Some(norm)).unwrap_err().to_string();
            assert_eq!(error, format!("clip_norm is {norm}, must be above 0, and finite"));
        }
        assert_eq!(model.bits(), before);
        optimizer.step(&mut model, 0.1, Some(1.0)).unwrap();
        assert_ne!(model.bits(), before);
    }
}
