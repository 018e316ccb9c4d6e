//! Matrix products: the one file in front of the crate that computes them.
//!
//! `gemmkit` packs, blocks for the caches and picks its instructions at run time (its own choice, which
//! [`super::simd::force_level`] does not reach). It gives the same bits for any number of threads; the test below
//! holds it to that, and the version is pinned exactly.

use gemmkit::{Parallelism, gemm_unchecked};

use super::Real;

/// Products of a type, as `gemmkit` has them. A trait of its own so that `gemmkit` is named in this file alone.
pub(crate) trait Product: Copy {
    /// See [`gemm`].
    ///
    /// # Safety
    /// As for [`gemm`].
    unsafe fn product(
        size: (usize, usize, usize),
        alpha: Self,
        a: (*const Self, (isize, isize)),
        b: (*const Self, (isize, isize)),
        beta: Self,
        c: (*mut Self, (isize, isize)),
        parallelism: Parallelism,
    );
}

macro_rules! product {
    ($($t:ty)*) => {$(
        impl Product for $t {
            #[inline]
            unsafe fn product(
                (m, n, k): (usize, usize, usize),
                alpha: $t,
                (a, (a_row, a_col)): (*const $t, (isize, isize)),
                (b, (b_row, b_col)): (*const $t, (isize, isize)),
                beta: $t,
                (c, (c_row, c_col)): (*mut $t, (isize, isize)),
                parallelism: Parallelism,
            ) {
                // SAFETY: the caller's promises are those that `gemmkit` asks for.
                unsafe {
                    gemm_unchecked(m, k, n, alpha, a, a_row, a_col, b, b_row, b_col, beta, c, c_row, c_col, parallelism)
                }
            }
        }
    )*};
}
product!(f32 f64);

/// `C = alpha A B + beta C` with A `[m, k]`, B `[k, n]` and C `[m, n]`, each given by a pointer and (row, column)
/// strides in elements. With `beta` 0, C is overwritten without being read.
///
/// # Safety
/// A and B must be readable, and C writable, at every element that sizes and strides name (A and B at none when `k`
/// is 0). C must not overlap A or B, nor itself.
pub(crate) unsafe fn gemm<T: Real>(
    m: usize,
    n: usize,
    k: usize,
    alpha: T,
    a: *const T,
    a_strides: (isize, isize),
    b: *const T,
    b_strides: (isize, isize),
    beta: T,
    c: *mut T,
    c_strides: (isize, isize),
    parallel: bool,
) {
    if m == 0 || n == 0 {
        return;
    }
    // Asking for the pool's width by number keeps `gemmkit` from sizing its own pool by the machine.
    let parallelism = match rayon::current_num_threads() {
        threads if parallel && threads > 1 => Parallelism::Rayon(threads),
        _ => Parallelism::Serial,
    };
    // SAFETY: the caller's promises.
    unsafe { T::product((m, n, k), alpha, (a, a_strides), (b, b_strides), beta, (c, c_strides), parallelism) }
}

/// A strided matrix to be read.
#[derive(Clone, Copy)]
pub(crate) struct View<'a, T> {
    data: &'a [T],
    rows: usize,
    cols: usize,
    row_stride: usize,
    col_stride: usize,
}

/// A strided matrix to be written.
pub(crate) struct ViewMut<'a, T> {
    data: &'a mut [T],
    rows: usize,
    cols: usize,
    row_stride: usize,
    col_stride: usize,
}

/// Elements that a strided matrix reaches over.
fn extent(rows: usize, cols: usize, row_stride: usize, col_stride: usize) -> usize {
    if rows == 0 || cols == 0 { 0 } else { (rows - 1) * row_stride + (cols - 1) * col_stride + 1 }
}

