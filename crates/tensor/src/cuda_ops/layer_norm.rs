//! Layer normalisation, alone and of a residual plus a dropped-out input: layer_norm.cu. Rows are f32 or bf16; parameters,
//! statistics and sums are f32.

use std::sync::Arc;

use bytemuck::NoUninit;

use super::arguments::{KernelDropout, coordinates, device_of, f32s, floats, fresh, int, kernel_for, place, pointer};
use super::column_sums::{Rows, add_rows};
use crate::cuda::{Accumulate, CudaDevice, DeviceBuffer, Launch, Pointer};
use crate::dispatch::Op;
use crate::dispatch::gpu::{CudaOp, GpuOutput};
use crate::dropout::Dropout;
use crate::dtype::DType;
use crate::error::Result;
use crate::gradients::Slot;
use crate::layout::rows_and_width;
use crate::ops::layer_norm::{LayerNorm, ResidualLayerNorm};
use crate::storage::Storage;
use crate::tensor::Tensor;

const FILE: &str = "layer_norm";
/// Warps of a block.
const WARPS: usize = 4;
/// Blocks of the backward, each of which writes sums, and the fewest rows of one.
const BLOCKS: usize = 512;
const FEWEST_ROWS: usize = 16;

impl CudaOp for LayerNorm {
    type Arity = [(); 3];

    const READS_BF16: bool = true;

    fn forward(&self, [x, gamma, beta]: [&Tensor; 3], _: bool) -> Result<GpuOutput> {
        let input = Input { x, residual: None };
        let Normalised { y, backward } = normalise(self.name(), input, [gamma, beta], self.eps)?;
        Ok(GpuOutput::new(y, move |dy, [dx, dgamma, dbeta]| {
            let mut dx = dx.open()?;
            backward.launch(&dy, [place(&mut dx), None], [dgamma, dbeta])
        }))
    }
}

impl CudaOp for ResidualLayerNorm {
    type Arity = [(); 4];

    const READS_BF16: bool = true;

    fn forward(&self, [x, residual, gamma, beta]: [&Tensor; 4], _: bool) -> Result<GpuOutput> {
        let op = self.name();
        let rows = coordinates(op, &device_of(op, x)?, &self.dropout, &self.rows)?;
        let input = Input { x, residual: Some((residual, self.dropout, rows)) };
        let Normalised { y, backward } = normalise(op, input, [gamma, beta], self.eps)?;
        Ok(GpuOutput::new(y, move |dy, [dx, dresidual, dgamma, dbeta]| {
            let (mut dx, mut dresidual) = (dx.open()?, dresidual.open()?);
            backward.launch(&dy, [place(&mut dresidual), place(&mut dx)], [dgamma, dbeta])
        }))
    }
}

/// The input of a normalisation: `x`, or a residual plus `x` with dropout.
pub(super) struct Input<'a> {
    pub(super) x: &'a Tensor,
    pub(super) residual: Option<(&'a Tensor, Dropout, Arc<DeviceBuffer>)>,
}

/// The result, and what the gradients are computed from.
pub(super) struct Normalised {
    pub(super) y: Tensor,
    pub(super) backward: Backward,
}

pub(super) struct Backward {
    op: &'static str,
    /// What is normalised: the input, or the residual plus the dropped-out input.
    z: Tensor,
    gamma: Tensor,
    /// Mean and reciprocal standard deviation of each row: [2, rows].
    statistics: Tensor,
    dropout: Option<(Dropout, Arc<DeviceBuffer>)>,
}

