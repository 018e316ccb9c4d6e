//! Sums of rows, by the kernel column_sums_f32 of layer_norm.cu: gradients of biases and of layer norms, and products whose
//! parts are to be added.

use bytemuck::bytes_of;

use super::arguments::{fresh, int, pointer};
use crate::cuda::{Accumulate, CudaDevice, Launch, Pointer};
use crate::dtype::DType;
use crate::error::Result;
use crate::tensor::Tensor;

/// Rows of which one thread sums a column, and threads of a block.
const FEW: usize = 64;
const THREADS: u32 = 128;

/// Rows that a kernel reads: their number, the elements from row to row, and the columns that are summed.
type Rows = (usize, usize, usize);

/// Writes the sums of `width` columns, over `count` rows that are `stride` apart, to the memory at `to`.
pub(super) fn add_rows(
    op: &'static str,
    device: &CudaDevice,
    parts: Pointer,
    rows: Rows,
    to: Pointer,
    accumulate: Accumulate,
) -> Result<()> {
    match summed_to_few(op, device, parts, rows)? {
        None => launch(op, device, parts, rows, rows.0, to, accumulate),
        Some(few) => launch(op, device, pointer(&few), (few.size(0), rows.2, rows.2), few.size(0), to, accumulate),
    }
}

/// Sums blocks of rows; returns `None` if there are few. There may be more rows than columns to occupy a device with.
pub(super) fn summed_to_few(
    op: &'static str,
    device: &CudaDevice,
    parts: Pointer,
    rows @ (count, _, width): Rows,
) -> Result<Option<Tensor>> {
    if count <= FEW {
        return Ok(None);
    }
    let summed = count.div_ceil(FEW).max(FEW);
    let few = fresh(op, &[count.div_ceil(summed), width], DType::F32, device)?;
    launch(op, device, parts, rows, summed, pointer(&few), Accumulate::Overwrite)?;
    Ok(Some(few))
}

/// Launches the sums of each `summed` rows.
fn launch(
    op: &'static str,
    device: &CudaDevice,
    parts: Pointer,
    (count, stride, width): Rows,
    summed: usize,
    to: Pointer,
    accumulate: Accumulate,
) -> Result<()> {
    let blocks = count.div_ceil(summed.max(1)).max(1);
    let launch = Launch::new(device, op, "layer_norm", "column_sums_f32").threads(THREADS);
    let launch = launch.grid([width.div_ceil(THREADS as usize), blocks, 1]).moves(4 * width * (count + blocks));
    let numbers = [int(op, count)?, int(op, summed)?, int(op, stride)?, int(op, width)?, accumulate as i32];
    let [count, summed, stride, columns, accumulate] = numbers.each_ref().map(bytes_of);
    launch.with_all(&[bytes_of(&parts), bytes_of(&to), count, summed, stride, columns, accumulate])
}
