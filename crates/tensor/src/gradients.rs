//! Gradients: a value that backward fills, and the slots through which operations write into it.

use std::cell::RefCell;
use std::collections::HashMap;

use crate::element::Element;
use crate::layout::{Dims, Layout};
use crate::ops::{element, float};
use crate::storage::Storage;
use crate::tensor::{Origin, Tensor, TensorId};
use crate::{DType, Device, ParameterArena, Result, cpu};

/// The gradients of one or more losses with respect to leaf tensors.
///
/// Made empty it allocates a tensor per leaf. Made by
/// [`ParameterArena::gradients`](crate::ParameterArena::gradients) it mirrors the flat parameters, and is
/// reused in every step.
#[derive(Default)]
pub struct Gradients {
    entries: HashMap<TensorId, Entry>,
    /// The flat buffer and its type; padding between parameters is zero.
    pub(crate) flat: Option<(Storage, DType)>,
}

/// The gradient of one tensor: what it looks like and, once there is a contribution, its elements.
#[derive(Clone)]
pub(crate) struct Entry {
    shape: Dims,
    dtype: DType,
    device: Device,
    /// Where in the flat gradients it lies; `None`: memory of its own.
    place: Option<(Storage, usize)>,
    value: Option<Tensor>,
    /// A destination is being written.
    open: bool,
    /// A contribution that came while it was.
    late: Option<Tensor>,
}

impl Entry {
    pub(crate) fn new(tensor: &Tensor) -> Entry {
        let (shape, dtype, device) = (tensor.dims(), tensor.dtype(), tensor.device());
        Entry { shape, dtype, device, place: None, value: None, open: false, late: None }
    }

    pub(crate) fn into_tensor(self) -> Option<Tensor> {
        self.value
    }

    /// Memory for the gradient, with arbitrary contents.
    fn allocate(&self, place: Option<&(Storage, usize)>) -> Result<Tensor> {
        let mut layout = Layout::contiguous("backward", &self.shape)?;
        let storage = match place {
            Some((storage, offset)) => {
                layout.offset = *offset;
                storage.clone()
            }
            None => Storage::new(&self.device, layout.elements() * self.dtype.size()),
        };
        Ok(Tensor::from_parts(storage, layout, self.dtype, Origin::Constant))
    }

    /// The gradient so far, in memory that nobody else sees. The flat gradients are such memory, since
    /// `Gradients::get` hands out copies of them.
    fn take_exclusive(&mut self) -> Result<Option<Tensor>> {
        let Some(value) = self.value.take() else { return Ok(None) };
        if self.place.is_some() || value.storage().handles() == 1 {
            return Ok(Some(value));
        }
        value.copied().map(Some)
    }

    /// Adds a contribution: the first one moves in (or is copied to its place), later ones are added.
    fn add(&mut self, contribution: Tensor) -> Result<()> {
        if self.open {
            let sum = match self.late.take() {
                Some(earlier) => add_in_place(earlier.copied()?, &contribution)?,
                None => contribution,
            };
            self.late = Some(sum);
            return Ok(());
        }
        self.value = Some(match (self.take_exclusive()?, &self.place) {
            (Some(sum), _) => add_in_place(sum, &contribution)?,
            (None, None) => contribution,
            (None, place) => copy_into(self.allocate(place.as_ref())?, &contribution)?,
        });
        Ok(())
    }
}

/// `sum += addend`, for a `sum` that nobody else sees.
fn add_in_place(sum: Tensor, addend: &Tensor) -> Result<Tensor> {
    if sum.dtype().is_half() {
        return sum.add(addend);
    }
    let addend = addend.contiguous()?;
    float!("backward", sum.dtype(), T => {
        // SAFETY: the caller gives a tensor that nobody else sees.
        cpu::strided::add_assign(unsafe { exclusive::<T>(&sum) }, addend.slice::<T>());
    });
    Ok(sum)
}

fn copy_into(to: Tensor, from: &Tensor) -> Result<Tensor> {
    let from = from.contiguous()?;
    element!("backward", to.dtype(), T => {
        // SAFETY: the caller gives a tensor that nobody else sees.
        unsafe { exclusive::<T>(&to) }.copy_from_slice(from.slice::<T>());
    });
    Ok(to)
}

