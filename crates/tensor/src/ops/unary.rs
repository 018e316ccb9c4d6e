//! Elementwise functions of one argument. GELU has a file of its own.

use crate::cpu::Target;
use crate::cpu::unary::{Function, Saved};
use crate::dispatch::{Float, Keep, Op, apply};
use crate::error::Result;
use crate::layout::Dims;
use crate::tensor::Tensor;

impl Tensor {
    /// Computes `e^x`. The derivative is the result itself.
    pub fn exp(&self) -> Result<Tensor> {
        apply(Unary { name: "exp", function: Function::Exp }, [self])
    }

    /// Computes the natural logarithm. The derivative is `1 / x`.
    pub fn ln(&self) -> Result<Tensor> {
        apply(Unary { name: "ln", function: Function::Ln }, [self])
    }

    /// Computes the square root. The derivative is `1 / (2 √x)`.
    pub fn sqrt(&self) -> Result<Tensor> {
        apply(Unary { name: "sqrt", function: Function::Sqrt }, [self])
    }

    /// Computes the hyperbolic tangent. The derivative is `1 - tanh(x)²`.
    pub fn tanh(&self) -> Result<Tensor> {
        apply(Unary { name: "tanh", function: Function::Tanh }, [self])
    }

    /// Computes `max(x, 0)`. The derivative is 1 above 0, and 0 elsewhere.
    pub fn relu(&self) -> Result<Tensor> {
        apply(Unary { name: "relu", function: Function::Relu }, [self])
    }

    /// Computes the logistic function, `1 / (1 + e^-x)`. The derivative is `y (1 - y)`, with the result `y`.
    pub fn sigmoid(&self) -> Result<Tensor> {
        apply(Unary { name: "sigmoid", function: Function::Sigmoid }, [self])
    }

    /// Computes the absolute value. The derivative is the sign, which is 0 at 0.
    pub fn abs(&self) -> Result<Tensor> {
        apply(Unary { name: "abs", function: Function::Abs }, [self])
    }

    /// Computes `1 / x`. The derivative is `-1 / x²`.
    pub fn reciprocal(&self) -> Result<Tensor> {
        apply(Unary { name: "reciprocal", function: Function::Reciprocal }, [self])
    }
}

/// A function of every element.
pub(crate) struct Unary {
    pub(crate) name: &'static str,
    pub(crate) function: Function,
}

impl Op<1, 1, 1> for Unary {
    const OPERANDS: [&'static str; 1] = ["tensor"];

    fn name(&self) -> &'static str {
        self.name
    }

    fn shapes(&self, [x]: [&Tensor; 1]) -> Result<[Dims; 1]> {
        Ok([x.dims()])
    }

    fn forward<T: Float>(&mut self, [x]: [&[T]; 1], [y]: [&mut [T]; 1]) {
        self.function.forward(x, y);
    }

    fn keeps(&self) -> [Keep; 1] {
        match self.function.saved() {
            Saved::Input => [Keep::Input(0)],
            Saved::Output => [Keep::Output(0)],
        }
    }

    fn backward<T: Float>(&self, [saved]: [&[T]; 1], dy: &[T], [dx]: [Option<Target<'_, T>>; 1]) {
        if let Some(dx) = dx {
            self.function.backward(saved, dy, dx);
        }
    }
}

#[cfg(test)]
pub(super) fn cases(cases: &mut crate::conformance::Cases) {
    use crate::conformance::{normal, positive};
    for shape in [&[5, 33][..], &[0, 2]] {
        cases.add("exp", "", [normal(shape)], |x| x[0].exp());
        cases.add("tanh", "", [normal(shape)], |x| x[0].tanh());
        cases.add("relu", "", [normal(shape)], |x| x[0].relu());
        cases.add("sigmoid", "", [normal(shape)], |x| x[0].sigmoid());
        cases.add("abs", "", [normal(shape)], |x| x[0].abs());
        cases.add("ln", "", [positive(shape)], |x| x[0].ln());
        cases.add("sqrt", "", [positive(shape)], |x| x[0].sqrt());
        cases.add("reciprocal", "", [positive(shape)], |x| x[0].reciprocal());
    }
    // One number that is not extreme, so that there is a gradient to compare with.
    cases
        .add("sigmoid", "extremes", [normal(&[9]).scaled(1e4).with(|at| (at == 4).then_some(0.5))], |x| x[0].sigmoid());
    cases.add("tanh", "extremes", [normal(&[9]).scaled(1e4)], |x| x[0].tanh());
}
