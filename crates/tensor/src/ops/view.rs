//! Views: other shapes over the same elements. None of them copies, except `reshape` of a tensor that is not
//! row-major, and `contiguous`.

use crate::autograd::differentiable;
use crate::cpu::strided;
use crate::layout::{Dims, Layout};
use crate::ops::element;
use crate::tensor::{Origin, Tensor};
use crate::{Error, Result};

impl Tensor {
    fn view(&self, layout: Layout) -> Tensor {
        Tensor::from_parts(self.storage().clone(), layout, self.dtype(), Origin::Constant)
    }

    /// The same elements, row-major in memory of their own.
    pub(crate) fn copied(&self) -> Result<Tensor> {
        element!("contiguous", self.dtype(), T => {
            let (from, layout) = (self.strided_slice::<T>(), self.layout());
            Tensor::build("contiguous", self.shape(), &self.device(), |to: &mut [T]| strided::copy(from, layout, to))
        })
    }

    /// The same elements, row-major: this tensor itself where it already is.
    pub fn contiguous(&self) -> Result<Tensor> {
        if self.layout().is_contiguous() {
            return Ok(self.clone());
        }
        let output = self.copied()?;
        Ok(differentiable("reshape", [self], [], output, |[], dy, [dx]| dx.give(dy)))
    }

    /// The same elements in row-major order as another shape.
    ///
    /// # Errors
    /// When the number of elements differs.
    pub fn reshape(&self, shape: &[usize]) -> Result<Tensor> {
        let mut layout = Layout::contiguous("reshape", shape)?;
        if layout.elements() != self.elements() {
            let reason = format!("{} elements do not fill {}", self.elements(), layout.elements());
            return Err(Error::shape("reshape", reason, &[("tensor", self.shape()), ("shape", shape)]));
        }
        let source = self.detach().contiguous()?;
        layout.offset = source.layout().offset;
        let from = self.dims();
        Ok(differentiable("reshape", [self], [], source.view(layout), move |[], dy, [dx]| dx.give(dy.reshape(&from)?)))
    }

    /// The dimensions in another order: dimension `i` of the result is dimension `axes[i]` of this tensor.
    ///
    /// # Errors
    /// When `axes` does not name every dimension once.
    pub fn permute(&self, axes: &[usize]) -> Result<Tensor> {
        let mut inverse = vec![usize::MAX; self.rank()];
        for (to, &from) in axes.iter().enumerate() {
            if let Some(place) = inverse.get_mut(from) {
                *place = to;
            }
        }
        if axes.len() != self.rank() || inverse.contains(&usize::MAX) {
            let reason = format!("{axes:?} does not name every dimension once");
            return Err(Error::shape("permute", reason, &[("tensor", self.shape())]));
        }
        let pick = |of: &Dims| Dims::new("permute", &axes.iter().map(|&axis| of[axis]).collect::<Vec<_>>());
        let from = self.layout();
        let layout = Layout { shape: pick(&from.shape)?, strides: pick(&from.strides)?, offset: from.offset };
        Ok(differentiable("permute", [self], [], self.view(layout), move |[], dy, [dx]| {
            dx.give(dy.permute(&inverse)?.contiguous()?)
        }))
    }

    /// Dimensions `a` and `b` exchanged.
    pub fn transpose(&self, a: usize, b: usize) -> Result<Tensor> {
        let mut axes: Vec<usize> = (0..self.rank()).collect();
        if a >= axes.len() || b >= axes.len() {
            let reason = format!("no dimensions {a} and {b}");
            return Err(Error::shape("transpose", reason, &[("tensor", self.shape())]));
        }
        axes.swap(a, b);
        self.permute(&axes)
    }

    /// The last two dimensions exchanged: the transpose of a matrix.
    pub fn t(&self) -> Result<Tensor> {
        match self.rank() {
            rank @ 2.. => self.transpose(rank - 2, rank - 1),
            _ => Err(Error::shape("t", "a matrix has two dimensions", &[("tensor", self.shape())])),
        }
    }

