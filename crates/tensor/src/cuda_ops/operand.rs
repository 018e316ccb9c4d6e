//! Operands of matrix products: where they lie, and their form in a narrow type.

use super::arguments::{device_of, fresh, pointer};
use super::scaled::{Narrow, Scale, scaled};
use crate::copy::copy;
use crate::cuda::Pointer;
use crate::dtype::DType;
use crate::error::Result;
use crate::layout::{Dims, Layout, rows_and_width};
use crate::precision::Precision;
use crate::tensor::{Origin, Tensor};

/// Rows of operands on tensor cores start at multiples of this many elements, which are 16 bytes.
const CHUNK: usize = 8;

/// In f16, operands are scaled to below 2 to this power. Sums are in f32, so operands may use the whole range of f16.
const LIMIT: i32 = 15;

/// A matrix in a tensor's memory: element (i, j) of `rows` x `columns` is `start + i * step.0 + j * step.1` elements from its
/// first.
#[derive(Clone, Copy)]
pub(super) struct Matrix<'a> {
    pub(super) tensor: &'a Tensor,
    pub(super) start: usize,
    pub(super) rows: usize,
    pub(super) columns: usize,
    pub(super) step: (usize, usize),
    /// By which its numbers are to be multiplied.
    pub(super) scale: Option<&'a Scale>,
}

impl<'a> Matrix<'a> {
    /// A row-major tensor as a matrix of its last dimension.
    pub(super) fn of(tensor: &'a Tensor) -> Matrix<'a> {
        let (rows, columns) = rows_and_width(tensor.shape());
        Matrix { tensor, start: 0, rows, columns, step: (columns, 1), scale: None }
    }

    /// Some of the columns.
    pub(super) fn columns(self, start: usize, columns: usize) -> Matrix<'a> {
        Matrix { start: self.start + start * self.step.1, columns, ..self }
    }

    pub(super) fn transposed(self) -> Matrix<'a> {
        Matrix { rows: self.columns, columns: self.rows, step: (self.step.1, self.step.0), ..self }
    }

    pub(super) fn pointer(&self) -> Pointer {
        pointer(self.tensor) + (self.start * self.tensor.dtype().size()) as u64
    }

    /// Whether its columns lie together, not its rows.
    pub(super) fn lies_across(&self) -> bool {
        self.step.1 != 1 && self.step.0 == 1
    }

    /// Whether the kernels on tensor cores read it as it lies.
    pub(super) fn is(&self, narrow: Narrow) -> bool {
        let start = self.tensor.layout().offset + self.start;
        self.tensor.dtype() == narrow.dtype() && self.step.1 == 1 && [self.step.0, start].iter().all(|x| x % CHUNK == 0)
    }
}

/// A matrix as products in a precision read it, made once for several of them.
pub(super) struct Operand {
    pub(super) tensor: Tensor,
    rows: usize,
    columns: usize,
    /// Elements from row to row.
    pub(super) row: usize,
    pub(super) scale: Option<Scale>,
}

impl Operand {
    /// The matrix itself, or its elements in a narrower type.
    pub(super) fn of(op: &'static str, precision: Precision, tensor: &Tensor) -> Result<Operand> {
        let matrix = Matrix::of(tensor);
        match Narrow::of(op, precision, &device_of(op, tensor)?)? {
            Some(narrow) if !matrix.is(narrow) => Operand::narrowed(op, narrow, matrix),
            _ => {
                let Matrix { rows, columns, .. } = matrix;
                Ok(Operand { tensor: tensor.clone(), rows, columns, row: columns, scale: None })
            }
        }
    }

    /// The elements in a narrower type, with rows at multiples of 16 bytes.
    pub(super) fn narrowed(op: &'static str, narrow: Narrow, of: Matrix<'_>) -> Result<Operand> {
        let device = device_of(op, of.tensor)?;
        let row = of.columns.next_multiple_of(CHUNK);
        let to = fresh(op, &[of.rows, row], narrow.dtype(), &device)?;
        let Matrix { rows, columns, .. } = of;
        if narrow == Narrow::F16 && of.tensor.dtype() == DType::F32 {
            let scale = scaled(op, of.pointer(), (rows, columns), of.step, (&to, row), LIMIT)?;
            return Ok(Operand { tensor: to, rows, columns, row, scale: Some(scale) });
        }
        if row != of.columns {
            // The padding of a row is multiplied too.
            // SAFETY: `to` was made above and is not shared yet.
            unsafe { to.clear()? };
        }
        let shape = Dims::new(op, &[of.rows, of.columns])?;
        let view = |tensor: &Tensor, start: usize, step: (usize, usize)| -> Result<Tensor> {
            let layout =
                Layout { shape, strides: Dims::new(op, &[step.0, step.1])?, offset: tensor.layout().offset + start };
            Ok(Tensor::from_parts(tensor.storage().clone(), layout, tensor.dtype(), Origin::Constant))
        };
        let (source, place) = (view(of.tensor, of.start, of.step)?, view(&to, 0, (row, 1))?);
        // SAFETY: `to`, which `place` views, was made above and is not read yet.
        unsafe { copy(op, &source, &place)? };
        Ok(Operand { tensor: to, rows, columns, row, scale: of.scale.cloned() })
    }

    pub(super) fn matrix(&self) -> Matrix<'_> {
        let Operand { tensor, rows, columns, row, scale } = self;
        Matrix { tensor, start: 0, rows: *rows, columns: *columns, step: (*row, 1), scale: scale.as_ref() }
    }
}
