//! Linear layers: y = x Wᵀ + b, with the bias and GELU fused, and several of them over one input.
//!
//! With dy the gradient of y: dx = dy W, dW = dyᵀ x, db = the column sums of dy. With GELU only the
//! pre-activation u = x Wᵀ + b is kept, and du = dy * gelu'(u).

use std::sync::Arc;

use crate::autograd::{differentiable, differentiable_many, is_recorded};
use crate::cpu::Real;
use crate::cpu::column_sums::column_sums;
use crate::cpu::gemm::{Epilogue, Gemm, PackedMatrix, View, ViewMut};
#[cfg(feature = "cuda")]
use crate::cuda;
use crate::element::Element;
use crate::gradients::{Destination, Slot};
use crate::ops::gelu::cpu_backward;
use crate::ops::{Gelu, alike, float, in_f32, on_device, rows_and_width};
use crate::tensor::Tensor;
use crate::{DType, Error, Precision, Result, cpu};

impl Tensor {
    /// `self Wᵀ + bias` for `self` [.., in], `weight` [out, in] and `bias` `[out]`: [.., out].
    ///
    /// # Errors
    /// When the shapes do not fit.
    pub fn linear(&self, weight: &Tensor, bias: &Tensor) -> Result<Tensor> {
        if let Some(y) = in_f32([self, weight, bias], |[x, w, b]| x.linear(w, b))? {
            return Ok(y);
        }
        let layers = Layers::checked("linear", self, &[(weight, bias)])?;
        on_device!(self, cpu => (), cuda => return layers.on_cuda("linear", &[self, weight, bias], None));
        let output = layers.forward("linear")?;
        let keeps = [&self.kept_if(weight.tracks_grad())?, &weight.kept_if(self.tracks_grad())?];
        let (outputs, precision) = ([weight.size(0)], layers.precision);
        Ok(differentiable("linear", [self, weight, bias], keeps, output, move |[x, weight], dy, [dx, dw, db]| {
            backward(precision, &x, &[weight], &outputs, &dy, dx, vec![(dw, db)])
        }))
    }

    /// `gelu(self Wᵀ + bias)`: as [`Tensor::linear`], then the activation.
    ///
    /// # Errors
    /// When the shapes do not fit.
    pub fn linear_gelu(&self, weight: &Tensor, bias: &Tensor, gelu: Gelu) -> Result<Tensor> {
        const OP: &str = "linear_gelu";
        if let Some(y) = in_f32([self, weight, bias], |[x, w, b]| x.linear_gelu(w, b, gelu))? {
            return Ok(y);
        }
        let layers = Layers::checked(OP, self, &[(weight, bias)])?;
        let (shape, device, precision) = (layers.output_shape(), self.device(), layers.precision);
        let inputs = [self, weight, bias];
        on_device!(self, cpu => (), cuda => return layers.on_cuda(OP, &inputs, Some(gelu)));
        if !is_recorded(&inputs) {
            return float!(OP, self.dtype(), T => {
                Tensor::build(OP, &shape, &device, |y: &mut [T]| layers.multiply(y, |b| Epilogue::BiasGelu(b, gelu)))
            });
        }
        let [u, output] = float!(OP, self.dtype(), T => {
            Tensor::build_all(OP, [&shape[..], &shape], &device, |[u, y]: [&mut [T]; 2]| {
                let mut y = Some(y);
                layers.multiply(u, |bias| Epilogue::BiasAndGelu(bias, gelu, y.take().unwrap_or_default()));
            })?
        });
        let keeps = [&self.kept_if(weight.tracks_grad())?, &weight.kept_if(self.tracks_grad())?, &u];
        let outputs = [weight.size(0)];
        Ok(differentiable(OP, inputs, keeps, output, move |[x, weight, u], dy, [dx, dw, db]| {
            let du = float!(OP, dy.dtype(), T => {
                let (u_values, dy) = (u.slice::<T>(), dy.slice::<T>());
                Tensor::build(OP, u.shape(), &u.device(), |du: &mut [T]| {
                    cpu_backward(gelu, u_values, dy, cpu::Target::new(du, false));
                })?
            });
            backward(precision, &x, &[weight], &outputs, &du, dx, vec![(dw, db)])
        }))
    }

