//! Losses of single numbers: binary cross-entropy, for several labels that may all apply, and squared error, for
//! regression. Means over all elements; dx = L'(x, y) / elements, with L' = σ(x) - y or 2 (x - y).

use crate::cpu::Target;
use crate::cpu::pointwise_loss::{self, BinaryCrossEntropy, SquaredError};
use crate::dispatch::{Float, Keep, Op, apply};
use crate::dtype::DType;
use crate::element::wrong_dtype;
use crate::error::{Error, Result};
use crate::layout::Dims;
use crate::tensor::Tensor;

impl Tensor {
    /// Computes the mean of -y ln σ(x) - (1 - y) ln(1 - σ(x)), in nats, over the logits x of `self`, with `targets` y
    /// from 0 to 1 in row-major order. The loss of two-byte logits is f32.
    ///
    /// # Errors
    /// Returns an error if the number of targets is not that of the elements, or is zero, or a target is not from 0 to 1.
    pub fn binary_cross_entropy(&self, targets: &[f32]) -> Result<Tensor> {
        PointwiseLoss { loss: Loss::BinaryCrossEntropy, targets: targets.to_vec() }.of(self)
    }

    /// Computes the mean of (x - y)² over the elements x of `self`, with `targets` y in row-major order. The loss of
    /// two-byte elements is f32.
    ///
    /// # Errors
    /// Returns an error if the number of targets is not that of the elements, or is zero, or a target is not finite.
    pub fn mean_squared_error(&self, targets: &[f32]) -> Result<Tensor> {
        PointwiseLoss { loss: Loss::SquaredError, targets: targets.to_vec() }.of(self)
    }
}

/// A loss of a number and its target.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Loss {
    BinaryCrossEntropy,
    SquaredError,
}

/// The mean of a loss over all elements.
pub(crate) struct PointwiseLoss {
    pub(crate) loss: Loss,
    pub(crate) targets: Vec<f32>,
}

impl PointwiseLoss {
    fn of(self, predictions: &Tensor) -> Result<Tensor> {
        if predictions.dtype().is_half() {
            return self.of(&predictions.to_dtype(DType::F32)?);
        }
        if !predictions.dtype().is_float() {
            return Err(wrong_dtype(self.name(), "predictions", predictions.dtype(), "a float type"));
        }
        apply(self, [predictions])
    }

    fn check_targets(&self) -> Result<()> {
        let (is_right, range): (fn(&f32) -> bool, _) = match self.loss {
            Loss::BinaryCrossEntropy => (|target| (0.0..=1.0).contains(target), "from 0 to 1"),
            Loss::SquaredError => (|target| target.is_finite(), "finite"),
        };
        let Some(position) = self.targets.iter().position(|target| !is_right(target)) else { return Ok(()) };
        let reason = format!("target {} at position {position} must be {range}", self.targets[position]);
        Err(Error::invalid(self.name(), reason))
    }
}

impl Op<1, 1, 1> for PointwiseLoss {
    const OPERANDS: [&'static str; 1] = ["predictions"];

    fn name(&self) -> &'static str {
        match self.loss {
            Loss::BinaryCrossEntropy => "binary_cross_entropy",
            Loss::SquaredError => "mean_squared_error",
        }
    }

    fn shapes(&self, [x]: [&Tensor; 1]) -> Result<[Dims; 1]> {
        self.check_targets()?;
        if self.targets.len() != x.elements() || self.targets.is_empty() {
            let reason = format!("{} targets given for {} predictions", self.targets.len(), x.elements());
            return Err(Error::shape(self.name(), reason, &[("predictions", x.shape())]));
        }
        Ok([Dims::default()])
    }

    fn forward<T: Float>(&mut self, [x]: [&[T]; 1], [loss]: [&mut [T]; 1]) {
        let sum = match self.loss {
            Loss::BinaryCrossEntropy => pointwise_loss::forward::<T, BinaryCrossEntropy>(x, &self.targets),
            Loss::SquaredError => pointwise_loss::forward::<T, SquaredError>(x, &self.targets),
        };
        loss.fill(T::from_f64(sum / self.targets.len() as f64));
    }

    fn keeps(&self) -> [Keep; 1] {
        [Keep::Input(0)]
    }

    fn backward<T: Float>(&self, [x]: [&[T]; 1], dy: &[T], [dx]: [Option<Target<'_, T>>; 1]) {
        let Some(dx) = dx else { return };
        let scale = dy[0].to_f64() / self.targets.len() as f64;
        match self.loss {
            Loss::BinaryCrossEntropy => {
                pointwise_loss::backward::<T, BinaryCrossEntropy>(x, &self.targets, scale, dx);
            }
            Loss::SquaredError => pointwise_loss::backward::<T, SquaredError>(x, &self.targets, scale, dx),
        }
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
    use crate::device::Device;
    use crate::dtype::DType;
    use crate::error::Result;
    use crate::tensor::Tensor;

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
