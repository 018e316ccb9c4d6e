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

    /// Replaces the trained parameters of all ranks by those of rank 0.
    ///
    /// # Errors
    /// Returns the errors of [`ParameterArena::replace`](cloze_tensor::ParameterArena::replace), and an error if a rank has
    /// left the job.
    pub(crate) fn broadcast_parameters(&self, model: &mut impl Module) -> Result<()> {
        let Some(sharded) = &self.sharded else { return Ok(()) };
        let values = sharded.broadcast(&self.arena.values()?)?;
        self.arena.replace(model, &values)?;
        Ok(())
    }

    /// Returns everything besides the parameters that later steps depend on, on rank 0, and nothing on other ranks, all of
    /// which must call this. The tensors are views, which must be dropped before the next step.
    pub(crate) fn state(&self) -> Result<Vec<(String, Tensor)>> {
        let mut tensors = Vec::new();
        let means = match &self.sharded {
            None => self.means.iter().cloned().map(Some).collect(),
            Some(sharded) => {
                let whole = |mean: &Tensor| sharded.collect(&mean.to_vec::<f32>()?);
                self.means.iter().map(whole).collect::<Result<Vec<Option<Tensor>>>>()?
            }
        };
        let average = self.average.as_ref().map(|average| (AVERAGE, Some(average.values.clone())));
        for (kind, flat) in MEANS.into_iter().zip(means).chain(average) {
            let Some(flat) = flat else { continue };
            for parameter in self.arena.parameters() {
                let tensor = flat.narrow(0, parameter.range.start, parameter.range.len())?.reshape(&parameter.shape)?;
                tensors.push((format!("{kind}{}", parameter.name), tensor));
            }
        }
        Ok(tensors)
    }

    /// Restores the parameters and the [`state`](Optimizer::state) that were written to `file` after `steps` steps. With
    /// several ranks, rank 0 has the file.
    ///
    /// # Errors
    /// Returns an error if the file lacks a tensor or has it in another shape.
    pub(crate) fn restore(
        &mut self,
        model: &mut impl Module,
        file: Option<&TensorFile>,
        prefix: &str,
        steps: u32,
    ) -> Result<()> {
        if let Some(file) = file {
            self.set_parameters(model, file, prefix)?;
        }
        self.broadcast_parameters(model)?;
        for (kind, at) in MEANS.into_iter().zip(0..) {
            let flat = file.map(|file| self.flat(file, kind)).transpose()?;
            self.means[at] = match (&self.sharded, flat) {
                (None, flat) => flat.map_or_else(|| self.arena.zeros(), Ok)?,
                (Some(sharded), flat) => sharded.spread(flat.map(|flat| flat.to_vec()).transpose()?)?,
            };
        }
        if self.average.is_some() {
            let values = file.map_or_else(|| Ok(self.arena.zeros()?), |file| self.flat(file, AVERAGE))?;
            let values = match &self.sharded {
                None => values,
                Some(sharded) => sharded.broadcast(&values)?,
            };
            if let Some(average) = &mut self.average {
                average.values = values;
            }
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