    /// Several linear layers over one input, their outputs side by side: for `self` [.., in] and layers
    /// with `out` outputs each, [.., out + out + ..]. Query, key and value of attention.
    ///
    /// # Errors
    /// When the shapes do not fit.
    pub fn projections(&self, layers: &[(&Tensor, &Tensor)]) -> Result<Tensor> {
        const OP: &str = "projections";
        if layers.is_empty() {
            return Err(Error::invalid(OP, "no layers given"));
        }
        let projections = Layers::checked(OP, self, layers)?;
        let precision = projections.precision;
        if self.dtype().is_half() {
            let outputs = layers.iter().map(|(w, b)| self.linear(w, b)).collect::<Result<Vec<_>>>()?;
            return Tensor::concat(&outputs.iter().collect::<Vec<_>>(), self.rank() - 1);
        }
        let (weights, biases): (Vec<_>, Vec<_>) = layers.iter().copied().unzip();
        let inputs = [&[self], weights.as_slice(), biases.as_slice()].concat();
        on_device!(self, cpu => (), cuda => return projections.on_cuda(OP, &inputs, None));
        let output = projections.forward(OP)?;
        let mut keeps = vec![self.kept_if(weights.iter().any(|weight| weight.tracks_grad()))?];
        for weight in &weights {
            keeps.push(weight.kept_if(self.tracks_grad())?);
        }
        let outputs: Vec<usize> = weights.iter().map(|weight| weight.size(0)).collect();
        let keeps: Vec<&Tensor> = keeps.iter().collect();
        Ok(differentiable_many(OP, &inputs, &keeps, output, move |kept, dy, mut slots| {
            let db = slots.split_off(1 + outputs.len());
            let dw = slots.split_off(1);
            let (Some((x, weights)), Some(dx)) = (kept.split_first(), slots.pop()) else { return Ok(()) };
            backward(precision, x, weights, &outputs, &dy, dx, dw.into_iter().zip(db).collect())
        }))
    }
}

/// One or more layers over one input, their operands row-major.
pub(super) struct Layers {
    x: Tensor,
    layers: Vec<Layer>,
    pub(super) precision: Precision,
}

struct Layer {
    weight: Tensor,
    bias: Tensor,
    /// Where no graph is recorded: the weight as the product reads it. It is made once, and stays with the weight.
    packed: Option<Arc<PackedMatrix>>,
}

impl Layers {
    pub(super) fn checked(op: &'static str, x: &Tensor, layers: &[(&Tensor, &Tensor)]) -> Result<Layers> {
        if x.rank() == 0 {
            return Err(Error::shape(op, "the input has no dimension", &[("input", x.shape())]));
        }
        for (weight, bias) in layers {
            let operands = [("input", x), ("weight", *weight), ("bias", *bias)];
            alike(op, &operands)?;
            let operands = operands.map(|(name, tensor)| (name, tensor.shape()));
            if weight.rank() != 2 || weight.size(1) != x.width() {
                let reason = format!("the weight must be [outputs, {}] for an input of width {0}", x.width());
                return Err(Error::shape(op, reason, &operands));
            }
            if bias.shape() != [weight.size(0)] {
                return Err(Error::shape(op, format!("the bias must be [{}]", weight.size(0)), &operands));
            }
        }
        let precision = Precision::current();
        let recorded = is_recorded(&[x]) || layers.iter().any(|(weight, bias)| is_recorded(&[weight, bias]));
        if recorded && precision == Precision::Int8 {
            let reason = "an input requires a gradient, and int8 is for answering only: use no_grad, or bf16";
            return Err(Error::gradient(op, reason));
        }
        let layer = |(weight, bias): &(&Tensor, &Tensor)| {
            let (weight, bias) = (weight.values()?, bias.values()?);
            let packed = if recorded { None } else { packed(&weight, precision) };
            Ok(Layer { weight, bias, packed })
        };
        let layers = layers.iter().map(layer).collect::<Result<Vec<_>>>()?;
        Ok(Layers { x: x.values()?, layers, precision })
    }

    pub(super) fn output_shape(&self) -> Vec<usize> {
        let mut shape = self.x.shape().to_vec();
        if let Some(last) = shape.last_mut() {
            *last = self.layers.iter().map(|layer| layer.weight.size(0)).sum();
        }
        shape
    }

    /// `to` [rows, all outputs] = the products, with an epilogue that each layer's bias goes into; each layer writes
    /// its columns.
    pub(super) fn multiply<'a, T: Real + Element>(
        &'a self,
        to: &mut [T],
        mut epilogue: impl FnMut(&'a [T]) -> Epilogue<'a, T>,
    ) {
        let (rows, inputs) = rows_and_width(self.x.shape());
        if rows == 0 {
            return;
        }
        let x = View::rows(self.x.slice::<T>(), rows, inputs);
        let (width, mut start) = (to.len() / rows, 0);
        for Layer { weight, bias, packed } in &self.layers {
            let outputs = weight.size(0);
            let weight = View::rows(weight.slice::<T>(), outputs, inputs).transposed();
            let product = Gemm::new(x, weight).packed(packed.as_deref()).precision(self.precision);
            let product = product.epilogue(epilogue(bias.slice()));
            product.write_to(ViewMut::new(&mut to[start..], rows, outputs, width, 1));
            start += outputs;
        }
    }

