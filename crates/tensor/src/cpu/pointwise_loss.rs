//! Losses of single numbers. A batch has only as many as it has labels, so these loops are plain.

use super::real::Real;
use super::target::Target;

/// A loss of a prediction `x` and a target `y`, with its derivative with respect to `x`.
pub(crate) trait PointwiseLoss: Copy + Send + 'static {
    fn value(x: f64, y: f64) -> f64;
    fn derivative(x: f64, y: f64) -> f64;
}

/// `-y ln σ(x) - (1 - y) ln(1 - σ(x))`, in the form that is finite for every finite `x`.
#[derive(Clone, Copy)]
pub(crate) struct BinaryCrossEntropy;

impl PointwiseLoss for BinaryCrossEntropy {
    fn value(x: f64, y: f64) -> f64 {
        x.max(0.0) - x * y + (-x.abs()).exp().ln_1p()
    }

    fn derivative(x: f64, y: f64) -> f64 {
        1.0 / (1.0 + (-x).exp()) - y
    }
}

/// `(x - y)²`.
#[derive(Clone, Copy)]
pub(crate) struct SquaredError;

impl PointwiseLoss for SquaredError {
    fn value(x: f64, y: f64) -> f64 {
        (x - y) * (x - y)
    }

    fn derivative(x: f64, y: f64) -> f64 {
        2.0 * (x - y)
    }
}

/// Returns the sum of the losses.
pub(crate) fn forward<T: Real, L: PointwiseLoss>(x: &[T], y: &[f32]) -> f64 {
    x.iter().zip(y).map(|(x, &y)| L::value(x.to_f64(), y.into())).sum()
}

/// Computes `dx (+)= scale L'(x, y)`.
pub(crate) fn backward<T: Real, L: PointwiseLoss>(x: &[T], y: &[f32], scale: f64, dx: Target<T>) {
    let Target { data, accumulate } = dx;
    for ((dx, x), &y) in data.iter_mut().zip(x).zip(y) {
        let gradient = T::from_f64(scale * L::derivative(x.to_f64(), y.into()));
        *dx = if accumulate { *dx + gradient } else { gradient };
    }
}
