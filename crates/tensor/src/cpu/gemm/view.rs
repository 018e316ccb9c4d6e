//! Strided matrices in slices: the operands and the result of a product.

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

/// A matrix for writing, whose rows are contiguous.
pub(crate) struct ViewMut<'a, T> {
    pub(super) data: &'a mut [T],
    pub(super) rows: usize,
    pub(super) cols: usize,
    /// Elements from one row to the next.
    pub(super) stride: usize,
}

/// The number of elements from the first one of a strided matrix to its last, or `usize::MAX` if that is too many.
pub(super) fn extent(rows: usize, cols: usize, row_stride: usize, col_stride: usize) -> usize {
    if rows == 0 || cols == 0 {
        return 0;
    }
    let (last_row, last_col) = ((rows - 1).saturating_mul(row_stride), (cols - 1).saturating_mul(col_stride));
    last_row.saturating_add(last_col).saturating_add(1)
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
    /// Panics if the matrix reaches past the slice, or if its rows overlap.
    pub(crate) fn new(data: &'a mut [T], rows: usize, cols: usize, stride: usize) -> Self {
        assert!(extent(rows, cols, stride, 1) <= data.len() && (rows <= 1 || stride >= cols));
        ViewMut { data, rows, cols, stride }
    }

    /// A matrix without gaps between rows.
    pub(crate) fn rows(data: &'a mut [T], rows: usize, cols: usize) -> Self {
        ViewMut::new(data, rows, cols, cols)
    }
}

impl<'a, T: Real> View<'a, T> {
    /// The same matrix with elements of type `U`, which has the size of `T`.
    #[inline]
    pub(super) fn cast<U: Real>(self) -> View<'a, U> {
        let View { data, rows, cols, row_stride, col_stride } = self;
        View { data: bytemuck::cast_slice(data), rows, cols, row_stride, col_stride }
    }

    /// Returns the matrix with a row or column stride of 1. If neither is, its elements are copied to `copy`.
    pub(super) fn with_unit(self, copy: &'a mut Vec<T>) -> View<'a, T> {
        let View { data, rows, cols, row_stride, col_stride } = self;
        if row_stride == 1 || col_stride == 1 || cols <= 1 {
            return View { col_stride: if cols <= 1 { 1 } else { col_stride }, ..self };
        }
        copy.extend((0..rows).flat_map(|i| (0..cols).map(move |j| data[i * row_stride + j * col_stride])));
        View::rows(copy, rows, cols)
    }
}

impl<'a, T: Real> ViewMut<'a, T> {
    /// The same matrix with elements of type `U`, which has the size of `T`.
    #[inline]
    pub(super) fn cast<U: Real>(self) -> ViewMut<'a, U> {
        let ViewMut { data, rows, cols, stride } = self;
        ViewMut { data: bytemuck::cast_slice_mut(data), rows, cols, stride }
    }
}