    pub(super) fn forward(&self, op: &'static str) -> Result<Tensor> {
        float!(op, self.x.dtype(), T => {
            Tensor::build(op, &self.output_shape(), &self.x.device(), |to: &mut [T]| self.multiply(to, Epilogue::Bias))
        })
    }

    #[cfg(feature = "cuda")]
    fn cuda(&self, gelu: Option<Gelu>) -> cuda::linear::Linear<'_> {
        let layers = self.layers.iter().map(|layer| (&layer.weight, &layer.bias)).collect();
        cuda::linear::Linear { x: &self.x, layers, gelu, precision: self.precision }
    }

    /// On a GPU, with GELU of the only layer where it is given. `inputs` are x, the weights and the biases.
    #[cfg(feature = "cuda")]
    fn on_cuda(&self, op: &'static str, inputs: &[&Tensor], gelu: Option<Gelu>) -> Result<Tensor> {
        let (output, kept) = self.cuda(gelu).forward(op, &self.output_shape(), is_recorded(inputs))?;
        let count = self.layers.len();
        Ok(differentiable_many(op, inputs, &[], output, move |_, dy, mut slots| {
            let db = slots.split_off(1 + count);
            let dw = slots.split_off(1);
            let Some(dx) = slots.pop() else { return Ok(()) };
            kept.backward(op, dy, dx, dw.into_iter().zip(db))
        }))
    }

    /// On a GPU, with GELU of the only layer and `outer` behind it, where a gradient is wanted. `inputs` are x and each layer's
    /// weight and bias.
    #[cfg(feature = "cuda")]
    pub(super) fn feed_forward_on_cuda(
        &self,
        op: &'static str,
        inputs: [&Tensor; 5],
        gelu: Gelu,
        outer: (&Tensor, &Tensor),
    ) -> Result<Tensor> {
        let (hidden, inner) = self.cuda(Some(gelu)).forward(op, &self.output_shape(), true)?;
        let outer = Layers::checked(op, &hidden, &[outer])?;
        let (output, outer) = outer.cuda(None).forward(op, &outer.output_shape(), true)?;
        let kept = cuda::linear::FeedForward { inner, outer };
        Ok(differentiable(op, inputs, [], output, move |[], dy, slots| kept.backward(op, dy, slots)))
    }
}

/// The packed form of a weight; `None` where it is only a part of its memory, as the parameters of a model in training are.
fn packed(weight: &Tensor, precision: Precision) -> Option<Arc<PackedMatrix>> {
    let &[outputs, inputs] = weight.shape() else { return None };
    if weight.dtype() != DType::F32 {
        return None;
    }
    let make = || PackedMatrix::new(weight.slice(), outputs, inputs, precision);
    weight.storage().derive(4 * weight.elements(), |packed: &PackedMatrix| packed.is_for(precision), make)
}

/// `parameters` are the slots of each layer's weight and bias. `x` is there where a weight's gradient is wanted, the weights
/// where that of `x` is.
pub(super) fn backward(
    precision: Precision,
    x: &Tensor,
    weights: &[Tensor],
    outputs: &[usize],
    dy: &Tensor,
    dx: Slot<'_>,
    parameters: Vec<(Slot<'_>, Slot<'_>)>,
) -> Result<()> {
    let x = x.contiguous()?;
    let (rows, width) = rows_and_width(dy.shape());
    let mut dx: Option<Destination<'_>> = dx.open()?;
    let mut start = 0;
    float!("linear", dy.dtype(), T => {
        for (at, ((weight, &outputs), (dw, db))) in weights.iter().zip(outputs).zip(parameters).enumerate() {
            let data = dy.slice::<T>().get(start..).unwrap_or_default();
            let columns = View::new(data, rows, outputs, width, 1);
            if let Some(dx) = &mut dx {
                let (weight, inputs) = (weight.contiguous()?, weight.width());
                let dx = dx.target::<T>();
                let product = Gemm::new(columns, View::rows(weight.slice::<T>(), outputs, inputs));
                let product = product.precision(precision).accumulate(dx.accumulate || at > 0);
                product.write_to(ViewMut::rows(dx.data, rows, inputs));
            }
            let mut db = db.open()?;
            let db = db.as_mut().map(Destination::target);
            if let Some(mut dw) = dw.open()? {
                let (dw, inputs) = (dw.target::<T>(), x.width());
                let product = Gemm::new(columns.transposed(), View::rows(x.slice::<T>(), rows, inputs));
                let product = product.precision(precision).accumulate(dw.accumulate).for_later().row_sums(db);
                product.write_to(ViewMut::rows(dw.data, outputs, inputs));
            } else if let Some(db) = db {
                column_sums(data, rows, width, db);
            }
            start += outputs;
        }
    });
    Ok(())
}

