//! Gradients as a value, which backward fills.

mod entry;
mod slots;
mod suffix;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::ops::Range;

use crate::dtype::DType;
use crate::error::Result;
use crate::layout::Dims;
use crate::storage::Storage;
use crate::tensor::{Tensor, TensorId};
pub(crate) use entry::{Entry, Like};
pub(crate) use slots::{Destination, Slot, Table};
pub use suffix::FinalGradients;
pub(crate) use suffix::FinalSuffix;

/// The operation that errors of a backward pass name.
const OP: &str = "backward";

/// The gradients of one or more losses with respect to leaf tensors.
///
/// [`Gradients::new`] allocates a tensor per leaf.
/// [`ParameterArena::gradients`](crate::ParameterArena::gradients) mirrors the flat parameters and is reused in every
/// step.
#[derive(Default)]
pub struct Gradients {
    entries: HashMap<TensorId, Entry>,
    pub(crate) flat: Option<Flat>,
}

/// The flat buffer of gradients that mirror an arena. Padding between parameters is zero; the range of a parameter
/// without a gradient has arbitrary contents.
pub(crate) struct Flat {
    pub(crate) storage: Storage,
    pub(crate) dtype: DType,
    pub(crate) arena: TensorId,
}

impl Gradients {
    /// Creates an empty set of gradients.
    pub fn new() -> Gradients {
        Gradients::default()
    }

    /// Creates gradients in the flat buffer that mirrors an arena, with a place for each parameter (id, shape and offset).
    pub(crate) fn mirror(flat: Flat, parameters: impl Iterator<Item = (TensorId, Dims, usize)>) -> Gradients {
        let device = flat.storage.device();
        let entry = |(id, shape, offset)| {
            let like = Like { shape, dtype: flat.dtype, device: device.clone() };
            (id, Entry::new(like, Some((flat.storage.clone(), offset))))
        };
        Gradients { entries: parameters.map(entry).collect(), flat: Some(flat) }
    }

    /// Returns the gradient with respect to `leaf`, if it has one. Flat gradients are copied, because the next step
    /// overwrites them.
    pub fn get(&self, leaf: &Tensor) -> Option<Tensor> {
        let entry = self.entries.get(&leaf.id())?;
        let value = entry.value.as_ref()?;
        if entry.place.is_some() { value.copied().ok() } else { Some(value.clone()) }
    }

    /// Removes and returns the gradient with respect to `leaf`, if it has one.
    pub(crate) fn take(&mut self, leaf: &Tensor) -> Option<Tensor> {
        self.entries.remove(&leaf.id())?.into_tensor()
    }

    /// Returns whether `leaf` has a gradient.
    pub fn contains(&self, leaf: &Tensor) -> bool {
        self.entries.get(&leaf.id()).is_some_and(|entry| entry.value.is_some())
    }

    /// Returns whether no tensor has a gradient.
    pub fn is_empty(&self) -> bool {
        self.entries.values().all(|entry| entry.value.is_none())
    }

    /// Gives each parameter of the arena that has no gradient one of zeros, as if the loss did not depend on it.
    ///
    /// # Errors
    /// Returns an error if the device fails.
    pub fn fill_with_zeros(&mut self) -> Result<()> {
        self.entries.values_mut().filter(|entry| entry.value.is_none()).try_for_each(Entry::fill_with_zeros)
    }

    /// Clears the gradients and keeps flat memory for the next step.
    pub fn clear(&mut self) {
        self.entries.retain(|_, entry| entry.place.is_some());
        self.entries.values_mut().for_each(Entry::clear);
    }

    /// Returns the ranges of the flat buffer that hold gradients, in order: a single range if all are dense.
    pub(crate) fn written(&self, elements: usize) -> Vec<Range<usize>> {
        let mut placed = self.entries.values().filter(|entry| entry.place.is_some());
        if placed.all(|entry| entry.value.is_some() && entry.rows.is_none()) {
            return std::iter::once(0..elements).collect();
        }
        let mut ranges: Vec<Range<usize>> = self.entries.values().flat_map(Entry::ranges).collect();
        ranges.sort_unstable_by_key(|range| range.start);
        ranges.dedup_by(|next, range| {
            let is_next = next.start == range.end;
            range.end = if is_next { next.end } else { range.end };
            is_next
        });
        ranges
    }
}
