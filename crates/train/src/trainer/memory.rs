//! The memory of a run: predicted before it starts, and refused if the system does not have it.

use cloze_bert::Mode;
use cloze_tensor::Device;

use super::batching::Limit;
use super::budget::epoch_steps;
use super::share::{Share, share_of};
use super::step::{StepBatch, loss_share};
use super::{Budget, DataSet, Learn, Trainer};
use crate::communicator::Communicator;
use crate::memory::{Bytes, RankMemory, Training, available, dry_run, resident};
use crate::{Error, ErrorKind, Result};

/// The most steps that are looked through for the one with the largest batch.
const LOOKED_THROUGH: u32 = 10_000;

/// The largest batch that a rank computes.
struct Largest<E> {
    examples: Vec<E>,
    sequences: Vec<u32>,
    tokens: usize,
}

/// Predicts the memory of a run that trains the parameters `trainable`. Returns `None` if it cannot be predicted: for a run
/// without steps, and if the largest batch has no predictions and fails, because a step may do without it.
///
/// # Errors
/// Returns an error if the run does not fit, or if a step of it fails without values. Most such steps fail with values, too:
/// operations check shapes, types, indices and labels as always. A model that depends on values can train without the check.
pub(super) fn predict<D: DataSet, M: Learn<D::Batch>>(
    trainer: &mut Trainer<'_, M>,
    data: &D,
    trainable: &[String],
) -> Result<Option<RankMemory>> {
    let Some(largest) = largest_batch(trainer, data)? else { return Ok(None) };
    let batch = data.batch(&largest.examples, 0, &largest.sequences)?;
    let weights = trainer.model.total_weights(&batch);
    let batch = StepBatch::<D> { examples: largest.examples, batch, weights };
    let device = device_of(trainer.model);
    let training = Training {
        adamw: trainer.adamw.clone(),
        average: trainer.average,
        keeps_best: trainer.keep_best && trainer.directory.is_none(),
        clip_norm: trainer.clip_norm,
        ranks: (trainer.ranks.rank(), trainer.ranks.size()),
        reduce: trainer.reduce_dtype,
        accumulates: trainer.batching.accumulate > 1,
    };
    let (precision, mode) = (trainer.precision, Mode::Train { seed: trainer.seed, step: 0 });
    // Another batch of the step may have the predictions that this one lacks.
    let of_step: Vec<f64> = batch.weights.iter().map(|&weight| if weight > 0.0 { weight } else { 1.0 }).collect();
    let loss = |model: &M| precision.scope(|| loss_share(model, &batch, &of_step, mode));
    let is_trainable = |name: &str| trainable.iter().any(|other| other == name);
    let memory = match dry_run(trainer.model, &device, &training, is_trainable, loss) {
        Ok(memory) => memory,
        Err(_) if batch.weights.iter().all(|&weight| weight <= 0.0) => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    check(trainer, &device, &memory, (batch.examples.len(), largest.tokens))?;
    Ok(Some(memory))
}

/// Returns the error of a dry run that failed. An invalid setting is one whatever the values are.
fn failed(error: Error) -> Error {
    if matches!(error.kind(), ErrorKind::Invalid { .. }) {
        return error;
    }
    let why = format!(
        "a step without values, which predicts it, failed: {error}: if a step with values works, check_memory(false) trains \
         without a prediction"
    );
    Error::data("memory", why)
}

/// Returns the device of the parameters.
fn device_of(model: &impl cloze_tensor::Module) -> Device {
    let mut device = None;
    model.visit("", &mut |_, parameter| {
        device.get_or_insert_with(|| parameter.device());
    });
    device.unwrap_or_default()
}

/// Returns the batch with the most tokens that this rank computes in the first epoch.
fn largest_batch<D: DataSet, M: Learn<D::Batch>>(
    trainer: &Trainer<'_, M>,
    data: &D,
) -> Result<Option<Largest<D::Example>>> {
    let ranks = (trainer.ranks.rank(), trainer.ranks.size());
    let is_whole = trainer.model.compares_examples();
    let most = if let Budget::Steps(steps) = trainer.budget { steps.min(LOOKED_THROUGH) } else { LOOKED_THROUGH };
    let mut steps = epoch_steps(trainer, data, 0, 0, 0)?;
    let mut largest: Option<Largest<D::Example>> = None;
    for _ in 0..most {
        let step = steps.next()?;
        if step.is_empty() {
            break;
        }
        let Share { batches, .. } = share_of(data, step, ranks, is_whole);
        for batch in batches {
            let tokens = batch.examples.iter().map(|example| data.size(example).tokens).sum();
            if largest.as_ref().is_none_or(|largest| largest.tokens < tokens) {
                largest = Some(Largest { examples: batch.examples, sequences: batch.sequences, tokens });
            }
        }
    }
    Ok(largest)
}

/// Checks that a run with this memory fits, of which some is in use already.
///
/// # Errors
/// Returns an error that says what is needed, what is available, and which change would make it fit.
fn check<M>(
    trainer: &Trainer<'_, M>,
    device: &Device,
    memory: &RankMemory,
    (examples, tokens): (usize, usize),
) -> Result<()> {
    let (available, in_use) = match device.is_cpu() {
        true => (available().map(|bytes| bytes / ranks_here(&*trainer.ranks)), resident()),
        // What the weights take on a GPU already is not available any more.
        false => (device.free_memory().map(|bytes| bytes as u64), memory.weights),
    };
    let needed = memory.total().saturating_sub(in_use);
    let Some(available) = available.filter(|&available| available < needed) else { return Ok(()) };
    let place = if device.is_cpu() { String::new() } else { format!(" on {device}") };
    let for_batch = available.saturating_sub(needed.saturating_sub(memory.activations));
    let fitting = (0.95 * for_batch as f64 / memory.activations.max(1) as f64 * examples as f64) as usize;
    let remedy = match (fitting.min(examples - 1), trainer.batching.limit) {
        (0, _) if examples == 1 || for_batch == 0 => {
            "use shorter sequences, freeze parameters, train low-rank adapters or a smaller model".to_string()
        }
        (0, _) => "use shorter sequences".to_string(),
        (fitting, Limit::Examples(_)) => {
            let accumulate = trainer.batching.accumulate * examples.div_ceil(fitting);
            format!("set batch_size to {fitting} and accumulate to {accumulate}, or use shorter sequences")
        }
        (fitting, Limit::Tokens(_)) => {
            format!("set batch_tokens to {}, or use shorter sequences", tokens * fitting / examples)
        }
    };
    let why = format!(
        "the run needs {} more{place}, {} are available ({} for weights, gradients and optimizer, {} for a batch of \
         {examples} examples with {tokens} tokens): {remedy}; check_memory(false) trains anyway",
        Bytes(needed),
        Bytes(available),
        Bytes(memory.model()),
        Bytes(memory.activations),
    );
    Err(Error::data("memory", why))
}

/// Returns how many ranks share the memory of this machine. A rank whose host is not known is on this one.
fn ranks_here(ranks: &dyn Communicator) -> u64 {
    let host = |rank: usize| ranks.name(rank).split_once(" on ").map(|(_, host)| host.to_string());
    let own = host(ranks.rank());
    (0..ranks.size()).filter(|&rank| host(rank) == own).count().max(1) as u64
}
