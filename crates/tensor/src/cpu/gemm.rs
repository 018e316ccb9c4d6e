//! Matrix products: the one file in front of the crate that computes them.
//!
//! `gemm` packs, blocks for the caches and picks its instructions at run time (its own choice, which
//! [`super::simd::force_level`] does not reach). It gives the same bits for any number of threads; the test below
//! holds it to that, and the version is pinned exactly. Measured beside it, `gemmkit` 0.1.2 is level with it but for
//! transposed left operands, the gradients of weights, where it reaches half as much.

use super::Real;

/// Products of a type. A trait of its own so that the crate is named in this file alone.
pub(crate) trait Product: Copy + PartialEq + Default + 'static {
    /// The number 1.
    const UNIT: Self;
}

impl Product for f32 {
    const UNIT: f32 = 1.0;
}

impl Product for f64 {
    const UNIT: f64 = 1.0;
}

/// `C = A B`, or `C += A B` when `accumulate`, with A `[m, k]`, B `[k, n]` and C `[m, n]`, each given by a pointer and
/// (row, column) strides in elements. Without `accumulate`, C is overwritten without being read.
///
/// # Safety
/// A and B must be readable, and C writable, at every element that sizes and strides name (A and B at none when `k`
/// is 0). C must not overlap A or B, nor itself.
unsafe fn gemm<T: Real>(
    (m, n, k): (usize, usize, usize),
    (a, a_row, a_col): (*const T, isize, isize),
    (b, b_row, b_col): (*const T, isize, isize),
    (c, c_row, c_col): (*mut T, isize, isize),
    accumulate: bool,
) {
    let parallelism = match rayon::current_num_threads() {
        1 => gemm::Parallelism::None,
        threads => gemm::Parallelism::Rayon(threads),
    };
    // The crate computes C = scale C + factor A B.
    let scale = if accumulate { T::UNIT } else { T::default() };
    // SAFETY: the caller's promises are those that the crate asks for.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            c,
            c_col,
            c_row,
            accumulate,
            a,
            a_col,
            a_row,
            b,
            b_col,
            b_row,
            scale,
            T::UNIT,
            false,
            false,
            false,
            parallelism,
        );
    }
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

/// `C = A B`, or `C += A B` when `accumulate`, over views; panics when their sizes do not fit. Without `accumulate`, C is
/// overwritten without being read.
pub(crate) fn matmul<T: Real>(a: View<'_, T>, b: View<'_, T>, c: ViewMut<'_, T>, accumulate: bool) {
    assert!(a.rows == c.rows && a.cols == b.rows && b.cols == c.cols, "sizes of a matrix product");
    if c.rows == 0 || c.cols == 0 {
        return;
    }
    // SAFETY: the views were checked against their slices, and C, borrowed mutably, overlaps neither A nor B.
    unsafe {
        gemm(
            (c.rows, c.cols, a.cols),
            (a.data.as_ptr(), a.row_stride as isize, a.col_stride as isize),
            (b.data.as_ptr(), b.row_stride as isize, b.col_stride as isize),
            (c.data.as_mut_ptr(), c.row_stride as isize, c.col_stride as isize),
            accumulate,
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
                for accumulate in [false, true] {
                    // Overwriting, whatever C held must not matter.
                    let c0: Vec<T> = if accumulate { c0.clone() } else { vec![T::from_f64(f64::NAN); c0.len()] };
                    let results = with_threads(|| {
                        let mut c = c0.clone();
                        let (a, b) = (View::new(&a, m, k, sa.0, sa.1), View::new(&b, k, n, sb.0, sb.1));
                        matmul(a, b, ViewMut::new(&mut c, m, n, sc.0, sc.1), accumulate);
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
                        let want = terms.sum::<f64>() + if accumulate { before } else { 0.0 };
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
        matmul(View::rows(&[], 2, 0), View::rows(&[], 0, 3), ViewMut::rows(&mut c, 2, 3), false);
        assert_eq!(c, [0.0; 6]);
        let mut c = [1.0; 6];
        matmul(View::rows(&[], 2, 0), View::rows(&[], 0, 3), ViewMut::rows(&mut c, 2, 3), true);
        assert_eq!(c, [1.0; 6]);
        matmul(View::rows(&[], 0, 2), View::rows(&[1.0; 6], 2, 3), ViewMut::rows(&mut [], 0, 3), false);
        matmul(View::rows(&[1.0; 4], 2, 2), View::rows(&[], 2, 0), ViewMut::rows(&mut [], 2, 0), false);
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