    /// Entries `start .. start + length` of dimension `axis`.
    ///
    /// # Errors
    /// When there are not so many.
    pub fn narrow(&self, axis: usize, start: usize, length: usize) -> Result<Tensor> {
        let size = self.shape().get(axis).copied();
        if size.is_none_or(|size| start.checked_add(length).is_none_or(|end| end > size)) {
            let reason = format!("no entries {start}..{} in dimension {axis}", start.saturating_add(length));
            return Err(Error::shape("narrow", reason, &[("tensor", self.shape())]));
        }
        let mut layout = *self.layout();
        layout.shape.as_mut()[axis] = length;
        layout.offset += start * layout.strides[axis];
        let from = self.dims();
        Ok(differentiable("narrow", [self], [], self.view(layout), move |[], dy, [dx]| {
            let Some(mut dx) = dx.open()? else { return Ok(()) };
            let inner: usize = from[axis + 1..].iter().product();
            element!("narrow", dy.dtype(), T => {
                let dy = dy.slice::<T>();
                let whole = dx.zeroed_slice::<T>();
                for (whole, part) in whole.chunks_exact_mut((from[axis] * inner).max(1)).zip(dy.chunks_exact((length * inner).max(1))) {
                    whole[start * inner..].iter_mut().zip(part).for_each(|(to, from)| *to += from);
                }
            });
            Ok(())
        }))
    }

    /// The same elements repeated along dimensions of size 1 and new leading ones, without a copy.
    pub fn broadcast_to(&self, shape: &[usize]) -> Result<Tensor> {
        let layout = self.layout().broadcast("broadcast_to", shape)?;
        let from = self.dims();
        Ok(differentiable("broadcast_to", [self], [], self.view(layout), move |[], dy, [dx]| {
            dx.give_with(|| dy.sum_to(&from))
        }))
    }

    /// A new dimension of size 1 before dimension `axis`.
    pub fn unsqueeze(&self, axis: usize) -> Result<Tensor> {
        if axis > self.rank() {
            return Err(Error::shape("unsqueeze", format!("no place {axis}"), &[("tensor", self.shape())]));
        }
        let mut shape = self.shape().to_vec();
        shape.insert(axis, 1);
        self.reshape(&shape)
    }

    /// Without dimension `axis`, which has size 1.
    pub fn squeeze(&self, axis: usize) -> Result<Tensor> {
        if self.shape().get(axis) != Some(&1) {
            let reason = format!("dimension {axis} has not size 1");
            return Err(Error::shape("squeeze", reason, &[("tensor", self.shape())]));
        }
        let mut shape = self.shape().to_vec();
        shape.remove(axis);
        self.reshape(&shape)
    }
}

#[cfg(test)]
pub(super) fn cases(cases: &mut crate::conformance::Cases) {
    use crate::conformance::normal;
    cases.add("reshape", "", [normal(&[2, 6])], |x| x[0].reshape(&[3, 4]));
    cases.add("reshape", "of a transpose", [normal(&[2, 6])], |x| x[0].t()?.reshape(&[4, 3]));
    cases.add("reshape", "squeeze and unsqueeze", [normal(&[2, 1, 3])], |x| x[0].squeeze(1)?.unsqueeze(0));
    cases.add("permute", "", [normal(&[2, 3, 4])], |x| x[0].permute(&[2, 0, 1]));
    cases.add("permute", "t", [normal(&[5, 3])], |x| x[0].t());
    cases.add("narrow", "rows", [normal(&[5, 3])], |x| x[0].narrow(0, 1, 3));
    cases.add("narrow", "columns", [normal(&[4, 6])], |x| x[0].narrow(1, 2, 2));
    cases.add("narrow", "two overlapping", [normal(&[6])], |x| x[0].narrow(0, 0, 4)?.mul(&x[0].narrow(0, 2, 4)?));
    cases.add("narrow", "nothing", [normal(&[4, 6])], |x| x[0].narrow(1, 3, 0));
    cases.add("broadcast_to", "", [normal(&[3, 1])], |x| x[0].broadcast_to(&[2, 3, 4]));
}
