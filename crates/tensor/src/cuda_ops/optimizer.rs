//! The norm of all gradients, and AdamW over flat parameters. The kernels are in optimizer.cu.

use std::ops::Range;

use bytemuck::{NoUninit, Pod, Zeroable, bytes_of};

use super::arguments::int;
use crate::cpu::adamw::AdamWStep;
use crate::cuda::{CudaDevice, DeviceBuffer, Launch, Pointer};
use crate::error::{Error, Result};
use crate::storage::Storage;

const FILE: &str = "optimizer";
const THREADS: u32 = 256;
/// Elements per block of a sum.
const SEGMENT: usize = 1 << 16;

fn address(op: &'static str, storage: &Storage, at: usize) -> Result<Pointer> {
    match storage {
        Storage::Cuda(buffer) => Ok(buffer.pointer() + 4 * at as u64),
        Storage::Cpu(_) => {
            Err(Error::invalid(op, "the gradients or the optimizer state are on the CPU, the parameters on a GPU"))
        }
    }
}

/// Launches the partial sums of the squares of the f32 elements `ranges`. Returns their buffer and their number.
fn squares(
    op: &'static str,
    device: &CudaDevice,
    flat: &Storage,
    ranges: &[Range<usize>],
) -> Result<(DeviceBuffer, usize)> {
    let blocks = |range: &Range<usize>| range.len().div_ceil(SEGMENT);
    let total: usize = ranges.iter().map(blocks).sum();
    let partials = device.allocate(op, 8 * total)?;
    let mut start = 0;
    for range in ranges {
        let (from, to) = (address(op, flat, range.start)?, partials.pointer() + 8 * start as u64);
        let launch = Launch::new(device, op, FILE, "sum_of_squares").threads(THREADS).grid([blocks(range), 1, 1]);
        let launch = launch.shared(THREADS as usize * 8);
        launch.with_all(&[bytes_of(&from), bytes_of(&to), bytes_of(&(range.len() as u64))])?;
        start += blocks(range);
    }
    Ok((partials, total))
}

/// Returns the sum of the squares of the f32 elements `ranges`.
pub(crate) fn sum_of_squares(op: &'static str, flat: &Storage, ranges: &[Range<usize>]) -> Result<f64> {
    let Storage::Cuda(buffer) = flat else { return Ok(0.0) };
    let (partials, total) = squares(op, buffer.device(), flat, ranges)?;
    let mut sums = vec![0f64; total];
    partials.read(op, 0, &mut sums)?;
    Ok(sums.iter().sum())
}

/// The values of a step that change from step to step, and its results. They are in device memory, so that every step has
/// the same launches and can reuse one CUDA graph.
#[repr(C)]
#[derive(Clone, Copy, Zeroable, Pod)]
struct StepState {
    learning_rate: f32,
    correction1: f32,
    correction2: f32,
    factor: f32,
    norm: f64,
}

/// A range of parameters with one learning rate and weight decay.
#[repr(C)]
#[derive(Clone, Copy, Zeroable, Pod)]
struct KernelRange {
    start: u64,
    count: u64,
    first_block: u32,
    rate_factor: f32,
    weight_decay: f32,
    padding: u32,
}

#[repr(C)]
#[derive(Clone, Copy, NoUninit)]
struct AdamWArguments {
    parameters: Pointer,
    gradients: Pointer,
    mean: Pointer,
    mean_of_squares: Pointer,
    state: Pointer,
    ranges: Pointer,
    count: i32,
    new1: f32,
    beta2: f32,
    new2: f32,
    eps: f32,
    padding: u32,
}

/// Applies one step to the f32 parameters of each range, with the gradients of `written` scaled so that their norm is at most
/// `clip_norm`. Steps may differ only in learning rate and weight decay. Waits for the norm before scaling and returns it; if
/// it is not finite, nothing is changed.
pub(crate) fn adamw(
    op: &'static str,
    [parameters, gradients, mean, square]: [&Storage; 4],
    written: &[Range<usize>],
    clip_norm: Option<f64>,
    steps: &[(Range<usize>, AdamWStep)],
) -> Result<f64> {
    let (Storage::Cuda(buffer), Some((_, first))) = (parameters, steps.first()) else { return Ok(0.0) };
    let device = buffer.device();
    let (partials, total) = squares(op, device, gradients, written)?;
    let (correction1, correction2) = first.corrections();
    // The learning rate of a range is a constant factor of the largest one, which alone changes from step to step.
    let learning_rate = steps.iter().map(|(_, step)| step.learning_rate).fold(0.0, f64::max);
    let of_step = StepState {
        learning_rate: learning_rate as f32,
        correction1: correction1 as f32,
        correction2: correction2 as f32,
        ..StepState::zeroed()
    };
    let state = device.upload(op, &[of_step])?;
    let count = int(op, total)?;
    let most = clip_norm.map_or(0.0, |norm| norm as f32);
    let (sums, to) = (partials.pointer(), state.pointer());
    let arguments = [bytes_of(&sums), bytes_of(&count), bytes_of(&most), bytes_of(&to)];
    Launch::new(device, op, FILE, "clip_factor").threads(32).with_all(&arguments)?;
    let mut blocks = 0;
    let mut ranges = Vec::with_capacity(steps.len());
    for (range, step) in steps.iter().filter(|(range, _)| !range.is_empty()) {
        ranges.push(KernelRange {
            start: range.start as u64,
            count: range.len() as u64,
            first_block: int(op, blocks)? as u32,
            rate_factor: if learning_rate == 0.0 { 0.0 } else { (step.learning_rate / learning_rate) as f32 },
            weight_decay: step.weight_decay as f32,
            padding: 0,
        });
        blocks += range.len().div_ceil(4 * THREADS as usize);
    }
    let of_ranges = device.input(op, &ranges)?;
    let arguments = AdamWArguments {
        parameters: address(op, parameters, 0)?,
        gradients: address(op, gradients, 0)?,
        mean: address(op, mean, 0)?,
        mean_of_squares: address(op, square, 0)?,
        state: to,
        ranges: of_ranges.pointer(),
        count: int(op, ranges.len())?,
        new1: (1.0 - first.beta1) as f32,
        beta2: first.beta2 as f32,
        new2: (1.0 - first.beta2) as f32,
        eps: first.eps as f32,
        padding: 0,
    };
    Launch::new(device, op, FILE, "adamw").threads(THREADS).grid([blocks, 1, 1]).with(&arguments)?;
    let mut found = [of_step];
    state.read(op, 0, &mut found)?;
    Ok(found[0].norm)
}
