//! Sums of rows, by the kernels column_sums_* of layer_norm.cu: gradients of biases and of layer norms, and products whose
//! parts are to be added.

use bytemuck::bytes_of;

use super::arguments::{fresh, int, kernel_for, pointer};
use crate::cuda::{Accumulate, CudaDevice, Launch, Pointer};
use crate::dtype::DType;
use crate::error::Result;
use crate::layout::rows_and_width;
use crate::tensor::Tensor;

/// Rows of which one thread sums a column, and threads of a block.
const FEW: usize = 64;
const THREADS: usize = 128;
/// Threads that share a column of more rows, and the columns of a block of theirs.
const SHARERS: usize = 16;
const SHARED_COLUMNS: usize = 32;

/// Rows that a kernel reads.
#[derive(Clone, Copy)]
pub(super) struct Rows {
    pub(super) parts: Pointer,
    /// f32 or bf16; sums are f32.
    pub(super) dtype: DType,
    pub(super) count: usize,
    /// The elements from row to row.
    pub(super) stride: usize,
    /// The columns that are summed.
    pub(super) width: usize,
}

impl Rows {
    /// The rows of a row-major tensor.
    pub(super) fn of(tensor: &Tensor) -> Rows {
        let (count, width) = rows_and_width(tensor.shape());
        Rows { parts: pointer(tensor), dtype: tensor.dtype(), count, stride: width, width }
    }

    /// Some of the columns.
    pub(super) fn columns(self, start: usize, width: usize) -> Rows {
        Rows { parts: self.parts + (start * self.dtype.size()) as u64, width, ..self }
    }
}

/// Writes the sums of columns to the memory at `to`. More rows than threads can share are summed by blocks of rows first: there may
/// be more rows than columns to occupy a device with.
pub(super) fn add_rows(
    op: &'static str,
    device: &CudaDevice,
    rows: Rows,
    to: Pointer,
    accumulate: Accumulate,
) -> Result<()> {
    if rows.count <= FEW * SHARERS {
        return launch(op, device, rows, rows.count, to, accumulate);
    }
    let few = fresh(op, &[rows.count.div_ceil(FEW), rows.width], DType::F32, device)?;
    launch(op, device, rows, FEW, pointer(&few), Accumulate::Overwrite)?;
    add_rows(op, device, Rows::of(&few), to, accumulate)
}

/// Launches the sums of each `summed` rows.
fn launch(
    op: &'static str,
    device: &CudaDevice,
    rows: Rows,
    summed: usize,
    to: Pointer,
    accumulate: Accumulate,
) -> Result<()> {
    let Rows { parts, dtype, count, stride, width } = rows;
    let blocks = count.div_ceil(summed.max(1)).max(1);
    let (sharers, columns) = if summed > FEW { (SHARERS, SHARED_COLUMNS) } else { (1, THREADS) };
    let threads = sharers * columns;
    let name = kernel_for(dtype, ["column_sums_f32", "column_sums_bf16"]);
    let launch = Launch::new(device, op, "layer_norm", name).threads(threads as u32).shared(4 * threads);
    let launch = launch.grid([width.div_ceil(columns), blocks, 1]);
    let launch = launch.moves(width * (dtype.size() * count + DType::F32.size() * blocks));
    let [count, summed, stride] = [int(op, count)?, int(op, summed)?, int(op, stride)?];
    let numbers = [count, summed, stride, int(op, width)?, int(op, sharers)?, accumulate as i32];
    let [count, summed, stride, width, sharers, accumulate] = numbers.each_ref().map(bytes_of);
    launch.with_all(&[bytes_of(&parts), bytes_of(&to), count, summed, stride, width, sharers, accumulate])
}
