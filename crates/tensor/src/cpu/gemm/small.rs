//! Small matrix products on one thread, for the blocks of attention.
//!
//! For sequences of 15 tokens a general matrix product spends more time on decisions and packing than on multiplying. Here
//! only B is packed, into panels of [`PANEL`] columns that are padded with zeros, so that the inner loop has no edge. A is
//! read in place with any strides, because its elements are only broadcast. A tile of 4 rows by one panel stays in registers:
//! 8 AVX-512 accumulators in `f32`, just enough to hide the latency of a multiply-add.
//!
//! The sum of an element runs along k in order, whatever the sizes.

#![allow(clippy::needless_range_loop, reason = "loops over a tile use its coordinates")]

use super::view::View;
use crate::cpu::real::Real;
use crate::cpu::simd::simd;

simd! {
    /// Computes `C (+)= A B` into `c`, whose rows are `stride` elements apart. The rows or the columns of B must be
    /// contiguous. `space` is working memory. C must be as [`Gemm::serial`](super::Gemm::serial) requires it.
    pub(super) fn multiply<T: Real>(
        a: View<'_, T>,
        b: View<'_, T>,
        c: *mut T,
        stride: usize,
        accumulate: bool,
        space: &mut Vec<T>,
    ) {
        let (k, n) = (b.rows, b.cols);
        space.resize(packed_len(k, n).max(space.len()), T::ZERO);
        if b.col_stride == 1 {
            pack(b.data, b.row_stride, k, n, space);
        } else {
            assert_eq!(b.row_stride, 1);
            pack_transposed(b.data, b.col_stride, k, n, space);
        }
        // SAFETY: C is valid and exclusive by the contract of `Gemm::serial`, the only caller besides the tests.
        unsafe { product((a.rows, n, k), a.data, (a.row_stride, a.col_stride), space, c, stride, accumulate) };
    }
}

/// Columns of a panel.
const PANEL: usize = 32;
/// Rows of a tile.
const ROWS: usize = 4;

/// Returns the number of elements of a packed matrix of `k` rows and `n` columns.
fn packed_len(k: usize, n: usize) -> usize {
    n.div_ceil(PANEL) * PANEL * k
}

/// Packs B `[k, n]` with contiguous rows, `stride` elements apart, into panels.
#[inline(always)]
fn pack<T: Real>(b: &[T], stride: usize, k: usize, n: usize, packed: &mut [T]) {
    for (panel, packed) in packed[..packed_len(k, n)].chunks_exact_mut(PANEL * k).enumerate() {
        let first = panel * PANEL;
        let width = PANEL.min(n - first);
        for (row, packed) in packed.as_chunks_mut::<PANEL>().0.iter_mut().enumerate() {
            let from = &b[row * stride + first..][..width];
            if let Ok(from) = <&[T; PANEL]>::try_from(from) {
                *packed = *from;
            } else {
                packed[..width].copy_from_slice(from);
                packed[width..].fill(T::ZERO);
            }
        }
    }
}

/// Packs the transpose `[k, n]` of a matrix `[n, k]` with contiguous rows, `stride` elements apart, into panels.
#[inline(always)]
fn pack_transposed<T: Real>(b: &[T], stride: usize, k: usize, n: usize, packed: &mut [T]) {
    for (panel, packed) in packed[..packed_len(k, n)].chunks_exact_mut(PANEL * k).enumerate() {
        let first = panel * PANEL;
        let width = PANEL.min(n - first);
        let packed = packed.as_chunks_mut::<PANEL>().0;
        // The rows are too far apart for the hardware prefetchers, and each write below takes many instructions. Reading one
        // element of each cache line first lets the cache misses overlap, which saves a third of the time for long
        // sequences.
        let mut touched = T::ZERO;
        for column in 0..width {
            for line in b[(first + column) * stride..][..k].chunks(64 / size_of::<T>()) {
                touched = line[0].max(touched);
            }
        }
        std::hint::black_box(touched);
        for column in 0..width {
            for (packed, &x) in packed.iter_mut().zip(&b[(first + column) * stride..][..k]) {
                packed[column] = x;
            }
        }
        if width < PANEL {
            for packed in packed {
                packed[width..].fill(T::ZERO);
            }
        }
    }
}

/// Computes `C (+)= A B` with B packed.
///
/// # Safety
/// The `m` rows of `n` elements at `c`, `stride` apart, must be valid for reads and writes, and nothing else may access
/// them.
#[inline(always)]
unsafe fn product<T: Real>(
    (m, n, k): (usize, usize, usize),
    a: &[T],
    (a_row, a_col): (usize, usize),
    packed: &[T],
    c: *mut T,
    stride: usize,
    accumulate: bool,
) {
    assert!(k == 0 || a.len() > (m - 1) * a_row + (k - 1) * a_col);
    assert!(packed.len() >= packed_len(k, n));
    for first in (0..n).step_by(PANEL) {
        let b = &packed[first * k..][..PANEL * k].as_chunks::<PANEL>().0;
        let width = PANEL.min(n - first);
        let mut row = 0;
        while row < m {
            let rows = if m - row >= ROWS { ROWS } else { 1 };
            // SAFETY: `row + rows` is at most m. The assertion above covers these rows of A with all k columns, and this
            // function's contract covers them in C.
            unsafe {
                let c = c.add(row * stride + first);
                match (rows, width) {
                    (ROWS, PANEL) => whole_tile::<T, ROWS>(a, row * a_row, a_row, a_col, b, c, stride, accumulate),
                    (ROWS, _) => cut_tile::<T, ROWS>(a, row * a_row, a_row, a_col, b, c, stride, accumulate, width),
                    (_, PANEL) => whole_tile::<T, 1>(a, row * a_row, a_row, a_col, b, c, stride, accumulate),
                    _ => cut_tile::<T, 1>(a, row * a_row, a_row, a_col, b, c, stride, accumulate, width),
                }
            }
            row += rows;
        }
    }
}

