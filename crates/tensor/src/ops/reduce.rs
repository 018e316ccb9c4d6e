//! Sums and means.

use crate::autograd::differentiable;
use crate::cpu::strided;
use crate::ops::{float, in_f32, on_device, wrong_dtype};
use crate::tensor::Tensor;
use crate::{Error, Result};

impl Tensor {
    /// Sums over dimensions `axes`, which stay with size 1.
    ///
    /// # Errors
    /// When there is no such dimension.
    pub fn sum_keep(&self, axes: &[usize]) -> Result<Tensor> {
        self.sum_for("sum", axes)
    }

    /// The sum, for an operation that the user calls `op`.
    fn sum_for(&self, op: &'static str, axes: &[usize]) -> Result<Tensor> {
        if let Some(y) = in_f32([self], |[x]| x.sum_for(op, axes))? {
            return Ok(y);
        }
        let mut shape = self.shape().to_vec();
        for &axis in axes {
            let Some(size) = shape.get_mut(axis) else {
                return Err(Error::shape(op, format!("no dimension {axis}"), &[("tensor", self.shape())]));
            };
            *size = 1;
        }
        if !self.dtype().is_float() {
            return Err(wrong_dtype(op, "tensor", self.dtype(), "a float type"));
        }
        let output = on_device!(
            self,
            cpu => float!("sum", self.dtype(), T => {
                let (from, layout) = (self.strided_slice::<T>(), self.layout());
                Tensor::build("sum", &shape, &self.device(), |to: &mut [T]| strided::sum(from, layout, &shape, to))?
            }),
            cuda => crate::cuda::elementwise::sum("sum", self, &shape)?,
        );
        let from = self.dims();
        Ok(differentiable("sum", [self], [], output, move |[], dy, [dx]| {
            dx.give_with(|| dy.broadcast_to(&from)?.contiguous())
        }))
    }

    /// Sum over dimension `axis`, which goes.
    pub fn sum(&self, axis: usize) -> Result<Tensor> {
        self.sum_keep(&[axis])?.squeeze(axis)
    }

    /// Mean over dimension `axis`, which goes. Not a number where the dimension is empty.
    pub fn mean(&self, axis: usize) -> Result<Tensor> {
        let sum = self.sum_for("mean", &[axis])?.squeeze(axis)?;
        sum.mul_scalar(1.0 / self.size(axis) as f64)
    }

    /// Sum of all elements: a number.
    pub fn sum_all(&self) -> Result<Tensor> {
        self.sum_keep(&(0..self.rank()).collect::<Vec<_>>())?.reshape(&[])
    }

    /// Mean of all elements: a number. Not a number where there are none.
    pub fn mean_all(&self) -> Result<Tensor> {
        self.sum_all()?.mul_scalar(1.0 / self.elements() as f64)
    }

    /// Undoes a broadcast: sums over what was repeated.
    pub(crate) fn sum_to(&self, shape: &[usize]) -> Result<Tensor> {
        if self.shape() == shape {
            return Ok(self.clone());
        }
        let fresh = self.rank() - shape.len();
        let repeated = |axis: &usize| *axis < fresh || shape[axis - fresh] != self.size(*axis);
        self.sum_keep(&(0..self.rank()).filter(repeated).collect::<Vec<_>>())?.reshape(shape)
    }
}

#[cfg(test)]
pub(super) fn cases(cases: &mut crate::conformance::Cases) {
    use crate::conformance::normal;
    cases.add("sum", "rows", [normal(&[3, 17])], |x| x[0].sum(1));
    cases.add("sum", "columns", [normal(&[19, 3])], |x| x[0].sum(0));
    cases.add("sum", "middle", [normal(&[2, 3, 4])], |x| x[0].sum(1));
    cases.add("sum", "all", [normal(&[70, 3])], |x| x[0].sum_all());
    cases.add("sum", "mean", [normal(&[4, 5])], |x| x[0].mean(0));
    cases.add("sum", "mean of all", [normal(&[4, 5])], |x| x[0].mean_all());
    cases.add("sum", "empty", [normal(&[0, 5])], |x| x[0].sum(0));
    cases.add("sum", "keep two", [normal(&[2, 3, 4])], |x| x[0].sum_keep(&[0, 2]));
}
