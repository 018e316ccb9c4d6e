//! AdamW over the flat parameters of a model, with clipping by the global norm.

mod adamw;
mod groups;
mod on_cpu;
#[cfg(feature = "cuda")]
mod on_gpu;
mod saved;
mod sharded;
pub(crate) mod shares;
mod state;

use std::sync::Arc;

use cloze_tensor::optim::AdamWStep;
use cloze_tensor::{DType, Device, Gradients, Module, ParameterArena, Tensor};

use crate::communicator::Communicator;
use crate::{Error, Result};
pub use adamw::AdamW;
pub use groups::ParameterGroup;
use groups::Treatment;
pub(crate) use saved::SavedTensors;
use sharded::Sharded;
pub use sharded::Waits;

fn check_learning_rate(learning_rate: f64) -> Result<()> {
    match learning_rate >= 0.0 && learning_rate.is_finite() {
        true => Ok(()),
        false => Err(Error::invalid("learning rate", learning_rate, "at least 0 and finite")),
    }
}

pub(crate) fn check_clip_norm(clip_norm: Option<f64>) -> Result<()> {
    match clip_norm {
        Some(norm) if !(norm > 0.0 && norm.is_finite()) => Err(Error::invalid("clip_norm", norm, "above 0 and finite")),
        _ => Ok(()),
    }
}

/// The optimizer of a model: its flat parameters, their gradients, and the two running means of AdamW.
///
/// ```
/// use cloze_tensor::{module, Device, Tensor};
/// use cloze_train::AdamW;
/// struct Model { weight: Tensor }
/// module!(Model { weight });
/// let mut model = Model { weight: Tensor::new(&[3f32, -2.0], &Device::Cpu)? };
/// let mut optimizer = AdamW::new(0.1).optimizer(&mut model)?;
/// for _ in 0..100 {
///     optimizer.backward(&model.weight.mul(&model.weight)?.sum_all()?)?;
///     optimizer.step(&mut model)?;
/// }
/// assert!(model.weight.to_vec::<f32>()?.iter().all(|x| x.abs() < 0.1));
/// # Ok::<(), cloze_train::Error>(())
/// ```
pub struct Optimizer {
    adamw: AdamW,
    arena: ParameterArena,
    /// The treatment of each parameter of the arena.
    treatments: Vec<Treatment>,
    gradients: Gradients,
    /// The running means of the gradients and of their squares, with the layout of the arena or of the share of this rank.
    means: [Tensor; 2],
    /// The part of this rank if there are several.
    sharded: Option<Sharded>,
    average: Option<MovingAverage>,
    steps: u32,
}

/// The exponential moving average of the parameters, with the layout of the arena.
struct MovingAverage {
    decay: f64,
    values: Tensor,
}

impl Optimizer {
    /// Moves the parameters for whose name `trainable` returns true to the arena of the optimizer.
    ///
    /// # Errors
    /// Returns an error if a setting is invalid, no parameter is trainable, or a trainable parameter is not f32.
    pub fn new(adamw: AdamW, model: &mut impl Module, trainable: impl Fn(&str) -> bool) -> Result<Optimizer> {
        Optimizer::make(adamw, model, trainable, None)
    }

    /// Makes the optimizer of [`new`](Optimizer::new) or, for the ranks of a job, of
    /// [`with_communicator`](Optimizer::with_communicator).
    pub(crate) fn make(
        adamw: AdamW,
        model: &mut impl Module,
        trainable: impl Fn(&str) -> bool,
        job: Option<(Arc<dyn Communicator>, DType)>,
    ) -> Result<Optimizer> {
        adamw.check()?;
        let arena = ParameterArena::gather(model, trainable)?;
        let names: Vec<&str> = arena.parameters().iter().map(|parameter| parameter.name.as_str()).collect();
        let treatments = adamw.rules.treatments(&names)?;
        let gradients = arena.gradients()?;
        let job = job.filter(|(ranks, _)| ranks.size() > 1);
        let sharded = job.map(|(ranks, dtype)| Sharded::new(ranks, &arena, dtype)).transpose()?;
        let zeros = || sharded.as_ref().map_or_else(|| Ok(arena.zeros()?), Sharded::zeros);
        let means = [zeros()?, zeros()?];
        Ok(Optimizer { adamw, arena, treatments, gradients, means, sharded, average: None, steps: 0 })
    }

