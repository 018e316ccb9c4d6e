//! Compares the numbers of a contestant with the reference.

use serde::Serialize;

use crate::protocol::{Dtype, Task};

/// The difference between the numbers of a contestant and the reference.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Agreement {
    /// For training, the largest relative difference of a loss. For inference, the largest difference of an output,
    /// relative to the largest output, or in int8, 1 minus the cosine of the outputs.
    pub difference: f64,
    /// The largest allowed difference.
    pub limit: f64,
}

/// Compares the numbers of a check with the reference, which is in f32.
///
/// # Errors
/// Returns an error if the counts differ, a number is not finite, or the difference exceeds the limit of the data type.
pub fn compare(task: Task, dtype: Dtype, numbers: &[f64], reference: &[f64]) -> Result<Agreement, String> {
    if numbers.is_empty() || numbers.len() != reference.len() {
        return Err(format!("returned {} numbers, the reference {}", numbers.len(), reference.len()));
    }
    if let Some(number) = numbers.iter().find(|number| !number.is_finite()) {
        return Err(format!("returned {number}"));
    }
    let limit = match (task.trains(), dtype) {
        (_, Dtype::F32) => 1e-4,
        (true, _) => 2e-2,
        (false, Dtype::Bf16) => 3e-2,
        (false, Dtype::Int8) => 5e-2,
    };
    let largest = reference.iter().fold(0f64, |largest, x| largest.max(x.abs()));
    let differences = numbers.iter().zip(reference).map(|(x, y)| {
        let scale = if task.trains() { y.abs() } else { largest };
        (x - y).abs() / scale
    });
    let (worst, difference) = differences
        .enumerate()
        .fold((0, 0f64), |worst, (index, difference)| if difference > worst.1 { (index, difference) } else { worst });
    let difference = if dtype == Dtype::Int8 { 1.0 - cosine(numbers, reference) } else { difference };
    if difference <= limit {
        return Ok(Agreement { difference, limit });
    }
    let what = if dtype == Dtype::Int8 { "1 - cosine" } else { "relative difference" };
    Err(format!(
        "disagrees with the reference: {what} {difference:.2e}, limit {limit:.0e}; number {worst} is {}, the reference \
         has {}",
        numbers[worst], reference[worst]
    ))
}

fn cosine(a: &[f64], b: &[f64]) -> f64 {
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn losses_are_compared_one_by_one() {
        let compare = |dtype, numbers: &[f64]| super::compare(Task::PreTraining, dtype, numbers, &[10.0, 0.1]);
        assert!(compare(Dtype::F32, &[10.0009, 0.100009]).is_ok());
        let error = compare(Dtype::F32, &[10.0, 0.10002]).unwrap_err();
        assert!(error.contains("number 1 is 0.10002, the reference has 0.1"), "{error}");
        assert!(compare(Dtype::Bf16, &[10.0, 0.101]).is_ok());
        assert!(compare(Dtype::Bf16, &[10.0, 0.103]).is_err());
    }

    #[test]
    fn outputs_are_compared_relative_to_the_largest() {
        let compare = |dtype, numbers: &[f64]| super::compare(Task::Embedding, dtype, numbers, &[10.0, 0.1]);
        assert!((compare(Dtype::F32, &[10.0, 0.1009]).unwrap().difference - 0.9e-4).abs() < 1e-9);
        assert!(compare(Dtype::F32, &[10.0, 0.1011]).is_err());
        assert!(compare(Dtype::Int8, &[20.0, 0.2]).unwrap().difference < 1e-12);
        assert!(compare(Dtype::Int8, &[10.0, 5.0]).is_err());
    }

    #[test]
    fn invalid_results_are_rejected() {
        let compare = |numbers: &[f64]| super::compare(Task::Embedding, Dtype::Int8, numbers, &[1.0, 2.0]);
        assert_eq!(compare(&[1.0]).unwrap_err(), "returned 1 numbers, the reference 2");
        assert_eq!(compare(&[1.0, f64::NAN]).unwrap_err(), "returned NaN");
        assert!(super::compare(Task::Embedding, Dtype::F32, &[], &[]).is_err());
    }
}