impl<'a, T> View<'a, T> {
    /// Panics when the matrix reaches past the slice.
    pub(crate) fn new(data: &'a [T], rows: usize, cols: usize, row_stride: usize, col_stride: usize) -> Self {
        assert!(extent(rows, cols, row_stride, col_stride) <= data.len());
        View { data, rows, cols, row_stride, col_stride }
    }

    /// A contiguous row-major matrix.
    pub(crate) fn rows(data: &'a [T], rows: usize, cols: usize) -> Self {
        View::new(data, rows, cols, cols, 1)
    }

    pub(crate) fn transposed(self) -> Self {
        View {
            rows: self.cols,
            cols: self.rows,
            row_stride: self.col_stride,
            col_stride: self.row_stride,
            data: self.data,
        }
    }
}

impl<'a, T> ViewMut<'a, T> {
    /// Panics when the matrix reaches past the slice, or overlaps itself.
    pub(crate) fn new(data: &'a mut [T], rows: usize, cols: usize, row_stride: usize, col_stride: usize) -> Self {
        assert!(extent(rows, cols, row_stride, col_stride) <= data.len());
        let apart = |inner: usize, n: usize, outer: usize, m: usize| {
            m <= 1 || (inner > 0 || n <= 1) && outer >= extent(n, 1, inner, 0).max(1)
        };
        assert!(
            rows * cols <= 1
                || apart(col_stride, cols, row_stride, rows) && (cols <= 1 || col_stride > 0)
                || apart(row_stride, rows, col_stride, cols) && (rows <= 1 || row_stride > 0)
        );
        ViewMut { data, rows, cols, row_stride, col_stride }
    }

    /// A contiguous row-major matrix.
    pub(crate) fn rows(data: &'a mut [T], rows: usize, cols: usize) -> Self {
        ViewMut::new(data, rows, cols, cols, 1)
    }
}

