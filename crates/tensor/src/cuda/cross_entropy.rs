//! Cross-entropy and its gradient: cross_entropy.cu. Labels were checked on the host.

use bytemuck::NoUninit;

use super::elementwise::{Unary, sum, unary};
use super::launch::Launch;
use super::{DeviceBuffer, Pointer, device_of, f32s, fresh, int, pointer};
use crate::tensor::Tensor;
use crate::{DType, Result};

const FILE: &str = "cross_entropy";
const THREADS: u32 = 256;

#[repr(C)]
#[derive(Clone, Copy, NoUninit)]
struct Forward {
    scores: Pointer,
    labels: Pointer,
    losses: Pointer,
    log_sums: Pointer,
    ignored: i64,
    rows: i32,
    classes: i32,
    row: i32,
    padding: u32,
}

/// What the gradient needs: the scores, the logarithms of their sums, and the labels on the device.
pub(crate) struct Kept {
    scores: Tensor,
    log_sums: Tensor,
    labels: DeviceBuffer,
}

/// The sum of the losses of rows of scores, by `divisor`: a number.
pub(crate) fn forward(
    op: &'static str,
    scores: &Tensor,
    targets: &[i64],
    ignored: i64,
    classes: usize,
    divisor: f64,
) -> Result<(Tensor, Kept)> {
    let scores = f32s(op, scores)?;
    let device = device_of(op, &scores)?;
    let rows = targets.len();
    let labels = device.upload(op, targets)?;
    let losses = fresh(op, &[rows], DType::F32, &device)?;
    let log_sums = fresh(op, &[rows], DType::F32, &device)?;
    let arguments = Forward {
        scores: pointer(&scores),
        labels: labels.pointer(),
        losses: pointer(&losses),
        log_sums: pointer(&log_sums),
        ignored,
        rows: int(op, rows)?,
        classes: int(op, classes)?,
        row: int(op, classes)?,
        padding: 0,
    };
    let launch = Launch::new(&device, op, FILE, "cross_entropy_f32").grid([rows, 1, 1]).threads(THREADS);
    launch.shared(THREADS as usize / 32 * 4).with(&arguments)?;
    let loss = unary(op, Unary::Scale, &sum(op, &losses, &[1])?, 1.0 / divisor)?.reshape(&[])?;
    Ok((loss, Kept { scores, log_sums, labels }))
}

#[repr(C)]
#[derive(Clone, Copy, NoUninit)]
struct Gradient {
    scores: Pointer,
    labels: Pointer,
    log_sums: Pointer,
    factor: Pointer,
    gradient: Pointer,
    ignored: i64,
    rows: i32,
    classes: i32,
    row: i32,
    padding: u32,
}

/// The gradient of the scores, for `dy`, that of the loss: in their place where nobody else sees them.
pub(crate) fn backward(
    op: &'static str,
    kept: Kept,
    ignored: i64,
    classes: usize,
    divisor: f64,
    dy: &Tensor,
) -> Result<Tensor> {
    let device = device_of(op, dy)?;
    let Kept { scores, log_sums, labels } = kept;
    let rows = log_sums.elements();
    let factor = unary(op, Unary::Scale, dy, 1.0 / divisor)?;
    let gradient = scores.into_exclusive()?;
    let arguments = Gradient {
        scores: pointer(&gradient),
        labels: labels.pointer(),
        log_sums: pointer(&log_sums),
        factor: pointer(&factor),
        gradient: pointer(&gradient),
        ignored,
        rows: int(op, rows)?,
        classes: int(op, classes)?,
        row: int(op, classes)?,
        padding: 0,
    };
    Launch::new(&device, op, FILE, "cross_entropy_gradient_f32")
        .grid([rows, 1, 1])
        .threads(THREADS)
        .with(&arguments)?;
    Ok(gradient)
}
