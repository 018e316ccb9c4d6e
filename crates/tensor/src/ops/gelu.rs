//! GELU (D. Hendrycks, K. Gimpel, "Gaussian error linear units", 2016): x Φ(x), with Φ the normal
//! distribution function. BERT uses the exact form; the tanh form approximates it to about 1e-3.
//!
//! d/dx = Φ(x) + x φ(x), with φ the normal density; the tanh form is differentiated as it is.

use crate::autograd::differentiable;
use crate::cpu::{Real, Target, unary};
#[cfg(feature = "cuda")]
use crate::cuda;
use crate::ops::{float, in_f32, on_device};
use crate::tensor::Tensor;
use crate::Result;

/// Which form of GELU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Gelu {
    /// `x / 2 (1 + erf(x / √2))`: BERT's (`gelu` in a checkpoint's configuration).
    #[default]
    Erf,
    /// `x / 2 (1 + tanh(√(2/π) (x + 0.044715 x³)))` (`gelu_new`).
    Tanh,
}

impl Tensor {
    /// The Gaussian error linear unit of every element.
    pub fn gelu(&self, kind: Gelu) -> Result<Tensor> {
        const OP: &str = "gelu";
        if let Some(y) = in_f32([self], |[x]| x.gelu(kind))? {
            return Ok(y);
        }
        let x = self.values()?;
        let output = on_device!(
            x,
            cpu => float!(OP, x.dtype(), T => {
                Tensor::build(OP, x.shape(), &x.device(), |y: &mut [T]| cpu_forward(kind, x.slice(), y))?
            }),
            cuda => cuda::elementwise::unary(OP, kind.into(), &x, 0.0)?,
        );
        Ok(differentiable(OP, [self], [&x], output, move |[x], dy, [dx]| {
            on_device!(
                dy,
                cpu => (),
                cuda => return dx.give_with(|| cuda::elementwise::unary_backward(OP, kind.into(), &x, &dy)),
            );
            let Some(mut dx) = dx.open()? else { return Ok(()) };
            float!(OP, dy.dtype(), T => cpu_backward::<T>(kind, x.slice(), dy.slice(), dx.target()));
            Ok(())
        }))
    }
}

pub(super) fn cpu_forward<T: Real>(kind: Gelu, x: &[T], y: &mut [T]) {
    match kind {
        Gelu::Erf => unary::forward::<T, unary::Gelu>(x, y),
        Gelu::Tanh => unary::forward::<T, unary::GeluTanh>(x, y),
    }
}

pub(super) fn cpu_backward<T: Real>(kind: Gelu, x: &[T], dy: &[T], dx: Target<'_, T>) {
    match kind {
        Gelu::Erf => unary::backward::<T, unary::Gelu>(x, dy, dx),
        Gelu::Tanh => unary::backward::<T, unary::GeluTanh>(x, dy, dx),
    }
}

#[cfg(test)]
pub(super) fn cases(cases: &mut crate::conformance::Cases) {
    use crate::conformance::normal;
    for (label, kind) in [("erf", Gelu::Erf), ("tanh", Gelu::Tanh)] {
        cases.add("gelu", label, [normal(&[3, 17])], move |x| x[0].gelu(kind));
        cases.add("gelu", label, [normal(&[67]).scaled(3.0)], move |x| x[0].gelu(kind));
        cases.add("gelu", label, [normal(&[4, 5]).scaled(1e4)], move |x| x[0].gelu(kind));
        cases.add("gelu", label, [normal(&[0])], move |x| x[0].gelu(kind));
    }
}
