//! Modules and their parameters, and the flat arena in which the parameters of a training model live.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

use crate::element::Element;
use crate::gradients::{Flat, Gradients};
use crate::layout::{Dims, Layout};
use crate::ops::{float, on_device};
use crate::storage::Storage;
use crate::tensor::{Origin, Tensor, TensorId};
use crate::{DType, Device, Error, Result};

/// Something with named parameters. Names are joined by dots and mirror the Hugging Face state dict:
/// `bert.encoder.layer.0.attention.self.query.weight`.
///
/// Implement it with [`module!`](crate::module).
pub trait Module {
    /// Calls `visitor` with each parameter and its name, in a fixed order.
    fn visit(&self, name: &str, visitor: &mut dyn FnMut(&str, &Tensor));

    /// As [`Module::visit`], for replacing parameters.
    fn visit_mut(&mut self, name: &str, visitor: &mut dyn FnMut(&str, &mut Tensor));

    /// Number of parameter elements.
    fn parameter_count(&self) -> usize {
        let mut count = 0;
        self.visit("", &mut |_, parameter| count += parameter.elements());
        count
    }

    /// Every parameter with its name. A copy of the handles: drop it before the next optimizer step.
    fn named_parameters(&self) -> Vec<(String, Tensor)> {
        let mut parameters = Vec::new();
        self.visit("", &mut |name, parameter| parameters.push((name.to_string(), parameter.clone())));
        parameters
    }
}

/// `prefix.name`, or `name` at the root.
#[doc(hidden)]
pub fn join_name(prefix: &str, name: &str) -> String {
    if prefix.is_empty() { name.to_string() } else { format!("{prefix}.{name}") }
}

/// Implements [`Module`] for a struct: lists the fields that are parameters or modules, in the order in
/// which they are visited. Where the name in the checkpoint is no field name, give it as a string.
///
/// ```
/// use cloze_tensor::{module, Tensor};
/// struct Linear { weight: Tensor, bias: Tensor }
/// module!(Linear { weight, bias });
/// struct Output { dense: Linear, norm: Linear }
/// module!(Output { dense, norm: "LayerNorm" });
/// ```
#[macro_export]
macro_rules! module {
    ($type:ident { $($field:ident $(: $name:literal)?),* $(,)? }) => {
        impl $crate::Module for $type {
            fn visit(&self, name: &str, visitor: &mut dyn FnMut(&str, &$crate::Tensor)) {
                $($crate::Module::visit(
                    &self.$field, &$crate::join_name(name, $crate::module!(@name $field $($name)?)), visitor,
                );)*
            }

            fn visit_mut(&mut self, name: &str, visitor: &mut dyn FnMut(&str, &mut $crate::Tensor)) {
                $($crate::Module::visit_mut(
                    &mut self.$field, &$crate::join_name(name, $crate::module!(@name $field $($name)?)), visitor,
                );)*
            }
        }
    };
    (@name $field:ident) => { stringify!($field) };
    (@name $field:ident $name:literal) => { $name };
}

impl Module for Tensor {
    fn visit(&self, name: &str, visitor: &mut dyn FnMut(&str, &Tensor)) {
        visitor(name, self);
    }

    fn visit_mut(&mut self, name: &str, visitor: &mut dyn FnMut(&str, &mut Tensor)) {
        visitor(name, self);
    }
}

impl<M: Module> Module for Vec<M> {
    fn visit(&self, name: &str, visitor: &mut dyn FnMut(&str, &Tensor)) {
        self.iter().enumerate().for_each(|(i, module)| module.visit(&join_name(name, &i.to_string()), visitor));
    }

    fn visit_mut(&mut self, name: &str, visitor: &mut dyn FnMut(&str, &mut Tensor)) {
        self.iter_mut().enumerate().for_each(|(i, module)| module.visit_mut(&join_name(name, &i.to_string()), visitor));
    }
}

impl<M: Module> Module for Option<M> {
    fn visit(&self, name: &str, visitor: &mut dyn FnMut(&str, &Tensor)) {
        self.iter().for_each(|module| module.visit(name, visitor));
    }

    fn visit_mut(&mut self, name: &str, visitor: &mut dyn FnMut(&str, &mut Tensor)) {
        self.iter_mut().for_each(|module| module.visit_mut(name, visitor));
    }
}

/// A parameter's place in the arena.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ParameterRange {
    /// Its name in the state dict.
    pub name: String,
    /// Its shape.
    pub shape: Vec<usize>,
    /// Its elements in the flat buffers.
    pub range: Range<usize>,
    dims: Dims,
    id: TensorId,
}

