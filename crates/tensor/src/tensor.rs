//! The tensor: a cheap handle on memory with a layout and, if it was computed from something that requires a gradient,
//! the graph node that made it.

use std::any::Any;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytemuck::Pod;

use crate::device::Device;
use crate::dtype::DType;
use crate::element::{Element, TensorData, element, wrong_dtype};
use crate::error::{Error, Result};
use crate::layout::{Dims, Layout};
use crate::memory::is_dry;
use crate::profile::{Pass, timed};
use crate::random::Stream;
use crate::storage::Storage;

/// An n-dimensional array whose element type and device are known at run time. Cloning copies a handle, not the elements.
///
/// Elements never change through a handle. The one exception is the optimizer step, which first checks that no other
/// handle refers to the parameters ([`ParameterArena::update`](crate::ParameterArena::update)).
#[derive(Clone)]
pub struct Tensor(pub(crate) Arc<Inner>);

pub(crate) struct Inner {
    pub(crate) id: TensorId,
    pub(crate) storage: Storage,
    pub(crate) layout: Layout,
    pub(crate) dtype: DType,
    pub(crate) origin: Origin,
}

/// Where a tensor's gradient goes.
#[derive(Clone)]
pub(crate) enum Origin {
    /// Nowhere: a constant.
    Constant,
    /// Nowhere: a parameter that must not train.
    Frozen,
    /// To the user: a leaf of the graph.
    Leaf,
    /// Through the operation that computed it: the node that `autograd` recorded.
    Computed(Arc<dyn Any + Send + Sync>),
}

/// Identifies a tensor in a graph; never used twice in a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct TensorId(u64);

