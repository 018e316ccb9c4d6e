//! What an optimizer holds, taken out and put back: for checkpoints, and for the best parameters of a run.

use cloze_tensor::{Device, Module, Tensor, TensorFile};

use super::Optimizer;
use crate::{Error, Result};

/// What names of the state begin with.
const MEANS: [&str; 2] = ["mean.", "mean_square."];
const AVERAGE: &str = "average.";

impl Optimizer {
    /// The trained parameters of `model`, as they are in the arena.
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

    /// Puts these values in the place of the trained parameters.
    ///
    /// # Errors
    /// When `file` lacks one, or has it in another shape.
    pub(crate) fn set_parameters(&self, model: &mut impl Module, file: &TensorFile, prefix: &str) -> Result<()> {
        self.arena.replace(model, &self.flat(file, prefix)?)?;
        Ok(())
    }

    /// A copy of the trained parameters, laid out as the arena.
    ///
    /// # Errors
    /// When there is not enough memory.
    pub(crate) fn copy_parameters(&self) -> Result<Tensor> {
        Ok(self.arena.values()?)
    }

    /// Puts a copy of the trained parameters in their place.
    ///
    /// # Errors
    /// As [`ParameterArena::replace`].
    pub(crate) fn paste_parameters(&self, model: &mut impl Module, copy: &Tensor) -> Result<()> {
        self.arena.replace(model, copy)?;
        Ok(())
    }

    /// All that a later step depends on but the parameters: views of it, to be dropped before the next step.
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

    /// Takes the state of a file that [`Optimizer::state`] was written to after `steps` steps.
    ///
    /// # Errors
    /// When the file lacks a part of it, or has it in another shape.
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

    /// A tensor for each parameter, laid out as the arena.
    fn flat(&self, file: &TensorFile, kind: &str) -> Result<Tensor> {
        let mut flat = vec![0.0; self.arena.elements()];
        for parameter in self.arena.parameters() {
            let name = format!("{kind}{}", parameter.name);
            let tensor = file.tensor(&name, &Device::Cpu)?;
            if tensor.shape() != parameter.shape {
                let why = format!("{name} has shape {:?}, the model's {:?}", tensor.shape(), parameter.shape);
                return Err(Error::data_in(file.path(), "checkpoint", why));
            }
            flat[parameter.range.clone()].copy_from_slice(&tensor.to_vec::<f32>()?);
        }
        Ok(Tensor::from_vec(flat, &[self.arena.elements()], self.arena.device())?)
    }
}
