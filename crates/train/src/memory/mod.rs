//! The memory of training: what a run will need, found by a dry run of two steps, and what the system has.

mod system;

use std::fmt;
use std::sync::Arc;

use cloze_tensor::{DType, Device, DryRun, Module, Tensor};

use crate::communicator::Communicator;
use crate::optimizer::shares::BUCKET;
use crate::{AdamW, Error, Optimizer, Result};
pub(crate) use system::{available, peak, resident};

/// The peak memory of a rank in training, by what it is for, in bytes: of the host's memory or, for a model on a GPU, of the
/// GPU's. [`TrainingReport`](crate::TrainingReport) has that of a run, [`Job::memory`](crate::scaling::Job::memory) that of a
/// job.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RankMemory {
    /// Everything that was there before training: the program, the data, other models. Not part of the prediction for a job or a
    /// GPU.
    pub process: u64,
    /// The parameters, of which each rank has all.
    pub weights: u64,
    /// Their gradients.
    pub gradients: u64,
    /// The running means of AdamW, of which each rank has its share.
    pub means: u64,
    /// The moving average of the parameters, and the best parameters of a run without a directory.
    pub copies: u64,
    /// With several ranks, the added gradients of the share, and a bucket that is received (as bf16, also one that is sent).
    pub exchange: u64,
    /// What forward keeps for backward, of one batch, and the working memory of operations.
    pub activations: u64,
}

impl RankMemory {
    /// Returns the sum of the parts.
    pub fn total(&self) -> u64 {
        self.process + self.model() + self.activations
    }

    /// Returns what the model and its optimizer take, whatever the batch.
    pub(crate) fn model(&self) -> u64 {
        self.weights + self.gradients + self.means + self.copies + self.exchange
    }
}

/// What trains, for [`dry_run`].
pub(crate) struct Training {
    pub(crate) adamw: AdamW,
    pub(crate) average: Option<f64>,
    /// Whether a copy of the best parameters stays in memory.
    pub(crate) keeps_best: bool,
    pub(crate) clip_norm: Option<f64>,
    /// The number of ranks, and the type in which their gradients travel.
    pub(crate) ranks: (usize, usize),
    pub(crate) reduce: DType,
    /// Whether a step has several batches.
    pub(crate) accumulates: bool,
}

/// The steps of a dry run. In the second one, memory of the first is used again.
const STEPS: usize = 2;

/// Trains `model` in a dry run, with the loss that `loss` returns for the largest batch, and returns the memory that it takes.
///
/// # Errors
/// Returns the errors of the optimizer and of `loss`.
pub(crate) fn dry_run<M: Module>(
    model: &mut M,
    device: &Device,
    training: &Training,
    is_trainable: impl Fn(&str) -> bool,
    loss: impl Fn(&M) -> Result<Tensor>,
) -> Result<RankMemory> {
    let process = if device.is_cpu() { resident().saturating_sub(of_tensors(model, device)) } else { 0 };
    let dry_run = DryRun::new();
    let used = || dry_run.used(device) as u64;
    dry_run.run_on(model, |model| -> Result<RankMemory> {
        let mut optimizer = training.optimizer(model, is_trainable)?;
        let (elements, means) = (optimizer.elements() as u64, optimizer.means_bytes() as u64);
        let copies = if training.average.is_some() { 4 * elements } else { 0 };
        let best = if training.keeps_best { Some(optimizer.copy_parameters()?) } else { None };
        let (gradients, exchange) = (4 * elements, training.exchange(means, device));
        let fixed = used();
        for _ in 0..STEPS {
            for _ in 0..if training.accumulates { 2 } else { 1 } {
                optimizer.backward(&loss(model)?)?;
            }
            match training.ranks.1 {
                1 => drop(optimizer.update(model, 0.0, training.clip_norm)?),
                _ => optimizer.clear(),
            }
        }
        let copies = copies + if best.is_some() { 4 * elements } else { 0 };
        let on_device = if device.is_cpu() { 0 } else { exchange };
        let weights = fixed.saturating_sub(gradients + means + copies + on_device);
        let activations = (dry_run.peak(device) as u64).saturating_sub(fixed);
        Ok(RankMemory { process, weights, gradients, means, copies, exchange, activations })
    })?
}

impl Training {
    fn optimizer<M: Module>(&self, model: &mut M, is_trainable: impl Fn(&str) -> bool) -> Result<Optimizer> {
        let (rank, size) = self.ranks;
        let ranks: Arc<dyn Communicator> = Arc::new(Pretended { rank, size });
        let optimizer = Optimizer::make(self.adamw.clone(), model, is_trainable, Some((ranks, self.reduce)))?;
        match self.average {
            Some(decay) => optimizer.with_average(decay),
            None => Ok(optimizer),
        }
    }

    /// Returns the bytes of what ranks exchange, on a rank whose running means take `means` bytes.
    fn exchange(&self, means: u64, device: &Device) -> u64 {
        let (bucket, is_bf16) = (BUCKET as u64, self.reduce == DType::BF16);
        let received = if is_bf16 { 2 * bucket } else { 4 * bucket };
        match (self.ranks.1, device.is_cpu() || is_bf16) {
            (1, _) => 0,
            // On a CPU, f32 is sent from where it is.
            (_, true) => means / 2 + received + if is_bf16 { 2 * bucket } else { 0 },
            (_, false) => means / 2 + received,
        }
    }
}

/// The bytes of a process that its tensors account for: those of `model`, and free blocks, which training takes first.
fn of_tensors(model: &impl Module, device: &Device) -> u64 {
    (device.memory_of(model) + device.memory_use().kept) as u64
}

/// A rank of a job that nobody runs, for the shares of its optimizer.
struct Pretended {
    rank: usize,
    size: usize,
}

impl Communicator for Pretended {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.size
    }

    fn all_to_all(&self, _: &[u8], _: &[usize], _: &mut [u8], _: &[usize]) -> Result<()> {
        Err(no_exchange())
    }

    fn all_gather(&self, _: &[u8], _: &mut [u8], _: &[usize]) -> Result<()> {
        Err(no_exchange())
    }

    fn broadcast(&self, _: &mut [u8], _: usize) -> Result<()> {
        Err(no_exchange())
    }

    fn barrier(&self) -> Result<()> {
        Err(no_exchange())
    }

    fn abort(&self, _: &str) {}
}

fn no_exchange() -> Error {
    Error::data("dry run", "exchanges nothing")
}

/// A number of bytes in words, with three digits.
pub(crate) struct Bytes(pub(crate) u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mebibytes = self.0 as f64 / f64::from(1 << 20);
        match mebibytes {
            ..10.0 => write!(f, "{mebibytes:.1} MiB"),
            ..1024.0 => write!(f, "{mebibytes:.0} MiB"),
            ..10240.0 => write!(f, "{:.2} GiB", mebibytes / 1024.0),
            _ => write!(f, "{:.1} GiB", mebibytes / 1024.0),
        }
    }
}
