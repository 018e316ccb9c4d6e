//! Linear layers: several over one input, and two with GELU between them. Operands that are multiplied in a narrower type
//! are rounded once; in bf16, layers over bf16 write their outputs and the gradient of their input in it, and between two layers
//! everything is bf16. On tensor cores, the product that is the gradient of a weight also sums that of the bias. The products are
//! in `gemm`.

use super::arguments::{check_f32, check_float, device_of, fresh, place, pointer};
use super::column_sums::{Rows, add_rows};
use super::elementwise::unary_backward;
use super::gemm::{Epilogue, Saved, are_bf16, is_bf16, is_whole, multiply, sums_rows};
use super::operand::{Matrix, Operand};
use super::stacked::stack_of;
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
        if let (Some(gelu), true, [weight, bias], DType::BF16) = (self.gelu, recorded, parameters, x.dtype()) {
            // In bf16, a product stores GELU's derivative in a form that only the backward of another product reads.
            return Ok(GpuOutput::Composed(x.linear(weight, bias)?.gelu(gelu)?));
        }
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
            let dy = OutputGradient::new(op, precision, dy)?;
            let (Some((saved, gelu)), [weight]) = (inner.saved.take(), &outer.weights[..]) else { return Ok(()) };
            let du = fresh(op, hidden.shape(), hidden.dtype(), &device_of(op, &hidden)?)?;
            let epilogue = Epilogue::GeluGradient(&saved, gelu);
            multiply(op, precision, dy.rounded.matrix(), weight.matrix(), Matrix::of(&du), epilogue, false)?;
            drop((saved, hidden));
            outer.multiply(op, &dy, dx.none(), std::iter::once((dw2, db2)))?;
            drop(dy);
            inner.multiply(op, &OutputGradient::new(op, precision, du)?, dx, std::iter::once((dw1, db1)))
        }))
    }
}

/// Layers over one input. GELU follows a single layer.
struct Layers {
    precision: Precision,
    gelu: Option<Gelu>,
    /// The type of the outputs.
    dtype: DType,
}

/// The tensors that the backward reads: input and weights, in the type in which they are multiplied, and what the derivative of GELU
/// is known from.
struct Kept {
    x: Operand,
    /// One for each layer, or a stack of all.
    weights: Vec<Operand>,
    /// The number of outputs of each layer.
    outputs: Vec<usize>,
    saved: Option<(Saved, Gelu)>,
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
        let saved = match self.gelu {
            Some(gelu) if recorded => Some((Saved::fresh(op, &output)?, gelu)),
            _ => None,
        };
        let x = Operand::of(op, precision, &x)?;
        let outputs = parameters.iter().step_by(2).map(|weight| weight.size(0)).collect();
        let weights = parameters.iter().step_by(2).map(|weight| Operand::of_weight(op, precision, weight));
        let mut weights = weights.collect::<Result<Vec<_>>>()?;
        let biases = parameters.iter().skip(1).step_by(2).map(|bias| bias.values()).collect::<Result<Vec<_>>>()?;
        let of_weights: Vec<&Tensor> = weights.iter().map(|weight| &weight.tensor).collect();
        // Operands in f16 have a scale each, and those in f32 no kernel for stacks.
        if let Some(stack) = stack_of(&of_weights, &biases.iter().collect::<Vec<_>>())
            && of_weights[0].dtype() == DType::BF16
        {
            let layers = weights.len();
            weights = weights.into_iter().take(1).map(|first| first.stacked(layers, stack)).collect();
        }
        let mut start = 0;
        for (weight, bias) in weights.iter().zip(&biases) {
            let epilogue = match self.gelu {
                Some(gelu) => Epilogue::BiasGelu(bias, saved.as_ref().map(|(saved, _)| saved), gelu),
                None => Epilogue::Bias(bias),
            };
            let columns = Matrix::of(&output).columns(start, weight.matrix().rows);
            multiply(op, precision, x.matrix(), weight.matrix().transposed(), columns, epilogue, false)?;
            start += weight.matrix().rows;
        }
        Ok((output, Kept { x, weights, outputs, saved, precision }))
    }
}

/// The gradient of outputs.
struct OutputGradient {
    dy: Tensor,
    rounded: Operand,
}