    /// Shares the optimizer among the ranks of a job. Each rank runs backward on its part of a step, with a loss divided by the
    /// predictions of the whole step. [`step`](Optimizer::step) adds up the gradients of all ranks, and every rank then has
    /// the same parameters. The running means take 1/N of their memory on each of N ranks.
    ///
    /// Gradients travel as `dtype`, [`DType::F32`] or [`DType::BF16`], and are added in f32, in rank order.
    ///
    /// # Errors
    /// Returns an error if `dtype` is another type, or if there is not enough memory.
    pub fn with_communicator(mut self, ranks: Arc<dyn Communicator>, dtype: DType) -> Result<Optimizer> {
        if ranks.size() > 1 {
            let sharded = Sharded::new(ranks, &self.arena, dtype)?;
            self.means = [sharded.zeros()?, sharded.zeros()?];
            self.sharded = Some(sharded);
        }
        Ok(self)
    }

    /// Also keeps a moving average of the parameters. It starts with the parameters after the first step; every later step
    /// makes it `decay` times the average plus `1 - decay` times the parameters.
    ///
    /// Source: B. T. Polyak, A. B. Juditsky, "Acceleration of stochastic approximation by averaging", 1992. The values
    /// equal those of PyTorch's `get_ema_multi_avg_fn`.
    ///
    /// # Errors
    /// Returns an error if `decay` is not at least 0 and below 1.
    pub fn with_average(self, decay: f64) -> Result<Optimizer> {
        if !(0.0..1.0).contains(&decay) {
            return Err(Error::invalid("decay of the average", decay, "at least 0 and below 1"));
        }
        let average = Some(MovingAverage { decay, values: self.arena.zeros()? });
        Ok(Optimizer { average, ..self })
    }

    /// Accumulates the gradients of `loss` in those of this step.
    ///
    /// # Errors
    /// Returns the errors of [`Tensor::backward_into`] and clears the gradients of this step.
    pub fn backward(&mut self, loss: &Tensor) -> Result<()> {
        let walked = loss.backward_into(&mut self.gradients);
        if walked.is_err() {
            self.gradients.clear();
        }
        Ok(walked?)
    }

    /// Accumulates the gradients of the last loss of a step, as [`backward`](Optimizer::backward) does. With several ranks,
    /// the gradients of the step are exchanged while backward goes on: those of the last parameters, to which it comes
    /// first, before the others.
    ///
    /// # Errors
    /// Returns the errors of [`backward`](Optimizer::backward), and an error if another rank has left the job.
    pub fn backward_last(&mut self, loss: &Tensor) -> Result<()> {
        let Some(sharded) = &mut self.sharded else { return self.backward(loss) };
        let exchanged = sharded.backward(loss, &mut self.gradients);
        if exchanged.is_err() {
            self.gradients.clear();
        }
        exchanged
    }

    /// Returns how long the last step waited for other ranks: 0 for a single rank, and on GPUs, for whose exchanges no
    /// thread waits.
    pub fn waits(&self) -> Waits {
        self.sharded.as_ref().map_or_else(Waits::default, Sharded::waits)
    }

    /// Returns the bytes of the running means on this rank.
    pub fn means_bytes(&self) -> usize {
        self.means.iter().map(|mean| size_of::<f32>() * mean.elements()).sum()
    }

    /// Returns the device of the parameters.
    pub fn device(&self) -> &Device {
        self.arena.device()
    }

    /// Returns the gradients accumulated in this step.
    pub fn gradients(&self) -> &Gradients {
        &self.gradients
    }

    /// Clears the gradients of this step.
    pub fn clear(&mut self) {
        self.gradients.clear();
    }

    /// Returns the length of the flat parameters.
    pub(crate) fn elements(&self) -> usize {
        self.arena.elements()
    }

    /// Returns the number of trainable parameter elements.
    pub fn parameter_count(&self) -> usize {
        self.arena.parameters().iter().map(|parameter| parameter.range.len()).sum()
    }

    /// Makes one step with the learning rate of [`AdamW::new`], and returns the norm of the gradients over all parameters.
    ///
    /// # Errors
    /// Returns an error like [`step_at`](Optimizer::step_at).
    pub fn step(&mut self, model: &mut impl Module) -> Result<f64> {
        self.step_at(model, self.adamw.learning_rate, None)
    }

    /// Makes one step with this absolute learning rate, which replaces that of [`AdamW::new`]. Scales the gradients so that
    /// their norm over all parameters is at most `clip_norm`, and returns the norm before scaling.
    ///
    /// # Errors
    /// Returns an error and leaves the parameters unchanged if the learning rate is not at least 0 and finite, if
    /// `clip_norm` is not above 0 and finite, if a parameter has no gradient or is still held by a graph (see
    /// [`ParameterArena::update`]), or if the gradients are not finite, which clears them. Returns an error if another rank
    /// has left the job.
    pub fn step_at(&mut self, model: &mut impl Module, learning_rate: f64, clip_norm: Option<f64>) -> Result<f64> {
        let norm = self.update(model, learning_rate, clip_norm)?;
        self.check_norm(model, norm)?;
        Ok(norm)
    }

