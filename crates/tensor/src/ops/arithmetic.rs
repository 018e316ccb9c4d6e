//! Elementwise arithmetic. Operands broadcast as in NumPy: aligned at the last dimension, a size of 1
//! repeats. Both have one float type: nothing is converted in silence, [`Tensor::to_dtype`] does it.

use crate::autograd::differentiable;
use crate::cpu::strided;
#[cfg(feature = "cuda")]
use crate::cuda::{self, elementwise::{Binary, Unary}};
use crate::layout::broadcast_shapes;
use crate::ops::{alike, float, in_f32, on_device};
use crate::tensor::Tensor;
use crate::{DType, Result};

/// Computes `f` of every pair of elements.
macro_rules! zip_with {
    ($op:expr, $a:expr, $b:expr, $binary:ident, $f:expr) => {{
        let (a, b): (&Tensor, &Tensor) = ($a, $b);
        alike($op, &[("left", a), ("right", b)])?;
        let shape = broadcast_shapes($op, a.shape(), b.shape())?;
        let (la, lb) = (a.layout().broadcast($op, &shape)?, b.layout().broadcast($op, &shape)?);
        on_device!(
            a,
            cpu => float!($op, a.dtype(), T => {
                let (a, b, device) = (a.strided_slice::<T>(), b.strided_slice::<T>(), a.device());
                Tensor::build($op, &shape, &device, |to: &mut [T]| strided::zip(a, &la, b, &lb, to, $f))?
            }),
            cuda => cuda::elementwise::zip($op, Binary::$binary, (a, &la), (b, &lb))?,
        )
    }};
}

impl Tensor {
    /// `self + other`, broadcasting.
    pub fn add(&self, other: &Tensor) -> Result<Tensor> {
        if let Some(y) = in_f32([self, other], |[a, b]| a.add(b))? {
            return Ok(y);
        }
        let output = zip_with!("add", self, other, Add, |a, b| a + b);
        let (a, b) = (self.dims(), other.dims());
        Ok(differentiable("add", [self, other], [], output, move |[], dy, [da, db]| {
            da.give_with(|| dy.sum_to(&a))?;
            db.give_with(|| dy.sum_to(&b))
        }))
    }

    /// `self - other`, broadcasting.
    pub fn sub(&self, other: &Tensor) -> Result<Tensor> {
        if let Some(y) = in_f32([self, other], |[a, b]| a.sub(b))? {
            return Ok(y);
        }
        let output = zip_with!("sub", self, other, Sub, |a, b| a - b);
        let (a, b) = (self.dims(), other.dims());
        Ok(differentiable("sub", [self, other], [], output, move |[], dy, [da, db]| {
            da.give_with(|| dy.sum_to(&a))?;
            db.give_with(|| dy.mul_scalar(-1.0)?.sum_to(&b))
        }))
    }

    /// `self * other`, elementwise, broadcasting.
    pub fn mul(&self, other: &Tensor) -> Result<Tensor> {
        if let Some(y) = in_f32([self, other], |[a, b]| a.mul(b))? {
            return Ok(y);
        }
        let output = zip_with!("mul", self, other, Mul, |a, b| a * b);
        let (a, b) = (self.dims(), other.dims());
        let keeps = [self.kept_if(other.tracks_grad())?, other.kept_if(self.tracks_grad())?];
        Ok(differentiable("mul", [self, other], [&keeps[0], &keeps[1]], output, move |[x, y], dy, [da, db]| {
            da.give_with(|| dy.mul(&y)?.sum_to(&a))?;
            db.give_with(|| dy.mul(&x)?.sum_to(&b))
        }))
    }

    /// `self / other`, elementwise, broadcasting.
    pub fn div(&self, other: &Tensor) -> Result<Tensor> {
        if let Some(y) = in_f32([self, other], |[a, b]| a.div(b))? {
            return Ok(y);
        }
        let output = zip_with!("div", self, other, Div, |a, b| a / b);
        let (a, b) = (self.dims(), other.dims());
        Ok(differentiable("div", [self, other], [other, &output.clone()], output, move |[y, q], dy, [da, db]| {
            da.give_with(|| dy.div(&y)?.sum_to(&a))?;
            db.give_with(|| dy.mul(&q)?.div(&y)?.mul_scalar(-1.0)?.sum_to(&b))
        }))
    }

    /// `self + value`.
    pub fn add_scalar(&self, value: f64) -> Result<Tensor> {
        if let Some(y) = in_f32([self], |[a]| a.add_scalar(value))? {
            return Ok(y);
        }
        let output = on_device!(
            self,
            cpu => zip_with!("add_scalar", self, &scalar(value, self)?, Add, |a, b| a + b),
            cuda => cuda::elementwise::unary("add_scalar", Unary::Shift, self, value)?,
        );
        Ok(differentiable("add_scalar", [self], [], output, move |[], dy, [da]| da.give(dy)))
    }

    /// `self * value`.
    pub fn mul_scalar(&self, value: f64) -> Result<Tensor> {
        if let Some(y) = in_f32([self], |[a]| a.mul_scalar(value))? {
            return Ok(y);
        }
        let output = on_device!(
            self,
            cpu => zip_with!("mul_scalar", self, &scalar(value, self)?, Mul, |a, b| a * b),
            cuda => cuda::elementwise::unary("mul_scalar", Unary::Scale, self, value)?,
        );
        Ok(differentiable("mul_scalar", [self], [], output, move |[], dy, [da]| {
            da.give_with(|| dy.mul_scalar(value))
        }))
    }
}

fn scalar(value: f64, like: &Tensor) -> Result<Tensor> {
    match like.dtype() {
        DType::F64 => Tensor::new(value, &like.device()),
        _ => Tensor::new(value as f32, &like.device()),
    }
}

#[cfg(test)]
pub(super) fn cases(cases: &mut crate::conformance::Cases) {
    use crate::conformance::{normal, positive};
    cases.add("add", "same shape", [normal(&[3, 7]), normal(&[3, 7])], |x| x[0].add(&x[1]));
    cases.add("add", "row", [normal(&[4, 5]), normal(&[5])], |x| x[0].add(&x[1]));
    cases.add("add", "outer", [normal(&[4, 1]), normal(&[1, 5])], |x| x[0].add(&x[1]));
    cases.add("add", "itself", [normal(&[4, 3])], |x| x[0].add(&x[0]));
    cases.add("add", "empty", [normal(&[0, 3]), normal(&[3])], |x| x[0].add(&x[1]));
    cases.add("sub", "column", [normal(&[2, 3, 4]), normal(&[3, 1])], |x| x[0].sub(&x[1]));
    cases.add("mul", "same shape", [normal(&[33]), normal(&[33])], |x| x[0].mul(&x[1]));
    cases.add("mul", "number", [normal(&[2, 9]), normal(&[])], |x| x[0].mul(&x[1]));
    cases.add("mul", "square", [normal(&[7])], |x| x[0].mul(&x[0]));
    cases.add("div", "row", [normal(&[3, 4]), positive(&[4])], |x| x[0].div(&x[1]));
    cases.add("add_scalar", "", [normal(&[5])], |x| x[0].add_scalar(0.25));
    cases.add("mul_scalar", "", [normal(&[5, 2])], |x| x[0].mul_scalar(-1.5));
}
