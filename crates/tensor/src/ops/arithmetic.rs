//! Elementwise arithmetic of two tensors. Operands broadcast as in NumPy: aligned at the last dimension, a size of 1 repeats. Both have
//! one float type: nothing is converted silently; [`Tensor::to_dtype`] converts.

use crate::cpu::strided;
use crate::device::Device;
use crate::dispatch::{Float, Forward, TensorOp, apply_tensors};
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
}

/// A function of a pair of elements, numbered as `Binary` in `kernels/cuda/enumerations.cuh`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pair {
    Add,
    Sub,
    Mul,
    Div,
    Maximum,
    Minimum,
    Greater,
    AtLeast,
    Equal,
}

/// A function of every pair of elements. Its backward is composed of such operations.
pub(crate) struct Pairwise {
    pub(crate) function: Pair,
    left: Dims,
    right: Dims,
}

impl Pairwise {
    pub(super) fn apply(function: Pair, a: &Tensor, b: &Tensor) -> Result<Tensor> {
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
            Pair::Maximum | Pair::Minimum => vec![a.clone(), b.clone()],
            Pair::Add | Pair::Sub | Pair::Greater | Pair::AtLeast | Pair::Equal => Vec::new(),
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
            Pair::Maximum => "maximum",
            Pair::Minimum => "minimum",
            Pair::Greater => "gt",
            Pair::AtLeast => "ge",
            Pair::Equal => "eq",
        }
    }

    fn operands(&self) -> &[&'static str] {
        &["left", "right"]
    }

    fn forward<T: Float>(&mut self, [a, b]: [&Tensor; 2], _: bool) -> Result<Forward> {
        let [la, lb] = self.broadcast([a, b])?;
        let (x, y) = (a.strided_slice::<T>(), b.strided_slice::<T>());
        let one_if = |holds| if holds { T::ONE } else { T::ZERO };
        let output = Tensor::build(self.name(), &la.shape, &Device::Cpu, |to: &mut [T]| match self.function {
            Pair::Add => strided::zip(x, &la, y, &lb, to, |a, b| a + b),
            Pair::Sub => strided::zip(x, &la, y, &lb, to, |a, b| a - b),
            Pair::Mul => strided::zip(x, &la, y, &lb, to, |a, b| a * b),
            Pair::Div => strided::zip(x, &la, y, &lb, to, |a, b| a / b),
            Pair::Maximum => strided::zip(x, &la, y, &lb, to, |a, b| chosen(a, b, a > b)),
            Pair::Minimum => strided::zip(x, &la, y, &lb, to, |a, b| chosen(a, b, a < b)),
            Pair::Greater => strided::zip(x, &la, y, &lb, to, |a, b| one_if(a > b)),
            Pair::AtLeast => strided::zip(x, &la, y, &lb, to, |a, b| one_if(a >= b)),
            Pair::Equal => strided::zip(x, &la, y, &lb, to, |a, b| one_if(a == b)),
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
            (Pair::Maximum, [a, b]) => {
                da.give_with(|| dy.mul(&share(a, b)?)?.sum_to(&left))?;
                db.give_with(|| dy.mul(&share(b, a)?)?.sum_to(&right))
            }
            (Pair::Minimum, [a, b]) => {
                da.give_with(|| dy.mul(&share(b, a)?)?.sum_to(&left))?;
                db.give_with(|| dy.mul(&share(a, b)?)?.sum_to(&right))
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

/// Returns one of two numbers, or NaN if one of them is.
#[inline(always)]
fn chosen<T: Float>(a: T, b: T, is_first: bool) -> T {
    let is_ordered = a <= b || a > b;
    match (is_ordered, is_first) {
        (false, _) => a + b,
        (true, true) => a,
        (true, false) => b,
    }
}

/// Returns 1 where `a` is larger than `b`, 1/2 where they are equal, and 0 elsewhere: two equal numbers share the gradient of
/// their maximum.
fn share(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    a.gt(b)?.add(&a.ge(b)?)?.mul_scalar(0.5)
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
}
