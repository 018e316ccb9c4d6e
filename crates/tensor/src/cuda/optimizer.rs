//! The norm of all gradients, and AdamW over flat parameters: optimizer.cu.

use std::ops::Range;

use super::Pointer;
use super::launch::Launch;
use crate::optim::AdamWStep;
use crate::storage::Storage;
use crate::{Error, Result};

const FILE: &str = "optimizer";
const THREADS: u32 = 256;
/// Elements that a block sums.
const SEGMENT: usize = 1 << 16;

fn address(op: &'static str, storage: &Storage, at: usize) -> Result<Pointer> {
    match storage {
        Storage::Cuda(buffer) => Ok(buffer.pointer() + 4 * at as u64),
        Storage::Cpu(_) => Err(Error::invalid(op, "gradients on the CPU and parameters on a GPU")),
    }
}

/// The sum of the squares of the f32 elements `ranges`.
pub(crate) fn sum_of_squares(op: &'static str, flat: &Storage, ranges: &[Range<usize>]) -> Result<f64> {
    let Storage::Cuda(buffer) = flat else { return Ok(0.0) };
    let device = buffer.device();
    let blocks = |range: &Range<usize>| range.len().div_ceil(SEGMENT);
    let total: usize = ranges.iter().map(blocks).sum();
    let partials = device.allocate(op, 8 * total)?;
    let mut start = 0;
    for range in ranges {
        let (mut from, mut to) = (address(op, flat, range.start)?, partials.pointer() + 8 * start as u64);
        let mut count = range.len() as u64;
        let mut arguments = [
            std::ptr::from_mut(&mut from).cast(),
            std::ptr::from_mut(&mut to).cast(),
            std::ptr::from_mut(&mut count).cast(),
        ];
        let launch = Launch::new(device, op, FILE, "sum_of_squares").threads(THREADS).grid([blocks(range), 1, 1]);
        launch.shared(THREADS as usize * 8).with_all(&mut arguments)?;
        start += blocks(range);
    }
    let mut sums = vec![0f64; total];
    partials.read(op, 0, &mut sums)?;
    Ok(sums.iter().sum())
}

#[repr(C)]
#[derive(Clone, Copy, bytemuck::Zeroable, bytemuck::Pod)]
struct StepState {
    learning_rate: f32,
    correction1: f32,
    correction2: f32,
    norm: f32,
    factor: f32,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct AdamW {
    parameters: Pointer,
    gradients: Pointer,
    mean: Pointer,
    mean_of_squares: Pointer,
    state: Pointer,
    count: u64,
    rate_factor: f32,
    weight_decay: f32,
    new1: f32,
    beta2: f32,
    new2: f32,
    eps: f32,
}

/// One step of the f32 parameters in each range, as its step says. Steps differ in learning rate and decay alone.
pub(crate) fn adamw(
    op: &'static str,
    [parameters, gradients, mean, square]: [&Storage; 4],
    steps: impl Iterator<Item = (Range<usize>, AdamWStep)>,
) -> Result<()> {
    let Storage::Cuda(buffer) = parameters else { return Ok(()) };
    let device = buffer.device();
    let mut state = None;
    for (range, step) in steps {
        if state.is_none() {
            let (correction1, correction2) = step.corrections();
            let factor = step.gradient_scale as f32;
            let known = StepState {
                learning_rate: 1.0,
                correction1: correction1 as f32,
                correction2: correction2 as f32,
                norm: 0.0,
                factor,
            };
            state = Some(device.upload(op, &[known])?);
        }
        let arguments = AdamW {
            parameters: address(op, parameters, range.start)?,
            gradients: address(op, gradients, range.start)?,
            mean: address(op, mean, range.start)?,
            mean_of_squares: address(op, square, range.start)?,
            state: state.as_ref().map_or(0, |state| state.pointer()),
            count: range.len() as u64,
            rate_factor: step.learning_rate as f32,
            weight_decay: step.weight_decay as f32,
            new1: (1.0 - step.beta1) as f32,
            beta2: step.beta2 as f32,
            new2: (1.0 - step.beta2) as f32,
            eps: step.eps as f32,
        };
        let threads = range.len().div_ceil(4);
        Launch::new(device, op, FILE, "adamw").threads(THREADS).over(threads).with(&arguments)?;
    }
    Ok(())
}
