//! Layer normalisation, alone and behind dropout and a residual: layer_norm.cu.

use bytemuck::{NoUninit, bytes_of};

use super::launch::Launch;
use super::{CudaDevice, DeviceBuffer, KernelDropout, Pointer, device_of, f32s, fresh, int, pointer};
use crate::ops::rows_and_width;
use crate::tensor::Tensor;
use crate::{DType, Dropout, Result};

const FILE: &str = "layer_norm";
/// Of a block: warps, a row each, and in backward rows.
const WARPS: usize = 4;
const ROWS: usize = 32;
/// Rows that a thread sums a column of, and threads of such a block.
const SUMMED: usize = 64;
const THREADS: u32 = 128;

#[repr(C)]
#[derive(Clone, Copy, NoUninit)]
struct Forward {
    x: Pointer,
    residual: Pointer,
    coordinates: Pointer,
    dropout: KernelDropout,
    padding: u32,
    gamma: Pointer,
    beta: Pointer,
    z: Pointer,
    y: Pointer,
    mean: Pointer,
    rstd: Pointer,
    rows: i32,
    width: i32,
    eps: f32,
    padding_end: u32,
}

/// What is normalised: `x`, or the sum of a residual and of `x` dropped.
pub(crate) struct Input<'a> {
    pub(crate) x: &'a Tensor,
    pub(crate) residual: Option<(&'a Tensor, &'a Dropout, &'a DeviceBuffer)>,
}

/// y, z = what was normalised, and mean and reciprocal deviation of each row: [2, rows].
pub(crate) fn forward(
    op: &'static str,
    input: Input<'_>,
    gamma: &Tensor,
    beta: &Tensor,
    eps: f64,
) -> Result<[Tensor; 3]> {
    let x = f32s(op, input.x)?;
    let device = device_of(op, &x)?;
    let (gamma, beta) = (f32s(op, gamma)?, f32s(op, beta)?);
    let (rows, width) = rows_and_width(x.shape());
    let y = fresh(op, x.shape(), DType::F32, &device)?;
    let statistics = fresh(op, &[2, rows], DType::F32, &device)?;
    let none = Dropout::NONE;
    let (residual, dropout, coordinates) = match input.residual {
        Some((residual, dropout, coordinates)) => (Some(f32s(op, residual)?), dropout, coordinates.pointer()),
        None => (None, &none, 0),
    };
    let z = if residual.is_some() { fresh(op, x.shape(), DType::F32, &device)? } else { x.clone() };
    let arguments = Forward {
        x: pointer(&x),
        residual: residual.as_ref().map_or(0, pointer),
        coordinates,
        dropout: KernelDropout::new(dropout),
        padding: 0,
        gamma: pointer(&gamma),
        beta: pointer(&beta),
        z: pointer(&z),
        y: pointer(&y),
        mean: pointer(&statistics),
        rstd: pointer(&statistics) + 4 * rows as u64,
        rows: int(op, rows)?,
        width: int(op, width)?,
        eps: eps as f32,
        padding_end: 0,
    };
    Launch::new(&device, op, FILE, "layer_norm_forward_f32").grid([rows.div_ceil(WARPS), 1, 1]).with(&arguments)?;
    Ok([y, z, statistics])
}

#[repr(C)]
#[derive(Clone, Copy, NoUninit)]
struct Backward {
    dy: Pointer,
    z: Pointer,
    gamma: Pointer,
    mean: Pointer,
    rstd: Pointer,
    coordinates: Pointer,
    dropout: KernelDropout,
    padding: u32,
    dz: Pointer,
    dx: Pointer,
    add_dz: i32,
    add_dx: i32,
    sums: Pointer,
    rows: i32,
    width: i32,
}

/// The gradients.
pub(crate) struct Gradients {
    /// Of what was normalised: of the residual, or of the input where there is none.
    pub(crate) dz: Tensor,
    /// Of the input behind the dropout, where there is one.
    pub(crate) dx: Option<Tensor>,
    pub(crate) dgamma: Tensor,
    pub(crate) dbeta: Tensor,
}

