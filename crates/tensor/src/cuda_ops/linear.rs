//! Linear layers: several over one input, and two with GELU between them. Operands that are multiplied in a narrower type
//! are rounded once; in bf16, layers over bf16 write their outputs and the gradient of their input in it, and between two layers
//! everything is bf16. The products are in `gemm`.

use super::arguments::{check_f32, check_float, device_of, fresh, place, pointer, write_gradient};
use super::column_sums::{Rows, add_rows, summed_to_few};
use super::elementwise::unary_backward;
use super::gemm::{Epilogue, are_bf16, gelu_gradient, is_bf16, multiply};
use super::operand::{Matrix, Operand};
use super::stacked::{as_one_layer, stacked};
use crate::copy;
use crate::cpu::unary::Function;
use crate::cuda::Accumulate;
use crate::dispatch::TensorOp;
use crate::dispatch::gpu::{CudaOp, GpuOutput};
use crate::dtype::DType;
use crate::error::Result;
use crate::gelu::Gelu;
use crate::gradients::{Destination, Slot};
use crate::ops::feed_forward::FeedForward;
use crate::ops::linear::Linear;
use crate::precision::Precision;
use crate::tensor::Tensor;

impl CudaOp for Linear {
    type Arity = Vec<()>;

    fn reads_bf16(&self, inputs: &[&Tensor]) -> bool {
        are_bf16(self.name(), self.precision, inputs)
    }

    fn forward(&self, inputs: Vec<&Tensor>, recorded: bool) -> Result<GpuOutput> {
        let (op, x, parameters) = (self.name(), inputs[0], &inputs[1..]);
        check_f32(op, parameters)?;
        check_float(op, x)?;
        let layers = Layers { precision: self.precision, gelu: self.gelu, dtype: x.dtype() };
        let (output, kept) = layers.forward(op, x, parameters, recorded)?;
        Ok(GpuOutput::of_any(output, move |dy, slots| {
            let mut slots = slots.into_iter();
            let dx = slots.next().unwrap_or_else(|| unreachable!("the input comes first"));
            let parameters = std::iter::from_fn(|| Some((slots.next()?, slots.next()?)));
            kept.backward(op, dy, dx, parameters)
        }))
    }
}

impl CudaOp for FeedForward {
    type Arity = [(); 5];

    fn reads_bf16(&self, inputs: &[&Tensor]) -> bool {
        are_bf16(self.name(), self.precision, inputs)
    }

    fn forward(&self, [x, w1, b1, w2, b2]: [&Tensor; 5], recorded: bool) -> Result<GpuOutput> {
        let (op, precision) = (self.name(), self.precision);
        check_f32(op, &[w1, b1, w2, b2])?;
        check_float(op, x)?;
        let dtype = x.dtype();
        let sizes = [x, w1, w2].map(Tensor::elements);
        // Only products and GELU read what lies between the two products.
        let between = if is_bf16(precision, &sizes, &device_of(op, x)?) { DType::BF16 } else { dtype };
        let layers = Layers { precision, gelu: Some(self.gelu), dtype: between };
        let (hidden, mut inner) = layers.forward(op, x, &[w1, b1], recorded)?;
        let layers = Layers { precision, gelu: None, dtype };
        let (output, outer) = layers.forward(op, &hidden, &[w2, b2], recorded)?;
        Ok(GpuOutput::new(output, move |dy, [dx, dw1, db1, dw2, db2]| {
            let dy = OutputGradient::new(op, precision, dy, None)?;
            let (Some((u, gelu)), [weight]) = (inner.pre_activation.take(), &outer.weights[..]) else { return Ok(()) };
            let (du, sums) = gelu_gradient(op, precision, dy.rounded.matrix(), weight.matrix(), (&u, gelu))?;
            drop(u);
            outer.multiply(op, &dy, dx.none(), std::iter::once((dw2, db2)))?;
            drop(dy);
            let du = OutputGradient::new(op, precision, du, sums)?;
            inner.multiply(op, &du, dx, std::iter::once((dw1, db1)))
        }))
    }
}