/// The elements of a row-major tensor for writing.
///
/// # Safety
/// Nobody else may see them.
#[allow(clippy::mut_from_ref, reason = "the contract above takes the place of the borrow checker")]
unsafe fn exclusive<T: Element>(tensor: &Tensor) -> &mut [T] {
    let start = tensor.layout().offset;
    // SAFETY: passed on.
    unsafe { tensor.storage().cpu_mut(start..start + tensor.elements()) }
}

impl Gradients {
    /// No gradients yet.
    pub fn new() -> Gradients {
        Gradients::default()
    }

    /// Gradients in one flat buffer like `arena`: each parameter (its id, shape and offset) has its place.
    pub(crate) fn mirror(
        storage: Storage,
        parameters: impl Iterator<Item = (TensorId, Dims, usize)>,
        arena: &ParameterArena,
    ) -> Gradients {
        let (dtype, device) = (arena.dtype(), arena.device());
        let entry = |(id, shape, offset)| {
            let place = Some((storage.clone(), offset));
            (id, Entry { shape, dtype, device: device.clone(), place, value: None, open: false, late: None })
        };
        Gradients { entries: parameters.map(entry).collect(), flat: Some((storage, dtype)) }
    }

    /// The gradient with respect to `leaf`, if there is one. A copy where the gradients are flat, because
    /// the next step writes over them.
    pub fn get(&self, leaf: &Tensor) -> Option<Tensor> {
        let entry = self.entries.get(&leaf.id())?;
        let value = entry.value.as_ref()?;
        if entry.place.is_some() { value.copied().ok() } else { Some(value.clone()) }
    }

    /// Whether `leaf` has a gradient.
    pub fn contains(&self, leaf: &Tensor) -> bool {
        self.entries.get(&leaf.id()).is_some_and(|entry| entry.value.is_some())
    }

    /// Forgets the gradients, but keeps the memory for the next step.
    pub fn clear(&mut self) {
        match &self.flat {
            Some(_) => self.entries.values_mut().for_each(|entry| entry.value = None),
            None => self.entries.clear(),
        }
    }
}

/// All gradients of a walk: those of leaves, which stay, and those passing through.
pub(crate) struct Table {
    pub(crate) passing: HashMap<TensorId, Entry>,
    pub(crate) leaves: Gradients,
}

impl Table {
    fn entry(&mut self, key: &Key) -> &mut Entry {
        let entries = if key.leaf { &mut self.leaves.entries } else { &mut self.passing };
        entries.entry(key.id).or_insert_with(|| key.like.clone())
    }
}

struct Key {
    id: TensorId,
    leaf: bool,
    like: Entry,
}

/// The place for the gradient of one input of an operation.
pub(crate) struct Slot<'t> {
    table: &'t RefCell<Table>,
    key: Option<Key>,
}

impl<'t> Slot<'t> {
    /// The slot for the tensor `id` that looks `like` this; nothing is wanted where that is `None`.
    pub(crate) fn new(table: &'t RefCell<Table>, id: TensorId, like: Option<&Entry>, leaf: bool) -> Slot<'t> {
        Slot { table, key: like.map(|like| Key { id, leaf, like: like.clone() }) }
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
        drop(table);
        Ok(Some(Destination { table: self.table, key, value: Some(value), owner, accumulate }))
    }
}

/// An open place for a gradient. What was written counts when this is dropped.
pub(crate) struct Destination<'t> {
    table: &'t RefCell<Table>,
    key: Key,
    value: Option<Tensor>,
    owner: bool,
    accumulate: bool,
}

impl Destination<'_> {
    /// The elements, and whether to add to them (else: overwrite, they are arbitrary).
    pub(crate) fn target<T: Element>(&mut self) -> cpu::Slot<'_, T> {
        // SAFETY: `open` gave memory that nobody else sees, and `self` is borrowed exclusively.
        let data = self.value.as_ref().map_or(&mut [][..], |value| unsafe { exclusive(value) });
        cpu::Slot::new(data, self.accumulate)
    }

    /// The elements, zero where nothing was contributed yet: for scatters, which add to some of them.
    pub(crate) fn zeroed_slice<T: Element>(&mut self) -> &mut [T] {
        if !std::mem::replace(&mut self.accumulate, true) {
            self.target::<T>().data.fill(T::zeroed());
        }
        self.target().data
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
        if let Some(late) = entry.late.take() {
            let _ = entry.add(late);
        }
    }
}
