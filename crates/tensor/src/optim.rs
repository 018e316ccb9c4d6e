//! Optimizer arithmetic over flat parameters: one pass over memory each.

use crate::cpu::{self, adamw};
use crate::gradients::{Flat, copy_into};
use crate::ops::on_device;
use crate::profile::{Pass, timed};
#[cfg(feature = "cuda")]
use crate::storage::Storage;
use crate::tensor::Origin;
use crate::{DType, Error, Gradients, Module, ParameterArena, Result, Tensor};

/// One step of AdamW (I. Loshchilov, F. Hutter, "Decoupled weight decay regularization", 2017) with bias
/// correction (D. P. Kingma, J. Ba, 2014), as PyTorch computes it.
#[derive(Clone, Copy, Debug)]
pub struct AdamWStep {
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
    /// What the two means are divided by: they begin at zero.
    pub(crate) fn corrections(&self) -> (f64, f64) {
        let correction = |beta: f64| 1.0 - beta.powi(self.step.min(i32::MAX as u32) as i32);
        (correction(self.beta1), correction(self.beta2))
    }

    /// Updates `parameters` and the two `moments`, all as long as `gradients`, which are multiplied with `scale` first.
    ///
    /// # Panics
    /// When the lengths differ.
    pub fn apply(&self, parameters: &mut [f32], gradients: &[f32], scale: f64, moments: (&mut [f32], &mut [f32])) {
        let (correction1, correction2) = self.corrections();
        let step = adamw::AdamW {
            clip: scale,
            learning_rate: self.learning_rate,
            weight_decay: self.weight_decay,
            beta1: self.beta1,
            beta2: self.beta2,
            eps: self.eps,
            correction1,
            correction2,
        };
        timed("adamw", Pass::Forward, || adamw::step(parameters, gradients, moments.0, moments.1, &step));
    }
}

impl ParameterArena {
    /// One step of AdamW for all parameters: `step_of` gives that of a parameter, by its place among
    /// [`parameters`](ParameterArena::parameters); they differ in learning rate and decay alone. `means` are those of the
    /// gradients and of their squares, as [`zeros`](ParameterArena::zeros) makes them.
    ///
    /// Gradients are scaled so that their [norm](Gradients::norm) is at most `clip_norm`; gives the norm before that. Where it
    /// is not finite, nothing has changed.
    ///
    /// # Errors
    /// As [`ParameterArena::update`]; when the parameters are not f32, or the means are not as they are or seen by others.
    pub fn adamw(
        &self,
        model: &mut impl Module,
        gradients: &Gradients,
        means: &mut [Tensor; 2],
        clip_norm: Option<f64>,
        step_of: impl Fn(usize) -> AdamWStep,
    ) -> Result<f64> {
        #[cfg(feature = "cuda")]
        if !self.device().is_cpu() {
            const OP: &str = "optimizer step";
            let flat = gradients.flat.as_ref().filter(|flat| flat.arena == self.id());
            let Some(flat) = flat else {
                let reason = "the gradients do not mirror this arena; make them with gradients()";
                return Err(Error::gradient(OP, reason));
            };
            self.claim(OP, model, |tensor| gradients.contains(tensor))?;
            let steps: Vec<_> =
                self.parameters().iter().enumerate().map(|(at, of)| (of.range.clone(), step_of(at))).collect();
            for mean in means.iter_mut() {
                self.check_state(OP, mean)?;
            }
            let storages = [self.storage(), &flat.storage, means[0].storage(), means[1].storage()];
            let written = gradients.written(self.elements());
            return crate::cuda::optimizer::adamw(OP, storages, &written, clip_norm, &steps);
        }
        let norm = gradients.norm()?;
        if !norm.is_finite() {
            return Ok(norm);
        }
        // As PyTorch: the small number keeps the factor finite for gradients of zero.
        let scale = clip_norm.map_or(1.0, |limit| (limit / (norm + 1e-6)).min(1.0));
        let [mean, square] = means;
        let (mean, square) = (mean.exclusive_slice::<f32>()?, square.exclusive_slice::<f32>()?);
        self.update(model, gradients, |values: &mut [f32], gradients, parameters| {
            for (at, parameter) in parameters.iter().enumerate() {
                let range = parameter.range.clone();
                let means = (&mut mean[range.clone()], &mut square[range.clone()]);
                step_of(at).apply(&mut values[range.clone()], &gradients[range], scale, means);
            }
        })?;
        Ok(norm)
    }