#[repr(C)]
#[derive(Clone, Copy, NoUninit)]
struct ForwardArguments {
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

pub(super) fn normalise(
    op: &'static str,
    input: Input<'_>,
    [gamma, beta]: [&Tensor; 2],
    eps: f64,
) -> Result<Normalised> {
    let x = floats(op, input.x)?;
    let device = device_of(op, &x)?;
    let (gamma, beta) = (f32s(op, gamma)?, f32s(op, beta)?);
    let (rows, width) = rows_and_width(x.shape());
    let y = fresh(op, x.shape(), x.dtype(), &device)?;
    let statistics = fresh(op, &[2, rows], DType::F32, &device)?;
    let (residual, dropout) = match input.residual {
        Some((residual, dropout, rows)) => (Some(floats(op, residual)?), Some((dropout, rows))),
        None => (None, None),
    };
    let z = if residual.is_some() { fresh(op, x.shape(), x.dtype(), &device)? } else { x.clone() };
    let arguments = ForwardArguments {
        x: pointer(&x),
        residual: residual.as_ref().map_or(0, pointer),
        coordinates: dropout.as_ref().map_or(0, |(_, rows)| rows.pointer()),
        dropout: KernelDropout::new(dropout.as_ref().map_or(&Dropout::NONE, |(dropout, _)| dropout)),
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
    // x and y, and with a residual that and the sum, too; the statistics of rows.
    let matrices = if residual.is_some() { 4 } else { 2 };
    let bytes = rows * (width * matrices * x.dtype().size() + 2 * DType::F32.size());
    let name = kernel_for(x.dtype(), ["layer_norm_forward_f32", "layer_norm_forward_bf16"]);
    let launch = Launch::new(&device, op, FILE, name).grid([rows.div_ceil(WARPS), 1, 1]);
    launch.moves(bytes).with(&arguments)?;
    Ok(Normalised { y, backward: Backward { op, z, gamma, statistics, dropout } })
}

#[repr(C)]
#[derive(Clone, Copy, NoUninit)]
struct BackwardArguments {
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
    block_rows: i32,
    padding_end: u32,
}

impl Backward {
    /// Writes the gradients to their final places: that of the normalised sum, which is also that of the residual; that of
    /// the input behind the dropout; and those of gamma and beta.
    pub(super) fn launch(
        &self,
        dy: &Tensor,
        [dz, dx]: [Option<(&Tensor, bool)>; 2],
        [dgamma, dbeta]: [Slot<'_>; 2],
    ) -> Result<()> {
        let Backward { op, z, gamma, statistics, dropout } = self;
        let dy = floats(op, dy)?;
        let device = device_of(op, &dy)?;
        let (rows, width) = rows_and_width(dy.shape());
        let block_rows = rows.div_ceil(BLOCKS).max(FEWEST_ROWS);
        let blocks = rows.div_ceil(block_rows);
        let sums = fresh(op, &[blocks, 2, width], DType::F32, &device)?;
        let address = |place: Option<(&Tensor, bool)>| place.map_or(0, |(tensor, _)| pointer(tensor));
        let add = |place: Option<(&Tensor, bool)>| place.is_some_and(|(_, add)| add).into();
        let arguments = BackwardArguments {
            dy: pointer(&dy),
            z: pointer(z),
            gamma: pointer(gamma),
            mean: pointer(statistics),
            rstd: pointer(statistics) + 4 * rows as u64,
            coordinates: dropout.as_ref().map_or(0, |(_, rows)| rows.pointer()),
            dropout: KernelDropout::new(dropout.as_ref().map_or(&Dropout::NONE, |(dropout, _)| dropout)),
            padding: 0,
            dz: address(dz),
            dx: address(dx),
            add_dz: add(dz),
            add_dx: add(dx),
            sums: pointer(&sums),
            rows: int(op, rows)?,
            width: int(op, width)?,
            block_rows: int(op, block_rows)?,
            padding_end: 0,
        };
        // Fewer warps if their sums would not fit into the 64 KiB of shared memory that every device has.
        let warps = match width {
            3073.. => 1,
            1537.. => 2,
            _ => WARPS,
        };
        let written = |place: Option<(&Tensor, bool)>| place.map_or(0, |(_, add)| 1 + usize::from(add));
        let bytes = dy.dtype().size() * rows * width * (2 + written(dz) + written(dx));
        let bytes = bytes + DType::F32.size() * (2 * rows + 2 * blocks * width);
        let name = kernel_for(dy.dtype(), ["layer_norm_backward_f32", "layer_norm_backward_bf16"]);
        let launch = Launch::new(&device, op, FILE, name).grid([blocks, 1, 1]).moves(bytes);
        launch.threads(32 * warps as u32).shared(warps * 2 * width * 4).with(&arguments)?;
        write_sums(op, &device, sums, [dgamma, dbeta])
    }
}

/// Writes the gradients of gamma and beta, given the sums of blocks of rows: [blocks, 2, width].
fn write_sums(op: &'static str, device: &CudaDevice, sums: Tensor, slots: [Slot<'_>; 2]) -> Result<()> {
    let width = sums.width();
    let both = Rows { count: sums.size(0), stride: 2 * width, width: 2 * width, ..Rows::of(&sums) };
    let [dgamma, dbeta] = slots;
    let (mut dgamma, mut dbeta) = (dgamma.open()?, dbeta.open()?);
    let [of_gamma, of_beta] = [place(&mut dgamma), place(&mut dbeta)];
    if let (Some((gamma, add)), Some((beta, add_beta))) = (of_gamma, of_beta)
        && add == add_beta
        && lie_together(gamma, beta)
    {
        return add_rows(op, device, both, pointer(gamma), Accumulate::gradient(add));
    }
    for (of, start) in [(of_gamma, 0), (of_beta, width)] {
        if let Some((to, add)) = of {
            add_rows(op, device, both.columns(start, width), pointer(to), Accumulate::gradient(add))?;
        }
    }
    Ok(())
}

/// Whether a row-major tensor starts where another one of the same memory ends, as parameters in the arena do.
fn lie_together(first: &Tensor, second: &Tensor) -> bool {
    match (first.storage(), second.storage()) {
        (Storage::Cuda(of_first), Storage::Cuda(of_second)) => {
            Arc::ptr_eq(of_first, of_second) && second.layout().offset == first.layout().offset + first.elements()
        }
        _ => false,
    }
}
