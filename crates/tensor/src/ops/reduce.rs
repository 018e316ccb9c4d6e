//! Sums and means.

use crate::cpu::strided;
use crate::device::Device;
use crate::dispatch::{Float, Forward, TensorOp, apply_tensors};
use crate::error::{Error, Result};
use crate::gradients::Slot;
use crate::layout::Dims;
use crate::tensor::Tensor;

impl Tensor {
    /// Sums over dimensions `axes`, which stay with size 1.
    ///
    /// # Errors
    /// Returns an error if a dimension does not exist.
    pub fn sum_keep(&self, axes: &[usize]) -> Result<Tensor> {
        self.sum_for("sum", axes)
    }

    /// The sum, for an operation that the user calls `op`.
    fn sum_for(&self, op: &'static str, axes: &[usize]) -> Result<Tensor> {
        let mut shape = self.dims();
        for &axis in axes {
            let Some(size) = shape.as_mut().get_mut(axis) else {
                return Err(Error::shape(op, format!("no dimension {axis}"), &[("tensor", self.shape())]));
            };
            *size = 1;
        }
        apply_tensors(Sum { shape, from: self.dims() }, [self])
    }

    /// Sums over dimension `axis`, which is removed.
    pub fn sum(&self, axis: usize) -> Result<Tensor> {
        self.sum_keep(&[axis])?.squeeze(axis)
    }

    /// Computes the mean over dimension `axis`, which is removed. The mean over an empty dimension is NaN.
    pub fn mean(&self, axis: usize) -> Result<Tensor> {
        let sum = self.sum_for("mean", &[axis])?.squeeze(axis)?;
        sum.mul_scalar(1.0 / self.size(axis) as f64)
    }

    /// Sums all elements: a number.
    pub fn sum_all(&self) -> Result<Tensor> {
        self.sum_keep(&(0..self.rank()).collect::<Vec<_>>())?.reshape(&[])
    }

    /// Computes the mean of all elements: a number, NaN if there are no elements.
    pub fn mean_all(&self) -> Result<Tensor> {
        self.sum_all()?.mul_scalar(1.0 / self.elements() as f64)
    }

    /// Undoes a broadcast from `shape`: sums over the dimensions that were repeated.
    pub(crate) fn sum_to(&self, shape: &[usize]) -> Result<Tensor> {
        if self.shape() == shape {
            return Ok(self.clone());
        }
        let fresh = self.rank() - shape.len();
        let repeated = |axis: &usize| *axis < fresh || shape[axis - fresh] != self.size(*axis);
        self.sum_keep(&(0..self.rank()).filter(repeated).collect::<Vec<_>>())?.reshape(shape)
    }
}

/// Sums over the dimensions that have size 1 in `shape`.
pub(crate) struct Sum {
    pub(crate) shape: Dims,
    from: Dims,
}

/// Works on tensors, because it reads any layout and its gradient is a broadcast.
impl TensorOp for Sum {
    type Arity = [(); 1];

    fn name(&self) -> &'static str {
        "sum"
    }

    fn forward<T: Float>(&mut self, [x]: [&Tensor; 1], _: bool) -> Result<Forward> {
        let output = Tensor::build(self.name(), &self.shape, &Device::Cpu, |to: &mut [T]| {
            strided::sum(x.strided_slice::<T>(), x.layout(), &self.shape, to);
        })?;
        Ok(Forward { output, kept: Vec::new() })
    }

    fn backward<T: Float>(self, _: Vec<Tensor>, dy: Tensor, [dx]: [Slot<'_>; 1]) -> Result<()> {
        dx.give_with(|| dy.broadcast_to(&self.from)?.contiguous())
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
