//! The state of an optimizer, saved and restored for checkpoints and for the best parameters of a run.

use cloze_tensor::{Device, Module, Tensor, TensorFile};

use super::Optimizer;
use crate::{Error, Result};

/// The name prefixes of the two running means.
const MEANS: [&str; 2] = ["mean.", "mean_square."];
const AVERAGE: &str = "average.";

impl Optimizer {
    /// Returns the trained parameters of `model` by name.
    pub(crate) fn parameters(&self, model: &impl Module) -> Vec<(String, Tensor)> {
        let mut tensors = Vec::new();
        let mut places = self.arena.parameters().iter().peekable();
        model.visit("", &mut |name, parameter| {
            if places.next_if(|place| place.name == name).is_some() {
                tensors.push((name.to_string(), parameter.detach()));
            }
        });
        tensors
    }

    /// Replaces the trained parameters by those of `file`.
    ///
    /// # Errors
    /// Returns an error if `file` lacks a parameter or has it in another shape.
    pub(crate) fn set_parameters(&self, model: &mut impl Module, file: &TensorFile, prefix: &str) -> Result<()> {
        self.arena.replace(model, &self.flat(file, prefix)?)?;
        Ok(())
    }

    /// Copies the trained parameters, with the layout of the arena.
    ///
    /// # Errors
    /// Returns an error if memory cannot be allocated.
    pub(crate) fn copy_parameters(&self) -> Result<Tensor> {
        Ok(self.arena.values()?)
    }

    /// Replaces the trained parameters by a copy that [`copy_parameters`](Optimizer::copy_parameters) made.
    ///
    /// # Errors
    /// Returns the errors of [`ParameterArena::replace`](cloze_tensor::ParameterArena::replace).
    pub(crate) fn paste_parameters(&self, model: &mut impl Module, copy: &Tensor) -> Result<()> {
        self.arena.replace(model, copy)?;
        Ok(())
    }

    /// Returns everything besides the parameters that later steps depend on. The tensors are views, which must be dropped
    /// before the next step.
    pub(crate) fn state(&self) -> Result<Vec<(String, Tensor)>> {
        let mut tensors = Vec::new();
        let average = self.average.as_ref().map(|average| (AVERAGE, &average.values));
        for (kind, flat) in MEANS.into_iter().zip(&self.means).chain(average) {
            for parameter in self.arena.parameters() {
                let tensor = flat.narrow(0, parameter.range.start, parameter.range.len())?.reshape(&parameter.shape)?;
                tensors.push((format!("{kind}{}", parameter.name), tensor));
            }
        }
        Ok(tensors)
    }

    /// Restores the [`state`](Optimizer::state) that was written to `file` after `steps` steps.
    ///
    /// # Errors
    /// Returns an error if the file lacks a tensor or has it in another shape.
    pub(crate) fn restore(&mut self, file: &TensorFile, steps: u32) -> Result<()> {
        for (kind, at) in MEANS.into_iter().zip(0..) {
            self.means[at] = self.flat(file, kind)?;
        }
        let average = self.average.is_some().then(|| self.flat(file, AVERAGE)).transpose()?;
        if let (Some(average), Some(values)) = (&mut self.average, average) {
            average.values = values;
        }
        self.steps = steps;
        Ok(())
    }

    /// Reads a tensor per parameter into one with the layout of the arena.
    fn flat(&self, file: &TensorFile, kind: &str) -> Result<Tensor> {
        let mut flat = vec![0.0; self.arena.elements()];
        for parameter in self.arena.parameters() {
            let name = format!("{kind}{}", parameter.name);
            let tensor = file.tensor(&name, &Device::Cpu)?;
            if tensor.shape() != parameter.shape {
                let why = format!("{name} has shape {:?}, expected {:?}", tensor.shape(), parameter.shape);
                return Err(Error::data_in(file.path(), "checkpoint", why));
            }
            flat[parameter.range.clone()].copy_from_slice(&tensor.to_vec::<f32>()?);
        }
        Ok(Tensor::from_vec(flat, &[self.arena.elements()], self.arena.device())?)
    }
}
