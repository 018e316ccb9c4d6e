//! Losses of single numbers: binary cross-entropy, where several labels may apply, and squared error, for
//! regression. Means over all elements; dx = L'(x, y) / elements, with L' = σ(x) - y or 2 (x - y).

use crate::autograd::differentiable;
use crate::cpu::Real;
use crate::cpu::pointwise_loss::{self, BinaryCrossEntropy, PointwiseLoss, SquaredError};
use crate::ops::{float, on_device, wrong_dtype};
use crate::tensor::Tensor;
use crate::{DType, Error, Result};

impl Tensor {
    /// Mean of -y ln σ(x) - (1 - y) ln(1 - σ(x)), in nats, over the logits x of `self`, with `targets` y from 0 to 1
    /// in row-major order. The loss of two-byte logits is f32.
    ///
    /// # Errors
    /// When there are not as many targets as elements, or none, or one is not from 0 to 1.
    pub fn binary_cross_entropy(&self, targets: &[f32]) -> Result<Tensor> {
        const OP: &str = "binary_cross_entropy";
        if let Some(position) = targets.iter().position(|target| !(0.0..=1.0).contains(target)) {
            let reason = format!("target {} at position {position} must be from 0 to 1", targets[position]);
            return Err(Error::invalid(OP, reason));
        }
        self.pointwise_loss::<BinaryCrossEntropy>(OP, targets)
    }

    /// Mean of (x - y)² over the elements x of `self`, with `targets` y in row-major order. The loss of two-byte
    /// elements is f32.
    ///
    /// # Errors
    /// When there are not as many targets as elements, or none, or one is not finite.
    pub fn mean_squared_error(&self, targets: &[f32]) -> Result<Tensor> {
        const OP: &str = "mean_squared_error";
        if let Some(position) = targets.iter().position(|target| !target.is_finite()) {
            let reason = format!("target {} at position {position} must be finite", targets[position]);
            return Err(Error::invalid(OP, reason));
        }
        self.pointwise_loss::<SquaredError>(OP, targets)
    }

    fn pointwise_loss<L: PointwiseLoss + Composed>(&self, op: &'static str, targets: &[f32]) -> Result<Tensor> {
        if self.dtype().is_half() {
            return self.to_dtype(DType::F32)?.pointwise_loss::<L>(op, targets);
        }
        if !self.dtype().is_float() {
            return Err(wrong_dtype(op, "predictions", self.dtype(), "a float type"));
        }
        if targets.len() != self.elements() || targets.is_empty() {
            let reason = format!("{} targets given for {} predictions", targets.len(), self.elements());
            return Err(Error::shape(op, reason, &[("predictions", self.shape())]));
        }
        on_device!(self, cpu => (), cuda => return L::composed(self, targets));
        let x = self.values()?;
        let count = targets.len() as f64;
        let output = float!(op, x.dtype(), T => {
            Tensor::new((pointwise_loss::forward::<T, L>(x.slice(), targets) / count) as T, &x.device())?
        });
        let targets = targets.to_vec();
        Ok(differentiable(op, [self], [&x], output, move |[x], dy, [dx]| {
            let Some(mut dx) = dx.open()? else { return Ok(()) };
            float!(op, dy.dtype(), T => {
                let scale = dy.slice::<T>()[0].to_f64() / count;
                pointwise_loss::backward::<T, L>(x.slice(), &targets, scale, dx.target());
            });
            Ok(())
        }))
    }
}

/// A loss from other operations: what a GPU computes, where these few numbers have no kernel of their own.
#[cfg_attr(not(feature = "cuda"), allow(dead_code, reason = "it is for GPUs"))]
trait Composed {
    fn composed(x: &Tensor, targets: &[f32]) -> Result<Tensor>;
}

impl Composed for BinaryCrossEntropy {
    /// The cross-entropy of two classes with the logits 0 and x.
    fn composed(x: &Tensor, targets: &[f32]) -> Result<Tensor> {
        let x = x.reshape(&[targets.len(), 1])?;
        let logits = Tensor::concat(&[&Tensor::zeros(x.shape(), x.dtype(), &x.device())?, &x], 1)?;
        let both = targets.iter().flat_map(|&target| [1.0 - target, target]).collect();
        logits.soft_cross_entropy(&Tensor::from_vec::<f32>(both, &[targets.len(), 2], &x.device())?)
    }
}

impl Composed for SquaredError {
    fn composed(x: &Tensor, targets: &[f32]) -> Result<Tensor> {
        let difference = x.sub(&Tensor::from_slice(targets, x.shape(), &x.device())?)?;
        difference.mul(&difference)?.mean_all()
    }
}

#[cfg(test)]
pub(super) fn cases(cases: &mut crate::conformance::Cases) {
    use crate::conformance::normal;
    cases.add("binary_cross_entropy", "", [normal(&[2, 3])], |x| {
        x[0].binary_cross_entropy(&[1.0, 0.0, 0.25, 0.0, 1.0, 1.0])
    });
    cases.add("binary_cross_entropy", "extremes", [normal(&[4]).scaled(1e4)], |x| {
        x[0].binary_cross_entropy(&[1.0, 0.0, 0.0, 1.0])
    });
    cases.add("mean_squared_error", "", [normal(&[3, 2])], |x| {
        x[0].mean_squared_error(&[1.0, -2.5, 0.0, 4.0, 0.5, -1.0])
    });
}

#[cfg(test)]
mod tests {
    use crate::conformance::{assert_same_with_gradients, normal};
    use crate::{DType, Device, Result, Tensor};

    #[test]
    fn they_equal_their_formulas() {
        let targets = [1.0f32, 0.0, 0.75, 0.25];
        let tensor = |like: &Tensor| Tensor::new(targets.map(f64::from), &Device::Cpu)?.reshape(like.shape());
        assert_same_with_gradients(
            &[normal(&[2, 2])],
            |x| x[0].binary_cross_entropy(&targets),
            |x| {
                let probability = x[0].mul_scalar(-1.0)?.exp()?.add_scalar(1.0)?.reciprocal()?;
                let (y, other) = (tensor(&x[0])?, tensor(&x[0])?.mul_scalar(-1.0)?.add_scalar(1.0)?);
                let no = probability.mul_scalar(-1.0)?.add_scalar(1.0)?;
                y.mul(&probability.ln()?)?.add(&other.mul(&no.ln()?)?)?.mean_all()?.mul_scalar(-1.0)
            },
        );
        assert_same_with_gradients(
            &[normal(&[4])],
            |x| x[0].mean_squared_error(&targets),
            |x| {
                let difference = x[0].sub(&tensor(&x[0])?)?;
                difference.mul(&difference)?.mean_all()
            },
        );
    }

    #[test]
    fn targets_that_make_no_sense_are_named() -> Result<()> {
        let x = Tensor::zeros(&[1, 2], DType::F32, &Device::Cpu)?;
        let said = |result: Result<Tensor>| result.err().map(|error| error.to_string()).unwrap_or_default();
        assert!(said(x.binary_cross_entropy(&[0.0, 1.5])).contains("target 1.5 at position 1"));
        assert!(said(x.binary_cross_entropy(&[0.0])).contains("1 targets given for 2 predictions"));
        assert!(said(x.mean_squared_error(&[f32::NAN, 0.0])).contains("target NaN at position 0"));
        assert!(said(x.narrow(1, 0, 0)?.mean_squared_error(&[])).contains("0 targets"));
        Ok(())
    }
}
