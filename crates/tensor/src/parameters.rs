//! The flat arena that holds the parameters of a model in training.
//!
//! A model has hundreds of parameters, from a few numbers to millions. In the arena, all that train are ranges of one
//! buffer, in the order in which the model visits them; the gradients and the optimizer state are buffers of the same layout.
//! So the gradient norm, clipping, an optimizer step and a checkpoint are each one pass over contiguous memory, however many
//! parameters there are. The tensors of the model become views of their ranges.
//!
//! An optimizer step thus writes memory that tensors view. [`claim`](ParameterArena::claim) makes that sound: the model must
//! hold the only handle on each parameter, no other view of the buffer may exist, and the parameters are taken out of the model
//! until they are written. That the model is borrowed exclusively would not be enough: one that locks its parameters and shares
//! them could hand out a handle meanwhile.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::atomic::{Ordering, fence};
use std::sync::{Arc, RwLock, RwLockReadGuard, RwLockWriteGuard, TryLockError};

use crate::copy;
use crate::device::Device;
use crate::dtype::DType;
use crate::element::Element;
use crate::error::{Error, Result};
use crate::gradients::{Flat, Gradients};
use crate::layout::{Dims, Layout};
use crate::module::Module;
use crate::storage::Storage;
use crate::tensor::{Origin, Tensor, TensorId};

/// The place of a parameter in the arena.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ParameterRange {
    /// The name in the state dict.
    pub name: String,
    /// The shape.
    pub shape: Vec<usize>,
    /// The elements in the flat buffers.
    pub range: Range<usize>,
    dims: Dims,
    id: TensorId,
}

/// The trainable parameters of a model in one flat buffer, with the place of each.
///
/// The gradient norm, clipping and the optimizer are then each one pass over one buffer, and the optimizer state has the same
/// layout. Gather the parameters once it is known which of them train:
///
/// ```
/// use cloze_tensor::{module, Device, Module, ParameterArena, Tensor};
/// struct Scale { weight: Tensor }
/// module!(Scale { weight });
/// let mut model = Scale { weight: Tensor::new(&[2f32, 3.0], &Device::Cpu)? };
/// let arena = ParameterArena::gather(&mut model, |_| true)?;
/// let mut gradients = arena.gradients()?;
/// model.weight.mul(&model.weight)?.sum_all()?.backward_into(&mut gradients)?;
/// arena.update(&mut model, &gradients, |weights: &mut [f32], gradients, _| {
///     weights.iter_mut().zip(gradients).for_each(|(w, g)| *w -= 0.5 * g);
/// })?;
/// assert_eq!(model.weight.to_vec::<f32>()?, [0.0, 0.0]);
/// # Ok::<(), cloze_tensor::Error>(())
/// ```
pub struct ParameterArena {
    /// Identifies the arena; its gradients carry the same id.
    id: TensorId,
    storage: Storage,
    dtype: DType,
    device: Device,
    parameters: Vec<ParameterRange>,
    /// The layout of the flat buffer.
    layout: Layout,
    /// Held while the flat buffer is read or written other than through the model.
    access: RwLock<()>,
}

/// Elements between the possible starts of parameters: a parameter starts on a cache line, and so does its copy in a
/// two-byte type.
const ALIGNMENT: usize = 32;

/// The name of [`ParameterArena::gather`] in error messages.
const GATHER: &str = "parameter arena";

/// Lists the parameters that train, each with its range in the flat buffer, and returns them with their common dtype and
/// device.
fn survey(model: &impl Module, trains: &dyn Fn(&str, &Tensor) -> bool) -> Result<(Vec<ParameterRange>, DType, Device)> {
    let mut parameters = Vec::new();
    let mut elements = 0;
    let mut kind = None;
    let mut names: HashMap<TensorId, String> = HashMap::new();
    let mut problem = None;
    model.visit("", &mut |name, tensor| {
        if !trains(name, tensor) {
            return;
        }
        let this = (tensor.dtype(), tensor.device());
        if *kind.get_or_insert_with(|| this.clone()) != this {
            problem.get_or_insert(format!("{name} differs in dtype or device from the parameters before it"));
        }
        if let Some(first) = names.insert(tensor.id(), name.to_string()) {
            problem.get_or_insert(format!("{name} and {first} are one tensor; a model visits a tied parameter once"));
        }
        let range = elements..elements + tensor.elements();
        elements = range.end.next_multiple_of(ALIGNMENT);
        let (name, shape) = (name.to_string(), tensor.shape().to_vec());
        parameters.push(ParameterRange { name, shape, range, dims: tensor.dims(), id: TensorId::fresh() });
    });
    match (kind, problem) {
        (_, Some(problem)) => Err(Error::invalid(GATHER, problem)),
        (None, None) => Err(Error::invalid(GATHER, "no parameter is trainable")),
        (Some((dtype, device)), None) => Ok((parameters, dtype, device)),
    }
}