    /// Makes one step as [`step_at`](Optimizer::step_at) does. If the norm is not finite, it is returned, and nothing has changed.
    pub(crate) fn update(
        &mut self,
        model: &mut impl Module,
        learning_rate: f64,
        clip_norm: Option<f64>,
    ) -> Result<f64> {
        check_learning_rate(learning_rate)?;
        check_clip_norm(clip_norm)?;
        let (adamw, treatments, steps) = (&self.adamw, &self.treatments, self.steps + 1);
        let step_of = |at: usize| AdamWStep {
            learning_rate: learning_rate * treatments[at].factor,
            weight_decay: treatments[at].weight_decay,
            beta1: adamw.betas.0,
            beta2: adamw.betas.1,
            eps: adamw.eps,
            step: steps,
        };
        let norm = match &mut self.sharded {
            None => self.arena.adamw(model, &self.gradients, &mut self.means, clip_norm, step_of)?,
            Some(sharded) => {
                // A rank without a part in this step adds nothing.
                if self.gradients.is_empty() {
                    self.gradients.fill_with_zeros()?;
                }
                sharded.update((&self.arena, model), &self.gradients, &mut self.means, clip_norm, step_of)?
            }
        };
        if !norm.is_finite() {
            return Ok(norm);
        }
        if let Some(average) = &mut self.average {
            self.arena.move_average(model, &mut average.values, if steps == 1 { 0.0 } else { average.decay })?;
        }
        self.steps = steps;
        self.gradients.clear();
        Ok(norm)
    }

    /// Checks the norm of the gradients, and clears them if it is not finite.
    ///
    /// # Errors
    /// Returns an error if it is not finite.
    pub(crate) fn check_norm(&mut self, model: &impl Module, norm: f64) -> Result<()> {
        if norm.is_finite() {
            return Ok(());
        }
        let (place, step) = (self.first_not_finite(model), self.steps + 1);
        let place = place.map_or(String::new(), |name| format!(", first at {name}"));
        self.gradients.clear();
        let why = format!("their norm is {norm} in optimizer step {step}{place}: lower the learning rate");
        Err(Error::data("gradients", why))
    }

    /// Names the parameter that backward reaches first with a gradient that is not finite: the last one of the model. With
    /// several ranks, only the gradients of this one count.
    pub(crate) fn first_not_finite(&self, model: &impl Module) -> Option<String> {
        let mut last = None;
        model.visit("", &mut |name, parameter| {
            let gradient = self.gradients.get(parameter).and_then(|gradient| gradient.to_vec::<f32>().ok());
            if gradient.is_some_and(|gradient| gradient.iter().any(|x| !x.is_finite())) {
                last = Some(name.to_string());
            }
        });
        last
    }

    /// Swaps the parameters and their average. Returns false if there is no average.
    ///
    /// # Errors
    /// Returns an error if a parameter is still held by a graph.
    pub fn swap_average(&mut self, model: &mut impl Module) -> Result<bool> {
        match &mut self.average {
            Some(average) if self.steps > 0 => {
                average.values = self.arena.replace(model, &average.values)?;
                Ok(true)
            }
            _ => Ok(false),
        }
    }

    /// Resets the running means, the gradients and the step count to zero. The parameters are unchanged.
    ///
    /// # Errors
    /// Returns an error if memory cannot be allocated.
    pub fn reset(&mut self) -> Result<()> {
        self.means = match &self.sharded {
            None => [self.arena.zeros()?, self.arena.zeros()?],
            Some(sharded) => [sharded.zeros()?, sharded.zeros()?],
        };
        self.gradients.clear();
        self.steps = 0;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use cloze_tensor::module;

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
            assert!(
                optimizer.step_at(&mut model, 0.1, Some(1.0)).unwrap_err().to_string().contains("optimizer step 1")
            );
            assert_eq!(model.bits(), before);
            optimizer.backward(&model.loss(1.0)).unwrap();
            let norm = optimizer.step_at(&mut model, 0.1, Some(1.0)).unwrap();
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
            let error = optimizer.step_at(&mut model, rate, None).unwrap_err().to_string();
            assert_eq!(error, format!("learning rate is {rate}, must be at least 0 and finite"));
        }
        for norm in [f64::NAN, 0.0, -1.0, f64::INFINITY] {
            let error = optimizer.step_at(&mut model, 0.1, Some(norm)).unwrap_err().to_string();
            assert_eq!(error, format!("clip_norm is {norm}, must be above 0 and finite"));
        }
        assert_eq!(model.bits(), before);
        optimizer.step_at(&mut model, 0.1, Some(1.0)).unwrap();
        assert_ne!(model.bits(), before);
    }
}