pub(crate) fn backward(
    op: &'static str,
    dy: &Tensor,
    [z, gamma, statistics]: [&Tensor; 3],
    dropped: Option<(&Dropout, &DeviceBuffer)>,
) -> Result<Gradients> {
    let dy = f32s(op, dy)?;
    let device = device_of(op, &dy)?;
    let gamma = f32s(op, gamma)?;
    let (rows, width) = rows_and_width(dy.shape());
    let none = Dropout::NONE;
    let (dropout, coordinates) = dropped.map_or((&none, 0), |(dropout, at)| (dropout, at.pointer()));
    let dz = fresh(op, dy.shape(), DType::F32, &device)?;
    let dx = if dropout.is_none() { None } else { Some(fresh(op, dy.shape(), DType::F32, &device)?) };
    let blocks = rows.div_ceil(ROWS);
    let sums = fresh(op, &[blocks, 2, width], DType::F32, &device)?;
    let arguments = Backward {
        dy: pointer(&dy),
        z: pointer(z),
        gamma: pointer(&gamma),
        mean: pointer(statistics),
        rstd: pointer(statistics) + 4 * rows as u64,
        coordinates,
        dropout: KernelDropout::new(dropout),
        padding: 0,
        dz: pointer(&dz),
        dx: dx.as_ref().map_or(0, pointer),
        add_dz: 0,
        add_dx: 0,
        sums: pointer(&sums),
        rows: int(op, rows)?,
        width: int(op, width)?,
    };
    // Fewer where the sums of each would not fit into the 64 KiB that every device has.
    let warps = if width > 3072 {
        1
    } else if width > 1536 {
        2
    } else {
        WARPS
    };
    let launch = Launch::new(&device, op, FILE, "layer_norm_backward_f32").grid([blocks, 1, 1]);
    launch.threads(32 * warps as u32).shared(warps * 2 * width * 4).with(&arguments)?;
    let dgamma = column_sums(op, &device, pointer(&sums), (blocks, 2 * width, width))?;
    let dbeta = column_sums(op, &device, pointer(&sums) + 4 * width as u64, (blocks, 2 * width, width))?;
    Ok(Gradients { dz, dx, dgamma, dbeta })
}

/// The sums of `width` columns over `count` rows that are `stride` apart.
pub(super) fn column_sums(
    op: &'static str,
    device: &CudaDevice,
    parts: Pointer,
    shape: (usize, usize, usize),
) -> Result<Tensor> {
    let sums = fresh(op, &[shape.2], DType::F32, device)?;
    add_rows(op, device, parts, shape, pointer(&sums), false)?;
    Ok(sums)
}

/// As [`column_sums`], to where `to` points; with `add`, added to what is there.
pub(super) fn add_rows(
    op: &'static str,
    device: &CudaDevice,
    parts: Pointer,
    (count, stride, width): (usize, usize, usize),
    to: Pointer,
    add: bool,
) -> Result<()> {
    let launch = |count: usize, to: Pointer, add: bool| {
        let grid = [width.div_ceil(THREADS as usize), count.div_ceil(SUMMED).max(1), 1];
        let [count, stride, columns] = [int(op, count)?, int(op, stride)?, int(op, width)?];
        let add = i32::from(add);
        let arguments =
            [bytes_of(&parts), bytes_of(&to), bytes_of(&count), bytes_of(&stride), bytes_of(&columns), bytes_of(&add)];
        Launch::new(device, op, FILE, "column_sums_f32").threads(THREADS).grid(grid).with_all(&arguments)
    };
    if count <= SUMMED {
        return launch(count, to, add);
    }
    // Sums of every so many rows first, and then of these: there may be more rows than columns to occupy a device with.
    let rows = count.div_ceil(SUMMED);
    let sums = fresh(op, &[rows, width], DType::F32, device)?;
    launch(count, pointer(&sums), false)?;
    add_rows(op, device, pointer(&sums), (rows, width, width), to, add)
}
