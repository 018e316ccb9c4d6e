//! Slots, through which the backwards of operations write gradients.

use std::cell::RefCell;
use std::collections::HashMap;

use super::{Entry, Gradients, Like};
use crate::cpu;
use crate::element::Element;
use crate::error::Result;
use crate::tensor::{Tensor, TensorId};

/// The gradients of a backward pass: those of leaves, which remain, and those of intermediate tensors.
pub(crate) struct Table {
    pub(crate) passing: HashMap<TensorId, Entry>,
    pub(crate) leaves: Gradients,
}

impl Table {
    fn entry(&mut self, key: &Key) -> &mut Entry {
        let entries = if key.leaf { &mut self.leaves.entries } else { &mut self.passing };
        entries.entry(key.id).or_insert_with(|| Entry::new(key.like.clone(), None))
    }
}

struct Key {
    id: TensorId,
    leaf: bool,
    like: Like,
}

/// The place for the gradient of one input of an operation.
pub(crate) struct Slot<'t> {
    table: &'t RefCell<Table>,
    key: Option<Key>,
}

impl<'t> Slot<'t> {
    /// Creates the slot of the tensor `id`, whose gradient has the form `like`, or is not needed if that is `None`.
    pub(crate) fn new(table: &'t RefCell<Table>, id: TensorId, like: Option<&Like>, leaf: bool) -> Slot<'t> {
        Slot { table, key: like.map(|like| Key { id, leaf, like: like.clone() }) }
    }

    /// Returns a slot that discards its gradient.
    pub(crate) fn none(&self) -> Slot<'t> {
        Slot { table: self.table, key: None }
    }

    /// Contributes a finished tensor, for gradients that need no computation: a view, or the gradient of the output.
    pub(crate) fn give(self, contribution: Tensor) -> Result<()> {
        match &self.key {
            Some(key) => self.table.borrow_mut().entry(key).add(contribution),
            None => Ok(()),
        }
    }

    /// Contributes a tensor that is computed only if the gradient is needed.
    pub(crate) fn give_with(self, contribution: impl FnOnce() -> Result<Tensor>) -> Result<()> {
        if self.key.is_none() {
            return Ok(());
        }
        let contribution = contribution()?;
        self.give(contribution)
    }

    /// Opens the final place of this gradient, to be written or, after earlier contributions, added to. Returns `None` if
    /// the gradient is not needed.
    pub(crate) fn open(self) -> Result<Option<Destination<'t>>> {
        let Some(key) = self.key else { return Ok(None) };
        let mut table = self.table.borrow_mut();
        let entry = table.entry(&key);
        // One tensor may be two inputs of an operation; the second contribution then gets separate memory.
        let owner = !entry.open;
        let earlier = if owner { entry.take_exclusive()? } else { None };
        let accumulate = earlier.is_some();
        let value = match earlier {
            Some(value) => value,
            None => entry.allocate(entry.place.as_ref().filter(|_| owner))?,
        };
        entry.open = true;
        let rows = if owner { entry.rows.take() } else { None };
        drop(table);
        Ok(Some(Destination { table: self.table, key, value: Some(value), rows, owner, accumulate }))
    }
}

/// The open place of a gradient. Dropping it makes what was written count.
pub(crate) struct Destination<'t> {
    table: &'t RefCell<Table>,
    key: Key,
    value: Option<Tensor>,
    /// The rows written so far, as [`Entry::rows`].
    rows: Option<Vec<u32>>,
    owner: bool,
    accumulate: bool,
}

impl Destination<'_> {
    /// Returns the elements, and whether to add to them or to overwrite them.
    pub(crate) fn target<T: Element>(&mut self) -> cpu::Target<'_, T> {
        self.rows = None;
        self.any_target()
    }

    /// Returns a target of which only the rows `ids` are added to. Unless the target accumulates, the writer sets the
    /// other rows to zero.
    pub(crate) fn rows_target<T: Element>(&mut self, ids: &[u32]) -> cpu::Target<'_, T> {
        let is_sparse = self.rows.as_mut().map(|rows| rows.extend_from_slice(ids)).is_some();
        let target = self.any_target();
        cpu::Target { accumulate: target.accumulate || is_sparse, ..target }
    }

    fn any_target<T: Element>(&mut self) -> cpu::Target<'_, T> {
        // SAFETY: `open` returned memory that no other handle refers to, and `self` is borrowed exclusively.
        let data = self.value.as_ref().map_or(&mut [][..], |value| unsafe { exclusive(value) });
        cpu::Target::new(data, self.accumulate)
    }

    /// Returns the final place of the gradient: row-major, with arbitrary contents unless it
    /// [accumulates](Destination::accumulates). No other handle refers to its elements.
    pub(crate) fn tensor(&self) -> &Tensor {
        self.value.as_ref().unwrap_or_else(|| unreachable!("only `drop` takes it"))
    }

    /// Returns whether there were earlier contributions, to which the writer has to add.
    #[cfg(feature = "cuda")]
    pub(crate) fn accumulates(&mut self) -> bool {
        self.rows = None;
        self.accumulate
    }

    /// Returns the final place of the gradient, zeroed if there was no contribution yet, for writers that add to some of
    /// the elements.
    pub(crate) fn zeroed(&mut self) -> Result<&Tensor> {
        self.rows = None;
        if !std::mem::replace(&mut self.accumulate, true) {
            // SAFETY: `open` returned memory that no other handle refers to, and `self` is borrowed exclusively.
            unsafe { self.tensor().clear()? };
        }
        Ok(self.tensor())
    }
}

impl Drop for Destination<'_> {
    fn drop(&mut self) {
        let mut table = self.table.borrow_mut();
        let entry = table.entry(&self.key);
        let Some(value) = self.value.take() else { return };
        // Adding only fails for types that `open` refuses.
        if !self.owner {
            let _ = entry.add(value);
            return;
        }
        entry.open = false;
        entry.value = Some(value);
        entry.rows = self.rows.take();
        if let Some(late) = entry.late.take() {
            let _ = entry.add(late);
        }
    }
}

/// Returns the elements of a row-major tensor for writing.
///
/// # Safety
/// No other reference to these elements may exist while the slice lives.
#[allow(clippy::mut_from_ref, reason = "the contract above takes the place of the borrow checker")]
unsafe fn exclusive<T: Element>(tensor: &Tensor) -> &mut [T] {
    let start = tensor.layout().offset;
    // SAFETY: the caller upholds the same contract.
    unsafe { tensor.storage().cpu_mut(start..start + tensor.elements()) }
}
