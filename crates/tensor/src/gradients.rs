//! Gradients as a value, which backward fills.

mod slots;
mod suffix;

use std::collections::HashMap;
use std::ops::Range;

use crate::copy;
use crate::device::Device;
use crate::dtype::DType;
use crate::element::Element;
use crate::error::Result;
use crate::layout::{Dims, Layout};
use crate::storage::Storage;
use crate::tensor::{Origin, Tensor, TensorId};
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

/// The shape, dtype and device of a gradient, which are those of its tensor.
#[derive(Clone)]
pub(crate) struct Like {
    shape: Dims,
    dtype: DType,
    device: Device,
}

impl Like {
    pub(crate) fn of(tensor: &Tensor) -> Like {
        Like { shape: tensor.dims(), dtype: tensor.dtype(), device: tensor.device() }
    }
}

/// The gradient of one tensor: its form and, after the first contribution, its elements.
pub(crate) struct Entry {
    like: Like,
    /// Its offset in the flat gradients, or `None` for separate memory.
    place: Option<(Storage, usize)>,
    value: Option<Tensor>,
    /// The rows of a flat gradient that were written; all others are zero. The gradient of an embedding table thus costs
    /// as much as the rows that were looked up, not as the table.
    rows: Option<Vec<u32>>,
    /// Whether a destination is being written.
    open: bool,
    /// A contribution that arrived meanwhile.
    late: Option<Tensor>,
}

impl Entry {
    fn new(like: Like, place: Option<(Storage, usize)>) -> Entry {
        // Flat memory starts as zeros.
        let rows = place.is_some().then(Vec::new);
        Entry { like, place, value: None, rows, open: false, late: None }
    }

