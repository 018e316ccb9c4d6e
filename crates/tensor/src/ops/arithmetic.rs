//! Elementwise arithmetic. Operands broadcast as in NumPy: aligned at the last dimension, a size of 1 repeats. Both have
//! one float type: nothing is converted silently; [`Tensor::to_dtype`] converts.

use crate::cpu::{Target, strided};
use crate::device::Device;
use crate::dispatch::{Float, Forward, Keep, Op, TensorOp, apply, apply_tensors};
use crate::error::Result;
use crate::gradients::Slot;
use crate::layout::{Dims, Layout, broadcast_shapes};
use crate::tensor::Tensor;

impl Tensor {
    /// Computes `self + other`, broadcasting.
    pub fn add(&self, other: &Tensor) -> Result<Tensor> {
        Pairwise::apply(Pair::Add, self, other)
    }

    /// Computes `self - other`, broadcasting.
    pub fn sub(&self, other: &Tensor) -> Result<Tensor> {
        Pairwise::apply(Pair::Sub, self, other)
    }

    /// Computes `self * other`, elementwise, broadcasting.
    pub fn mul(&self, other: &Tensor) -> Result<Tensor> {
        Pairwise::apply(Pair::Mul, self, other)
    }

    /// Computes `self / other`, elementwise, broadcasting.
    pub fn div(&self, other: &Tensor) -> Result<Tensor> {
        Pairwise::apply(Pair::Div, self, other)
    }

    /// Computes `self + value`.
    pub fn add_scalar(&self, value: f64) -> Result<Tensor> {
        apply(Scalar::Shift(value), [self])
    }

    /// Computes `self * value`.
    pub fn mul_scalar(&self, value: f64) -> Result<Tensor> {
        apply(Scalar::Scale(value), [self])
    }
}

/// A function of a pair of elements, numbered as `Binary` in `kernels/cuda/enumerations.cuh`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pair {
    Add,
    Sub,
    Mul,
    Div,
}

/// A function of every pair of elements. Its backward is composed of such operations.
pub(crate) struct Pairwise {
    pub(crate) function: Pair,
    left: Dims,
    right: Dims,
}

impl Pairwise {
    fn apply(function: Pair, a: &Tensor, b: &Tensor) -> Result<Tensor> {
        apply_tensors(Pairwise { function, left: a.dims(), right: b.dims() }, [a, b])
    }

    /// Returns the layouts with which the operands repeat to fill their common shape.
    pub(crate) fn broadcast(&self, [a, b]: [&Tensor; 2]) -> Result<[Layout; 2]> {
        let shape = broadcast_shapes(self.name(), a.shape(), b.shape())?;
        Ok([a.layout().broadcast(self.name(), &shape)?, b.layout().broadcast(self.name(), &shape)?])
    }

    /// Returns the tensors that the backward reads; for a product, an operand only if the other needs a gradient.
    pub(crate) fn keeps(&self, [a, b]: [&Tensor; 2], output: &Tensor) -> Result<Vec<Tensor>> {
        Ok(match self.function {
            Pair::Add | Pair::Sub => Vec::new(),
            Pair::Mul => vec![a.kept_if(b.tracks_grad())?, b.kept_if(a.tracks_grad())?],
            Pair::Div => vec![b.clone(), output.clone()],
        })
    }
}

impl TensorOp for Pairwise {
    type Arity = [(); 2];

    fn name(&self) -> &'static str {
        match self.function {
            Pair::Add => "add",
            Pair::Sub => "sub",
            Pair::Mul => "mul",
            Pair::Div => "div",
        }
    }

    fn operands(&self) -> &[&'static str] {
        &["left", "right"]
    }

    fn forward<T: Float>(&mut self, [a, b]: [&Tensor; 2], _: bool) -> Result<Forward> {
        let [la, lb] = self.broadcast([a, b])?;
        let (x, y) = (a.strided_slice::<T>(), b.strided_slice::<T>());
        let output = Tensor::build(self.name(), &la.shape, &Device::Cpu, |to: &mut [T]| match self.function {
            Pair::Add => strided::zip(x, &la, y, &lb, to, |a, b| a + b),
            Pair::Sub => strided::zip(x, &la, y, &lb, to, |a, b| a - b),
            Pair::Mul => strided::zip(x, &la, y, &lb, to, |a, b| a * b),
            Pair::Div => strided::zip(x, &la, y, &lb, to, |a, b| a / b),
        })?;
        let kept = self.keeps([a, b], &output)?;
        Ok(Forward { output, kept })
    }

    fn backward<T: Float>(self, kept: Vec<Tensor>, dy: Tensor, [da, db]: [Slot<'_>; 2]) -> Result<()> {
        let Pairwise { function, left, right } = self;
        match (function, &kept[..]) {
            (Pair::Mul, [a, b]) => {
                da.give_with(|| dy.mul(b)?.sum_to(&left))?;
                db.give_with(|| dy.mul(a)?.sum_to(&right))
            }
            (Pair::Div, [b, quotient]) => {
                da.give_with(|| dy.div(b)?.sum_to(&left))?;
                db.give_with(|| dy.mul(quotient)?.div(b)?.mul_scalar(-1.0)?.sum_to(&right))
            }
            (Pair::Sub, _) => {
                da.give_with(|| dy.sum_to(&left))?;
                db.give_with(|| dy.mul_scalar(-1.0)?.sum_to(&right))
            }
            _ => {
                da.give_with(|| dy.sum_to(&left))?;
                db.give_with(|| dy.sum_to(&right))
            }
        }
    }
}

/// A function of every element and a number.
#[derive(Clone, Copy)]
pub(crate) enum Scalar {
    Shift(f64),
    Scale(f64),
}

impl Op<1, 1, 0> for Scalar {
    const OPERANDS: [&'static str; 1] = ["tensor"];

    fn name(&self) -> &'static str {
        match self {
            Scalar::Shift(_) => "add_scalar",
            Scalar::Scale(_) => "mul_scalar",
        }
    }

    fn shapes(&self, [x]: [&Tensor; 1]) -> Result<[Dims; 1]> {
        Ok([x.dims()])
    }

    fn forward<T: Float>(&mut self, [x]: [&[T]; 1], [y]: [&mut [T]; 1]) {
        let pairs = y.iter_mut().zip(x);
        match *self {
            Scalar::Shift(value) => pairs.for_each(|(y, &x)| *y = x + T::from_f64(value)),
            Scalar::Scale(value) => pairs.for_each(|(y, &x)| *y = x * T::from_f64(value)),
        }
    }

    fn keeps(&self) -> [Keep; 0] {
        []
    }

    fn backward<T: Float>(&self, []: [&[T]; 0], dy: &[T], [dx]: [Option<Target<'_, T>>; 1]) {
        let Some(Target { data: dx, accumulate }) = dx else { return };
        let slope = match *self {
            Scalar::Shift(_) => T::ONE,
            Scalar::Scale(value) => T::from_f64(value),
        };
        if accumulate {
            dx.iter_mut().zip(dy).for_each(|(dx, &dy)| *dx += dy * slope);
        } else {
            dx.iter_mut().zip(dy).for_each(|(dx, &dy)| *dx = dy * slope);
        }
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
