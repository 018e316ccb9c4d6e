//! Precision, recall and F1 per class, and their averages.

use std::collections::BTreeMap;

use super::classification::count;
use crate::Result;

/// Precision, recall and F1. A score whose divisor is 0 is 0.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct PrecisionRecall {
    /// The fraction of predictions that are correct.
    pub precision: f64,
    /// The fraction of labels that were predicted.
    pub recall: f64,
    /// The harmonic mean of precision and recall.
    pub f1: f64,
    /// The number of labels.
    pub support: usize,
}

impl PrecisionRecall {
    /// Computes the scores from counts of true positives, predictions and labels.
    pub(super) fn of(right: usize, predicted: usize, labelled: usize) -> PrecisionRecall {
        let part = |of: usize| if of == 0 { 0.0 } else { right as f64 / of as f64 };
        let (precision, recall) = (part(predicted), part(labelled));
        let f1 = if right == 0 { 0.0 } else { 2.0 * precision * recall / (precision + recall) };
        PrecisionRecall { precision, recall, f1, support: labelled }
    }

    /// Returns the weighted mean of several scores, with the sum of their supports. If the weights add up to 0, all
    /// scores are 0.
    pub(super) fn mean<'p>(
        of: impl Iterator<Item = &'p PrecisionRecall> + Clone,
        weight: impl Fn(&PrecisionRecall) -> f64,
    ) -> PrecisionRecall {
        let whole: f64 = of.clone().map(&weight).sum();
        let mean = |value: fn(&PrecisionRecall) -> f64| {
            let sum: f64 = of.clone().map(|one| weight(one) * value(one)).sum();
            if whole > 0.0 { sum / whole } else { 0.0 }
        };
        PrecisionRecall {
            precision: mean(|one| one.precision),
            recall: mean(|one| one.recall),
            f1: mean(|one| one.f1),
            support: of.clone().map(|one| one.support).sum(),
        }
    }
}

/// Returns precision, recall and F1 of each class that occurs in the labels or the predictions.
///
/// The results equal scikit-learn's `precision_recall_fscore_support` with `zero_division=0`.
///
/// # Errors
/// Returns an error if there are no predictions, or if the numbers of predictions and labels differ.
pub fn precision_recall(predictions: &[i64], labels: &[i64]) -> Result<BTreeMap<i64, PrecisionRecall>> {
    let of = count(predictions, labels)?;
    Ok(of.into_iter().map(|(class, n)| (class, PrecisionRecall::of(n.right, n.predicted, n.labelled))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Expected values from scikit-learn 1.9.1: `precision_recall_fscore_support(y, p, zero_division=0)`.
    #[test]
    fn as_scikit_learn() {
        let (predictions, labels) = ([0, 1, 2, 2, 1, 0, 7, 2, 1, 0], [0, 1, 2, 1, 1, 2, 0, 2, 5, 0]);
        let found = precision_recall(&predictions, &labels).unwrap();
        let third = 2.0 / 3.0;
        let expected = [
            (0, [third, third, third], 3),
            (1, [third, third, third], 3),
            (2, [third, third, third], 3),
            (5, [0.0; 3], 1),
            (7, [0.0; 3], 0),
        ];
        assert_eq!(found.len(), expected.len());
        for ((class, found), (expected, numbers, support)) in found.into_iter().zip(expected) {
            assert_eq!((class, found.support), (expected, support));
            let close =
                [found.precision, found.recall, found.f1].into_iter().zip(numbers).all(|(a, b)| (a - b).abs() < 1e-12);
            assert!(close, "{class}: {found:?}");
        }
    }
}
