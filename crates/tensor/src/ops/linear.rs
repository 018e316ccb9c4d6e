//! Linear layers: y = x Wᵀ + b, with the bias and GELU fused, and several of them over one input.
//!
//! With dy the gradient of y: dx = dy W, dW = dyᵀ x, db = the column sums of dy. With GELU only the pre-activation
//! u = x Wᵀ + b is kept, and du = dy * gelu'(u).

use std::sync::Arc;

use crate::autograd::is_recorded;
use crate::cpu::Target;
use crate::cpu::column_sums::column_sums;
use crate::cpu::gemm::{Epilogue, Gemm, PackedMatrix, View, ViewMut};
use crate::cpu::unary::Function;
use crate::device::Device;
use crate::dispatch::{Float, Forward, TensorOp, apply_tensors};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::gelu::Gelu;
use crate::gradients::{Destination, Slot};
use crate::layout::rows_and_width;
use crate::precision::Precision;
use crate::tensor::Tensor;

impl Tensor {
    /// Computes `self Wᵀ + bias` for `self` [.., in], `weight` [out, in] and `bias` `[out]`: [.., out]. The parameters may be
    /// f32 if `self` is bf16 or f16; the result has the type of `self`.
    ///
    /// # Errors
    /// Returns an error if the shapes do not match.
    pub fn linear(&self, weight: &Tensor, bias: &Tensor) -> Result<Tensor> {
        apply_tensors(Linear::new("linear", None), vec![self, weight, bias])
    }

    /// Computes `gelu(self Wᵀ + bias)`: [`Tensor::linear`], then the activation.
    ///
    /// # Errors
    /// Returns an error if the shapes do not match.
    pub fn linear_gelu(&self, weight: &Tensor, bias: &Tensor, gelu: Gelu) -> Result<Tensor> {
        apply_tensors(Linear::new("linear_gelu", Some(gelu)), vec![self, weight, bias])
    }

    /// Computes several linear layers over one input, their outputs side by side: for `self` [.., in] and layers with
    /// `out` outputs each, [.., out + out + ..]. Query, key and value of attention.
    ///
    /// # Errors
    /// Returns an error if there are no layers or the shapes do not match.
    pub fn projections(&self, layers: &[(&Tensor, &Tensor)]) -> Result<Tensor> {
        const OP: &str = "projections";
        if layers.is_empty() {
            return Err(Error::invalid(OP, "no layers given"));
        }
        let parameters = layers.iter().flat_map(|&(weight, bias)| [weight, bias]);
        apply_tensors(Linear::new(OP, None), std::iter::once(self).chain(parameters).collect())
    }
}

/// Layers over one input: x, then the weight and the bias of each layer. GELU follows a single layer.
pub(crate) struct Linear {
    name: &'static str,
    pub(crate) gelu: Option<Gelu>,
    pub(crate) precision: Precision,
    /// The number of outputs of each layer.
    outputs: Vec<usize>,
}

impl Linear {
    fn new(name: &'static str, gelu: Option<Gelu>) -> Linear {
        Linear { name, gelu, precision: Precision::current(), outputs: Vec::new() }
    }
}

impl TensorOp for Linear {
    type Arity = Vec<()>;

