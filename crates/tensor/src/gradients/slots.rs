//! The slots through which the operations of a walk backward write gradients.

use std::cell::RefCell;
use std::collections::HashMap;

use super::{Entry, Gradients, Like, exclusive};
use crate::element::Element;
use crate::tensor::{Tensor, TensorId};
use crate::{Result, cpu};

/// All gradients of a walk: those of leaves, which stay, and those passing through.
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
    /// The slot for the tensor `id` that looks `like` this; nothing is wanted where that is `None`.
    pub(crate) fn new(table: &'t RefCell<Table>, id: TensorId, like: Option<&Like>, leaf: bool) -> Slot<'t> {
        Slot { table, key: like.map(|like| Key { id, leaf, like: like.clone() }) }
    }

    /// A slot that wants nothing.
    pub(crate) fn none(&self) -> Slot<'t> {
        Slot { table: self.table, key: None }
    }

    /// Contributes a finished tensor: for gradients that cost nothing (a view, the output's own).
    pub(crate) fn give(self, contribution: Tensor) -> Result<()> {
        match &self.key {
            Some(key) => self.table.borrow_mut().entry(key).add(contribution),
            None => Ok(()),
        }
    }

    /// As [`Slot::give`], computing the contribution only when it is wanted.
    pub(crate) fn give_with(self, contribution: impl FnOnce() -> Result<Tensor>) -> Result<()> {
        if self.key.is_none() {
            return Ok(());
        }
        let contribution = contribution()?;
        self.give(contribution)
    }

    /// Opens the place where this gradient stays, to be written or, when there were contributions, added
    /// to. `None` when nobody wants it.
    pub(crate) fn open(self) -> Result<Option<Destination<'t>>> {
        let Some(key) = self.key else { return Ok(None) };
        let mut table = self.table.borrow_mut();
        let entry = table.entry(&key);
        // The same tensor may be two inputs of one operation; the second gets memory of its own.
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

/// An open place for a gradient. What was written counts when this is dropped.
pub(crate) struct Destination<'t> {
    table: &'t RefCell<Table>,
    key: Key,
    value: Option<Tensor>,
    /// As [`Entry::rows`].
    rows: Option<Vec<u32>>,
    owner: bool,
    accumulate: bool,
}

impl Destination<'_> {
    /// The elements, and whether to add to them (else: overwrite, they are arbitrary).
    pub(crate) fn target<T: Element>(&mut self) -> cpu::Target<'_, T> {
        self.rows = None;
        self.any_target()
    }

    /// As [`target`](Destination::target), for adding to the rows `ids` of a matrix alone, and where the others become
    /// zero if what is there counts for nothing.
    pub(crate) fn rows_target<T: Element>(&mut self, ids: &[u32]) -> cpu::Target<'_, T> {
        let is_sparse = self.rows.as_mut().map(|rows| rows.extend_from_slice(ids)).is_some();
        let target = self.any_target();
        cpu::Target { accumulate: target.accumulate || is_sparse, ..target }
    }

    fn any_target<T: Element>(&mut self) -> cpu::Target<'_, T> {
        // SAFETY: `open` gave memory that nobody else sees, and `self` is borrowed exclusively.
        let data = self.value.as_ref().map_or(&mut [][..], |value| unsafe { exclusive(value) });
        cpu::Target::new(data, self.accumulate)
    }

    /// Returns the place where the gradient stays: row-major, with arbitrary contents unless it
    /// [accumulates](Destination::accumulates). No other handle accesses its elements.
    pub(crate) fn tensor(&self) -> &Tensor {
        self.value.as_ref().unwrap_or_else(|| unreachable!("only `drop` takes it"))
    }

    /// Whether there were earlier contributions, which the writer has to add to.
    #[cfg(feature = "cuda")]
    pub(crate) fn accumulates(&mut self) -> bool {
        self.rows = None;
        self.accumulate
    }

    /// As [`tensor`](Destination::tensor), with zeros where nothing was contributed yet: for writers that add to some of
    /// the elements.
    pub(crate) fn zeroed(&mut self) -> Result<&Tensor> {
        self.rows = None;
        if !std::mem::replace(&mut self.accumulate, true) {
            self.tensor().clear()?;
        }
        Ok(self.tensor())
    }
}

impl Drop for Destination<'_> {
    fn drop(&mut self) {
        let mut table = self.table.borrow_mut();
        let entry = table.entry(&self.key);
        let Some(value) = self.value.take() else { return };
        // Adding can only fail for types that `open` would have refused.
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
