//! The state of an optimizer, saved and restored for checkpoints and for the best parameters of a run.

use cloze_tensor::{Module, Tensor};

use super::Optimizer;
use super::saved::{SavedTensors, piece_name};
use super::sharded::{Sharded, parts};
use crate::Result;

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

    /// Replaces the trained parameters by those of `saved`.
    ///
    /// # Errors
    /// Returns an error if `saved` lacks a parameter or has it in another shape.
    pub(crate) fn set_parameters(&self, model: &mut impl Module, saved: &SavedTensors, prefix: &str) -> Result<()> {
        self.arena.replace(model, &self.flat(saved, prefix)?)?;
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

    /// Returns everything besides the parameters that later steps depend on. With several ranks, the running means are
    /// missing, of which each rank has its [share](Optimizer::share). The tensors are views, which must be dropped before the
    /// next step.
    pub(crate) fn state(&self) -> Result<Vec<(String, Tensor)>> {
        let mut tensors = Vec::new();
        let means = self.means.iter().filter(|_| self.sharded.is_none());
        let average = self.average.as_ref().map(|average| (AVERAGE, &average.values));
        for (kind, flat) in MEANS.into_iter().zip(means).chain(average) {
            for parameter in self.arena.parameters() {
                let tensor = flat.narrow(0, parameter.range.start, parameter.range.len())?.reshape(&parameter.shape)?;
                tensors.push((format!("{kind}{}", parameter.name), tensor));
            }
        }
        Ok(tensors)
    }

    /// Returns the share that this rank has of the running means, in pieces of parameters. The tensors are views, which must
    /// be dropped before the next step.
    pub(crate) fn share(&self) -> Result<Vec<(String, Tensor)>> {
        self.sharded.as_ref().map_or(Ok(Vec::new()), |sharded| self.pieces(sharded, sharded.rank(), &self.means))
    }

    /// Sends the [share](Optimizer::share) of rank `from` to rank 0, which alone gets it. All ranks must call this.
    pub(crate) fn share_of(&self, from: usize) -> Result<Option<Vec<(String, Tensor)>>> {
        let Some(sharded) = &self.sharded else { return Ok(None) };
        let mut means = Vec::new();
        for mean in &self.means {
            means.extend(sharded.to_root(from, mean)?);
        }
        (!means.is_empty()).then(|| self.pieces(sharded, from, &means)).transpose()
    }

    /// Returns the pieces of parameters that a rank owns, in `means` of its share.
    fn pieces(&self, sharded: &Sharded, rank: usize, means: &[Tensor]) -> Result<Vec<(String, Tensor)>> {
        let mut tensors = Vec::new();
        for (kind, mean) in MEANS.into_iter().zip(means) {
            let mut start = 0;
            for piece in sharded.pieces(rank) {
                for (at, part) in parts(self.arena.parameters(), &piece) {
                    let parameter = &self.arena.parameters()[at];
                    let elements = part.start - parameter.range.start..part.end - parameter.range.start;
                    let name = piece_name(&format!("{kind}{}", parameter.name), &elements);
                    tensors.push((name, mean.narrow(0, start + part.start - piece.start, part.len())?));
                }
                start += piece.len();
            }
        }
        Ok(tensors)
    }

    /// Restores the parameters, the [`state`](Optimizer::state) and the [shares](Optimizer::share) of all ranks that were
    /// saved after `steps` steps. With several ranks, rank 0 reads them.
    ///
    /// # Errors
    /// Returns an error if a tensor is missing or has another shape.
    pub(crate) fn restore(
        &mut self,
        model: &mut impl Module,
        saved: Option<&SavedTensors>,
        prefix: &str,
        steps: u32,
    ) -> Result<()> {
        if let Some(saved) = saved {
            self.set_parameters(model, saved, prefix)?;
        }
        self.broadcast_parameters(model)?;
        for (kind, at) in MEANS.into_iter().zip(0..) {
            self.means[at] = match (&self.sharded, saved) {
                (None, None) => self.arena.zeros()?,
                (None, Some(saved)) => self.flat(saved, kind)?,
                (Some(sharded), saved) => sharded.spread(|range, values| {
                    saved.map_or(Ok(()), |saved| saved.read(kind, self.arena.parameters(), range, values))
                })?,
            };
        }
        if self.average.is_some() {
            let values = saved.map_or_else(|| Ok(self.arena.zeros()?), |saved| self.flat(saved, AVERAGE))?;
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
    fn flat(&self, saved: &SavedTensors, kind: &str) -> Result<Tensor> {
        let elements = self.arena.elements();
        let mut flat = vec![0.0; elements];
        saved.read(kind, self.arena.parameters(), 0..elements, &mut flat)?;
        Ok(Tensor::from_vec(flat, &[elements], self.arena.device())?)
    }
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};
    use std::sync::Arc;

    use cloze_tensor::{DType, Device, Tensor, module, save_safetensors};

    use super::*;
    use crate::communicator::{Communicator, Threads};
    use crate::{AdamW, Optimizer};

    /// A model of two buckets, whose parameters are cut within rows.
    struct Wide {
        table: Tensor,
        bias: Tensor,
    }
    module!(Wide { table, bias });

    fn wide(ranks: Arc<dyn Communicator>) -> (Wide, Optimizer) {
        let zeros = |shape: &[usize]| Tensor::zeros(shape, DType::F32, &Device::Cpu).unwrap();
        let mut model = Wide { table: zeros(&[43_691, 97]), bias: zeros(&[5_001]) };
        let optimizer = Optimizer::new(AdamW::new(0.0), &mut model, |_| true).unwrap();
        (model, optimizer.with_communicator(ranks, DType::F32).unwrap())
    }

    /// Returns running means whose values say where in the flat parameters they are.
    fn means(optimizer: &Optimizer) -> [Tensor; 2] {
        [1.0, -1.0].map(|sign| {
            let number = |range: std::ops::Range<usize>, values: &mut [f32]| {
                values.iter_mut().zip(range).for_each(|(value, at)| *value = sign * at as f32);
                Ok(())
            };
            let elements = optimizer.arena.elements();
            match &optimizer.sharded {
                Some(sharded) => sharded.spread(number).unwrap(),
                None => {
                    let mut values = vec![0.0; elements];
                    number(0..elements, &mut values).unwrap();
                    Tensor::from_vec(values, &[elements], &Device::Cpu).unwrap()
                }
            }
        })
    }

    /// Returns the means of this rank by the names of parameters or their pieces.
    fn named_means(optimizer: &Optimizer) -> Vec<(String, Vec<f32>)> {
        let named = optimizer.state().unwrap().into_iter().chain(optimizer.share().unwrap());
        named.map(|(name, mean)| (name, mean.to_vec().unwrap())).collect()
    }

    /// Saves the parameters and the means on this many ranks, of which rank 0 writes the shares of those in `sent`.
    fn save(folder: &Path, size: usize, sent: &[usize]) -> Vec<PathBuf> {
        let written = Threads::run(size, |ranks| {
            let rank = ranks.rank();
            let (model, mut optimizer) = wide(ranks);
            optimizer.means = means(&optimizer);
            let mut files = Vec::new();
            let mut write = |rank: usize, tensors: Vec<(String, Tensor)>| {
                files.push(folder.join(format!("{rank}-of-{size}")));
                save_safetensors(&files[files.len() - 1], tensors, &[]).unwrap();
            };
            for &from in sent {
                optimizer.share_of(from).unwrap().into_iter().for_each(|share| write(from, share));
            }
            if size > 1 && !sent.contains(&rank) {
                write(rank, optimizer.share().unwrap());
            }
            if rank == 0 {
                let mut whole = optimizer.state().unwrap();
                whole.extend(optimizer.parameters(&model));
                write(size, whole);
            }
            files
        });
        written.concat()
    }

    #[test]
    fn shares_return_on_any_number_of_ranks() {
        let folder = tempfile::tempdir().unwrap();
        for (from, sent, to) in [(1, &[][..], 2), (2, &[], 1), (3, &[1], 2)] {
            let files = save(folder.path(), from, sent);
            let results = Threads::run(to, |ranks| {
                let saved = SavedTensors::open(folder.path(), &files).unwrap();
                let reads = ranks.rank() == 0;
                let (mut model, mut optimizer) = wide(ranks);
                optimizer.restore(&mut model, reads.then_some(&saved), "", 7).unwrap();
                let found = named_means(&optimizer);
                optimizer.means = means(&optimizer);
                found == named_means(&optimizer)
            });
            assert!(!results.contains(&false), "from {from} to {to}: {results:?}");
        }
    }

    #[test]
    fn a_missing_share_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let mut files = save(folder.path(), 3, &[]);
        files.retain(|file| !file.ends_with("1-of-3"));
        let saved = SavedTensors::open(folder.path(), &files).unwrap();
        let (mut model, mut optimizer) = wide(Arc::new(crate::communicator::Alone));
        let error = optimizer.restore(&mut model, Some(&saved), "", 1).unwrap_err().to_string();
        assert!(error.contains("checkpoint: mean.table lacks the elements from "), "{error}");
    }
}
