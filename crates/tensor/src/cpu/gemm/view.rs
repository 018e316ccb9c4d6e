//! Strided matrices in slices: the operands and the result of a product.

use std::ops::Range;

use crate::cpu::real::Real;

/// A strided matrix for reading.
#[derive(Clone, Copy)]
pub(crate) struct View<'a, T> {
    pub(super) data: &'a [T],
    pub(super) rows: usize,
    pub(super) cols: usize,
    pub(super) row_stride: usize,
    pub(super) col_stride: usize,
}

/// A strided matrix for writing.
pub(crate) struct ViewMut<'a, T> {
    pub(super) data: &'a mut [T],
    pub(super) rows: usize,
    pub(super) cols: usize,
    pub(super) row_stride: usize,
    pub(super) col_stride: usize,
}

/// The number of elements from the first one of a strided matrix to its last.
pub(super) fn extent(rows: usize, cols: usize, row_stride: usize, col_stride: usize) -> usize {
    if rows == 0 || cols == 0 { 0 } else { (rows - 1) * row_stride + (cols - 1) * col_stride + 1 }
}

impl<'a, T> View<'a, T> {
    /// # Panics
    /// Panics if the matrix reaches past the slice.
    pub(crate) fn new(data: &'a [T], rows: usize, cols: usize, row_stride: usize, col_stride: usize) -> Self {
        assert!(extent(rows, cols, row_stride, col_stride) <= data.len());
        View { data, rows, cols, row_stride, col_stride }
    }

    /// A contiguous row-major matrix.
    pub(crate) fn rows(data: &'a [T], rows: usize, cols: usize) -> Self {
        View::new(data, rows, cols, cols, 1)
    }

    /// The rows `range`, which must be in bounds and not empty.
    pub(super) fn row_range(self, range: Range<usize>) -> Self {
        let data = self.data.get(range.start * self.row_stride..).unwrap_or_default();
        View::new(data, range.len(), self.cols, self.row_stride, self.col_stride)
    }

    /// The columns `range`, which must be in bounds and not empty.
    pub(super) fn col_range(self, range: Range<usize>) -> Self {
        self.transposed().row_range(range).transposed()
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
    /// # Panics
    /// Panics if the matrix reaches past the slice, or if two of its elements coincide.
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

    /// The same matrix, borrowed from this view.
    pub(super) fn reborrow(&mut self) -> ViewMut<'_, T> {
        ViewMut { data: &mut *self.data, ..*self }
    }

    pub(super) fn transposed(self) -> Self {
        let ViewMut { data, rows, cols, row_stride, col_stride } = self;
        ViewMut { data, rows: cols, cols: rows, row_stride: col_stride, col_stride: row_stride }
    }

    /// The rows `range`, which must be in bounds and not empty.
    pub(super) fn row_range(&mut self, range: Range<usize>) -> ViewMut<'_, T> {
        let data = &mut self.data[range.start * self.row_stride..];
        ViewMut { data, rows: range.len(), ..*self }
    }

    /// The columns `range`, which must be in bounds and not empty.
    pub(super) fn col_range(&mut self, range: Range<usize>) -> ViewMut<'_, T> {
        let data = &mut self.data[range.start * self.col_stride..];
        ViewMut { data, cols: range.len(), ..*self }
    }
}

impl<'a, T: Real> View<'a, T> {
    /// The same matrix with elements of type `U`, which has the size of `T`.
    #[inline]
    pub(super) fn cast<U: Real>(self) -> View<'a, U> {
        let View { data, rows, cols, row_stride, col_stride } = self;
        View { data: bytemuck::cast_slice(data), rows, cols, row_stride, col_stride }
    }
}

impl<'a, T: Real> ViewMut<'a, T> {
    /// The same matrix with elements of type `U`, which has the size of `T`.
    #[inline]
    pub(super) fn cast<U: Real>(self) -> ViewMut<'a, U> {
        let ViewMut { data, rows, cols, row_stride, col_stride } = self;
        ViewMut { data: bytemuck::cast_slice_mut(data), rows, cols, row_stride, col_stride }
    }
}
