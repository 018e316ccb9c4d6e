//! The gradient of one tensor: where it is, and how contributions are added to it.

use std::ops::Range;

use super::OP;
use crate::copy;
use crate::device::Device;
use crate::dtype::DType;
use crate::error::Result;
use crate::layout::{Dims, Layout};
use crate::storage::Storage;
use crate::tensor::{Origin, Tensor};

/// The shape, dtype and device of a gradient, which are those of its tensor.
#[derive(Clone)]
pub(crate) struct Like {
    pub(super) shape: Dims,
    pub(super) dtype: DType,
    pub(super) device: Device,
}

impl Like {
    pub(crate) fn of(tensor: &Tensor) -> Like {
        Like { shape: tensor.dims(), dtype: tensor.dtype(), device: tensor.device() }
    }
}

/// The gradient of one tensor: its form and, after the first contribution, its elements.
pub(crate) struct Entry {
    pub(super) like: Like,
    /// Its offset in the flat gradients, or `None` for separate memory.
    pub(super) place: Option<(Storage, usize)>,
    pub(super) value: Option<Tensor>,
    /// The rows of a flat gradient that were written; all others are zero. The gradient of an embedding table thus costs
    /// as much as the rows that were looked up, not as the table.
    pub(super) rows: Option<Vec<u32>>,
    /// Whether a destination is being written.
    pub(super) open: bool,
    /// A contribution that arrived meanwhile.
    pub(super) late: Option<Tensor>,
}

impl Entry {
    pub(super) fn new(like: Like, place: Option<(Storage, usize)>) -> Entry {
        // Flat memory starts as zeros.
        let rows = place.is_some().then(Vec::new);
        Entry { like, place, value: None, rows, open: false, late: None }
    }

    /// Clears a flat gradient. Rows that were written become zero again.
    pub(super) fn clear(&mut self) {
        self.value = None;
        let (Some((storage, offset)), Some(rows)) = (&self.place, &mut self.rows) else { return };
        let (width, size) = (self.like.shape.last().copied().unwrap_or(1), self.like.dtype.size());
        for row in rows.drain(..) {
            let start = (offset + row as usize * width) * size;
            // SAFETY: no other handle accesses flat gradients: `Gradients::get` hands out copies.
            // A device that fails here fails again, with an error, in the next operation.
            let _ = unsafe { storage.clear(start..start + width * size) };
        }
    }

    /// Makes a gradient that has a place zero.
    pub(super) fn fill_with_zeros(&mut self) -> Result<()> {
        if self.place.is_some() {
            let value = self.allocate(self.place.as_ref())?;
            if self.rows.is_none() {
                // SAFETY: `value` is the place of this gradient in the flat buffer, of which `Gradients::get` hands out copies only.
                unsafe { value.clear()? };
            }
            self.value = Some(value);
        }
        Ok(())
    }

    /// Returns the ranges of the flat buffer that hold the gradient; the rest of its place is zero.
    pub(super) fn ranges(&self) -> Vec<Range<usize>> {
        let (Some(value), Some((_, start))) = (&self.value, &self.place) else { return Vec::new() };
        match &self.rows {
            Some(rows) => {
                let (width, mut rows) = (value.width(), rows.clone());
                rows.sort_unstable();
                rows.dedup();
                let range = |row: u32| start + row as usize * width..start + (row as usize + 1) * width;
                rows.into_iter().map(range).collect()
            }
            None => std::iter::once(*start..start + value.elements()).collect(),
        }
    }

    pub(crate) fn into_tensor(self) -> Option<Tensor> {
        self.value
    }

    /// Allocates the gradient with arbitrary contents.
    pub(super) fn allocate(&self, place: Option<&(Storage, usize)>) -> Result<Tensor> {
        let Like { shape, dtype, device } = &self.like;
        let mut layout = Layout::contiguous(OP, shape)?;
        let storage = match place {
            Some((storage, offset)) => {
                layout.offset = *offset;
                storage.clone()
            }
            None => Storage::new(OP, device, layout.elements() * dtype.size())?,
        };
        Ok(Tensor::from_parts(storage, layout, *dtype, Origin::Constant))
    }

    /// Takes the gradient so far, in memory that no other handle refers to. Flat gradients are such memory, because
    /// `Gradients::get` returns copies of them.
    pub(super) fn take_exclusive(&mut self) -> Result<Option<Tensor>> {
        let Some(value) = self.value.take() else { return Ok(None) };
        if self.place.is_some() { Ok(Some(value)) } else { value.into_exclusive().map(Some) }
    }

    /// Adds a contribution. The first one is moved, or copied to its place in the flat buffer; later ones are added.
    pub(super) fn add(&mut self, contribution: Tensor) -> Result<()> {
        self.rows = None;
        if self.open {
            let sum = match self.late.take() {
                Some(earlier) => {
                    let sum = earlier.copied()?;
                    // SAFETY: `sum` was just made.
                    unsafe { copy::add(OP, &contribution, &sum)? };
                    sum
                }
                None => contribution,
            };
            self.late = Some(sum);
            return Ok(());
        }
        self.value = Some(match (self.take_exclusive()?, &self.place) {
            (Some(sum), _) => {
                // SAFETY: `take_exclusive` returned memory that no other handle refers to.
                unsafe { copy::add(OP, &contribution, &sum)? };
                sum
            }
            (None, None) => contribution,
            (None, place) => {
                let value = self.allocate(place.as_ref())?;
                // SAFETY: `value` is new, or the place of this gradient in the flat buffer, of which `Gradients::get` hands out
                // copies only; no destination has it open.
                unsafe { copy::copy(OP, &contribution, &value)? };
                value
            }
        });
        Ok(())
    }
}
