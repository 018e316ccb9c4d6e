//! Where a model's parameters come from: drawn at random, or read from a checkpoint. Every part is built
//! through this, so there is one way to build each.

use std::cell::RefCell;

use cloze_tensor::random::{Purpose, Stream};
use cloze_tensor::{DType, Device, Tensor};

use crate::checkpoint::Checkpoint;
use crate::{BertConfig, Result};

/// The value of a parameter that is made anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Init {
    /// Normal, with the configuration's standard deviation.
    Normal,
    /// 0 everywhere.
    Zeros,
    /// 1 everywhere.
    Ones,
}

/// The source of a model's parameters, at some place in the model: random numbers, or a checkpoint.
///
/// [`PreTrainedModel::build`](crate::PreTrainedModel::build) gets one, and hands it on to the parts of the model.
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
    /// Parameters drawn so far: each has a random stream of its own.
    drawn: u32,
    /// Whether names and shapes alone are looked at: no values are read or drawn.
    only_shapes: bool,
}

impl Source {
    /// Parameters of `checkpoint`; those that it does not have, or all without one, are drawn with `seed`.
    pub(crate) fn new(checkpoint: Option<Checkpoint>, config: &BertConfig, device: &Device, seed: u64) -> Source {
        Source { checkpoint, device: device.clone(), std: config.initializer_range, seed, drawn: 0, only_shapes: false }
    }

    /// Names and shapes of `checkpoint`.
    pub(crate) fn shapes(checkpoint: Checkpoint, config: &BertConfig) -> Source {
        Source { only_shapes: true, ..Source::new(Some(checkpoint), config, &Device::Cpu, 0) }
    }

    /// Builds a model, and gives the checkpoint back with what was asked of it.
    pub(crate) fn build<M>(self, build: impl FnOnce(Weights<'_>) -> Result<M>) -> Result<(M, Option<Checkpoint>)> {
        let source = RefCell::new(self);
        let model = build(Weights { source: &source, path: String::new() })?;
        Ok((model, source.into_inner().checkpoint))
    }

    fn draw(&mut self, shape: &[usize], init: Init) -> Result<Tensor> {
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
    /// The source, one module further in.
    pub fn at(&self, name: &str) -> Self {
        Weights { source: self.source, path: cloze_tensor::join_name(&self.path, name) }
    }

    /// The parameter `name` of this module, f32.
    ///
    /// # Errors
    /// When the checkpoint has it in another shape, or with values that are not finite.
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
            None => source.draw(shape, init)?,
        };
        Ok(tensor.requires_grad())
    }
}
