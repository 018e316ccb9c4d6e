//! Sums of the columns of a matrix: the gradient of a bias. Each thread owns columns and adds the rows in order, so the
//! sums do not depend on the number of threads.

use crate::cpu::parallel::{RowsMut, for_blocks};
use crate::cpu::real::Real;
use crate::cpu::simd::simd;
use crate::cpu::target::Target;

/// Columns per task: several cache lines, so that a task uses all of the memory that it reads.
const BLOCK: usize = 128;

simd! {
    /// Adds four rows at a time, so that the sums are read and written a quarter as often.
    fn add_rows<T: Real>(matrix: &[T], rows: usize, stride: usize, start: usize, sums: &mut [T]) {
        let count = sums.len();
        let part = |row: usize| &matrix[row * stride + start..][..count];
        let mut row = 0;
        while row + 4 <= rows {
            let (a, b, c, d) = (part(row), part(row + 1), part(row + 2), part(row + 3));
            for i in 0..count {
                sums[i] += (a[i] + b[i]) + (c[i] + d[i]);
            }
            row += 4;
        }
        while row < rows {
            let a = part(row);
            for i in 0..count {
                sums[i] += a[i];
            }
            row += 1;
        }
    }
}

/// Computes the sums of the columns of a matrix of `rows` rows that are `stride` elements apart.
pub(crate) fn column_sums<T: Real>(matrix: &[T], rows: usize, stride: usize, sums: Target<T>) {
    let Target { data, accumulate } = sums;
    if !accumulate {
        data.fill(T::ZERO);
    }
    if rows > 0 {
        for_blocks(data.len(), BLOCK, rows, RowsMut::new(data, 1), |columns, sums| {
            add_rows(matrix, rows, stride, columns.start, sums.data);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_part_of_the_columns() {
        let (rows, width) = (7, 300);
        let matrix: Vec<f32> = (0..rows * width).map(|i| (i % 13) as f32).collect();
        for accumulate in [false, true] {
            let mut sums = vec![1.0; 200];
            column_sums(&matrix[100..], rows, width, Target::new(&mut sums, accumulate));
            for (i, sum) in sums.iter().enumerate() {
                let expected: f32 = (0..rows).map(|row| matrix[row * width + 100 + i]).sum();
                assert_eq!(*sum, expected + if accumulate { 1.0 } else { 0.0 });
            }
        }
    }
}