/// Returns the product of `R` rows of A, from element `start` on, with a panel.
///
/// # Safety
/// `start + (R - 1) * row + (b.len() - 1) * col` must be in bounds of `a` unless `b` is empty.
#[inline(always)]
unsafe fn tile<T: Real, const R: usize>(
    a: &[T],
    start: usize,
    row: usize,
    col: usize,
    b: &[[T; PANEL]],
) -> [[T; PANEL]; R] {
    let mut sums = [[T::ZERO; PANEL]; R];
    for (l, b) in b.iter().enumerate() {
        for r in 0..R {
            // SAFETY: `r` is below `R` and `l` below `b.len()`, so the index is in bounds by this function's contract.
            let a = unsafe { *a.get_unchecked(start + r * row + l * col) };
            for j in 0..PANEL {
                sums[r][j] = a.mul_add(b[j], sums[r][j]);
            }
        }
    }
    sums
}

/// Computes a tile and writes it. The tile is indexed only by constants, so that it stays in registers.
///
/// # Safety
/// As for [`tile`]. `R` rows of `PANEL` elements at `c`, `stride` apart, must be valid for reads and writes, and nothing
/// else may access them.
#[inline(always)]
unsafe fn whole_tile<T: Real, const R: usize>(
    a: &[T],
    start: usize,
    row: usize,
    col: usize,
    b: &[[T; PANEL]],
    c: *mut T,
    stride: usize,
    accumulate: bool,
) {
    // SAFETY: A and C are valid by this function's contract, and an array of T has the alignment of T.
    unsafe {
        let tile = tile::<T, R>(a, start, row, col, b);
        if accumulate {
            for r in 0..R {
                let c = &mut *c.add(r * stride).cast::<[T; PANEL]>();
                for j in 0..PANEL {
                    c[j] += tile[r][j];
                }
            }
        } else {
            for r in 0..R {
                *c.add(r * stride).cast::<[T; PANEL]>() = tile[r];
            }
        }
    }
}

/// Like [`whole_tile`], but writes only the first `width` columns.
///
/// # Safety
/// As for [`whole_tile`], with `width` elements per row.
#[inline(always)]
unsafe fn cut_tile<T: Real, const R: usize>(
    a: &[T],
    start: usize,
    row: usize,
    col: usize,
    b: &[[T; PANEL]],
    c: *mut T,
    stride: usize,
    accumulate: bool,
    width: usize,
) {
    // SAFETY: A and C are valid by this function's contract.
    unsafe {
        let tile = tile::<T, R>(a, start, row, col, b);
        for (r, tile) in tile.iter().enumerate() {
            let c = std::slice::from_raw_parts_mut(c.add(r * stride), width);
            for (c, &x) in c.iter_mut().zip(tile) {
                *c = if accumulate { *c + x } else { x };
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::simd::testing::at_each_level;
    use crate::cpu::testing::{close, random_in, wide};

    fn check<T: Real>(tolerance: f64) {
        for (m, n, k) in [(1, 1, 1), (3, 15, 16), (4, 16, 17), (5, 33, 1), (17, 64, 31), (9, 70, 40)] {
            for layout in 0..8 {
                let (a, b, c) = (random_in::<T>(m * k, 1), random_in::<T>(k * n, 2), random_in::<T>(m * (n + 3), 3));
                let strides = if layout & 1 == 0 { (k, 1) } else { (1, m) };
                let (transposed, accumulate) = (layout & 2 != 0, layout & 4 != 0);
                let mut want = wide(&c);
                for i in 0..m {
                    for j in 0..n {
                        let b_at = |l: usize| if transposed { j * k + l } else { l * n + j };
                        let term = |l: usize| a[i * strides.0 + l * strides.1].to_f64() * b[b_at(l)].to_f64();
                        let before = if accumulate { want[i * (n + 3) + j] } else { 0.0 };
                        want[i * (n + 3) + j] = before + (0..k).map(term).sum::<f64>();
                    }
                }
                let mut got = c.clone();
                let b_view = if transposed { View::rows(&b, n, k).transposed() } else { View::rows(&b, k, n) };
                let a_view = View::new(&a, m, k, strides.0, strides.1);
                multiply(a_view, b_view, got.as_mut_ptr(), n + 3, accumulate, &mut vec![T::from_f64(f64::NAN); 3]);
                // The whole buffer is compared, because the gaps between rows must not change.
                close(&got, &want, tolerance, &format!("{m} {n} {k} layout {layout}"));
            }
        }
    }

    #[test]
    fn products_of_all_layouts() {
        at_each_level(|_| {
            check::<f32>(1e-6);
            check::<f64>(1e-14);
        });
    }
}