#[cfg(test)]
pub(super) fn cases(cases: &mut crate::conformance::Cases) {
    use crate::conformance::normal;
    let layer = |x: &[usize], out: usize| [normal(x), normal(&[out, x[x.len() - 1]]), normal(&[out])];
    cases.add("linear", "5x7 to 3", layer(&[5, 7], 3), |x| x[0].linear(&x[1], &x[2]));
    cases.add("linear", "vector", layer(&[7], 3), |x| x[0].linear(&x[1], &x[2]));
    cases.add("linear", "batch", layer(&[2, 3, 17], 33), |x| x[0].linear(&x[1], &x[2]));
    cases.add("linear", "no rows", layer(&[0, 4], 3), |x| x[0].linear(&x[1], &x[2]));
    cases.add("linear", "large", layer(&[70, 64], 48), |x| x[0].linear(&x[1], &x[2]));
    cases.add("linear_gelu", "erf", layer(&[5, 7], 19), |x| x[0].linear_gelu(&x[1], &x[2], Gelu::Erf));
    cases.add("linear_gelu", "tanh", layer(&[5, 7], 19), |x| x[0].linear_gelu(&x[1], &x[2], Gelu::Tanh));
    let [x, w, b] = layer(&[6, 5], 4);
    let three = [x, w.clone(), b.clone(), w.clone(), b.clone(), w, b];
    cases.add("projections", "three", three, |x| x[0].projections(&[(&x[1], &x[2]), (&x[3], &x[4]), (&x[5], &x[6])]));
}

#[cfg(test)]
mod tests {
    use crate::conformance::{assert_same_with_gradients, normal};
    use crate::{Device, Gelu, Precision, Result, Tensor, no_grad};

    fn leaf(rows: usize, columns: usize) -> Result<Tensor> {
        let number = |i: usize| ((i * 37 % 101) as f32 - 50.0) / 50.0;
        let numbers = (0..rows * columns).map(number).collect();
        Ok(Tensor::from_vec(numbers, &[rows, columns], &Device::Cpu)?.requires_grad())
    }

    #[test]
    fn int8_answers_and_does_not_learn() -> Result<()> {
        let (x, w, b) = (leaf(9, 64)?, leaf(40, 64)?, leaf(1, 40)?.reshape(&[40])?);
        let Err(error) = Precision::Int8.scope(|| x.linear(&w, &b)) else { panic!("accepted") };
        assert!(error.to_string().contains("int8 is for answering only: use no_grad, or bf16"), "{error}");
        let exact = no_grad(|| x.linear(&w, &b))?.to_vec::<f32>()?;
        for _ in 0..2 {
            let rounded = no_grad(|| Precision::Int8.scope(|| x.linear(&w, &b)))?.to_vec::<f32>()?;
            let error = rounded.iter().zip(&exact).fold(0f32, |worst, (a, b)| worst.max((a - b).abs()));
            assert!(error > 0.0 && error < 0.1, "{error}");
        }
        Ok(())
    }

    #[test]
    fn fused_equals_composed() {
        let inputs = [normal(&[5, 7]), normal(&[4, 7]), normal(&[4])];
        let composed = |x: &[Tensor]| x[0].matmul(&x[1].t()?)?.add(&x[2]);
        assert_same_with_gradients(&inputs, |x| x[0].linear(&x[1], &x[2]), composed);
        for gelu in [Gelu::Erf, Gelu::Tanh] {
            assert_same_with_gradients(&inputs, |x| x[0].linear_gelu(&x[1], &x[2], gelu), |x| composed(x)?.gelu(gelu));
        }
        assert_same_with_gradients(
            &inputs,
            |x| x[0].projections(&[(&x[1], &x[2]), (&x[1], &x[2])]),
            |x| Tensor::concat(&[&composed(x)?, &composed(x)?], 1),
        );
    }
}
