//! Optimizer arithmetic over flat parameters. Each operation is one pass over memory.

use crate::copy;
use crate::cpu::{self, adamw};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::gradients::{Flat, Gradients};
use crate::module::Module;
use crate::parameters::ParameterArena;
#[cfg(feature = "cuda")]
use crate::parameters::ParameterRange;
use crate::profile::{Pass, timed};
#[cfg(feature = "cuda")]
use crate::storage::Storage;
use crate::tensor::{Origin, Tensor};

pub use crate::cpu::adamw::AdamWStep;
#[cfg(feature = "cuda")]
pub use crate::cuda_ops::optimizer::GpuStep;

impl AdamWStep {
    /// Updates `parameters` and the two `moments`, after multiplying `gradients` by `scale`.
    ///
    /// # Panics
    /// Panics if the lengths differ.
    pub fn apply(&self, parameters: &mut [f32], gradients: &[f32], scale: f64, moments: (&mut [f32], &mut [f32])) {
        timed("adamw", Pass::Forward, || {
            adamw::step(parameters, gradients, moments.0, moments.1, scale, self);
        });
    }
}

/// Returns the sum of the squares of each block of `block` values; the last block may be shorter. The order of additions does
/// not depend on the number of threads.
///
/// # Panics
/// Panics if `block` is 0.
pub fn sums_of_squares(values: &[f32], block: usize) -> Vec<f64> {
    timed("gradient norm", Pass::Forward, || adamw::sums_of_squares(values, block))
}

/// Returns the factor that scales gradients of this norm down to `clip_norm`.
pub fn clip_factor(norm: f64, clip_norm: Option<f64>) -> f64 {
    // The small number is PyTorch's; it keeps the factor finite if all gradients are zero.
    clip_norm.map_or(1.0, |limit| (limit / (norm + 1e-6)).min(1.0))
}

