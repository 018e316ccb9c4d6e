//! Linear layers: several over one input, and two with GELU between them. Each operand is rounded once where products are in a
//! narrower type.

use super::elementwise::unary_backward;
use super::matmul::{Epilogue, Matrix, Operand, column_sums, gelu_gradient, multiply};
use crate::gradients::{Destination, Slot};
use crate::ops::Gelu;
use crate::tensor::Tensor;
use crate::{Precision, Result};

/// Layers over one input, and GELU of the only one of them.
pub(crate) struct Linear<'a> {
    pub(crate) x: &'a Tensor,
    /// Weights and biases.
    pub(crate) layers: Vec<(&'a Tensor, &'a Tensor)>,
    pub(crate) gelu: Option<Gelu>,
    pub(crate) precision: Precision,
}

/// What the gradients need: input and weights, as products read them, and the pre-activation.
pub(crate) struct Kept {
    x: Operand,
    weights: Vec<Operand>,
    pre_activation: Option<(Tensor, Gelu)>,
    precision: Precision,
}

impl Linear<'_> {
    /// The outputs side by side, of this shape, and what is kept for backward: all of it where that is `recorded`.
    pub(crate) fn forward(&self, op: &'static str, shape: &[usize], recorded: bool) -> Result<(Tensor, Kept)> {
        let (device, dtype, precision) = (self.x.device(), self.x.dtype(), self.precision);
        let output = Tensor::uninitialised(op, shape, dtype, &device)?;
        let u = match self.gelu {
            Some(gelu) if recorded => Some((Tensor::uninitialised(op, shape, dtype, &device)?, gelu)),
            _ => None,
        };
        let x = Operand::of(op, precision, self.x)?;
        let (mut weights, mut start) = (Vec::with_capacity(self.layers.len()), 0);
        for &(weight, bias) in &self.layers {
            let (weight, outputs) = (Operand::of(op, precision, weight)?, weight.size(0));
            let epilogue = match self.gelu {
                Some(gelu) => Epilogue::BiasGelu(bias, u.as_ref().map(|(u, _)| u), gelu),
                None => Epilogue::Bias(bias),
            };
            let columns = Matrix::of(&output).columns(start, outputs);
            multiply(op, precision, x.matrix(), weight.matrix().transposed(), columns, epilogue, false)?;
            start += outputs;
            weights.push(weight);
        }
        Ok((output, Kept { x, weights, pre_activation: u, precision }))
    }
}

/// The gradient of outputs.
struct OutputGradient {
    dy: Tensor,
    rounded: Operand,
    /// The sums of its columns, the gradient of a bias, where they are known.
    sums: Option<Tensor>,
}

impl OutputGradient {
    fn new(op: &'static str, precision: Precision, dy: Tensor, sums: Option<Tensor>) -> Result<OutputGradient> {
        let rounded = Operand::of(op, precision, &dy)?;
        Ok(OutputGradient { dy, rounded, sums })
    }
}

impl Kept {
    /// The gradients for that of the outputs, `dy`: of the input, and of each layer's weight and bias.
    pub(crate) fn backward<'a>(
        self,
        op: &'static str,
        dy: Tensor,
        dx: Slot<'a>,
        parameters: impl Iterator<Item = (Slot<'a>, Slot<'a>)>,
    ) -> Result<()> {
        let dy = match &self.pre_activation {
            Some((u, gelu)) => unary_backward(op, (*gelu).into(), u, &dy)?,
            None => dy,
        };
        let gradient = OutputGradient::new(op, self.precision, dy, None)?;
        self.multiply(op, &gradient, dx, parameters)
    }

    /// As [`Kept::backward`], from the gradient of what there was before GELU.
    fn multiply<'a>(
        self,
        op: &'static str,
        OutputGradient { dy, rounded, sums }: &OutputGradient,
        dx: Slot<'a>,
        parameters: impl Iterator<Item = (Slot<'a>, Slot<'a>)>,
    ) -> Result<()> {
        let Kept { x, weights, precision, .. } = self;
        let mut dx: Option<Destination<'_>> = dx.open()?;
        let mut start = 0;
        for (at, (weight, (dw, db))) in weights.iter().zip(parameters).enumerate() {
            let outputs = weight.matrix().rows;
            let of_layer = rounded.matrix().columns(start, outputs);
            if let Some(dx) = &mut dx {
                let (add, to) = (dx.accumulates() || at > 0, Matrix::of(dx.tensor()));
                multiply(op, precision, of_layer, weight.matrix(), to, Epilogue::Plain, add)?;
            }
            db.give_with(|| match sums {
                Some(sums) => Ok(sums.clone()),
                None => column_sums(op, Matrix::of(dy).columns(start, outputs)),
            })?;
            if let Some(mut dw) = dw.open()? {
                let (add, to) = (dw.accumulates(), Matrix::of(dw.tensor()));
                multiply(op, precision, of_layer.transposed(), x.matrix(), to, Epilogue::Plain, add)?;
            }
            start += outputs;
        }
        Ok(())
    }
}

/// What the gradients of two layers with GELU between them need.
pub(crate) struct FeedForward {
    pub(crate) inner: Kept,
    pub(crate) outer: Kept,
}

impl FeedForward {
    /// The gradients for that of the output: of x, and of weight and bias of each layer. That of the pre-activation is made where
    /// the product is, and its sums with it.
    pub(crate) fn backward(self, op: &'static str, dy: Tensor, [dx, dw1, db1, dw2, db2]: [Slot<'_>; 5]) -> Result<()> {
        let FeedForward { mut inner, outer } = self;
        let precision = outer.precision;
        let dy = OutputGradient::new(op, precision, dy, None)?;
        let (Some((u, gelu)), [weight]) = (inner.pre_activation.take(), &outer.weights[..]) else { return Ok(()) };
        let (du, sums) = gelu_gradient(op, precision, dy.rounded.matrix(), weight.matrix(), (&u, gelu))?;
        drop(u);
        outer.multiply(op, &dy, dx.none(), std::iter::once((dw2, db2)))?;
        drop(dy);
        let du = OutputGradient::new(op, precision, du, Some(sums))?;
        inner.multiply(op, &du, dx, std::iter::once((dw1, db1)))
    }
}
