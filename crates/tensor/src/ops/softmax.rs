//! Softmax over the last dimension, and its logarithm. The largest element of a row is subtracted first, so no input
//! overflows.
//!
//! With y = softmax(x): dx = y * (dy - Σ dy y). With y = log softmax(x): dx = dy - e^y Σ dy.

use crate::cpu::{self, Target};
use crate::dispatch::{Float, Keep, Op, apply};
use crate::error::Result;
use crate::layout::Dims;
use crate::tensor::Tensor;

impl Tensor {
    /// Computes `e^x / Σ e^x` over the last dimension.
    pub fn softmax(&self) -> Result<Tensor> {
        apply(Softmax { width: self.width(), logarithm: false }, [self])
    }

    /// Computes `x - ln Σ e^x` over the last dimension.
    pub fn log_softmax(&self) -> Result<Tensor> {
        apply(Softmax { width: self.width(), logarithm: true }, [self])
    }
}

/// Softmax of rows of `width` elements, or its logarithm.
pub(crate) struct Softmax {
    width: usize,
    pub(crate) logarithm: bool,
}

impl Op<1, 1, 1> for Softmax {
    const OPERANDS: [&'static str; 1] = ["tensor"];

    fn name(&self) -> &'static str {
        if self.logarithm { "log_softmax" } else { "softmax" }
    }

    fn shapes(&self, [x]: [&Tensor; 1]) -> Result<[Dims; 1]> {
        Ok([x.dims()])
    }

    fn forward<T: Float>(&mut self, [x]: [&[T]; 1], [y]: [&mut [T]; 1]) {
        if self.logarithm {
            cpu::softmax::log_softmax(x, y, self.width);
        } else {
            cpu::softmax::softmax(x, y, self.width);
        }
    }

    fn keeps(&self) -> [Keep; 1] {
        [Keep::Output(0)]
    }

    fn backward<T: Float>(&self, [y]: [&[T]; 1], dy: &[T], [dx]: [Option<Target<'_, T>>; 1]) {
        let Some(dx) = dx else { return };
        if self.logarithm {
            cpu::softmax::log_softmax_backward(y, dy, dx, self.width);
        } else {
            cpu::softmax::softmax_backward(y, dy, dx, self.width);
        }
    }
}

#[cfg(test)]
pub(super) fn cases(cases: &mut crate::conformance::Cases) {
    use crate::conformance::normal;
    for (label, shape) in [("rows", [5, 33]), ("one column", [4, 1]), ("no rows", [0, 3]), ("wide", [2, 300])] {
        cases.add("softmax", label, [normal(&shape)], |x| x[0].softmax());
        cases.add("log_softmax", label, [normal(&shape)], |x| x[0].log_softmax());
    }
    cases.add("softmax", "extremes", [normal(&[3, 40]).scaled(1e4)], |x| x[0].softmax());
    cases.add("log_softmax", "extremes", [normal(&[3, 40]).scaled(1e4)], |x| x[0].log_softmax());
}

#[cfg(test)]
mod tests {
    use crate::conformance::{assert_same_with_gradients, normal};

    #[test]
    fn log_softmax_is_the_logarithm_of_softmax() {
        assert_same_with_gradients(&[normal(&[4, 9])], |x| x[0].log_softmax(), |x| x[0].softmax()?.ln());
    }
}
