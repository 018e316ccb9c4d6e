//! Sums of rows, by the kernel column_sums_f32 of layer_norm.cu: gradients of biases and of layer norms, and products whose
//! parts are to be added.

use bytemuck::bytes_of;

use super::arguments::{fresh, int, pointer};
use crate::cuda::{Accumulate, CudaDevice, Launch, Pointer};
use crate::dtype::DType;
use crate::error::Result;

/// Rows that a thread sums a column of, and threads of a block.
const SUMMED: usize = 64;
const THREADS: u32 = 128;

/// Returns the blocks of rows that are summed apart.
fn grid_rows(count: usize) -> usize {
    count.div_ceil(SUMMED).max(1)
}

/// Writes the sums of `width` columns, over `count` rows that are `stride` apart, to the memory at `to`.
pub(super) fn add_rows(
    op: &'static str,
    device: &CudaDevice,
    parts: Pointer,
    (count, stride, width): (usize, usize, usize),
    to: Pointer,
    accumulate: Accumulate,
) -> Result<()> {
    let launch = |to: Pointer, accumulate: Accumulate| {
        let bytes = 4 * width * (count + grid_rows(count));
        let grid = [width.div_ceil(THREADS as usize), grid_rows(count), 1];
        let numbers = [int(op, count)?, int(op, stride)?, int(op, width)?, accumulate as i32];
        let [count, stride, columns, accumulate] = numbers.each_ref().map(bytes_of);
        let arguments = [bytes_of(&parts), bytes_of(&to), count, stride, columns, accumulate];
        let launch = Launch::new(device, op, "layer_norm", "column_sums_f32").threads(THREADS).grid(grid);
        launch.moves(bytes).with_all(&arguments)
    };
    if count <= SUMMED {
        return launch(to, accumulate);
    }
    // There may be more rows than columns to occupy a device with, so blocks of rows are summed first.
    let rows = count.div_ceil(SUMMED);
    let sums = fresh(op, &[rows, width], DType::F32, device)?;
    launch(pointer(&sums), Accumulate::Overwrite)?;
    add_rows(op, device, pointer(&sums), (rows, width, width), to, accumulate)
}
