//! Where a model's parameters come from: drawn at random, or read from a checkpoint. Every part is built
//! through this, so there is one way to build each.

use std::cell::RefCell;

use cloze_tensor::random::{Purpose, Stream};
use cloze_tensor::{DType, Device, Tensor};

use crate::checkpoint::Checkpoint;
use crate::{BertConfig, Result};

/// The value of a parameter that is made anew.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Init {
    /// Normal, with the configuration's standard deviation.
    Normal,
    Zeros,
    Ones,
}

/// The source of parameters, at some place in the model.
#[derive(Clone)]
pub(crate) struct Weights<'a> {
    source: &'a RefCell<Source>,
    path: String,
}

struct Source {
    checkpoint: Option<Checkpoint>,
    device: Device,
    std: f64,
    seed: u64,
    /// Parameters drawn so far: each has a random stream of its own.
    drawn: u32,
}

impl Weights<'_> {
    /// Builds a model of random weights.
    pub(crate) fn random<M>(
        config: &BertConfig,
        device: &Device,
        seed: u64,
        build: impl FnOnce(Weights<'_>) -> Result<M>,
    ) -> Result<M> {
        Weights::with(None, config, device, seed, build).map(|(model, _)| model)
    }

    /// Builds a model of a checkpoint's weights, and gives the checkpoint back with what was asked of it.
    pub(crate) fn with<M>(
        checkpoint: Option<Checkpoint>,
        config: &BertConfig,
        device: &Device,
        seed: u64,
        build: impl FnOnce(Weights<'_>) -> Result<M>,
    ) -> Result<(M, Option<Checkpoint>)> {
        let std = config.initializer_range;
        let source = RefCell::new(Source { checkpoint, device: device.clone(), std, seed, drawn: 0 });
        let model = build(Weights { source: &source, path: String::new() })?;
        Ok((model, source.into_inner().checkpoint))
    }

    /// The source, one module further in.
    pub(crate) fn at(&self, name: &str) -> Self {
        Weights { source: self.source, path: cloze_tensor::join_name(&self.path, name) }
    }

    /// The parameter `name` of this module.
    pub(crate) fn parameter(&self, name: &str, shape: &[usize], init: Init) -> Result<Tensor> {
        let name = cloze_tensor::join_name(&self.path, name);
        let mut source = self.source.borrow_mut();
        let device = source.device.clone();
        if let Some(checkpoint) = &mut source.checkpoint
            && let Some(tensor) = checkpoint.take(&name, shape, &device)?
        {
            return Ok(tensor.requires_grad());
        }
        let tensor = match init {
            Init::Zeros => Tensor::zeros(shape, DType::F32, &device)?,
            Init::Ones => Tensor::ones(shape, DType::F32, &device)?,
            Init::Normal => {
                let mut stream = Stream::new(source.seed, Purpose::Init, source.drawn, 0, 0);
                source.drawn += 1;
                Tensor::randn(shape, source.std, &mut stream, &device)?
            }
        };
        Ok(tensor.requires_grad())
    }
}