impl ParameterArena {
    /// Moves the parameters for which `is_trainable` holds, by name, into one flat buffer and makes them leaf tensors
    /// that require a gradient. The others become constants and stay in their memory; a [frozen](Tensor::freeze)
    /// parameter stays frozen, whatever `is_trainable` returns.
    ///
    /// # Errors
    /// Returns an error if no parameter is trainable, if they differ in dtype or device, if one comes twice, or if
    /// the two visits of the model disagree.
    pub fn gather(model: &mut impl Module, is_trainable: impl Fn(&str) -> bool) -> Result<ParameterArena> {
        let trains = |name: &str, tensor: &Tensor| !tensor.is_frozen() && is_trainable(name);
        let (parameters, dtype, device) = survey(model, &trains)?;
        let elements = parameters.last().map_or(0, |last| last.range.end.next_multiple_of(ALIGNMENT));
        let storage = Storage::zeroed(GATHER, &device, elements * dtype.size())?;
        let layout = Layout::contiguous(GATHER, &[elements])?;
        let access = RwLock::default();
        let arena = ParameterArena { id: TensorId::fresh(), storage, dtype, device, parameters, layout, access };
        arena.adopt_all(model, &trains)?;
        Ok(arena)
    }

    /// Moves the parameters that train into the arena and makes the others constants.
    fn adopt_all(&self, model: &mut impl Module, trains: &dyn Fn(&str, &Tensor) -> bool) -> Result<()> {
        let (mut next, mut moved) = (self.parameters.iter(), Ok(()));
        model.visit_mut("", &mut |name, tensor| {
            if moved.is_err() {
                return;
            }
            if trains(name, tensor) {
                moved = match next.next() {
                    Some(place)
                        if place.name == name && place.dims == tensor.dims() && tensor.dtype() == self.dtype =>
                    {
                        self.adopt(place, tensor)
                    }
                    _ => Err(Error::invalid(GATHER, format!("visit and visit_mut of the model disagree at {name}"))),
                };
            } else if !tensor.is_frozen() {
                *tensor = tensor.detach();
            }
        });
        moved?;
        match next.next() {
            Some(place) => Err(Error::invalid(GATHER, format!("visit_mut of the model leaves out {}", place.name))),
            None => Ok(()),
        }
    }

    /// Copies `tensor` to its place and makes it a view of it.
    fn adopt(&self, place: &ParameterRange, tensor: &mut Tensor) -> Result<()> {
        let source = tensor.detach().contiguous()?;
        let mut layout = Layout::contiguous(GATHER, &place.shape)?;
        layout.offset = place.range.start;
        let to = Tensor::from_parts(self.storage.clone(), layout, self.dtype, Origin::Constant);
        // SAFETY: no handle refers to this range yet: only `gather` calls this, before it returns the arena, and ranges do not
        // overlap.
        unsafe { copy::copy(GATHER, &source, &to)? };
        *tensor = Tensor(Arc::new(crate::tensor::Inner {
            id: place.id,
            storage: self.storage.clone(),
            layout,
            dtype: self.dtype,
            origin: Origin::Leaf,
        }));
        Ok(())
    }

    /// Returns the place of each parameter, in the order in which the model visits them.
    pub fn parameters(&self) -> &[ParameterRange] {
        &self.parameters
    }

    /// Returns the length of the flat buffers, including the padding between parameters.
    pub fn elements(&self) -> usize {
        self.layout.elements()
    }

    /// Returns the element type.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Returns a flat buffer of zeros with the length of the arena, for optimizer state.
    pub fn zeros(&self) -> Result<Tensor> {
        Tensor::zeros(&[self.elements()], self.dtype, &self.device)
    }

    /// Returns gradients that mirror the arena.
    ///
    /// # Errors
    /// Returns an error if there is not enough memory.
    pub fn gradients(&self) -> Result<Gradients> {
        let storage = Storage::zeroed("gradients", &self.device, self.elements() * self.dtype.size())?;
        let flat = Flat { storage, dtype: self.dtype, arena: self.id };
        Ok(Gradients::mirror(flat, self.parameters.iter().map(|p| (p.id, p.dims, p.range.start))))
    }

    /// Returns the flat gradients, or an error if they do not mirror this arena.
    pub(crate) fn flat_gradients<'g>(&self, op: &'static str, gradients: &'g Gradients) -> Result<&'g Flat> {
        let flat = gradients.flat.as_ref().filter(|flat| flat.arena == self.id);
        flat.ok_or_else(|| Error::gradient(op, "the gradients do not mirror this arena; make them with gradients()"))
    }

