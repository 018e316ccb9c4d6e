//! The end of the flat gradients that is final while a backward pass goes on.

use std::collections::HashSet;
use std::marker::PhantomData;

use super::{Flat, Gradients, OP};
use crate::dtype::DType;
use crate::error::{Error, Result};
#[cfg(feature = "cuda")]
use crate::layout::Layout;
use crate::storage::Storage;
use crate::tensor::TensorId;
#[cfg(feature = "cuda")]
use crate::tensor::{Origin, Tensor};

/// The last elements of flat gradients, which the backward pass in progress no longer changes; see
/// [`Tensor::backward_streaming`](crate::Tensor::backward_streaming).
///
/// As long as such a value lives, the gradients are borrowed, so nothing else changes them either.
#[derive(Clone)]
pub struct FinalGradients<'g> {
    storage: Storage,
    start: usize,
    gradients: PhantomData<&'g mut Gradients>,
}

impl FinalGradients<'_> {
    /// Returns the first element in the flat buffer.
    pub fn start(&self) -> usize {
        self.start
    }

    /// Returns the elements from [`start`](FinalGradients::start) to the end of the flat buffer. Those of a parameter without
    /// a gradient have arbitrary values. On a GPU there are none: see `on_gpu`.
    pub fn values(&self) -> &[f32] {
        match &self.storage {
            Storage::Cpu(buffer) => buffer.slice(self.start..buffer.len() / size_of::<f32>()),
            #[cfg(feature = "cuda")]
            Storage::Cuda(_) => &[],
        }
    }

    /// Returns the elements from [`start`](FinalGradients::start) to the end of the flat buffer, if they are on a GPU. The
    /// work that computes them has been submitted.
    ///
    /// # Errors
    /// Returns an error if the gradients are on the CPU.
    #[cfg(feature = "cuda")]
    pub fn on_gpu(&self) -> Result<Tensor> {
        let Storage::Cuda(buffer) = &self.storage else {
            return Err(Error::gradient(OP, "the gradients are on the CPU, not on a GPU"));
        };
        let mut layout = Layout::contiguous(OP, &[buffer.len() / size_of::<f32>() - self.start])?;
        layout.offset = self.start;
        Ok(Tensor::from_parts(self.storage.clone(), layout, DType::F32, Origin::Constant))
    }
}

/// The parameters at the end of an arena whose gradients are final. A backward pass comes to the last parameters of a model
/// first.
pub(crate) struct FinalSuffix<'g> {
    storage: Storage,
    /// The start of each parameter in the flat buffer, in ascending order, without those that are final.
    places: Vec<(usize, TensorId)>,
    /// Parameters that are final, but precede one that is not.
    waiting: HashSet<TensorId>,
    gradients: PhantomData<&'g mut Gradients>,
}

impl<'g> FinalSuffix<'g> {
    /// Begins a backward pass.
    ///
    /// # Errors
    /// Returns an error if the gradients do not mirror f32 parameters.
    pub(crate) fn of(gradients: &Gradients) -> Result<FinalSuffix<'g>> {
        let flat = gradients.flat.as_ref().filter(|flat| flat.dtype == DType::F32);
        let Some(Flat { storage, .. }) = flat else {
            return Err(Error::gradient(OP, "the gradients do not mirror an arena of f32 parameters"));
        };
        let place = |(id, entry): (&TensorId, &super::Entry)| Some((entry.place.as_ref()?.1, *id));
        let mut places: Vec<(usize, TensorId)> = gradients.entries.iter().filter_map(place).collect();
        places.sort_unstable_by_key(|(start, _)| *start);
        Ok(FinalSuffix { storage: storage.clone(), places, waiting: HashSet::new(), gradients: PhantomData })
    }

    /// Makes the gradient of a parameter final, and returns all elements that are if these are more than before.
    pub(crate) fn extend(&mut self, id: TensorId) -> Option<FinalGradients<'g>> {
        self.waiting.insert(id);
        let mut start = None;
        while let Some((_, last)) = self.places.last()
            && self.waiting.remove(last)
        {
            start = self.places.pop().map(|(start, _)| start);
        }
        start.map(|start| self.from(start))
    }

    /// Returns all elements, which are final at the end of the backward pass.
    pub(crate) fn all(&self) -> FinalGradients<'g> {
        self.from(0)
    }

    fn from(&self, start: usize) -> FinalGradients<'g> {
        FinalGradients { storage: self.storage.clone(), start, gradients: PhantomData }
    }
}
