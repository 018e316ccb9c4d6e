//! Softmax and its logarithm: softmax.cu.

use bytemuck::NoUninit;

use super::launch::Launch;
use super::{Pointer, device_of, f32s, fresh, int, pointer};
use crate::ops::rows_and_width;
use crate::tensor::Tensor;
use crate::{DType, Result};

const FILE: &str = "softmax";

#[repr(C)]
#[derive(Clone, Copy, NoUninit)]
struct Forward {
    x: Pointer,
    y: Pointer,
    rows: i32,
    width: i32,
    logarithm: i32,
    padding: u32,
}

/// Of every row, or its logarithm.
pub(crate) fn forward(op: &'static str, x: &Tensor, logarithm: bool) -> Result<Tensor> {
    let x = f32s(op, x)?;
    let device = device_of(op, &x)?;
    let (rows, width) = rows_and_width(x.shape());
    let y = fresh(op, x.shape(), DType::F32, &device)?;
    let arguments = Forward {
        x: pointer(&x),
        y: pointer(&y),
        rows: int(op, rows)?,
        width: int(op, width)?,
        logarithm: logarithm.into(),
        padding: 0,
    };
    Launch::new(&device, op, FILE, "softmax_f32").over(rows * 32).with(&arguments)?;
    Ok(y)
}

#[repr(C)]
#[derive(Clone, Copy, NoUninit)]
struct Backward {
    y: Pointer,
    dy: Pointer,
    dx: Pointer,
    rows: i32,
    width: i32,
    logarithm: i32,
    add: i32,
}

pub(crate) fn backward(op: &'static str, y: &Tensor, dy: &Tensor, logarithm: bool) -> Result<Tensor> {
    let (y, dy) = (f32s(op, y)?, f32s(op, dy)?);
    let device = device_of(op, &y)?;
    let (rows, width) = rows_and_width(y.shape());
    let dx = fresh(op, y.shape(), DType::F32, &device)?;
    let arguments = Backward {
        y: pointer(&y),
        dy: pointer(&dy),
        dx: pointer(&dx),
        rows: int(op, rows)?,
        width: int(op, width)?,
        logarithm: logarithm.into(),
        add: 0,
    };
    Launch::new(&device, op, FILE, "softmax_backward_f32").over(rows * 32).with(&arguments)?;
    Ok(dx)
}
