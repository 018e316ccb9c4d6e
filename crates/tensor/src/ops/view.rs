//! Views: other shapes over the same elements. Only `contiguous`, and `reshape` of a tensor that is not row-major, copy.

use crate::autograd::differentiable;
use crate::copy;
use crate::error::{Error, Result};
use crate::layout::{Dims, Layout};
use crate::tensor::{Origin, Tensor};

impl Tensor {
    fn view(&self, layout: Layout) -> Tensor {
        Tensor::from_parts(self.storage().clone(), layout, self.dtype(), Origin::Constant)
    }

    /// Returns the same elements, row-major: this tensor if it is row-major already, otherwise a copy.
    pub fn contiguous(&self) -> Result<Tensor> {
        if self.layout().is_contiguous() {
            return Ok(self.clone());
        }
        let output = self.copied()?;
        Ok(differentiable("reshape", [self], [], output, |[], dy, [dx]| dx.give(dy)))
    }

    /// Returns the same elements, in row-major order, with another shape.
    ///
    /// # Errors
    /// Returns an error if the number of elements differs.
    pub fn reshape(&self, shape: &[usize]) -> Result<Tensor> {
        self.reshape_for("reshape", shape)
    }

    /// Reshapes on behalf of the operation `op`, which errors name.
    fn reshape_for(&self, op: &'static str, shape: &[usize]) -> Result<Tensor> {
        let mut layout = Layout::contiguous(op, shape)?;
        if layout.elements() != self.elements() {
            let reason = format!("{} elements do not fill {}", self.elements(), layout.elements());
            return Err(Error::shape(op, reason, &[("tensor", self.shape()), ("shape", shape)]));
        }
        let source = self.values()?;
        layout.offset = source.layout().offset;
        let from = self.dims();
        Ok(differentiable("reshape", [self], [], source.view(layout), move |[], dy, [dx]| dx.give(dy.reshape(&from)?)))
    }

    /// Reorders the dimensions: dimension `i` of the result is dimension `axes[i]` of this tensor.
    ///
    /// # Errors
    /// Returns an error unless `axes` names every dimension once.
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

    /// Swaps dimensions `a` and `b`.
    pub fn transpose(&self, a: usize, b: usize) -> Result<Tensor> {
        let mut axes: Vec<usize> = (0..self.rank()).collect();
        if a >= axes.len() || b >= axes.len() {
            let reason = format!("no dimensions {a} and {b}");
            return Err(Error::shape("transpose", reason, &[("tensor", self.shape())]));
        }
        axes.swap(a, b);
        self.permute(&axes)
    }

    /// Swaps the last two dimensions: transposes a matrix.
    pub fn t(&self) -> Result<Tensor> {
        match self.rank() {
            rank @ 2.. => self.transpose(rank - 2, rank - 1),
            _ => Err(Error::shape("t", "a matrix has two dimensions", &[("tensor", self.shape())])),
        }
    }

    /// Returns the entries `start .. start + length` of dimension `axis`.
    ///
    /// # Errors
    /// Returns an error if the range is out of bounds.
    pub fn narrow(&self, axis: usize, start: usize, length: usize) -> Result<Tensor> {
        let size = self.shape().get(axis).copied();
        if size.is_none_or(|size| start.checked_add(length).is_none_or(|end| end > size)) {
            let reason =
                format!("entries {start}..{} are out of range in dimension {axis}", start.saturating_add(length));
            return Err(Error::shape("narrow", reason, &[("tensor", self.shape())]));
        }
        let mut layout = *self.layout();
        layout.shape.as_mut()[axis] = length;
        layout.offset += start * layout.strides[axis];
        Ok(differentiable("narrow", [self], [], self.view(layout), move |[], dy, [dx]| {
            let Some(mut dx) = dx.open()? else { return Ok(()) };
            let part = dx.zeroed()?.narrow(axis, start, length)?;
            // SAFETY: `part` is a view of a destination's memory, to which no other handle refers; `dx` is used again only after it.
            unsafe { copy::add("narrow", &dy, &part) }
        }))
    }