/// The trainable parameters of a model in one flat buffer, and what is where.
///
/// So the gradient norm, clipping and the optimizer are each one pass over one buffer, and the optimizer's
/// state is buffers of the same form. Lay it out when it is known which parameters train:
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
    /// Tells arenas apart.
    id: TensorId,
    storage: Storage,
    dtype: DType,
    device: Device,
    parameters: Vec<ParameterRange>,
    /// Of the flat buffer.
    layout: Layout,
}

/// Every parameter starts on a cache line, of its two-byte copy too.
const ALIGNMENT: usize = 32;

impl ParameterArena {
    /// Moves the parameters for which `is_trainable` holds, by name, into one flat buffer and makes them leaf tensors
    /// that require a gradient. The others become constants and stay in their memory; a [frozen](Tensor::freeze)
    /// parameter stays frozen, whatever `is_trainable` returns.
    ///
    /// # Errors
    /// Returns an error if no parameter is trainable, if they differ in dtype or device, if one comes twice, or if
    /// the two visits of the model disagree.
    pub fn gather(model: &mut impl Module, is_trainable: impl Fn(&str) -> bool) -> Result<ParameterArena> {
        const OP: &str = "parameter arena";
        let mut parameters: Vec<ParameterRange> = Vec::new();
        let mut elements = 0;
        let mut kind = None;
        let mut mixed = None;
        let mut tied = None;
        let mut names: HashMap<TensorId, String> = HashMap::new();
        let trains = |name: &str, tensor: &Tensor| !tensor.is_frozen() && is_trainable(name);
        model.visit("", &mut |name, tensor| {
            if !trains(name, tensor) {
                return;
            }
            if let Some(first) = names.insert(tensor.id(), name.to_string()) {
                tied = Some(format!("{name} and {first} are one tensor; a model visits a tied parameter once"));
            }
            let this = (tensor.dtype(), tensor.device());
            if *kind.get_or_insert_with(|| this.clone()) != this {
                mixed = Some(name.to_string());
            }
            let range = elements..elements + tensor.elements();
            elements = range.end.next_multiple_of(ALIGNMENT);
            parameters.push(ParameterRange {
                name: name.to_string(),
                shape: tensor.shape().to_vec(),
                range,
                dims: tensor.dims(),
                id: TensorId::fresh(),
            });
        });
        let Some((dtype, device)) = kind else { return Err(Error::invalid(OP, "no parameter is trainable")) };
        if let Some(name) = mixed {
            return Err(Error::invalid(OP, format!("{name} differs in dtype or device from the parameters before it")));
        }
        if let Some(reason) = tied {
            return Err(Error::invalid(OP, reason));
        }
        let storage = Storage::zeroed(OP, &device, elements * dtype.size())?;
        let layout = Layout::contiguous(OP, &[elements])?;
        let arena = ParameterArena { id: TensorId::fresh(), storage, dtype, device, parameters, layout };
        let (mut next, mut moved) = (arena.parameters.iter(), Ok(()));
        model.visit_mut("", &mut |name, tensor| {
            if moved.is_err() {
                return;
            }
            if trains(name, tensor) {
                moved = match next.next() {
                    Some(place) if place.name == name && place.dims == tensor.dims() && tensor.dtype() == dtype => {
                        arena.adopt(place, tensor)
                    }
                    _ => Err(Error::invalid(OP, format!("visit and visit_mut of the model disagree at {name}"))),
                };
            } else if !tensor.is_frozen() {
                *tensor = tensor.detach();
            }
        });
        moved?;
        if let Some(place) = next.next() {
            return Err(Error::invalid(OP, format!("visit_mut of the model leaves {} out", place.name)));
        }
        Ok(arena)
    }

    /// Copies `tensor` to its place and makes it a view of that.
    fn adopt(&self, place: &ParameterRange, tensor: &mut Tensor) -> Result<()> {
        let source = tensor.detach().contiguous()?;
        let mut layout = Layout::contiguous("parameter arena", &place.shape)?;
        layout.offset = place.range.start;
        on_device!(
            source,
            cpu => float!("parameter arena", self.dtype, T => {
                // SAFETY: only `gather` calls this, before the arena is given to anybody; ranges do not overlap.
                unsafe { self.storage.cpu_mut::<T>(place.range.clone()) }.copy_from_slice(source.slice::<T>());
            }),
            cuda => {
                let to = Tensor::from_parts(self.storage.clone(), layout, self.dtype, Origin::Constant);
                crate::cuda::elementwise::copy("parameter arena", &source, &to, false)?;
            },
        );
        *tensor = Tensor(Arc::new(crate::tensor::Inner {
            id: place.id,
            storage: self.storage.clone(),
            layout,
            dtype: self.dtype,
            origin: Origin::Leaf,
        }));
        Ok(())
    }