    /// Returns the device of the parameters.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Calls `step` to change the flat parameters, with the flat gradients and the place of each parameter.
    ///
    /// # Errors
    /// Returns an error that names the parameter if one has no gradient (freeze it if that is intended), or if a graph or
    /// another handle still holds one, whose values would change. Returns an error if the gradients or the model belong to
    /// another arena.
    pub fn update<T: Element>(
        &self,
        model: &mut impl Module,
        gradients: &Gradients,
        step: impl FnOnce(&mut [T], &[T], &[ParameterRange]),
    ) -> Result<()> {
        const OP: &str = "optimizer step";
        let flat = &self.flat_gradients(OP, gradients)?.storage;
        if T::DTYPE != self.dtype {
            return Err(crate::element::wrong_dtype(OP, "parameters", T::DTYPE, &self.dtype.to_string()));
        }
        if !self.device.is_cpu() {
            return Err(Error::invalid(OP, format!("the parameters are on {}, not in the host's memory", self.device)));
        }
        let _claimed = self.claim(OP, model, |tensor| gradients.contains(tensor))?;
        // SAFETY: as long as the parameters are claimed, no other handle refers to this memory.
        let values = unsafe { self.storage.cpu_mut::<T>(0..self.elements()) };
        step(values, flat.cpu::<T>(0..self.elements()), &self.parameters);
        Ok(())
    }

    /// The layout of the flat buffer.
    pub(crate) fn layout(&self) -> Layout {
        self.layout
    }

    /// The flat buffer. It may be written only after [`claim`](ParameterArena::claim).
    pub(crate) fn storage(&self) -> &Storage {
        &self.storage
    }

    /// Keeps the flat parameters from being written as long as the guard lives.
    ///
    /// # Errors
    /// Returns an error if they are being written.
    pub(crate) fn reading(&self, op: &'static str) -> Result<RwLockReadGuard<'_, ()>> {
        match self.access.try_read() {
            Ok(guard) => Ok(guard),
            // A panic in an optimizer step.
            Err(TryLockError::Poisoned(guard)) => Ok(guard.into_inner()),
            Err(TryLockError::WouldBlock) => Err(Error::gradient(op, "the parameters are being changed")),
        }
    }

    /// Takes the flat parameters out of `model`, after checking that it holds the only handles on them and that `has_gradient`
    /// is true for each. As long as the guard lives, they may be written; then they are put back.
    pub(crate) fn claim<'a, M: Module>(
        &'a self,
        op: &'static str,
        model: &'a mut M,
        has_gradient: impl Fn(&Tensor) -> bool,
    ) -> Result<Claimed<'a, M>> {
        let access = match self.access.try_write() {
            Ok(guard) => guard,
            // A panic in an optimizer step.
            Err(TryLockError::Poisoned(guard)) => guard.into_inner(),
            Err(TryLockError::WouldBlock) => {
                return Err(Error::gradient(op, "the parameters are being read or changed"));
            }
        };
        let absent = Tensor::zeros(&[0], DType::F32, &Device::Cpu)?;
        let mut claimed = Claimed { model, absent, taken: Vec::with_capacity(self.parameters.len()), _access: access };
        let mut complaint = None;
        let mut expected = self.parameters.iter();
        claimed.model.visit_mut("", &mut |name, tensor| {
            if !tensor.storage().is_same(&self.storage) || complaint.is_some() {
                return;
            }
            if expected.next().is_none_or(|parameter| parameter.id != tensor.id()) {
                complaint = Some(format!(
                    "{name} is not the parameter that the arena has here: it was replaced, it comes twice, or the model \
                     visits its parameters in a different order than when the arena was gathered"
                ));
            } else if Arc::get_mut(&mut tensor.0).is_none() {
                let handles = Arc::strong_count(&tensor.0).saturating_sub(1);
                complaint = Some(format!(
                    "{name} is still held by a graph or by {handles} other handle(s): drop the loss or run its \
                     backward, and drop clones of the parameter"
                ));
            } else if !has_gradient(tensor) {
                complaint = Some(format!(
                    "{name} has no gradient because the loss does not depend on it: freeze it if that is intended"
                ));
            } else {
                claimed.taken.push(std::mem::replace(tensor, claimed.absent.clone()));
            }
        });
        let missing = expected.next();
        if let (None, Some(missing)) = (&complaint, missing) {
            complaint = Some(format!("the model does not have the parameter {} of the arena", missing.name));
        }
        // There is one handle per parameter and that of the arena. Any others are views of parameters.
        if complaint.is_none() && self.storage.handles() != self.parameters.len() + 1 {
            complaint = Some("a view of a parameter is still held by a graph or another handle".to_string());
        }
        if let Some(reason) = complaint {
            return Err(Error::gradient(op, reason));
        }
        // Orders reads through handles that other threads have dropped before the writes that follow.
        fence(Ordering::Acquire);
        Ok(claimed)
    }
}

/// The flat parameters, taken out of their model, in which `absent` holds their places. Dropping it puts them back.
pub(crate) struct Claimed<'a, M: Module> {
    model: &'a mut M,
    absent: Tensor,
    taken: Vec<Tensor>,
    _access: RwLockWriteGuard<'a, ()>,
}

impl<M: Module> Drop for Claimed<'_, M> {
    fn drop(&mut self) {
        let mut taken = self.taken.drain(..);
        self.model.visit_mut("", &mut |_, tensor| {
            if tensor.id() == self.absent.id()
                && let Some(parameter) = taken.next()
            {
                *tensor = parameter;
            }
        });
    }
}