/// Layers over one input. GELU follows a single layer.
struct Layers {
    precision: Precision,
    gelu: Option<Gelu>,
    /// The type of the outputs, and of the pre-activation.
    dtype: DType,
}

/// The tensors that the backward reads: input and weights, in the type in which they are multiplied, and the
/// pre-activation.
struct Kept {
    x: Operand,
    /// One for each layer, or one for all.
    weights: Vec<Operand>,
    /// The number of outputs of each layer.
    outputs: Vec<usize>,
    pre_activation: Option<(Tensor, Gelu)>,
    precision: Precision,
}

impl Layers {
    /// Computes the outputs side by side, from x and each layer's weight and bias.
    fn forward(&self, op: &'static str, x: &Tensor, parameters: &[&Tensor], recorded: bool) -> Result<(Tensor, Kept)> {
        let precision = self.precision;
        let (device, x) = (device_of(op, x)?, x.values()?);
        let mut shape = x.shape().to_vec();
        if let Some(last) = shape.last_mut() {
            *last = parameters.chunks_exact(2).map(|layer| layer[0].size(0)).sum();
        }
        let output = fresh(op, &shape, self.dtype, &device)?;
        let u = match self.gelu {
            Some(gelu) if recorded => Some((fresh(op, &shape, self.dtype, &device)?, gelu)),
            _ => None,
        };
        let x = Operand::of(op, precision, &x)?;
        let outputs = parameters.iter().step_by(2).map(|weight| weight.size(0)).collect();
        let weights = parameters.iter().step_by(2).map(|weight| Operand::of_weight(op, precision, weight));
        let mut weights = weights.collect::<Result<Vec<_>>>()?;
        let mut biases = parameters.iter().skip(1).step_by(2).map(|bias| bias.values()).collect::<Result<Vec<_>>>()?;
        if let Some((weight, bias)) = as_one_layer(op, &weights, &biases)? {
            (weights, biases) = (vec![weight], vec![bias]);
        }
        let mut start = 0;
        for (weight, bias) in weights.iter().zip(&biases) {
            let epilogue = match self.gelu {
                Some(gelu) => Epilogue::BiasGelu(bias, u.as_ref().map(|(u, _)| u), gelu),
                None => Epilogue::Bias(bias),
            };
            let columns = Matrix::of(&output).columns(start, weight.matrix().rows);
            multiply(op, precision, x.matrix(), weight.matrix().transposed(), columns, epilogue, false)?;
            start += weight.matrix().rows;
        }
        Ok((output, Kept { x, weights, outputs, pre_activation: u, precision }))
    }
}

/// The gradient of outputs.
struct OutputGradient {
    dy: Tensor,
    rounded: Operand,
    /// Parts of the sums of its columns, if they are known: they add up to the gradient of the bias.
    sums: Option<Tensor>,
}

impl OutputGradient {
    fn new(op: &'static str, precision: Precision, dy: Tensor, sums: Option<Tensor>) -> Result<OutputGradient> {
        let rounded = Operand::of(op, precision, &dy)?;
        Ok(OutputGradient { dy, rounded, sums })
    }
}

