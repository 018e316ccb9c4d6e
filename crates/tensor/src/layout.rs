//! Shapes and strides: where the elements of a tensor are in its storage.

use std::fmt;
use std::ops::Deref;

use crate::error::{Error, Result};

/// The most dimensions that a tensor can have.
pub const MAX_RANK: usize = 6;

/// Sizes or strides of up to [`MAX_RANK`] dimensions, without an allocation.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) struct Dims {
    values: [usize; MAX_RANK],
    rank: u8,
}

impl Dims {
    pub(crate) fn new(op: &'static str, dims: &[usize]) -> Result<Dims> {
        if dims.len() > MAX_RANK {
            let reason = format!("{} dimensions: at most {MAX_RANK} are supported", dims.len());
            return Err(Error::shape(op, reason, &[("shape", dims)]));
        }
        let mut values = [0; MAX_RANK];
        values[..dims.len()].copy_from_slice(dims);
        Ok(Dims { values, rank: dims.len() as u8 })
    }

    pub(crate) fn as_mut(&mut self) -> &mut [usize] {
        &mut self.values[..self.rank as usize]
    }
}

impl Deref for Dims {
    type Target = [usize];

    fn deref(&self) -> &[usize] {
        &self.values[..self.rank as usize]
    }
}

impl fmt::Debug for Dims {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.deref().fmt(f)
    }
}

/// The positions of elements: (i, j, ...) is at `offset + i * strides[0] + j * strides[1] + ...`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Layout {
    pub(crate) shape: Dims,
    pub(crate) strides: Dims,
    pub(crate) offset: usize,
}

impl Layout {
    /// Returns the row-major layout from the start of the storage.
    pub(crate) fn contiguous(op: &'static str, shape: &[usize]) -> Result<Layout> {
        let shape = Dims::new(op, shape)?;
        let mut strides = shape;
        let mut stride = 1usize;
        for (to, &size) in strides.as_mut().iter_mut().zip(shape.iter()).rev() {
            *to = stride;
            let next = stride.checked_mul(size.max(1)).filter(|&n| n <= isize::MAX as usize / 8);
            stride = next.ok_or_else(|| Error::shape(op, "too many elements to address", &[("shape", &shape)]))?;
        }
        Ok(Layout { shape, strides, offset: 0 })
    }

    pub(crate) fn elements(&self) -> usize {
        self.shape.iter().product()
    }

    /// Returns how many elements of memory there are from the first element to the last, both included.
    pub(crate) fn span(&self) -> usize {
        if self.elements() == 0 {
            return 0;
        }
        1 + self.shape.iter().zip(self.strides.iter()).map(|(&size, &stride)| (size - 1) * stride).sum::<usize>()
    }

    /// Returns whether the elements are row-major without gaps, from `offset` on.
    pub(crate) fn is_contiguous(&self) -> bool {
        let mut expected = 1;
        self.shape.iter().zip(self.strides.iter()).rev().all(|(&size, &stride)| {
            let fits = size <= 1 || stride == expected;
            expected *= size;
            fits
        }) || self.elements() == 0
    }

    /// Returns the same elements broadcast to `shape`: with stride 0 in dimensions where a size of 1 is repeated.
    pub(crate) fn broadcast(&self, op: &'static str, shape: &[usize]) -> Result<Layout> {
        let mut to = Layout { offset: self.offset, ..Layout::contiguous(op, shape)? };
        let fresh = shape.len().checked_sub(self.shape.len());
        let error = || Error::shape(op, "shapes do not broadcast", &[("from", &self.shape), ("to", shape)]);
        let fresh = fresh.ok_or_else(error)?;
        for (axis, stride) in to.strides.as_mut().iter_mut().enumerate() {
            *stride = match axis.checked_sub(fresh) {
                None => 0,
                Some(own) if self.shape[own] == shape[axis] => self.strides[own],
                Some(own) if self.shape[own] == 1 => 0,
                Some(_) => return Err(error()),
            };
        }
        Ok(to)
    }
}

/// Returns the shape that two operands broadcast to, aligned at the last dimension.
pub(crate) fn broadcast_shapes(op: &'static str, a: &[usize], b: &[usize]) -> Result<Vec<usize>> {
    let rank = a.len().max(b.len());
    let size = |shape: &[usize], axis: usize| (axis + shape.len()).checked_sub(rank).map_or(1, |own| shape[own]);
    (0..rank)
        .map(|axis| match (size(a, axis), size(b, axis)) {
            (x, y) if x == y || y == 1 => Ok(x),
            (1, y) => Ok(y),
            (x, y) => {
                let reason = format!("dimension {axis} does not broadcast: {x} against {y}");
                Err(Error::shape(op, reason, &[("left", a), ("right", b)]))
            }
        })
        .collect()
}

/// Splits a shape into the product of all dimensions but the last, and the last.
pub(crate) fn rows_and_width(shape: &[usize]) -> (usize, usize) {
    match shape.split_last() {
        Some((&width, rest)) => (rest.iter().product(), width),
        None => (1, 1),
    }
}