impl TensorId {
    pub(crate) fn fresh() -> TensorId {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        TensorId(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

impl Tensor {
    pub(crate) fn from_parts(storage: Storage, layout: Layout, dtype: DType, origin: Origin) -> Tensor {
        Tensor(Arc::new(Inner { id: TensorId::fresh(), storage, layout, dtype, origin }))
    }

    /// Creates a tensor from a number, an array, nested arrays or a vector. The element type follows from the numbers:
    /// without a suffix they are f64, as everywhere in Rust; write `0.5f32` for f32.
    ///
    /// ```
    /// use cloze_tensor::{Device, Tensor};
    /// let w = Tensor::new(&[[0.5f32, -0.3, 0.1], [-0.2, 0.4, 0.6]], &Device::Cpu)?;
    /// assert_eq!(w.shape(), [2, 3]);
    /// # Ok::<(), cloze_tensor::Error>(())
    /// ```
    pub fn new<D: TensorData>(data: D, device: &Device) -> Result<Tensor> {
        let shape = data.shape();
        let mut elements = Vec::with_capacity(shape.iter().product());
        data.collect_into(&mut elements);
        Tensor::from_vec(elements, &shape, device)
    }

    /// Creates a tensor of `shape` from its elements in row-major order.
    ///
    /// # Errors
    /// Returns an error if the number of elements is not the product of the shape.
    pub fn from_vec<T: Element>(elements: Vec<T>, shape: &[usize], device: &Device) -> Result<Tensor> {
        Tensor::from_slice(&elements, shape, device)
    }

    /// Creates a tensor as [`Tensor::from_vec`], copying from a slice.
    pub fn from_slice<T: Element>(elements: &[T], shape: &[usize], device: &Device) -> Result<Tensor> {
        let layout = Layout::contiguous("from_slice", shape)?;
        if layout.elements() != elements.len() {
            let reason = format!("{} elements given, {} needed", elements.len(), layout.elements());
            return Err(Error::shape("from_slice", reason, &[("shape", shape)]));
        }
        Tensor::filled("from_slice", layout, device, |to: &mut [T]| to.copy_from_slice(elements))
    }

    /// Allocates a row-major tensor whose elements `fill` writes.
    pub(crate) fn filled<T: Element>(
        op: &'static str,
        layout: Layout,
        device: &Device,
        fill: impl FnOnce(&mut [T]),
    ) -> Result<Tensor> {
        let elements = layout.elements();
        let storage = Storage::new(op, &Device::Cpu, elements * T::DTYPE.size())?;
        // SAFETY: the storage was allocated above and is not shared yet.
        timed(op, Pass::Forward, || fill(unsafe { storage.cpu_mut(0..elements) }));
        Tensor::from_parts(storage, layout, T::DTYPE, Origin::Constant).to_device(device)
    }

    /// Allocates a row-major tensor with arbitrary contents.
    pub(crate) fn uninitialised(op: &'static str, shape: &[usize], dtype: DType, device: &Device) -> Result<Tensor> {
        let layout = Layout::contiguous(op, shape)?;
        let storage = Storage::new(op, device, layout.elements() * dtype.size())?;
        Ok(Tensor::from_parts(storage, layout, dtype, Origin::Constant))
    }

    /// Allocates a row-major tensor of `shape` whose elements `fill` writes.
    pub(crate) fn build<T: Element>(
        op: &'static str,
        shape: &[usize],
        device: &Device,
        fill: impl FnOnce(&mut [T]),
    ) -> Result<Tensor> {
        Tensor::filled(op, Layout::contiguous(op, shape)?, device, fill)
    }

    /// Allocates several row-major tensors on the CPU, which `fill` writes together.
    pub(crate) fn build_all<T: Element, const N: usize>(
        op: &'static str,
        shapes: [&[usize]; N],
        fill: impl FnOnce([&mut [T]; N]),
    ) -> Result<[Tensor; N]> {
        let mut tensors = Vec::with_capacity(N);
        for shape in shapes {
            tensors.push(Tensor::uninitialised(op, shape, T::DTYPE, &Device::Cpu)?);
        }
        let tensors: [Tensor; N] = tensors.try_into().unwrap_or_else(|_| unreachable!("as many as shapes"));
        // SAFETY: the tensors were allocated above and are not shared yet.
        let all = std::array::from_fn(|i| unsafe { tensors[i].storage().cpu_mut(0..tensors[i].elements()) });
        timed(op, Pass::Forward, || fill(all));
        Ok(tensors)
    }

    /// Creates a tensor of zeros.
    pub fn zeros(shape: &[usize], dtype: DType, device: &Device) -> Result<Tensor> {
        let layout = Layout::contiguous("zeros", shape)?;
        let storage = Storage::zeroed("zeros", device, layout.elements() * dtype.size())?;
        Ok(Tensor::from_parts(storage, layout, dtype, Origin::Constant))
    }

    /// Creates a tensor of ones.
    pub fn ones(shape: &[usize], dtype: DType, device: &Device) -> Result<Tensor> {
        Tensor::full(1.0, shape, dtype, device)
    }

    /// Creates a tensor filled with `value`, rounded to `dtype`.
    pub fn full(value: f64, shape: &[usize], dtype: DType, device: &Device) -> Result<Tensor> {
        let number = Tensor::new(value, &Device::Cpu)?.to_dtype(dtype)?;
        element!("full", dtype, T => {
            let value = number.slice::<T>()[0];
            Tensor::build("full", shape, device, |to: &mut [T]| if !is_dry() { to.fill(value) })
        })
    }

    /// Creates an f32 tensor of normally distributed numbers with mean 0 and standard deviation `std`.
    pub fn randn(shape: &[usize], std: f64, stream: &mut Stream, device: &Device) -> Result<Tensor> {
        Tensor::build("randn", shape, device, |to: &mut [f32]| {
            for pair in to.chunks_mut(2).take_while(|_| !is_dry()) {
                let draws = stream.normal_pair();
                pair.iter_mut().zip(draws).for_each(|(to, draw)| *to = (draw * std) as f32);
            }
        })
    }

    /// Returns the sizes of the dimensions, outermost first. A single number has no dimensions.
    pub fn shape(&self) -> &[usize] {
        &self.0.layout.shape
    }

    /// Returns the number of dimensions.
    pub fn rank(&self) -> usize {
        self.shape().len()
    }

    /// Returns the number of elements.
    pub fn elements(&self) -> usize {
        self.0.layout.elements()
    }

    /// Returns the size of dimension `axis`.
    pub(crate) fn size(&self, axis: usize) -> usize {
        self.shape()[axis]
    }

    /// Returns the size of the last dimension; 1 for a single number.
    pub(crate) fn width(&self) -> usize {
        self.shape().last().copied().unwrap_or(1)
    }

    /// Returns the element type.
    pub fn dtype(&self) -> DType {
        self.0.dtype
    }

    /// Returns the device that holds the elements.
    pub fn device(&self) -> Device {
        self.0.storage.device()
    }

    pub(crate) fn is_on_cpu(&self) -> bool {
        matches!(self.storage(), Storage::Cpu(_))
    }

    pub(crate) fn id(&self) -> TensorId {
        self.0.id
    }

    pub(crate) fn dims(&self) -> Dims {
        self.0.layout.shape
    }

    pub(crate) fn layout(&self) -> &Layout {
        &self.0.layout
    }

    pub(crate) fn storage(&self) -> &Storage {
        &self.0.storage
    }

    /// Returns the elements of a row-major tensor. Call [`Tensor::contiguous`] first if the layout is not known.
    pub(crate) fn slice<T: Element>(&self) -> &[T] {
        debug_assert!(self.layout().is_contiguous());
        self.strided_slice()
    }

    /// Returns the memory from the first element to the last, to be read with the strides of the layout.
    pub(crate) fn strided_slice<T: Element>(&self) -> &[T] {
        debug_assert_eq!(T::DTYPE, self.dtype());
        self.memory(self.layout().span())
    }

    /// Returns `span` elements from the first on.
    fn memory<T: Pod>(&self, span: usize) -> &[T] {
        let start = self.layout().offset * self.dtype().size() / size_of::<T>();
        self.storage().cpu(start..start + span)
    }

    /// Returns the elements of a row-major tensor as bytes.
    pub(crate) fn bytes(&self) -> &[u8] {
        debug_assert!(self.layout().is_contiguous());
        self.memory(self.elements() * self.dtype().size())
    }

    /// Returns the elements in row-major order.
    ///
    /// # Errors
    /// Returns an error if `T` is not the element type of this tensor; convert it with [`Tensor::to_dtype`].
    pub fn to_vec<T: Element>(&self) -> Result<Vec<T>> {
        if T::DTYPE != self.dtype() {
            return Err(wrong_dtype("to_vec", "tensor", self.dtype(), &T::DTYPE.to_string()));
        }
        Ok(self.values()?.to_device(&Device::Cpu)?.slice().to_vec())
    }

    /// Returns the only element, as f64.
    ///
    /// # Errors
    /// Returns an error unless there is exactly one element.
    pub fn item(&self) -> Result<f64> {
        if self.elements() != 1 {
            let reason = format!("only a single number has an item, not {} elements", self.elements());
            return Err(Error::shape("item", reason, &[("tensor", self.shape())]));
        }
        Ok(self.detach().to_device(&Device::Cpu)?.to_dtype(DType::F64)?.slice::<f64>()[0])
    }

    /// Sets the elements of a row-major tensor to zero.
    ///
    /// # Safety
    /// Nothing else may read or write the elements meanwhile, through any handle on their memory.
    pub(crate) unsafe fn clear(&self) -> Result<()> {
        let (start, bytes) = (self.layout().offset * self.dtype().size(), self.elements() * self.dtype().size());
        // SAFETY: these bytes are those elements, which nothing else accesses by this function's contract.
        unsafe { self.storage().clear(start..start + bytes) }
    }

    /// Returns the same elements as a constant, through which no gradient flows.
    pub fn detach(&self) -> Tensor {
        Tensor::from_parts(self.storage().clone(), *self.layout(), self.dtype(), Origin::Constant)
    }

    /// Returns the elements, row-major, as a constant: the form that operations compute from.
    pub(crate) fn values(&self) -> Result<Tensor> {
        self.detach().contiguous()
    }

    /// Returns this tensor for a backward to keep, or an empty one unless a gradient computed from it is `wanted`.
    pub(crate) fn kept_if(&self, wanted: bool) -> Result<Tensor> {
        if wanted { Ok(self.clone()) } else { Tensor::zeros(&[0], self.dtype(), &self.device()) }
    }

    /// Returns whether this handle is the only one to the elements, and they lie row-major in memory that may be written.
    pub(crate) fn is_exclusive(&mut self) -> bool {
        Arc::get_mut(&mut self.0).is_some_and(|inner| inner.layout.is_contiguous() && inner.storage.is_exclusive())
    }

    /// Returns the same elements in memory that no other handle refers to: this memory, or a copy.
    pub(crate) fn into_exclusive(mut self) -> Result<Tensor> {
        if self.is_exclusive() { Ok(self) } else { self.copied() }
    }

    /// Returns the elements for writing, in row-major order, such as those of an optimizer's state.
    ///
    /// # Errors
    /// Returns an error if another handle, a view or a graph shares the memory, if the memory is mapped from a file or not
    /// row-major, and if `T` is not the element type.
    pub fn exclusive_slice<T: Element>(&mut self) -> Result<&mut [T]> {
        if T::DTYPE != self.dtype() {
            return Err(wrong_dtype("write", "tensor", self.dtype(), &T::DTYPE.to_string()));
        }
        if !self.is_exclusive() {
            return Err(Error::invalid("write", "another handle, view or graph shares the elements"));
        }
        if !self.device().is_cpu() {
            return Err(Error::invalid(
                "write",
                format!("the elements are on {}, not in the host's memory", self.device()),
            ));
        }
        let start = self.layout().offset;
        // SAFETY: `is_exclusive` found no other handle to this memory, and `self` is borrowed exclusively.
        Ok(unsafe { self.storage().cpu_mut(start..start + self.elements()) })
    }

    /// Returns the same elements as a leaf, whose gradient backward computes. A tensor that already [tracks
    /// gradients](Tensor::tracks_grad) is returned unchanged, with its graph; [`detach`](Tensor::detach) it to make a new
    /// leaf. A tensor that is not [float](DType::is_float) remains a constant.
    pub fn requires_grad(self) -> Tensor {
        if self.tracks_grad() || !self.dtype().is_float() {
            return self;
        }
        Tensor::from_parts(self.storage().clone(), *self.layout(), self.dtype(), Origin::Leaf)
    }

    /// Returns whether backward computes a gradient for this tensor or passes one through it.
    pub fn tracks_grad(&self) -> bool {
        matches!(self.0.origin, Origin::Leaf | Origin::Computed(_))
    }

    /// Returns the same elements as a frozen parameter: backward computes no gradient for it, and
    /// [`ParameterArena::gather`](crate::ParameterArena::gather), on which every optimizer is built, leaves it out.
    /// [`requires_grad`](Tensor::requires_grad) makes it trainable again.
    pub fn freeze(self) -> Tensor {
        Tensor::from_parts(self.storage().clone(), *self.layout(), self.dtype(), Origin::Frozen)
    }

    /// Returns whether the tensor is a [frozen](Tensor::freeze) parameter.
    pub fn is_frozen(&self) -> bool {
        matches!(self.0.origin, Origin::Frozen)
    }
}

impl fmt::Debug for Tensor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tensor({:?}, {}, {})", self.shape(), self.dtype(), self.device())
    }
}

/// Shows the numbers, nested like the dimensions. Long dimensions are shortened.
impl fmt::Display for Tensor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let values = self.detach().to_device(&Device::Cpu).and_then(|t| t.to_dtype(DType::F64)?.to_vec::<f64>());
        let values = values.map_err(|_| fmt::Error)?;
        write_nested(f, self.shape(), &values, 0)?;
        write!(f, " ({})", self.dtype())
    }
}

fn write_nested(f: &mut fmt::Formatter<'_>, shape: &[usize], values: &[f64], depth: usize) -> fmt::Result {
    const SHOWN: usize = 6;
    let Some((&size, inner)) = shape.split_first() else { return write!(f, "{:.4}", values[0]) };
    let step: usize = inner.iter().product();
    write!(f, "[")?;
    for index in 0..size {
        if size > SHOWN && (SHOWN / 2..size - SHOWN / 2).contains(&index) {
            if index == SHOWN / 2 {
                write!(f, ", ...")?;
            }
            continue;
        }
        if index > 0 {
            write!(f, ",{}", if inner.is_empty() { " ".into() } else { format!("\n{:1$}", "", depth + 1) })?;
        }
        write_nested(f, inner, &values[index * step..][..step], depth + 1)?;
    }
    write!(f, "]")
}
