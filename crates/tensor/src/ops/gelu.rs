//! GELU (D. Hendrycks, K. Gimpel, "Gaussian error linear units", 2016): x Φ(x), where Φ is the normal distribution
//! function. BERT uses the exact form; the tanh form approximates it to about 1e-3.
//!
//! d/dx = Φ(x) + x φ(x), where φ is the normal density. The tanh form has the derivative of its own formula.

use crate::cpu::unary::Function;
use crate::dispatch::apply;
use crate::error::Result;
use crate::gelu::Gelu;
use crate::ops::unary::Unary;
use crate::tensor::Tensor;

impl Tensor {
    /// Computes the Gaussian error linear unit of every element.
    pub fn gelu(&self, kind: Gelu) -> Result<Tensor> {
        apply(Unary { name: "gelu", function: kind.into() }, [self])
    }
}

impl From<Gelu> for Function {
    fn from(kind: Gelu) -> Function {
        match kind {
            Gelu::Erf => Function::Gelu,
            Gelu::Tanh => Function::GeluTanh,
        }
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