impl OutputGradient {
    fn new(op: &'static str, precision: Precision, dy: Tensor) -> Result<OutputGradient> {
        let rounded = Operand::of(op, precision, &dy)?;
        Ok(OutputGradient { dy, rounded })
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
        let dy = match &self.saved {
            Some((Saved::Input(u), gelu)) => {
                let du = fresh(op, dy.shape(), dy.dtype(), &device_of(op, &dy)?)?;
                unary_backward(op, Function::from(*gelu) as i32, 0.0, u, &dy, &du, false)?;
                du
            }
            _ => dy,
        };
        let gradient = OutputGradient::new(op, self.precision, dy)?;
        self.multiply(op, &gradient, dx, parameters)
    }

    /// As [`Kept::backward`], from the gradient of the outputs before GELU.
    fn multiply<'a>(
        self,
        op: &'static str,
        gradient: &OutputGradient,
        dx: Slot<'a>,
        parameters: impl Iterator<Item = (Slot<'a>, Slot<'a>)>,
    ) -> Result<()> {
        let Kept { x, weights, outputs, precision, .. } = self;
        let rounded = &gradient.rounded;
        if let Some(mut dx) = dx.open()? {
            let mut start = 0;
            for weight in &weights {
                let of_layer = rounded.matrix().columns(start, weight.matrix().rows);
                let (add, to) = (dx.accumulates() || start > 0, Matrix::of(dx.tensor()));
                multiply(op, precision, of_layer, weight.matrix(), to, Epilogue::Plain, add)?;
                start += weight.matrix().rows;
            }
        }
        drop(weights);
        let (of_weights, of_biases): (Vec<_>, Vec<_>) = parameters.unzip();
        let open = |slots: Vec<Slot<'a>>| slots.into_iter().map(Slot::open).collect::<Result<Vec<_>>>();
        let (mut of_weights, mut of_biases) = (open(of_weights)?, open(of_biases)?);
        let layers = ParameterGradients { op, precision, gradient, x: x.matrix() };
        if layers.write_stack(&mut of_weights, &mut of_biases)? {
            return Ok(());
        }
        let mut start = 0;
        for ((of_weight, of_bias), outputs) in of_weights.iter_mut().zip(&mut of_biases).zip(outputs) {
            layers.write(start, outputs, place(of_weight), place(of_bias))?;
            start += outputs;
        }
        Ok(())
    }
}

/// The inputs from which the gradients of the layers' parameters are computed.
struct ParameterGradients<'a> {
    op: &'static str,
    precision: Precision,
    gradient: &'a OutputGradient,
    x: Matrix<'a>,
}