    /// Clears a flat gradient. Rows that were written become zero again.
    fn clear(&mut self) {
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
    fn fill_with_zeros(&mut self) -> Result<()> {
        if self.place.is_some() {
            let value = self.allocate(self.place.as_ref())?;
            if self.rows.is_none() {
                value.clear()?;
            }
            self.value = Some(value);
        }
        Ok(())
    }

    /// Returns the ranges of the flat buffer that hold the gradient; the rest of its place is zero.
    fn ranges(&self) -> Vec<Range<usize>> {
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
    fn allocate(&self, place: Option<&(Storage, usize)>) -> Result<Tensor> {
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
    fn take_exclusive(&mut self) -> Result<Option<Tensor>> {
        let Some(value) = self.value.take() else { return Ok(None) };
        if self.place.is_some() { Ok(Some(value)) } else { value.into_exclusive().map(Some) }
    }

    /// Adds a contribution. The first one is moved, or copied to its place in the flat buffer; later ones are added.
    fn add(&mut self, contribution: Tensor) -> Result<()> {
        self.rows = None;
        if self.open {
            let sum = match self.late.take() {
                Some(earlier) => {
                    let sum = earlier.copied()?;
                    copy::add(OP, &contribution, &sum)?;
                    sum
                }
                None => contribution,
            };
            self.late = Some(sum);
            return Ok(());
        }
        self.value = Some(match (self.take_exclusive()?, &self.place) {
            (Some(sum), _) => {
                copy::add(OP, &contribution, &sum)?;
                sum
            }
            (None, None) => contribution,
            (None, place) => {
                let value = self.allocate(place.as_ref())?;
                copy::copy(OP, &contribution, &value)?;
                value
            }
        });
        Ok(())
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;
    use crate::module;
    use crate::module::Module;
    use crate::parameters::ParameterArena;

    fn leaf(values: &[f32]) -> Result<Tensor> {
        Ok(Tensor::from_slice(values, &[values.len()], &Device::Cpu)?.requires_grad())
    }

    #[test]
    fn contributions_do_not_write_into_each_other() -> Result<()> {
        let (a, b) = (leaf(&[1.0, 2.0])?, leaf(&[3.0, 4.0])?);
        let three = a.mul_scalar(3.0)?;
        let gradients = a.add(&b)?.add(&three)?.sum_all()?.backward()?;
        assert_eq!(gradients.get(&a).expect("wanted").to_vec::<f32>()?, [4.0, 4.0]);
        assert_eq!(gradients.get(&b).expect("wanted").to_vec::<f32>()?, [1.0, 1.0]);
        Ok(())
    }

    #[test]
    fn what_a_user_holds_does_not_change() -> Result<()> {
        let x = leaf(&[1.0, 2.0])?;
        let mut gradients = x.mul_scalar(2.0)?.sum_all()?.backward()?;
        let held = gradients.get(&x).expect("wanted");
        x.mul_scalar(5.0)?.sum_all()?.backward_into(&mut gradients)?;
        assert_eq!(held.to_vec::<f32>()?, [2.0, 2.0]);
        assert_eq!(gradients.get(&x).expect("wanted").to_vec::<f32>()?, [7.0, 7.0]);

        let one = Tensor::new([1f32, 1.0], &Device::Cpu)?;
        let mut gradients = Gradients::new();
        for _ in 0..3 {
            x.backward_with(&one, &mut gradients)?;
        }
        assert_eq!(one.to_vec::<f32>()?, [1.0, 1.0]);
        assert_eq!(gradients.get(&x).expect("wanted").to_vec::<f32>()?, [3.0, 3.0]);
        Ok(())
    }

    #[test]
    fn a_walk_that_fails_leaves_nothing() -> Result<()> {
        let x = leaf(&[1.0, 2.0])?;
        let loss = x.exp()?.sum_all()?;
        let mut gradients = loss.backward()?;
        let again = loss.add(&x.sum_all()?)?;
        assert!(again.backward_into(&mut gradients).is_err());
        assert!(!gradients.contains(&x));
        Ok(())
    }

    /// Several steps with different look-ups, one of them accumulated in two parts, against sums computed here.
    #[test]
    fn rows_that_were_looked_up_are_all_that_is_written() -> Result<()> {
        struct Table {
            table: Tensor,
        }
        module!(Table { table });
        let numbers: Vec<f32> = (0..15).map(|i| i as f32).collect();
        let mut model = Table { table: Tensor::from_vec(numbers, &[5, 3], &Device::Cpu)? };
        let arena = ParameterArena::gather(&mut model, |_| true)?;
        let mut gradients = arena.gradients()?;
        for parts in [vec![vec![1u32, 3, 1]], vec![vec![0, 3], vec![3]], vec![vec![]], vec![vec![4]]] {
            let mut want = vec![0f32; 15];
            for ids in &parts {
                model.table.embedding(ids)?.mul_scalar(2.0)?.sum_all()?.backward_into(&mut gradients)?;
                ids.iter().for_each(|&id| want[id as usize * 3..][..3].iter_mut().for_each(|x| *x += 2.0));
            }
            assert_eq!(gradients.get(&model.table).expect("wanted").to_vec::<f32>()?, want);
            let norm = want.iter().map(|x| f64::from(x * x)).sum::<f64>().sqrt();
            assert!((gradients.norm()? - norm).abs() < 1e-12);
            let touched = parts.concat().len();
            assert!(gradients.written(32).len() <= touched, "rows that were not looked up count as written");
            gradients.clear();
        }
        // A dense contribution makes it dense.
        model.table.embedding(&[2])?.sum_all()?.add(&model.table.sum_all()?)?.backward_into(&mut gradients)?;
        let mut want = vec![1f32; 15];
        want[6..9].fill(2.0);
        assert_eq!(gradients.get(&model.table).expect("wanted").to_vec::<f32>()?, want);
        gradients.clear();
        model.table.embedding(&[0])?.sum_all()?.backward_into(&mut gradients)?;
        assert!((gradients.norm()? - 3f64.sqrt()).abs() < 1e-12);
        Ok(())
    }

    struct Two {
        a: Tensor,
        b: Tensor,
    }
    module!(Two { a, b });

    fn two() -> Result<Two> {
        Ok(Two { a: leaf(&[3.0, 4.0])?, b: leaf(&[12.0])? })
    }

    fn arena(model: &mut Two) -> Result<ParameterArena> {
        ParameterArena::gather(model, |_| true)
    }

    #[test]
    fn frozen_parameters_stay_out_of_the_arena() -> Result<()> {
        let mut model = two()?;
        model.a = model.a.freeze();
        let arena = arena(&mut model)?;
        assert_eq!(arena.parameters().iter().map(|parameter| parameter.name.as_str()).collect::<Vec<_>>(), ["b"]);
        assert!(model.a.is_frozen() && !model.a.tracks_grad() && model.b.tracks_grad());
        model.a = model.a.requires_grad();
        assert!(!model.a.is_frozen() && model.a.tracks_grad());
        Ok(())
    }

    #[test]
    fn the_norm_counts_what_was_written() -> Result<()> {
        let mut model = two()?;
        let arena = arena(&mut model)?;
        let mut gradients = arena.gradients()?;
        let halves = |tensor: &Tensor| tensor.mul(tensor)?.sum_all()?.mul_scalar(0.5);
        halves(&model.a)?.add(&halves(&model.b)?)?.backward_into(&mut gradients)?;
        assert_eq!(gradients.norm()?, 13.0);
        gradients.clear();
        assert_eq!(gradients.norm()?, 0.0);
        halves(&model.a)?.backward_into(&mut gradients)?;
        assert_eq!(gradients.norm()?, 5.0);
        Ok(())
    }

    /// A chain of parameters of which one is used twice, and one not at all.
    #[test]
    fn final_gradients_come_from_the_end() -> Result<()> {
        let three = || (0..3).map(|n| leaf(&[n as f32 + 1.0, 2.0])).collect::<Result<Vec<Tensor>>>();
        let mut model = three()?;
        let arena = ParameterArena::gather(&mut model, |_| true)?;
        let loss = || -> Result<Tensor> {
            let hidden = model[0].mul(&model[1])?.exp()?;
            hidden.add(&model[1])?.mul(&model[2])?.sum_all()
        };
        let mut whole = arena.gradients()?;
        loss()?.backward_into(&mut whole)?;
        let mut gradients = arena.gradients()?;
        let mut seen = Vec::new();
        loss()?.backward_streaming(&mut gradients, |last| seen.push((last.start(), last.values().to_vec())))?;
        let starts: Vec<usize> = seen.iter().map(|(start, _)| *start).collect();
        assert_eq!(starts, [64, 0, 0], "the last parameter is final before the other two, which end together");
        let of = |at: usize| whole.get(&model[at]).expect("wanted").to_vec::<f32>();
        assert_eq!(seen[0].1[..2], of(2)?);
        for (start, values) in &seen[1..] {
            assert_eq!(
                (*start, &values[..2], &values[32..34], &values[64..66]),
                (0, &of(0)?[..], &of(1)?[..], &of(2)?[..])
            );
        }
        let unused = three()?;
        let mut seen = Vec::new();
        gradients.clear();
        model[2].sum_all()?.backward_streaming(&mut gradients, |last| seen.push(last.start()))?;
        assert_eq!(seen, [64, 0], "a parameter without a gradient is not waited for");
        let refused = unused[0].sum_all()?.backward_streaming(&mut Gradients::new(), |_| ());
        self::refused(refused, "do not mirror an arena of f32 parameters on the CPU");
        Ok(())
    }

    #[test]
    fn missing_gradients_become_zeros() -> Result<()> {
        let mut model = two()?;
        let mut gradients = arena(&mut model)?.gradients()?;
        assert!(gradients.is_empty());
        model.a.mul(&model.a)?.sum_all()?.backward_into(&mut gradients)?;
        gradients.clear();
        assert!(gradients.is_empty());
        model.b.mul(&model.b)?.sum_all()?.backward_into(&mut gradients)?;
        gradients.fill_with_zeros()?;
        assert_eq!(gradients.get(&model.a).expect("filled").to_vec::<f32>()?, [0.0, 0.0]);
        assert_eq!(gradients.get(&model.b).expect("wanted").to_vec::<f32>()?, [24.0]);
        Ok(())
    }

    #[test]
    fn flat_gradients_forget_strangers() -> Result<()> {
        let mut model = two()?;
        let mut gradients = arena(&mut model)?.gradients()?;
        let stranger = leaf(&[1.0])?;
        stranger.mul(&model.b)?.sum_all()?.backward_into(&mut gradients)?;
        assert!(gradients.contains(&stranger));
        gradients.clear();
        assert_eq!(gradients.entries.len(), 2);
        Ok(())
    }

    fn refused(result: Result<()>, part: &str) {
        let Err(error) = result else { panic!("accepted; expected: {part}") };
        assert!(error.to_string().contains(part), "{error}");
    }

    #[test]
    fn gradients_of_another_arena_are_refused() -> Result<()> {
        let (mut one, mut other) = (two()?, two()?);
        let (arena_one, arena_other) = (arena(&mut one)?, arena(&mut other)?);
        let mut gradients = arena_other.gradients()?;
        one.a.sum_all()?.add(&one.b.sum_all()?)?.backward_into(&mut gradients)?;
        refused(arena_one.update(&mut one, &gradients, |_: &mut [f32], _, _| {}), "do not mirror this arena");
        Ok(())
    }

    #[test]
    fn tied_and_exchanged_parameters_are_refused() -> Result<()> {
        let a = leaf(&[1.0])?;
        let mut tied = Two { a: a.clone(), b: a };
        refused(arena(&mut tied).map(drop), "b and a are one tensor");

        let mut model = Two { a: leaf(&[1.0])?, b: leaf(&[2.0])? };
        let arena = arena(&mut model)?;
        let mut gradients = arena.gradients()?;
        model.a.mul(&model.b)?.sum_all()?.backward_into(&mut gradients)?;
        let Two { a, b } = &mut model;
        std::mem::swap(a, b);
        refused(arena.update(&mut model, &gradients, |_: &mut [f32], _, _| {}), "a is not the parameter");
        Ok(())
    }

    /// A module whose `visit_mut` yields other tensors than `visit`.
    struct Crooked(Two);

    impl Module for Crooked {
        fn visit(&self, name: &str, visitor: &mut dyn FnMut(&str, &Tensor)) {
            self.0.visit(name, visitor);
        }

        fn visit_mut(&mut self, _: &str, visitor: &mut dyn FnMut(&str, &mut Tensor)) {
            visitor("b", &mut self.0.b);
            visitor("a", &mut self.0.a);
        }
    }

    #[test]
    fn visits_that_disagree_are_refused() -> Result<()> {
        refused(ParameterArena::gather(&mut Crooked(two()?), |_| true).map(drop), "disagree at b");
        Ok::<(), Error>(())
    }
}