impl Kept {
    /// Writes the gradients of the input and of each layer's weight and bias, given that of the outputs.
    fn backward<'a>(
        self,
        op: &'static str,
        dy: Tensor,
        dx: Slot<'a>,
        parameters: impl Iterator<Item = (Slot<'a>, Slot<'a>)>,
    ) -> Result<()> {
        let dy = match &self.pre_activation {
            Some((u, gelu)) => {
                let du = fresh(op, dy.shape(), dy.dtype(), &device_of(op, &dy)?)?;
                unary_backward(op, Function::from(*gelu) as i32, 0.0, u, &dy, &du, false)?;
                du
            }
            None => dy,
        };
        let gradient = OutputGradient::new(op, self.precision, dy, None)?;
        self.multiply(op, &gradient, dx, parameters)
    }

    /// As [`Kept::backward`], from the gradient of the pre-activation.
    fn multiply<'a>(
        self,
        op: &'static str,
        OutputGradient { dy, rounded, sums }: &OutputGradient,
        dx: Slot<'a>,
        parameters: impl Iterator<Item = (Slot<'a>, Slot<'a>)>,
    ) -> Result<()> {
        let Kept { x, weights, outputs, precision, .. } = self;
        if let Some(mut dx) = dx.open()? {
            let mut start = 0;
            for weight in &weights {
                let of_layer = rounded.matrix().columns(start, weight.matrix().rows);
                let (add, to) = (dx.accumulates() || start > 0, Matrix::of(dx.tensor()));
                multiply(op, precision, of_layer, weight.matrix(), to, Epilogue::Plain, add)?;
                start += weight.matrix().rows;
            }
        }
        let is_one = weights.len() < outputs.len();
        drop(weights);
        let (of_weights, of_biases): (Vec<_>, Vec<_>) = parameters.unzip();
        write_bias_gradients(op, sums.as_ref().unwrap_or(dy), &outputs, of_biases)?;
        let mut of_weights = of_weights.into_iter().map(Slot::open).collect::<Result<Vec<_>>>()?;
        let product = |of_layer: Matrix<'_>, to: &Tensor, add: bool| {
            multiply(op, precision, of_layer.transposed(), x.matrix(), Matrix::of(to), Epilogue::Plain, add)
        };
        if is_one && write_together(op, &mut of_weights, |to| product(rounded.matrix(), to, false))? {
            return Ok(());
        }
        let mut start = 0;
        for (of_weight, outputs) in of_weights.iter_mut().zip(outputs) {
            if let Some((to, add)) = place(of_weight) {
                product(rounded.matrix().columns(start, outputs), to, add)?;
            }
            start += outputs;
        }
        Ok(())
    }
}

/// Writes the gradients of the biases of layers, which are sums of the rows of `dy`.
fn write_bias_gradients(op: &'static str, dy: &Tensor, outputs: &[usize], slots: Vec<Slot<'_>>) -> Result<()> {
    let (device, rows) = (device_of(op, dy)?, Rows::of(dy));
    // The sums of several layers have their first step in common.
    let few = match slots.iter().filter(|slot| slot.is_needed()).count() {
        0 | 1 => None,
        _ => summed_to_few(op, &device, rows)?,
    };
    let (rows, mut start) = (few.as_ref().map_or(rows, Rows::of), 0);
    for (slot, &outputs) in slots.into_iter().zip(outputs) {
        let rows = rows.columns(start, outputs);
        write_gradient(slot, |to, add| add_rows(op, &device, rows, pointer(to), Accumulate::gradient(add)))?;
        start += outputs;
    }
    Ok(())
}

/// Computes the gradients of several weights as one matrix and copies it to their places, or adds it. Returns false if the places do
/// not lie equally far apart.
fn write_together(
    op: &'static str,
    gradients: &mut [Option<Destination<'_>>],
    multiply: impl FnOnce(&Tensor) -> Result<()>,
) -> Result<bool> {
    let Some(places) = gradients.iter_mut().map(place).collect::<Option<Vec<_>>>() else { return Ok(false) };
    let (tensors, adds): (Vec<_>, Vec<_>) = places.into_iter().unzip();
    let Some(to) = stacked(op, &tensors)? else { return Ok(false) };
    let &[layers, outputs, inputs] = to.shape() else { return Ok(false) };
    if adds.iter().any(|&add| add != adds[0]) {
        return Ok(false);
    }
    let product = fresh(op, &[layers * outputs, inputs], DType::F32, &device_of(op, &to)?)?;
    multiply(&product)?;
    let product = product.reshape(to.shape())?;
    let write = if adds[0] { copy::add } else { copy::copy };
    // SAFETY: the destinations, of which `to` is a view, hold their memory exclusively.
    unsafe { write(op, &product, &to)? };
    Ok(true)
}
