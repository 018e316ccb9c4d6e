//! Softmax over the last dimension, and its logarithm. The largest element of a row is subtracted first,
//! so no input overflows.
//!
//! With y = softmax(x): dx = y * (dy - Σ dy y). With y = log softmax(x): dx = dy - e^y Σ dy.

use crate::autograd::differentiable;
#[cfg(feature = "cuda")]
use crate::cuda;
use crate::ops::{float, in_f32, on_device, rows_and_width};
use crate::tensor::Tensor;
use crate::{Result, cpu};

impl Tensor {
    /// `e^x / Σ e^x` over the last dimension.
    pub fn softmax(&self) -> Result<Tensor> {
        const OP: &str = "softmax";
        if let Some(y) = in_f32([self], |[x]| x.softmax())? {
            return Ok(y);
        }
        let x = self.values()?;
        let (_, width) = rows_and_width(x.shape());
        let output = on_device!(
            x,
            cpu => float!(OP, x.dtype(), T => {
                Tensor::build(OP, x.shape(), &x.device(), |y: &mut [T]| cpu::softmax::softmax(x.slice(), y, width))?
            }),
            cuda => cuda::softmax::forward(OP, &x, false)?,
        );
        Ok(differentiable(OP, [self], [&output.clone()], output, move |[y], dy, [dx]| {
            on_device!(dy, cpu => (), cuda => return dx.give_with(|| cuda::softmax::backward(OP, &y, &dy, false)));
            let Some(mut dx) = dx.open()? else { return Ok(()) };
            float!(OP, dy.dtype(), T => cpu::softmax::softmax_backward::<T>(y.slice(), dy.slice(), dx.target(), width));
            Ok(())
        }))
    }

    /// `x - ln Σ e^x` over the last dimension.
    pub fn log_softmax(&self) -> Result<Tensor> {
        const OP: &str = "log_softmax";
        if let Some(y) = in_f32([self], |[x]| x.log_softmax())? {
            return Ok(y);
        }
        let x = self.values()?;
        let (_, width) = rows_and_width(x.shape());
        let output = on_device!(
            x,
            cpu => float!(OP, x.dtype(), T => {
                Tensor::build(OP, x.shape(), &x.device(), |y: &mut [T]| cpu::softmax::log_softmax(x.slice(), y, width))?
            }),
            cuda => cuda::softmax::forward(OP, &x, true)?,
        );
        Ok(differentiable(OP, [self], [&output.clone()], output, move |[y], dy, [dx]| {
            on_device!(dy, cpu => (), cuda => return dx.give_with(|| cuda::softmax::backward(OP, &y, &dy, true)));
            let Some(mut dx) = dx.open()? else { return Ok(()) };
            float!(OP, dy.dtype(), T => cpu::softmax::log_softmax_backward::<T>(y.slice(), dy.slice(), dx.target(), width));
            Ok(())
        }))
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
