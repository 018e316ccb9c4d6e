//! Turning the output of a model into scores.

use cloze_tensor::Tensor;

use crate::{Error, Result};

/// Computes the softmax of logits in f64.
pub(super) fn softmax(logits: &[f32]) -> Vec<f64> {
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let powers: Vec<f64> = logits.iter().map(|&x| f64::from(x - largest).exp()).collect();
    let sum: f64 = powers.iter().sum();
    powers.into_iter().map(|power| power / sum).collect()
}

/// Returns the position of the first largest value, or 0 if there are no values.
pub(super) fn largest(values: &[f64]) -> usize {
    (1..values.len()).fold(0, |best, at| if values[at] > values[best] { at } else { best })
}

/// Returns the positions and values of the `k` largest values, largest first.
pub(super) fn best(values: Vec<f64>, k: usize) -> Vec<(usize, f64)> {
    let mut ranked: Vec<(usize, f64)> = values.into_iter().enumerate().collect();
    ranked.sort_by(|a, b| b.1.total_cmp(&a.1));
    ranked.truncate(k);
    ranked
}

/// Returns the values of a model's output.
///
/// # Errors
/// Returns an error if a value is not finite, which very large weights can cause.
pub(super) fn finite(output: &Tensor) -> Result<Vec<f32>> {
    let values = output.to_vec::<f32>()?;
    values.iter().copied().try_for_each(|value| check_finite(value.into()))?;
    Ok(values)
}

pub(super) fn check_finite(value: f64) -> Result<()> {
    match value.is_finite() {
        true => Ok(()),
        false => Err(Error::input(format!("the model computes {value}: its weights are too large"))),
    }
}
