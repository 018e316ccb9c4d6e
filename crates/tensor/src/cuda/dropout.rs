//! Dropout of hidden states where it stands alone: dropout.cu.

use bytemuck::NoUninit;

use super::launch::Launch;
use super::{DeviceBuffer, KernelDropout, Pointer, device_of, f32s, fresh, int, pointer};
use crate::ops::rows_and_width;
use crate::tensor::Tensor;
use crate::{DType, Dropout, Result};

#[repr(C)]
#[derive(Clone, Copy, NoUninit)]
struct Arguments {
    x: Pointer,
    y: Pointer,
    rows: Pointer,
    groups: u64,
    width: i32,
    dropout: KernelDropout,
}

/// `x` dropped, or its gradient: they are the same.
pub(crate) fn apply(op: &'static str, x: &Tensor, dropout: &Dropout, coordinates: &DeviceBuffer) -> Result<Tensor> {
    let x = f32s(op, x)?;
    let device = device_of(op, &x)?;
    let (count, width) = rows_and_width(x.shape());
    let y = fresh(op, x.shape(), DType::F32, &device)?;
    let groups = count * width.div_ceil(16);
    let arguments = Arguments {
        x: pointer(&x),
        y: pointer(&y),
        rows: coordinates.pointer(),
        groups: groups as u64,
        width: int(op, width)?,
        dropout: KernelDropout::new(dropout),
    };
    Launch::new(&device, op, "dropout", "dropout_f32").over(groups).with(&arguments)?;
    Ok(y)
}