/// `C = alpha A B + beta C` over views; panics when their sizes do not fit. With `beta` 0, C is overwritten without
/// being read.
pub(crate) fn matmul<T: Real>(alpha: T, a: View<'_, T>, b: View<'_, T>, beta: T, c: ViewMut<'_, T>, parallel: bool) {
    assert!(a.rows == c.rows && a.cols == b.rows && b.cols == c.cols, "sizes of a matrix product");
    let strides = |row: usize, col: usize| (row as isize, col as isize);
    // SAFETY: the views were checked against their slices, and C, borrowed mutably, overlaps neither A nor B.
    unsafe {
        gemm(
            c.rows,
            c.cols,
            a.cols,
            alpha,
            a.data.as_ptr(),
            strides(a.row_stride, a.col_stride),
            b.data.as_ptr(),
            strides(b.row_stride, b.col_stride),
            beta,
            c.data.as_mut_ptr(),
            strides(c.row_stride, c.col_stride),
            parallel,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::parallel::testing::with_threads;
    use crate::cpu::testing::random;

    const SHAPES: [(usize, usize, usize); 21] = [
        (1, 1, 1),
        (1, 768, 768),
        (768, 1, 768),
        (1, 3072, 64),
        (2, 768, 768),
        (8, 2, 768),
        (15, 15, 64),
        (16, 17, 33),
        (40, 40, 32),
        (100, 64, 100),
        (128, 128, 64),
        (128, 768, 768),
        (20, 3000, 96),
        (3000, 96, 20),
        (256, 1536, 16),
        (1000, 7, 300),
        (7, 1000, 300),
        (511, 513, 257),
        (64, 64, 4096),
        (1, 2000, 1000),
        (2000, 1, 1000),
    ];

    /// A matrix stored row-major or column-major, with a gap between rows.
    fn stored<T: Real>(rows: usize, cols: usize, transposed: bool, gap: usize, seed: u64) -> (Vec<T>, (usize, usize)) {
        let (outer, inner) = if transposed { (cols, rows) } else { (rows, cols) };
        let data = random(outer * (inner + gap), seed).into_iter().map(T::from_f64).collect();
        (data, if transposed { (1, inner + gap) } else { (inner + gap, 1) })
    }

    fn against_naive<T: Real>(tolerance: f64) {
        let mut cases = 0;
        for (m, n, k) in SHAPES {
            for layout in 0..8 {
                let gap = 3 * (layout % 3);
                let (a, sa) = stored::<T>(m, k, layout & 1 != 0, gap, 1);
                let (b, sb) = stored::<T>(k, n, layout & 2 != 0, gap, 2);
                let (c0, sc) = stored::<T>(m, n, layout & 4 != 0, gap, 3);
                for (alpha, beta) in [(1.0, 0.0), (0.5, 1.0)] {
                    // With beta 0 whatever C held must not matter.
                    let c0: Vec<T> = if beta == 0.0 { vec![T::from_f64(f64::NAN); c0.len()] } else { c0.clone() };
                    let results = with_threads(|| {
                        let mut c = c0.clone();
                        matmul(
                            T::from_f64(alpha),
                            View::new(&a, m, k, sa.0, sa.1),
                            View::new(&b, k, n, sb.0, sb.1),
                            T::from_f64(beta),
                            ViewMut::new(&mut c, m, n, sc.0, sc.1),
                            true,
                        );
                        c
                    });
                    let bytes = results.each_ref().map(|c| bytemuck::cast_slice::<T, u8>(c));
                    assert!(
                        bytes[0] == bytes[1] && bytes[0] == bytes[2],
                        "{m} {n} {k} layout {layout} differs by threads"
                    );
                    // A sample of the elements: the corners and some between.
                    for (i, j) in [(0, 0), (m - 1, n - 1), (m / 2, n / 3), (m / 3, n - 1), (m - 1, n / 2)] {
                        let terms = (0..k).map(|l| a[i * sa.0 + l * sa.1].to_f64() * b[l * sb.0 + j * sb.1].to_f64());
                        let before = c0[i * sc.0 + j * sc.1].to_f64();
                        let want = alpha * terms.sum::<f64>() + if beta == 0.0 { 0.0 } else { beta * before };
                        let got = results[0][i * sc.0 + j * sc.1].to_f64();
                        assert!(
                            (got - want).abs() <= tolerance * (k as f64).sqrt(),
                            "{m} {n} {k}: {got}, expected {want}"
                        );
                        cases += 1;
                    }
                }
            }
        }
        assert_eq!(cases, SHAPES.len() * 80);
    }

    #[test]
    fn same_bits_for_any_number_of_threads_and_right() {
        against_naive::<f32>(5e-6);
        against_naive::<f64>(1e-14);
    }

    #[test]
    fn empty_sizes() {
        let nan = f32::NAN;
        let mut c = [nan; 6];
        matmul(1.0, View::rows(&[], 2, 0), View::rows(&[], 0, 3), 0.0, ViewMut::rows(&mut c, 2, 3), true);
        assert_eq!(c, [0.0; 6]);
        let mut c = [1.0; 6];
        matmul(1.0, View::rows(&[], 2, 0), View::rows(&[], 0, 3), 1.0, ViewMut::rows(&mut c, 2, 3), true);
        assert_eq!(c, [1.0; 6]);
        matmul(1.0, View::rows(&[], 0, 2), View::rows(&[1.0; 6], 2, 3), 0.0, ViewMut::rows(&mut [], 0, 3), true);
        matmul(1.0, View::rows(&[1.0; 4], 2, 2), View::rows(&[], 2, 0), 0.0, ViewMut::rows(&mut [], 2, 0), true);
    }

    #[test]
    #[should_panic]
    fn a_view_past_its_slice_panics() {
        View::new(&[0.0f32; 5], 2, 3, 3, 1);
    }

    #[test]
    #[should_panic]
    fn a_destination_over_itself_panics() {
        ViewMut::new(&mut [0.0f32; 9], 3, 3, 1, 1);
    }
}
