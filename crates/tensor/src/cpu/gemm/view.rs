//! Matrices in slices, with strides: what a product reads and writes.

/// A strided matrix to be read.
#[derive(Clone, Copy)]
pub(crate) struct View<'a, T> {
    pub(super) data: &'a [T],
    pub(super) rows: usize,
    pub(super) cols: usize,
    pub(super) row_stride: usize,
    pub(super) col_stride: usize,
}

/// A strided matrix to be written.
pub(crate) struct ViewMut<'a, T> {
    pub(super) data: &'a mut [T],
    pub(super) rows: usize,
    pub(super) cols: usize,
    pub(super) row_stride: usize,
    pub(super) col_stride: usize,
}

/// Elements that a strided matrix reaches over.
pub(super) fn extent(rows: usize, cols: usize, row_stride: usize, col_stride: usize) -> usize {
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