    /// What is where, in the order of the model's visit.
    pub fn parameters(&self) -> &[ParameterRange] {
        &self.parameters
    }

    /// Length of the flat buffers, padding between parameters included.
    pub fn elements(&self) -> usize {
        self.layout.elements()
    }

    /// The element type.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// A flat buffer of zeros of the arena's length: optimizer state.
    pub fn zeros(&self) -> Result<Tensor> {
        Tensor::zeros(&[self.elements()], self.dtype, &self.device)
    }

    /// Gradients that mirror the arena.
    ///
    /// # Errors
    /// When there is not enough memory.
    pub fn gradients(&self) -> Result<Gradients> {
        let storage = Storage::zeroed("gradients", &self.device, self.elements() * self.dtype.size())?;
        Ok(Gradients::mirror(storage, self.parameters.iter().map(|p| (p.id, p.dims, p.range.start)), self))
    }

    pub(crate) fn id(&self) -> TensorId {
        self.id
    }

    /// Where the parameters are.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Lets `step` change the flat parameters, given the flat gradients and what is where.
    ///
    /// # Errors
    /// By name: a parameter that has no gradient (freeze it if that is meant), or one that a graph or
    /// another handle still holds, whose values would change under it; and gradients or a model of another
    /// arena.
    pub fn update<T: Element>(
        &self,
        model: &mut impl Module,
        gradients: &Gradients,
        step: impl FnOnce(&mut [T], &[T], &[ParameterRange]),
    ) -> Result<()> {
        const OP: &str = "optimizer step";
        let flat = gradients.flat.as_ref().filter(|flat| flat.arena == self.id);
        let Some(Flat { storage: flat, .. }) = flat else {
            return Err(Error::gradient(OP, "the gradients do not mirror this arena; make them with gradients()"));
        };
        if T::DTYPE != self.dtype {
            return Err(crate::ops::wrong_dtype(OP, "parameters", T::DTYPE, &self.dtype.to_string()));
        }
        if !self.device.is_cpu() {
            return Err(Error::invalid(OP, format!("the parameters are on {}, not in the host's memory", self.device)));
        }
        self.claim(OP, model, |tensor| gradients.contains(tensor))?;
        // SAFETY: the parameters are the model's alone, as was just seen, and it is borrowed exclusively.
        step(unsafe { self.storage.cpu_mut::<T>(0..self.elements()) }, flat.cpu::<T>(), &self.parameters);
        Ok(())
    }

    /// How the flat buffer lies.
    pub(crate) fn layout(&self) -> Layout {
        self.layout
    }

    /// The flat buffer itself. Whoever writes it has [claimed](ParameterArena::claim) it.
    pub(crate) fn storage(&self) -> &Storage {
        &self.storage
    }

    /// Makes certain that `model` alone has the flat parameters and that each `has_gradient`: as long as it is borrowed, they
    /// may be written.
    pub(crate) fn claim(
        &self,
        op: &'static str,
        model: &mut impl Module,
        has_gradient: impl Fn(&Tensor) -> bool,
    ) -> Result<()> {
        let mut complaint = None;
        let mut expected = self.parameters.iter();
        model.visit_mut("", &mut |name, tensor| {
            if !tensor.storage().is_same(&self.storage) || complaint.is_some() {
                return;
            }
            if expected.next().is_none_or(|parameter| parameter.id != tensor.id()) {
                complaint = Some(format!(
                    "{name} is not the parameter that the arena has here: it was replaced, or comes twice, or the \
                     model visits its parameters in another order than it did when the arena was gathered"
                ));
            } else if Arc::get_mut(&mut tensor.0).is_none() {
                let handles = Arc::strong_count(&tensor.0).saturating_sub(1);
                complaint = Some(format!(
                    "{name} is still held by a graph or by {handles} other handle(s): drop the loss or run its \
                     backward, and drop clones of the parameter"
                ));
            } else if !has_gradient(tensor) {
                complaint = Some(format!(
                    "{name} has no gradient: the loss does not depend on it; freeze it when the arena is gathered, if \
                     that is meant"
                ));
            }
        });
        let missing = expected.next();
        if let (None, Some(missing)) = (&complaint, missing) {
            complaint = Some(format!("the model does not have the parameter {} of the arena", missing.name));
        }
        // One handle per parameter and the arena's own; more are views of parameters.
        if complaint.is_none() && self.storage.handles() != self.parameters.len() + 1 {
            complaint = Some("a view of a parameter is still held by a graph or another handle".to_string());
        }
        if let Some(reason) = complaint {
            return Err(Error::gradient(op, reason));
        }
        // What others read through handles that they have dropped comes before what is written now.
        fence(Ordering::Acquire);
        Ok(())
    }
}