    /// Repeats the elements along dimensions of size 1 and along new leading dimensions, without copying.
    pub fn broadcast_to(&self, shape: &[usize]) -> Result<Tensor> {
        let layout = self.layout().broadcast("broadcast_to", shape)?;
        let from = self.dims();
        Ok(differentiable("broadcast_to", [self], [], self.view(layout), move |[], dy, [dx]| {
            dx.give_with(|| dy.sum_to(&from))
        }))
    }

    /// Inserts a dimension of size 1 before dimension `axis`.
    pub fn unsqueeze(&self, axis: usize) -> Result<Tensor> {
        if axis > self.rank() {
            return Err(Error::shape("unsqueeze", format!("no place {axis}"), &[("tensor", self.shape())]));
        }
        let mut shape = self.shape().to_vec();
        shape.insert(axis, 1);
        self.reshape_for("unsqueeze", &shape)
    }

    /// Removes dimension `axis`, which must have size 1.
    pub fn squeeze(&self, axis: usize) -> Result<Tensor> {
        if self.shape().get(axis) != Some(&1) {
            let reason = format!("dimension {axis} has not size 1");
            return Err(Error::shape("squeeze", reason, &[("tensor", self.shape())]));
        }
        let mut shape = self.shape().to_vec();
        shape.remove(axis);
        self.reshape_for("squeeze", &shape)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::Device;
    use crate::dtype::DType;

    #[test]
    #[cfg_attr(miri, ignore = "Miri ends where an allocation should fail")]
    fn errors_name_what_was_called() -> Result<()> {
        let x = Tensor::zeros(&[2, 3, 1, 1, 1, 1], DType::F32, &Device::Cpu)?;
        let huge = Tensor::zeros(&[1, 1], DType::F32, &Device::Cpu)?;
        let matrix = Tensor::zeros(&[2, 3], DType::F32, &Device::Cpu)?;
        let vector = Tensor::zeros(&[4], DType::F32, &Device::Cpu)?;
        let half = matrix.to_dtype(DType::BF16)?;
        let calls = [
            (x.unsqueeze(0), "unsqueeze: 7 dimensions"),
            (x.squeeze(0), "squeeze: dimension 0"),
            (x.mean(9), "mean: no dimension 9"),
            (matrix.matmul(&vector), "right: [4]"),
            (huge.broadcast_to(&[1 << 40, 1 << 40]), "broadcast_to: too many elements"),
            (matrix.add(&half), "add: right has dtype bf16"),
            (half.add(&matrix), "add: right has dtype f32, expected bf16 as left"),
            (half.matmul(&Tensor::zeros(&[3, 1], DType::F64, &Device::Cpu)?), "matmul: right has dtype f64"),
            (matrix.projections(&[]), "projections: no layers"),
            (Tensor::zeros(&[2, 0], DType::F32, &Device::Cpu)?.cross_entropy(&[0, 0]), "logits of 0 classes"),
            (matrix.item().map(|_| x.clone()), "item: only a single number has an item, not 6 elements"),
            (Tensor::full(1.0, &[1 << 50], DType::F32, &Device::Cpu), "full: cannot allocate 4503599627370496 bytes"),
        ];
        for (result, part) in calls {
            let Err(error) = result else { panic!("accepted; expected: {part}") };
            assert!(error.to_string().contains(part), "{error} does not say: {part}");
        }
        Ok(())
    }

    #[test]
    fn requires_grad_keeps_a_graph_and_leaves_integers_alone() -> Result<()> {
        let x = Tensor::new([1f32, 2.0], &Device::Cpu)?.requires_grad();
        let loss = x.exp()?.requires_grad().sum_all()?;
        assert!(loss.backward()?.contains(&x));
        assert!(!Tensor::new([1u32], &Device::Cpu)?.requires_grad().tracks_grad());
        Ok(())
    }

    #[test]
    fn a_tracked_gradient_counts_as_a_constant() -> Result<()> {
        let x = Tensor::new([1f32, 2.0], &Device::Cpu)?.requires_grad();
        let y = x.mul_scalar(2.0)?;
        let mut gradients = crate::gradients::Gradients::new();
        y.backward_with(&x.mul_scalar(2.0)?, &mut gradients)?;
        let dx = gradients.get(&x).expect("wanted");
        assert!(!dx.tracks_grad());
        assert_eq!(dx.to_vec::<f32>()?, [4.0, 8.0]);
        Ok(())
    }
}