impl ParameterArena {
    /// Applies one step of AdamW to all parameters.
    ///
    /// `step_of` returns the step of a parameter from its index in [`parameters`](ParameterArena::parameters); the steps may
    /// differ only in learning rate and weight decay. `means` are the means of the gradients and of their squares, initially
    /// [`zeros`](ParameterArena::zeros).
    ///
    /// The gradients are scaled so that their [norm](Gradients::norm) is at most `clip_norm`. Returns the norm before
    /// scaling. If it is not finite, nothing is changed.
    ///
    /// # Errors
    /// Returns the errors of [`ParameterArena::update`], and an error if the parameters are not f32, if the means differ from
    /// them in length, dtype or device, or if another handle shares the means.
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
            let flat = self.flat_gradients(OP, gradients)?;
            let _claimed = self.claim(OP, model, |tensor| gradients.contains(tensor))?;
            let steps: Vec<_> =
                self.parameters().iter().enumerate().map(|(at, of)| (of.range.clone(), step_of(at))).collect();
            for mean in means.iter_mut() {
                self.check_state(OP, mean)?;
            }
            let storages = [self.storage(), &flat.storage, means[0].storage(), means[1].storage()];
            let written = gradients.written(self.elements());
            return crate::cuda_ops::optimizer::adamw(OP, storages, &written, clip_norm, &steps);
        }
        let norm = gradients.norm()?;
        if !norm.is_finite() {
            return Ok(norm);
        }
        let scale = clip_factor(norm, clip_norm);
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

    /// Calls `step` to change the flat parameters on a GPU, with the flat gradients and the place of each parameter: what
    /// [`update`](ParameterArena::update) is for the CPU. The tensors must be dropped before the next step.
    ///
    /// # Errors
    /// Returns the errors of `step` and of [`ParameterArena::update`], and an error if the parameters are not f32 on a GPU.
    #[cfg(feature = "cuda")]
    pub fn update_on_gpu<R, E: From<Error>>(
        &self,
        model: &mut impl Module,
        gradients: &Gradients,
        step: impl FnOnce(&Tensor, &Tensor, &[ParameterRange]) -> std::result::Result<R, E>,
    ) -> std::result::Result<R, E> {
        const OP: &str = "optimizer step";
        let flat = self.flat_gradients(OP, gradients)?;
        if self.device().is_cpu() || self.dtype() != DType::F32 {
            let reason = format!("the parameters are {} on {}, not f32 on a GPU", self.dtype(), self.device());
            return Err(Error::invalid(OP, reason).into());
        }
        let _claimed = self.claim(OP, model, |tensor| gradients.contains(tensor))?;
        self.storage().changes();
        let of_gradients = Tensor::from_parts(flat.storage.clone(), self.layout(), DType::F32, Origin::Constant);
        step(&self.flat(), &of_gradients, self.parameters())
    }

    /// Updates a moving average of the parameters: `average = decay * average + (1 - decay) * parameters`.
    ///
    /// # Errors
    /// Returns an error if the average differs from the flat parameters in length, dtype or device, if another handle shares
    /// it, if `model` is not the model of this arena, or if a graph holds a parameter.
    pub fn move_average(&self, model: &mut impl Module, average: &mut Tensor, decay: f64) -> Result<()> {
        const OP: &str = "moving average";
        self.check_state(OP, average)?;
        let _claimed = self.claim(OP, model, |_| true)?;
        if !self.device().is_cpu() {
            let kept = average.mul_scalar(decay)?;
            // SAFETY: `kept` was just made, and no other handle refers to it.
            unsafe { copy::add(OP, &self.flat().mul_scalar(1.0 - decay)?, &kept)? };
            *average = kept;
            return Ok(());
        }
        cpu::average::move_to(average.exclusive_slice::<f32>()?, self.storage().cpu(0..self.elements()), decay);
        Ok(())
    }

    /// Returns a copy of the flat parameters.
    ///
    /// # Errors
    /// Returns an error if there is not enough memory, or if another thread is changing the parameters.
    pub fn values(&self) -> Result<Tensor> {
        let _reading = self.reading("values")?;
        self.flat().copied()
    }

    /// Replaces the flat parameters by `values` and returns the previous ones.
    ///
    /// # Errors
    /// Returns an error if `values` differ from the flat parameters in length, dtype or device, if `model` is not the model
    /// of this arena, or if a graph holds a parameter.
    pub fn replace(&self, model: &mut impl Module, values: &Tensor) -> Result<Tensor> {
        const OP: &str = "change of parameters";
        self.check_like(OP, values)?;
        let before = self.values()?;
        let _claimed = self.claim(OP, model, |_| true)?;
        // SAFETY: as long as the parameters are claimed, no other handle refers to this memory.
        unsafe { copy::copy(OP, values, &self.flat())? };
        Ok(before)
    }

    /// Checks that `values` have the length, dtype and device of the flat parameters.
    fn check_like(&self, op: &'static str, values: &Tensor) -> Result<()> {
        let there = self.flat();
        if values.shape() == there.shape() && values.dtype() == there.dtype() && values.device() == there.device() {
            return Ok(());
        }
        Err(Error::invalid(op, format!("{values:?} does not match the flat parameters {there:?}")))
    }

    /// Checks that `state` matches the flat parameters and that no other handle shares it.
    fn check_state(&self, op: &'static str, state: &mut Tensor) -> Result<()> {
        self.check_like(op, state)?;
        if state.is_exclusive() && state.layout().offset == 0 {
            return Ok(());
        }
        Err(Error::invalid(op, "another handle shares the optimizer state: drop clones and views of it"))
    }

    /// The flat parameters as a tensor. It must be dropped before the next [`claim`](ParameterArena::claim).
    fn flat(&self) -> Tensor {
        Tensor::from_parts(self.storage().clone(), self.layout(), self.dtype(), Origin::Constant)
    }
}

impl Gradients {
    /// Returns the Euclidean norm of all gradients together, from the flat buffer that mirrors an arena. Parameters without a
    /// gradient do not count. The order of additions does not depend on the number of threads.
    ///
    /// # Errors
    /// Returns an error if these gradients do not mirror an arena of f32 parameters.
    pub fn norm(&self) -> Result<f64> {
        match &self.flat {
            Some(Flat { storage, dtype: DType::F32, .. }) => {
                #[cfg(feature = "cuda")]
                if let Storage::Cuda(_) = storage {
                    let ranges = self.written(storage.bytes() / size_of::<f32>());
                    return Ok(crate::cuda_ops::optimizer::sum_of_squares("norm", storage, &ranges)?.sqrt());
                }
                let ranges = self.written(storage.bytes() / size_of::<f32>()).into_iter();
                let squares = ranges.map(|range| adamw::sum_of_squares(storage.cpu::<f32>(range)));
                Ok(timed("gradient norm", Pass::Forward, || squares.sum::<f64>()).sqrt())
            }
            _ => Err(Error::gradient("norm", "the gradients do not mirror an arena of f32 parameters")),
        }
    }
}
