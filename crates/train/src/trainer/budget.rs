//! The number of optimizer steps of a run.

use std::time::{Duration, Instant};

use super::batching::Steps;
use super::step::optimizer_step;
use super::{BatchRamp, Budget, DataSet, Learn, Trainer};
use crate::{Error, Optimizer, Result};

/// The most steps that are timed to find how many fit into a time budget.
const TIMED_STEPS: usize = 20;

/// Returns the steps of an epoch, like [`Batching::steps`](super::batching::Batching::steps).
///
/// # Errors
/// Returns an error if the epoch has no example.
pub(super) fn epoch_steps<'d, D: DataSet, M>(
    trainer: &Trainer<'_, M>,
    data: &'d D,
    epoch: u32,
    first_step: u32,
    ramp_steps: u32,
) -> Result<Steps<'d, D>> {
    let mut steps = trainer.batching.steps(data, epoch, first_step, ramp_steps)?;
    match steps.is_at_end()? {
        true => Err(Error::data("examples", format!("epoch {} has none to train on", epoch + 1))),
        false => Ok(steps),
    }
}

/// Returns the number of steps that the budget allows.
pub(super) fn budget_steps<D: DataSet, M: Learn<D::Batch>>(
    trainer: &mut Trainer<'_, M>,
    data: &D,
    optimizer: &mut Optimizer,
) -> Result<u32> {
    match trainer.budget {
        Budget::Steps(steps) => Ok(steps),
        Budget::Time(time) => time_steps(trainer, time, data, optimizer),
        Budget::Epochs(epochs) => count_steps(trainer, data, epochs),
    }
}

/// Counts the steps of some epochs.
///
/// With a ramp of the batch size, the number of steps depends on the length of the ramp, which is a fraction of it. Each
/// round therefore counts with the length that the round before asks for. A longer ramp never makes fewer steps, so the
/// lengths ascend, and the loop ends where they no longer change.
fn count_steps<D: DataSet, M>(trainer: &Trainer<'_, M>, data: &D, epochs: u32) -> Result<u32> {
    let add = |count: u32, steps: u32| {
        let too_many = || Error::invalid("epochs", epochs, "fewer: there are 2^32 steps or more");
        count.checked_add(steps).ok_or_else(too_many)
    };
    // The steps of each epoch at full size.
    let mut full = Vec::new();
    let (mut count, mut ramp_steps) = (0, 0);
    for epoch in 0..epochs {
        let steps = steps_of_epoch(trainer, data, epoch, 0, 0)?;
        full.push(steps);
        count = add(count, steps)?;
    }
    while trainer.batching.ramp_steps(count) > ramp_steps {
        ramp_steps = trainer.batching.ramp_steps(count);
        count = 0;
        for (epoch, &full) in (0..epochs).zip(&full) {
            let is_ramp_over = count >= ramp_steps;
            let steps = if is_ramp_over { full } else { steps_of_epoch(trainer, data, epoch, count, ramp_steps)? };
            count = add(count, steps)?;
        }
    }
    Ok(count)
}

fn steps_of_epoch<D: DataSet, M>(
    trainer: &Trainer<'_, M>,
    data: &D,
    epoch: u32,
    first_step: u32,
    ramp_steps: u32,
) -> Result<u32> {
    let mut steps = epoch_steps(trainer, data, epoch, first_step, ramp_steps)?;
    let mut count = 0;
    while !steps.next()?.is_empty() {
        count += 1;
    }
    Ok(count)
}

/// Times some steps at learning rate 0 and returns how many fit into the rest of `time`.
///
/// The timed steps leave the parameters unchanged, so a run asked for the returned number of steps gives the same bits. They
/// have the full size; the smaller steps of a ramp count as parts of them.
fn time_steps<D: DataSet, M: Learn<D::Batch>>(
    trainer: &mut Trainer<'_, M>,
    time: Duration,
    data: &D,
    optimizer: &mut Optimizer,
) -> Result<u32> {
    let start = Instant::now();
    let mut seconds: Vec<f64> = Vec::new();
    let mut steps = epoch_steps(trainer, data, 0, 0, 0)?;
    while seconds.len() < TIMED_STEPS && (seconds.is_empty() || has_time(trainer, start.elapsed() < time / 4)?) {
        if steps.is_at_end()? {
            steps = epoch_steps(trainer, data, 0, 0, 0)?;
        }
        let (number, step_start) = (seconds.len() as u32, Instant::now());
        optimizer_step(trainer, data, steps.next()?, (number, 0.0, false), optimizer)?;
        seconds.push(step_start.elapsed().as_secs_f64());
    }
    optimizer.reset()?;
    // The first steps are slower: they fill caches and memory pools.
    let warm = &seconds[seconds.len() / 4..];
    let per_step = (warm.iter().sum::<f64>() / warm.len() as f64).max(1e-9);
    let left = time.saturating_sub(start.elapsed()).as_secs_f64();
    let size = trainer.batching.ramp.map_or(1.0, BatchRamp::mean);
    let mut fitting = [(left / (per_step * size)).clamp(1.0, f64::from(u32::MAX)) as u32];
    trainer.ranks.broadcast(bytemuck::cast_slice_mut(&mut fitting), 0)?;
    Ok(fitting[0])
}

/// Returns whether rank 0 has time left.
fn has_time<M>(trainer: &Trainer<'_, M>, own: bool) -> Result<bool> {
    let mut has_time = [u8::from(own)];
    trainer.ranks.broadcast(&mut has_time, 0)?;
    Ok(has_time[0] == 1)
}