impl ParameterGradients<'_> {
    /// Writes the gradients of the weight and the bias of a layer, or adds them, with the `outputs` columns from `start` on.
    fn write(
        &self,
        start: usize,
        outputs: usize,
        of_weight: Option<(&Tensor, bool)>,
        of_bias: Option<(&Tensor, bool)>,
    ) -> Result<()> {
        let &ParameterGradients { op, precision, gradient: OutputGradient { dy, rounded }, x } = self;
        let of_layer = rounded.matrix().columns(start, outputs).transposed();
        let sums_rows = of_weight.is_some() && sums_rows(op, precision, of_layer, x)?;
        if let Some((to, add)) = of_weight {
            let epilogue = match of_bias.filter(|_| sums_rows) {
                Some((to, add)) => Epilogue::RowSums(pointer(to), add),
                None => Epilogue::Plain,
            };
            multiply(op, precision, of_layer, x, Matrix::of(to), epilogue, add)?;
        }
        match of_bias.filter(|_| !sums_rows) {
            Some((to, add)) => {
                let rows = Rows::of(dy).columns(start, outputs);
                add_rows(op, &device_of(op, dy)?, rows, pointer(to), Accumulate::gradient(add))
            }
            None => Ok(()),
        }
    }

    /// Writes the gradients of several layers by one product, if their places are a stack. Returns whether they are.
    fn write_stack(
        &self,
        of_weights: &mut [Option<Destination<'_>>],
        of_biases: &mut [Option<Destination<'_>>],
    ) -> Result<bool> {
        fn places<'d>(gradients: &'d mut [Option<Destination<'_>>]) -> Option<(Vec<&'d Tensor>, bool)> {
            let (places, adds): (Vec<_>, Vec<_>) =
                gradients.iter_mut().map(place).collect::<Option<Vec<_>>>()?.into_iter().unzip();
            let first = *adds.first()?;
            adds.iter().all(|&add| add == first).then_some((places, first))
        }
        let &ParameterGradients { op, precision, gradient, x } = self;
        let dy = gradient.rounded.matrix().transposed();
        let (Some((weights, add)), Some((biases, add_biases))) = (places(of_weights), places(of_biases)) else {
            return Ok(false);
        };
        let Some(stack) = stack_of(&weights, &biases) else { return Ok(false) };
        if !sums_rows(op, precision, dy, x)? || !is_whole(dy.rows, x.columns, dy.columns) {
            return Ok(false);
        }
        let to = Matrix::of(weights[0]).stacked(weights.len(), stack);
        multiply(op, precision, dy, x, to, Epilogue::RowSums(pointer(biases[0]), add_biases), add)?;
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use crate::conformance::normal;
    use crate::device::Device;
    use crate::dtype::DType;
    use crate::error::Result;
    use crate::gelu::Gelu;
    use crate::gradients::Gradients;
    use crate::precision::Precision;
    use crate::profile::profile;
    use crate::tensor::Tensor;

    /// The parameters of a feed-forward network and its input; inner weight, inner bias, outer weight, outer bias, x.
    const SHAPES: [&[usize]; 5] = [&[160, 24], &[160], &[40, 160], &[40], &[140, 24]];

    /// The gradients of those inputs that `needs` names, after two passes that add up, and the kernels that were launched.
    fn gradients(device: &Device, dtype: DType, needs: [bool; 5]) -> Result<(Vec<Vec<f32>>, Vec<&'static str>)> {
        let leaf = |(shape, needs): (&&[usize], bool)| -> Result<Tensor> {
            let is_parameter = shape != &SHAPES[4];
            let dtype = if is_parameter && dtype == DType::BF16 { DType::F32 } else { dtype };
            // Sums of many products stay of the size of one.
            let scale = if shape.len() == 2 && is_parameter { 0.2 } else { 1.0 };
            let tensor = normal(shape).tensor().mul_scalar(scale)?.to_dtype(dtype)?.to_device(device)?;
            Ok(if needs { tensor.requires_grad() } else { tensor })
        };
        let leaves = SHAPES.iter().zip(needs).map(leaf).collect::<Result<Vec<_>>>()?;
        let [w1, b1, w2, b2, x] = &leaves[..] else { unreachable!("there are five shapes") };
        let dy = normal(&[140, 40]).tensor().to_dtype(dtype)?.to_device(device)?;
        let precision = if dtype == DType::BF16 { Precision::Bf16 } else { Precision::F32 };
        let mut found = Gradients::new();
        let (done, profile) = profile(|| -> Result<()> {
            for _ in 0..2 {
                let y = precision.scope(|| x.feed_forward((w1, b1), Gelu::Erf, (w2, b2)))?;
                y.backward_with(&dy, &mut found)?;
            }
            Ok(())
        });
        done?;
        let values = leaves.iter().filter_map(|leaf| found.get(leaf));
        let values = values.map(|gradient| gradient.to_dtype(DType::F32)?.to_vec()).collect::<Result<_>>()?;
        Ok((values, profile.kernels().iter().map(|kernel| kernel.name).collect()))
    }

    #[test]
    fn a_gpu_sums_the_gradients_of_biases_in_products() -> Result<()> {
        let Ok(gpu) = Device::cuda(0) else { return Ok(()) };
        if !gpu.supports(Precision::Bf16) {
            return Ok(());
        }
        let [all, biases] = [[true; 5], [false, true, false, true, false]];
        for needs in [all, biases] {
            let (expected, _) = gradients(&Device::Cpu, DType::F64, needs)?;
            let (found, kernels) = gradients(&gpu, DType::BF16, needs)?;
            for (found, expected) in found.iter().zip(&expected) {
                let largest = expected.iter().fold(0f32, |largest, x| largest.max(x.abs()));
                let worst = found.iter().zip(expected).fold(0f32, |worst, (a, b)| worst.max((a - b).abs()));
                assert!(found.len() == expected.len() && worst < 1e-2 * largest, "{worst} of {largest}");
            }
            // Without the gradient of a weight there is no product that could sum.
            assert_eq!(kernels.iter().any(|name| name.starts_with("column_sums")), needs == biases, "{kernels:?}");
            assert_eq!(gradients(&gpu, DType::BF16, needs)?.0, found);
        }
        Ok(())
    }
}