    fn name(&self) -> &'static str {
        self.name
    }

    fn operands(&self) -> &[&'static str] {
        &["input", "weight", "bias"]
    }

    fn first_parameter(&self) -> usize {
        1
    }

    fn check(&self, inputs: Vec<&Tensor>) -> Result<()> {
        check(self.name, self.precision, inputs[0], &inputs[1..])
    }

    fn forward<T: Float>(&mut self, inputs: Vec<&Tensor>, recorded: bool) -> Result<Forward> {
        let layers = Layers::new(self.precision, inputs[0], &inputs[1..], recorded)?;
        self.outputs = layers.outputs().collect();
        let shape = layers.output_shape();
        let (output, pre_activation) = match self.gelu {
            None => (
                Tensor::build(self.name, &shape, &Device::Cpu, |y: &mut [T]| layers.multiply(y, Epilogue::Bias))?,
                None,
            ),
            Some(gelu) if recorded => {
                let [u, y] = layers.multiply_gelu::<T>(self.name, gelu)?;
                (y, Some(u))
            }
            Some(gelu) => {
                let epilogue = |bias| Epilogue::BiasGelu(bias, gelu);
                (Tensor::build(self.name, &shape, &Device::Cpu, |y: &mut [T]| layers.multiply(y, epilogue))?, None)
            }
        };
        if !recorded {
            return Ok(Forward { output, kept: Vec::new() });
        }
        let weights: Vec<&Tensor> = inputs[1..].iter().step_by(2).copied().collect();
        let mut kept = vec![inputs[0].kept_if(weights.iter().any(|weight| weight.tracks_grad()))?];
        for weight in weights {
            kept.push(weight.kept_if(inputs[0].tracks_grad())?);
        }
        kept.extend(pre_activation);
        Ok(Forward { output, kept })
    }

    fn backward<T: Float>(self, kept: Vec<Tensor>, dy: Tensor, slots: Vec<Slot<'_>>) -> Result<()> {
        let (x, rest) = kept.split_first().unwrap_or_else(|| unreachable!("the input is always kept"));
        let (weights, pre_activation) = rest.split_at(self.outputs.len());
        let dy = match (self.gelu, pre_activation) {
            (Some(gelu), [u]) => {
                let (u, dy) = (u.slice::<T>(), dy.slice::<T>());
                Tensor::build(self.name, pre_activation[0].shape(), &Device::Cpu, |du: &mut [T]| {
                    Function::from(gelu).backward(u, dy, Target::new(du, false));
                })?
            }
            _ => dy,
        };
        let mut slots = slots.into_iter();
        let dx = slots.next().unwrap_or_else(|| unreachable!("the input comes first"));
        let parameters = std::iter::from_fn(|| Some((slots.next()?, slots.next()?))).collect();
        backward::<T>(self.precision, x, weights, &self.outputs, &dy, dx, parameters)
    }
}

/// Checks `x` and the weight and bias of each layer.
pub(super) fn check(op: &'static str, precision: Precision, x: &Tensor, parameters: &[&Tensor]) -> Result<()> {
    if x.rank() == 0 {
        return Err(Error::shape(op, "the input has no dimension", &[("input", x.shape())]));
    }
    for layer in parameters.chunks_exact(2) {
        let (weight, bias) = (layer[0], layer[1]);
        let operands = [("input", x.shape()), ("weight", weight.shape()), ("bias", bias.shape())];
        if weight.rank() != 2 || weight.size(1) != x.width() {
            let reason = format!("the weight must be [outputs, {}] for an input of width {0}", x.width());
            return Err(Error::shape(op, reason, &operands));
        }
        if bias.shape() != [weight.size(0)] {
            return Err(Error::shape(op, format!("the bias must be [{}]", weight.size(0)), &operands));
        }
    }
    if precision == Precision::Int8 && (is_recorded(&[x]) || is_recorded(parameters)) {
        let reason = "an input requires a gradient, and int8 is for inference only: use no_grad, or bf16";
        return Err(Error::gradient(op, reason));
    }
    Ok(())
}

/// One or more layers over one input, their operands row-major.
pub(super) struct Layers {
    x: Tensor,
    layers: Vec<Layer>,
    precision: Precision,
}

struct Layer {
    weight: Tensor,
    bias: Tensor,
    /// The weight in the order in which the product reads it, if no graph is recorded: packed once, and cached with the
    /// weight's memory.
    packed: Option<Arc<PackedMatrix>>,
}

