//! Pooling over sequences: the mean or the maximum of the rows of each sequence of a packed batch, column by column.

use super::parallel::{RowsMut, for_blocks, for_rows};
use super::real::Real;
use super::target::Target;

/// Returns the rows of sequence `index`.
fn rows_of<'x, T>(x: &'x [T], width: usize, cu_seqlens: &[u32], index: usize) -> &'x [T] {
    &x[cu_seqlens[index] as usize * width..cu_seqlens[index + 1] as usize * width]
}

/// The number of elements of an average sequence.
fn cost(elements: usize, sequences: usize) -> usize {
    elements / sequences.max(1)
}

/// Computes the means `y [B, W]` over the rows of each sequence of `x [T, W]`.
pub(crate) fn mean<T: Real>(x: &[T], width: usize, cu_seqlens: &[u32], y: &mut [T]) {
    let sequences = cu_seqlens.len() - 1;
    for_blocks(sequences, 1, cost(x.len(), sequences), RowsMut::new(y, width), |range, y| {
        let rows = rows_of(x, width, cu_seqlens, range.start);
        y.data.fill(T::ZERO);
        for row in rows.chunks_exact(width) {
            y.data.iter_mut().zip(row).for_each(|(y, &x)| *y += x);
        }
        let factor = T::ONE / T::from_f64((rows.len() / width) as f64);
        y.data.iter_mut().for_each(|y| *y *= factor);
    });
}

/// Computes the gradient of [`mean`]: each row of `dx` (+)= the `dy` of its sequence, divided by the sequence's length.
pub(crate) fn mean_backward<T: Real>(dy: &[T], width: usize, cu_seqlens: &[u32], dx: Target<T>) {
    let Target { data, accumulate } = dx;
    for_rows(data.len() / width, width, RowsMut::new(data, width), |range, dx| {
        for (row, dx) in range.zip(dx.data.chunks_exact_mut(width)) {
            let index = cu_seqlens.partition_point(|&start| start as usize <= row) - 1;
            let length = cu_seqlens[index + 1] - cu_seqlens[index];
            let factor = T::ONE / T::from_f64(length.into());
            for (dx, &dy) in dx.iter_mut().zip(&dy[index * width..][..width]) {
                *dx = if accumulate { *dx + dy * factor } else { dy * factor };
            }
        }
    });
}

/// Computes the maxima `y [B, W]` over the rows of each sequence of `x [T, W]`, column by column, and the row of `x` that
/// each comes from: the first one if there are several. NaN counts as larger than any number.
pub(crate) fn max<T: Real>(x: &[T], width: usize, cu_seqlens: &[u32], y: &mut [T], rows: &mut [u32]) {
    let sequences = cu_seqlens.len() - 1;
    let to = (RowsMut::new(y, width), RowsMut::new(rows, width));
    for_blocks(sequences, 1, cost(x.len(), sequences), to, |range, (y, from)| {
        let first = cu_seqlens[range.start];
        for (row, values) in (first..).zip(rows_of(x, width, cu_seqlens, range.start).chunks_exact(width)) {
            for ((y, from), &x) in y.data.iter_mut().zip(from.data.iter_mut()).zip(values) {
                // NaN is not equal to itself.
                #[allow(clippy::eq_op)]
                if row == first || x > *y || (x != x && *y == *y) {
                    (*y, *from) = (x, row);
                }
            }
        }
    });
}

/// Computes the gradient of [`max`]: adds `dy` at the rows that it found.
pub(crate) fn max_backward<T: Real>(dy: &[T], width: usize, rows: &[u32], dx: Target<T>) {
    let Target { data, accumulate } = dx;
    if !accumulate {
        data.fill(T::ZERO);
    }
    for (at, (&dy, &row)) in dy.iter().zip(rows).enumerate() {
        data[row as usize * width + at % width] += dy;
    }
}
