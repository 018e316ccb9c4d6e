//! The feed-forward network of a transformer layer: two linear layers with GELU between them.
//!
//! u = x W₁ᵀ + b₁, h = gelu(u), y = h W₂ᵀ + b₂. Only u is kept: backward computes h again while it computes
//! du = (dy W₂) * gelu'(u), which needs the same exponential. So a layer of BERT keeps a fifth less for its backward
//! than with two operations.

use crate::autograd::{differentiable, is_recorded};
use crate::cpu::gemm::{Epilogue, Gemm, View, ViewMut};
use crate::ops::linear::{Layers, backward};
use crate::ops::{Gelu, float, in_f32, on_device, rows_and_width};
use crate::tensor::Tensor;
use crate::Result;

impl Tensor {
    /// `gelu(self W₁ᵀ + b₁) W₂ᵀ + b₂` for `self` [.., H] and the layers (weight, bias) `inner` ([I, H], `[I]`) and
    /// `outer` ([O, I], `[O]`): [.., O].
    ///
    /// # Errors
    /// When the shapes do not fit.
    pub fn feed_forward(&self, inner: (&Tensor, &Tensor), gelu: Gelu, outer: (&Tensor, &Tensor)) -> Result<Tensor> {
        const OP: &str = "feed_forward";
        let inputs = [self, inner.0, inner.1, outer.0, outer.1];
        if let Some(y) = in_f32(inputs, |[x, w1, b1, w2, b2]| x.feed_forward((w1, b1), gelu, (w2, b2)))? {
            return Ok(y);
        }
        let first = Layers::checked(OP, self, &[inner])?;
        on_device!(self, cpu => (), cuda => {
            if !is_recorded(&inputs) {
                return self.linear_gelu(inner.0, inner.1, gelu)?.linear(outer.0, outer.1);
            }
            return first.feed_forward_on_cuda(OP, inputs, gelu, outer);
        });
        let (shape, device, precision) = (first.output_shape(), self.device(), first.precision);
        if !is_recorded(&inputs) {
            let hidden = float!(OP, self.dtype(), T => {
                Tensor::build(OP, &shape, &device, |h: &mut [T]| first.multiply(h, |b| Epilogue::BiasGelu(b, gelu)))?
            });
            return Layers::checked(OP, &hidden, &[outer])?.forward(OP);
        }
        let [u, hidden] = float!(OP, self.dtype(), T => {
            Tensor::build_all(OP, [&shape[..], &shape], &device, |[u, h]: [&mut [T]; 2]| {
                let mut h = Some(h);
                first.multiply(u, |bias| Epilogue::BiasAndGelu(bias, gelu, h.take().unwrap_or_default()));
            })?
        });
        let output = Layers::checked(OP, &hidden, &[outer])?.forward(OP)?;
        let keeps = [self, inner.0, outer.0, &u];
        Ok(differentiable(OP, inputs, keeps, output, move |[x, w1, w2, u], dy, [dx, dw1, db1, dw2, db2]| {
            let (rows, outputs) = rows_and_width(dy.shape());
            let (weight, width) = (w2.values()?, u.width());
            let [du, hidden] = float!(OP, dy.dtype(), T => {
                Tensor::build_all(OP, [u.shape(), u.shape()], &u.device(), |[du, h]: [&mut [T]; 2]| {
                    let weight = View::rows(weight.slice::<T>(), outputs, width);
                    let product = Gemm::new(View::rows(dy.slice(), rows, outputs), weight).precision(precision);
                    let product = product.epilogue(Epilogue::GeluGradient(u.slice(), gelu, h));
                    product.write_to(ViewMut::rows(du, rows, width));
                })?
            });
            drop(u);
            backward(precision, &hidden, &[w2], &[outputs], &dy, dx.none(), vec![(dw2, db2)])?;
            drop((hidden, dy));
            backward(precision, &x, &[w1], &[width], &du, dx, vec![(dw1, db1)])
        }))
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
            normal(&[inner, hidden]),
            normal(&[inner]),
            normal(&[outputs, inner]),
            normal(&[outputs]),
        ];
        cases.add("feed_forward", label, inputs, move |x| x[0].feed_forward((&x[1], &x[2]), gelu, (&x[3], &x[4])));
    }
}

#[cfg(test)]
mod tests {
    use crate::Gelu;
    use crate::conformance::{assert_same_with_gradients, normal};

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
