//! The source of a model's parameters: random numbers or a checkpoint. Every part of a model is built from it, so one
//! constructor serves both.

use std::cell::RefCell;

use cloze_tensor::random::{Purpose, Stream};
use cloze_tensor::{DType, Device, Tensor};

use crate::checkpoint::Checkpoint;
use crate::room::Room;
use crate::{BertConfig, Result};

/// The initial value of a parameter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Init {
    /// Normal with the standard deviation of the configuration, `initializer_range`.
    Normal,
    /// Zeros.
    Zeros,
    /// Ones.
    Ones,
}

/// The source of the parameters of one module: random numbers or a checkpoint.
///
/// [`PreTrainedModel::build`](crate::PreTrainedModel::build) receives the source for the whole model and passes
/// [`weights.at("name")`](Weights::at) to each module.
#[derive(Clone)]
pub struct Weights<'a> {
    source: &'a RefCell<Source>,
    path: String,
}

pub(crate) struct Source {
    checkpoint: Option<Checkpoint>,
    device: Device,
    std: f64,
    seed: u64,
    /// The number of parameters drawn so far. Each uses a separate random stream.
    drawn: u32,
    /// The memory for parameters that are drawn.
    room: Room,
    /// Whether only names and shapes are checked, without reading or drawing values.
    only_shapes: bool,
}

impl Source {
    /// Creates a source that reads parameters from `checkpoint`, and draws with `seed` those that it does not have.
    pub(crate) fn new(checkpoint: Option<Checkpoint>, config: &BertConfig, device: &Device, seed: u64) -> Source {
        let (device, std, room) = (device.clone(), config.initializer_range, Room::of_machine());
        Source { checkpoint, device, std, seed, drawn: 0, room, only_shapes: false }
    }

    /// Creates a source that only checks names and shapes against `checkpoint`.
    pub(crate) fn shapes(checkpoint: Checkpoint, config: &BertConfig) -> Source {
        Source { only_shapes: true, ..Source::new(Some(checkpoint), config, &Device::Cpu, 0) }
    }

    /// Builds a model, and returns the checkpoint with its record of what was read.
    pub(crate) fn build<M>(self, build: impl FnOnce(Weights<'_>) -> Result<M>) -> Result<(M, Option<Checkpoint>)> {
        let source = RefCell::new(self);
        let model = build(Weights { source: &source, path: String::new() })?;
        Ok((model, source.into_inner().checkpoint))
    }

    fn draw(&mut self, name: &str, shape: &[usize], init: Init) -> Result<Tensor> {
        self.room.take(name, shape)?;
        Ok(match init {
            Init::Zeros => Tensor::zeros(shape, DType::F32, &self.device)?,
            Init::Ones => Tensor::ones(shape, DType::F32, &self.device)?,
            Init::Normal => {
                let mut stream = Stream::new(self.seed, Purpose::Init, self.drawn, 0, 0);
                self.drawn += 1;
                Tensor::randn(shape, self.std, &mut stream, &self.device)?
            }
        })
    }
}

impl Weights<'_> {
    /// Returns the source for the submodule `name`.
    pub fn at(&self, name: &str) -> Self {
        Weights { source: self.source, path: cloze_tensor::join_name(&self.path, name) }
    }

    /// Returns the parameter `name` of this module as an f32 leaf tensor, read from the checkpoint or else initialised
    /// with `init`.
    ///
    /// # Errors
    /// Returns an error if the checkpoint has it in another shape or with values that are not finite.
    pub fn parameter(&self, name: &str, shape: &[usize], init: Init) -> Result<Tensor> {
        let name = cloze_tensor::join_name(&self.path, name);
        let mut source = self.source.borrow_mut();
        let (device, only_shapes) = (source.device.clone(), source.only_shapes);
        let stored = match &mut source.checkpoint {
            Some(checkpoint) if only_shapes => {
                checkpoint.find(&name, shape, &device)?;
                let value = Tensor::zeros(&vec![1; shape.len()], DType::F32, &device)?;
                return Ok(value.broadcast_to(shape)?);
            }
            Some(checkpoint) => checkpoint.take(&name, shape, &device)?,
            None => None,
        };
        let tensor = match stored {
            Some(tensor) => tensor,
            None => source.draw(&name, shape, init)?,
        };
        Ok(tensor.requires_grad())
    }
}