impl Layers {
    /// Prepares layers that [`check`] accepted.
    pub(super) fn new(precision: Precision, x: &Tensor, parameters: &[&Tensor], recorded: bool) -> Result<Layers> {
        let layer = |layer: &[&Tensor]| {
            let (weight, bias) = (layer[0].values()?, layer[1].values()?);
            let packed = if recorded { None } else { packed(&weight, precision) };
            Ok(Layer { weight, bias, packed })
        };
        let layers = parameters.chunks_exact(2).map(layer).collect::<Result<Vec<_>>>()?;
        Ok(Layers { x: x.values()?, layers, precision })
    }

    fn outputs(&self) -> impl Iterator<Item = usize> {
        self.layers.iter().map(|layer| layer.weight.size(0))
    }

    pub(super) fn output_shape(&self) -> Vec<usize> {
        let mut shape = self.x.shape().to_vec();
        if let Some(last) = shape.last_mut() {
            *last = self.outputs().sum();
        }
        shape
    }

    /// Writes the products to `to` [rows, all outputs], with an epilogue made from each layer's bias; each layer writes
    /// its columns.
    pub(super) fn multiply<'a, T: Float>(&'a self, to: &mut [T], mut epilogue: impl FnMut(&'a [T]) -> Epilogue<'a, T>) {
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
            product.write_to(ViewMut::new(&mut to[start..], rows, outputs, width));
            start += outputs;
        }
    }

    /// Computes the pre-activation of a single layer and GELU of it, in one pass.
    pub(super) fn multiply_gelu<T: Float>(&self, op: &'static str, gelu: Gelu) -> Result<[Tensor; 2]> {
        let shape = self.output_shape();
        Tensor::build_all(op, [&shape[..], &shape], |[u, y]: [&mut [T]; 2]| {
            let mut y = Some(y);
            self.multiply(u, |bias| Epilogue::BiasAndGelu(bias, gelu, y.take().unwrap_or_default()));
        })
    }
}

/// The packed form of a weight; `None` if it is only a part of its memory, as the parameters of a model in training are.
fn packed(weight: &Tensor, precision: Precision) -> Option<Arc<PackedMatrix>> {
    let &[outputs, inputs] = weight.shape() else { return None };
    if weight.dtype() != DType::F32 {
        return None;
    }
    let make = || PackedMatrix::new(weight.slice(), outputs, inputs, precision);
    weight.storage().derive(4 * weight.elements(), |packed: &PackedMatrix| packed.is_in(precision), make)
}

/// Writes the gradients of layers. `parameters` are the slots of each layer's weight and bias. `x` is only read if a
/// weight needs a gradient, the weights only if `x` does.
pub(super) fn backward<T: Float>(
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
    Ok(())
}

#[cfg(test)]
pub(super) fn cases(cases: &mut crate::conformance::Cases) {
    use crate::conformance::normal;
    let layer =
        |x: &[usize], out: usize| [normal(x), normal(&[out, x[x.len() - 1]]).parameter(), normal(&[out]).parameter()];
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
    use crate::autograd::no_grad;
    use crate::conformance::{assert_same_with_gradients, normal};
    use crate::device::Device;
    use crate::error::Result;
    use crate::gelu::Gelu;
    use crate::precision::Precision;
    use crate::tensor::Tensor;

    fn leaf(rows: usize, columns: usize) -> Result<Tensor> {
        let number = |i: usize| ((i * 37 % 101) as f32 - 50.0) / 50.0;
        let numbers = (0..rows * columns).map(number).collect();
        Ok(Tensor::from_vec(numbers, &[rows, columns], &Device::Cpu)?.requires_grad())
    }

    #[test]
    fn int8_answers_and_does_not_learn() -> Result<()> {
        let (x, w, b) = (leaf(9, 64)?, leaf(40, 64)?, leaf(1, 40)?.reshape(&[40])?);
        let Err(error) = Precision::Int8.scope(|| x.linear(&w, &b)) else { panic!("accepted") };
        assert!(error.to_string().contains("int8 is for inference only: use no_grad, or bf16"), "{error}");
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
