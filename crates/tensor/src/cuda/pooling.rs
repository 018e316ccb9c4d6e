//! One vector for each sequence: pooling.cu.

use bytemuck::NoUninit;

use super::launch::Launch;
use super::{DeviceBuffer, Pointer, device_of, f32s, fresh, int, pointer};
use crate::ops::{Pooling, Sequences};
use crate::tensor::Tensor;
use crate::{DType, Result};

const FILE: &str = "pooling";

#[repr(C)]
#[derive(Clone, Copy, NoUninit)]
struct Arguments {
    x: Pointer,
    y: Pointer,
    starts: Pointer,
    rows: Pointer,
    width: i32,
    padding: u32,
}

/// The vectors, and for `Max` which rows they come from.
pub(crate) fn forward(
    op: &'static str,
    x: &Tensor,
    sequences: &Sequences,
    pooling: Pooling,
) -> Result<(Tensor, DeviceBuffer)> {
    let x = f32s(op, x)?;
    let device = device_of(op, &x)?;
    let (count, width) = (sequences.len(), x.width());
    let y = fresh(op, &[count, width], DType::F32, &device)?;
    let rows = device.allocate(op, if pooling == Pooling::Max { 4 * count * width } else { 0 })?;
    let name = match pooling {
        Pooling::Mean => "pool_mean",
        Pooling::Max => "pool_max",
    };
    launch(op, name, &x, &y, sequences, &rows, width)?;
    Ok((y, rows))
}

/// The gradient of the rows.
pub(crate) fn backward(
    op: &'static str,
    dy: &Tensor,
    sequences: &Sequences,
    pooling: Pooling,
    rows: &DeviceBuffer,
) -> Result<Tensor> {
    let dy = f32s(op, dy)?;
    let dx = fresh(op, &[sequences.tokens(), dy.width()], DType::F32, &device_of(op, &dy)?)?;
    let name = match pooling {
        Pooling::Mean => "pool_mean_backward",
        Pooling::Max => "pool_max_backward",
    };
    launch(op, name, &dy, &dx, sequences, rows, dy.width())?;
    Ok(dx)
}

fn launch(
    op: &'static str,
    name: &'static str,
    x: &Tensor,
    y: &Tensor,
    sequences: &Sequences,
    rows: &DeviceBuffer,
    width: usize,
) -> Result<()> {
    let device = device_of(op, x)?;
    let starts = device.input(op, sequences.cu_seqlens())?;
    let arguments = Arguments {
        x: pointer(x),
        y: pointer(y),
        starts: starts.pointer(),
        rows: rows.pointer(),
        width: int(op, width)?,
        padding: 0,
    };
    Launch::new(&device, op, FILE, name).grid([sequences.len(), 1, 1]).with(&arguments)
}