    /// `average = decay * average + (1 - decay) * parameters`, for an average as long as the arena.
    ///
    /// # Errors
    /// When others see the average or it is not as the parameters are; when the model is another, or a graph holds a parameter.
    pub fn move_average(&self, model: &mut impl Module, average: &mut Tensor, decay: f64) -> Result<()> {
        const OP: &str = "moving average";
        self.check_state(OP, average)?;
        self.claim(OP, model, |_| true)?;
        on_device!(average, cpu => (), cuda => {
            let kept = average.mul_scalar(decay)?;
            crate::cuda::elementwise::copy(OP, &self.flat().mul_scalar(1.0 - decay)?, &kept, true)?;
            *average = kept;
            return Ok(());
        });
        cpu::average::move_to(average.exclusive_slice::<f32>()?, self.storage().cpu(), decay);
        Ok(())
    }

    /// A copy of the flat parameters.
    ///
    /// # Errors
    /// When there is not enough memory.
    pub fn values(&self) -> Result<Tensor> {
        self.flat().copied()
    }

    /// Puts `values`, as [`ParameterArena::values`] gives them, in the place of the parameters; gives those that were there.
    ///
    /// # Errors
    /// When they differ in length, type or device; when the model is another, or a graph holds a parameter.
    pub fn replace(&self, model: &mut impl Module, values: &Tensor) -> Result<Tensor> {
        const OP: &str = "change of parameters";
        self.check_like(OP, values)?;
        let before = self.values()?;
        self.claim(OP, model, |_| true)?;
        // Nobody else sees the parameters, as was just seen, and the model is borrowed exclusively.
        copy_into(self.flat(), values)?;
        Ok(before)
    }

    /// Checks that this is as long as the parameters, of their type and where they are.
    fn check_like(&self, op: &'static str, values: &Tensor) -> Result<()> {
        let there = self.flat();
        if values.shape() == there.shape() && values.dtype() == there.dtype() && values.device() == there.device() {
            return Ok(());
        }
        Err(Error::invalid(op, format!("{values:?} given for {there:?}")))
    }

    /// Checks that this is a whole tensor beside the parameters that nobody else sees.
    fn check_state(&self, op: &'static str, state: &mut Tensor) -> Result<()> {
        self.check_like(op, state)?;
        if state.is_exclusive() && state.layout().offset == 0 {
            return Ok(());
        }
        Err(Error::invalid(op, "others see the numbers that it keeps"))
    }

    /// The flat parameters as a tensor, to be dropped before anybody claims them.
    fn flat(&self) -> Tensor {
        Tensor::from_parts(self.storage().clone(), self.layout(), self.dtype(), Origin::Constant)
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
                #[cfg(feature = "cuda")]
                if let Storage::Cuda(buffer) = storage {
                    let ranges = self.written(buffer.len() / size_of::<f32>());
                    return Ok(crate::cuda::optimizer::sum_of_squares("norm", storage, &ranges)?.sqrt());
                }
                let flat = storage.cpu::<f32>();
                let squares = self.written(flat.len()).into_iter().map(|range| adamw::sum_of_squares(&flat[range]));
                Ok(timed("gradient norm", Pass::Forward, || squares.sum::<f64>()).sqrt())
            }
            _ => Err(Error::gradient("norm", "the gradients do not mirror an arena of f32 parameters")),
        }
    }
}
