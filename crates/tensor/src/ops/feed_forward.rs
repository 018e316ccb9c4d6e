//! The feed-forward network of a transformer layer: two linear layers with GELU between them.
//!
//! u = x W₁ᵀ + b₁, h = gelu(u), y = h W₂ᵀ + b₂. Only u is kept: the backward computes h again while it computes
//! du = (dy W₂) * gelu'(u), which needs the same exponential. So a layer of BERT keeps a fifth less for its backward than
//! with two operations.

use crate::cpu::gemm::{Epilogue, Gemm, View, ViewMut};
use crate::device::Device;
use crate::dispatch::{Float, Forward, TensorOp, apply_tensors};
use crate::error::Result;
use crate::gelu::Gelu;
use crate::gradients::Slot;
use crate::layout::rows_and_width;
use crate::ops::linear::{Layers, backward, check};
use crate::precision::Precision;
use crate::tensor::Tensor;

impl Tensor {
    /// Computes `gelu(self W₁ᵀ + b₁) W₂ᵀ + b₂` for `self` [.., H] and the layers (weight, bias) `inner` ([I, H], `[I]`)
    /// and `outer` ([O, I], `[O]`): [.., O].
    ///
    /// # Errors
    /// Returns an error if the shapes do not match.
    pub fn feed_forward(&self, inner: (&Tensor, &Tensor), gelu: Gelu, outer: (&Tensor, &Tensor)) -> Result<Tensor> {
        let op = FeedForward { gelu, precision: Precision::current() };
        apply_tensors(op, [self, inner.0, inner.1, outer.0, outer.1])
    }
}

const OP: &str = "feed_forward";

/// Two linear layers with GELU between them: x, then the weight and the bias of each.
pub(crate) struct FeedForward {
    pub(crate) gelu: Gelu,
    pub(crate) precision: Precision,
}

/// Works on tensors, because weights are packed once and kept with their memory.
impl TensorOp for FeedForward {
    type Arity = [(); 5];

    fn name(&self) -> &'static str {
        OP
    }

    fn operands(&self) -> &[&'static str] {
        &["input", "inner weight", "inner bias", "outer weight", "outer bias"]
    }

    fn first_parameter(&self) -> usize {
        1
    }

    fn check(&self, [x, w1, b1, w2, b2]: [&Tensor; 5]) -> Result<()> {
        check(OP, self.precision, x, &[w1, b1])?;
        // The hidden activations have the rows of x and the width of the inner layer.
        check(OP, self.precision, &w1.t()?, &[w2, b2])
    }

    fn forward<T: Float>(&mut self, [x, w1, b1, w2, b2]: [&Tensor; 5], recorded: bool) -> Result<Forward> {
        let inner = Layers::new(self.precision, x, &[w1, b1], recorded)?;
        let (hidden, kept) = if recorded {
            let [u, hidden] = inner.multiply_gelu::<T>(OP, self.gelu)?;
            (hidden, vec![x.clone(), w1.clone(), w2.clone(), u])
        } else {
            let epilogue = |bias| Epilogue::BiasGelu(bias, self.gelu);
            let shape = inner.output_shape();
            (Tensor::build(OP, &shape, &Device::Cpu, |h: &mut [T]| inner.multiply(h, epilogue))?, Vec::new())
        };
        let outer = Layers::new(self.precision, &hidden, &[w2, b2], recorded)?;
        let shape = outer.output_shape();
        let output = Tensor::build(OP, &shape, &Device::Cpu, |y: &mut [T]| outer.multiply(y, Epilogue::Bias))?;
        Ok(Forward { output, kept })
    }

    fn backward<T: Float>(self, kept: Vec<Tensor>, dy: Tensor, [dx, dw1, db1, dw2, db2]: [Slot<'_>; 5]) -> Result<()> {
        let Ok([x, w1, w2, u]) = <[Tensor; 4]>::try_from(kept) else { return Ok(()) };
        let (rows, outputs) = rows_and_width(dy.shape());
        let (weight, width) = (w2.values()?, u.width());
        let [du, hidden] = Tensor::build_all(OP, [u.shape(), u.shape()], |[du, h]: [&mut [T]; 2]| {
            let weight = View::rows(weight.slice::<T>(), outputs, width);
            let product = Gemm::new(View::rows(dy.slice(), rows, outputs), weight).precision(self.precision);
            let product = product.epilogue(Epilogue::GeluGradient(u.slice(), self.gelu, h));
            product.write_to(ViewMut::rows(du, rows, width));
        })?;
        // Memory goes back as soon as it has been read: these are the largest tensors of a layer.
        drop(u);
        backward::<T>(self.precision, &hidden, &[w2], &[outputs], &dy, dx.none(), vec![(dw2, db2)])?;
        drop((hidden, dy));
        backward::<T>(self.precision, &x, &[w1], &[width], &du, dx, vec![(dw1, db1)])
    }
}

#[cfg(test)]
pub(super) fn cases(cases: &mut crate::conformance::Cases) {
    use crate::conformance::normal;
    for (label, rows, sizes, gelu) in [
        ("erf", 5, [7, 19, 3], Gelu::Erf),
        ("tanh", 5, [7, 19, 3], Gelu::Tanh),
        ("no rows", 0, [4, 6, 2], Gelu::Erf),
        ("large", 70, [40, 96, 33], Gelu::Erf),
    ] {
        let [hidden, inner, outputs] = sizes;
        let inputs = [
            normal(&[rows, hidden]),
            normal(&[inner, hidden]).parameter(),
            normal(&[inner]).parameter(),
            normal(&[outputs, inner]).parameter(),
            normal(&[outputs]).parameter(),
        ];
        cases.add("feed_forward", label, inputs, move |x| x[0].feed_forward((&x[1], &x[2]), gelu, (&x[3], &x[4])));
    }
}

#[cfg(test)]
mod tests {
    use crate::conformance::{assert_same_with_gradients, normal};
    use crate::gelu::Gelu;

    #[test]
    fn fused_equals_composed() {
        let inputs = [normal(&[5, 7]), normal(&[4, 7]), normal(&[4]), normal(&[3, 4]), normal(&[3])];
        for gelu in [Gelu::Erf, Gelu::Tanh] {
            assert_same_with_gradients(
                &inputs,
                |x| x[0].feed_forward((&x[1], &x[2]), gelu, (&x[3], &x[4])),
                |x| x[0].linear(&x[1], &x[2])?.gelu(gelu)?.linear(&x[3], &x[4]),
            );
        }
    }
}
