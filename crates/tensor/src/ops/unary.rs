//! Elementwise functions of one argument. GELU has a file of its own.

use crate::autograd::differentiable;
use crate::cpu::unary::{self, Exp, Ln, Reciprocal, Relu, Saved, Sqrt, Tanh, Unary};
#[cfg(feature = "cuda")]
use crate::cuda;
use crate::ops::{float, in_f32, on_device};
use crate::tensor::Tensor;
use crate::Result;

impl Tensor {
    /// `e^x`. The derivative is the result itself.
    pub fn exp(&self) -> Result<Tensor> {
        self.map::<Exp>("exp")
    }

    /// Natural logarithm. The derivative is `1 / x`.
    pub fn ln(&self) -> Result<Tensor> {
        self.map::<Ln>("ln")
    }

    /// Square root. The derivative is `1 / (2 √x)`.
    pub fn sqrt(&self) -> Result<Tensor> {
        self.map::<Sqrt>("sqrt")
    }

    /// Hyperbolic tangent. The derivative is `1 - tanh(x)²`.
    pub fn tanh(&self) -> Result<Tensor> {
        self.map::<Tanh>("tanh")
    }

    /// `max(x, 0)`. The derivative is 1 above 0, and 0 elsewhere.
    pub fn relu(&self) -> Result<Tensor> {
        self.map::<Relu>("relu")
    }

    /// `1 / x`. The derivative is `-1 / x²`.
    pub fn reciprocal(&self) -> Result<Tensor> {
        self.map::<Reciprocal>("reciprocal")
    }

    fn map<F: Unary + 'static>(&self, op: &'static str) -> Result<Tensor> {
        if let Some(y) = in_f32([self], |[x]| x.map::<F>(op))? {
            return Ok(y);
        }
        let x = self.values()?;
        let output = on_device!(
            x,
            cpu => float!(op, x.dtype(), T => {
                Tensor::build(op, x.shape(), &x.device(), |y: &mut [T]| unary::forward::<T, F>(x.slice(), y))?
            }),
            cuda => cuda::elementwise::unary(op, F::ON_CUDA, &x, 0.0)?,
        );
        let kept = match F::SAVED {
            Saved::Input => &x,
            Saved::Output => &output.clone(),
        };
        Ok(differentiable(op, [self], [kept], output, move |[kept], dy, [dx]| {
            on_device!(
                dy,
                cpu => (),
                cuda => return dx.give_with(|| cuda::elementwise::unary_backward(op, F::ON_CUDA, &kept, &dy)),
            );
            let Some(mut dx) = dx.open()? else { return Ok(()) };
            float!(op, dy.dtype(), T => unary::backward::<T, F>(kept.slice(), dy.slice(), dx.target()));
            Ok(())
        }))
    }
}

#[cfg(test)]
pub(super) fn cases(cases: &mut crate::conformance::Cases) {
    use crate::conformance::{normal, positive};
    for shape in [&[5, 33][..], &[0, 2]] {
        cases.add("exp", "", [normal(shape)], |x| x[0].exp());
        cases.add("tanh", "", [normal(shape)], |x| x[0].tanh());
        cases.add("relu", "", [normal(shape)], |x| x[0].relu());
        cases.add("ln", "", [positive(shape)], |x| x[0].ln());
        cases.add("sqrt", "", [positive(shape)], |x| x[0].sqrt());
        cases.add("reciprocal", "", [positive(shape)], |x| x[0].reciprocal());
    }
    cases.add("tanh", "extremes", [normal(&[9]).scaled(1e4)], |x| x[0].tanh());
}
