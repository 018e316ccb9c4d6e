//! Accuracy, F1, Matthews correlation and confusion matrix of predicted classes.

use std::collections::BTreeMap;

use super::check;
use crate::{Error, Result};

/// How the F1 scores of several classes are combined into one number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Average {
    /// The F1 of this class only, usually class 1 of a binary task.
    Binary(i64),
    /// The unweighted mean over all classes that occur in the labels or the predictions.
    Macro,
    /// The mean over all classes, each weighted by the number of its labels.
    Weighted,
}

/// Returns the fraction of predictions that equal their label.
///
/// # Errors
/// Returns an error if there are no predictions, or if the numbers of predictions and labels differ.
pub fn accuracy(predictions: &[i64], labels: &[i64]) -> Result<f64> {
    check(predictions.len(), labels.len())?;
    let right = predictions.iter().zip(labels).filter(|(prediction, label)| prediction == label).count();
    Ok(right as f64 / labels.len() as f64)
}

/// Returns the F1 score, the harmonic mean of precision and recall: `2 TP / (2 TP + FP + FN)` for a class with TP true
/// positives, FP false positives and FN false negatives. A class absent from both labels and predictions scores 0.
///
/// The result equals scikit-learn's `f1_score` with `zero_division=0`.
///
/// Source: C. J. van Rijsbergen, "Information Retrieval", 1979, chapter 7.
///
/// # Errors
/// Returns an error if there are no predictions, or if the numbers of predictions and labels differ.
pub fn f1(predictions: &[i64], labels: &[i64], average: Average) -> Result<f64> {
    let classes = count(predictions, labels)?;
    Ok(match average {
        Average::Binary(class) => classes.get(&class).map_or(0.0, ClassCounts::f1),
        Average::Macro => classes.values().map(ClassCounts::f1).sum::<f64>() / classes.len() as f64,
        Average::Weighted => {
            classes.values().map(|class| class.f1() * class.labelled as f64).sum::<f64>() / labels.len() as f64
        }
    })
}

/// Returns the Matthews correlation coefficient of predictions and labels, from -1 to 1. It is 0 if all predictions or
/// all labels are the same class.
///
/// The result equals scikit-learn's `matthews_corrcoef`.
///
/// Source: B. W. Matthews, "Comparison of the predicted and observed secondary structure of T4 phage lysozyme", 1975;
/// for more than two classes, J. Gorodkin, "Comparing two K-category assignments by a K-category correlation
/// coefficient", 2004.
///
/// # Errors
/// Returns an error if there are no predictions, or if the numbers of predictions and labels differ.
pub fn matthews(predictions: &[i64], labels: &[i64]) -> Result<f64> {
    let classes = count(predictions, labels)?;
    let (mut right, mut both, mut predicted, mut labelled) = (0.0, 0.0, 0.0, 0.0);
    for class in classes.values() {
        let [r, p, l] = [class.right, class.predicted, class.labelled].map(|count| count as f64);
        (right, both, predicted, labelled) = (right + r, both + p * l, predicted + p * p, labelled + l * l);
    }
    let all = labels.len() as f64;
    let spread = (all * all - predicted) * (all * all - labelled);
    Ok(if spread > 0.0 { (right * all - both) / spread.sqrt() } else { 0.0 })
}

/// Counts how often each true class (row) is predicted as each class (column). Classes are numbered from 0 to
/// `classes - 1`.
///
/// # Errors
/// Returns an error if there are no predictions, if the numbers of predictions and labels differ, or if a class is out
/// of range.
pub fn confusion_matrix(predictions: &[i64], labels: &[i64], classes: usize) -> Result<Vec<Vec<usize>>> {
    check(predictions.len(), labels.len())?;
    let mut matrix = vec![vec![0; classes]; classes];
    let index = |class: i64| match usize::try_from(class) {
        Ok(index) if index < classes => Ok(index),
        _ => Err(Error::data("confusion matrix", format!("class {class} is out of range for {classes} classes"))),
    };
    for (&prediction, &label) in predictions.iter().zip(labels) {
        matrix[index(label)?][index(prediction)?] += 1;
    }
    Ok(matrix)
}

/// Counts predictions and labels of each class that occurs in either.
pub(super) fn count(predictions: &[i64], labels: &[i64]) -> Result<BTreeMap<i64, ClassCounts>> {
    check(predictions.len(), labels.len())?;
    let mut classes: BTreeMap<i64, ClassCounts> = BTreeMap::new();
    for (&prediction, &label) in predictions.iter().zip(labels) {
        classes.entry(prediction).or_default().predicted += 1;
        let class = classes.entry(label).or_default();
        class.labelled += 1;
        class.right += usize::from(prediction == label);
    }
    Ok(classes)
}

#[derive(Default)]
pub(super) struct ClassCounts {
    /// True positives.
    pub(super) right: usize,
    pub(super) predicted: usize,
    pub(super) labelled: usize,
}

impl ClassCounts {
    /// FP is `predicted - right` and FN is `labelled - right`. A class in the map occurs at least once, so the divisor
    /// is not 0.
    fn f1(&self) -> f64 {
        2.0 * self.right as f64 / (self.predicted + self.labelled) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scores(predictions: &[i64], labels: &[i64]) -> [f64; 4] {
        let f1 = |average| f1(predictions, labels, average).unwrap();
        let accuracy = accuracy(predictions, labels).unwrap();
        [accuracy, f1(Average::Binary(1)), f1(Average::Macro), f1(Average::Weighted)]
    }

    fn assert_close(found: [f64; 4], expected: [f64; 4]) {
        assert!(found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-12), "{found:?}, not {expected:?}");
    }

    /// Expected values from scikit-learn 1.9.1:
    /// `[accuracy_score(y, p)] + [f1_score(y, p, average=a, zero_division=0) for a in ("binary", "macro", "weighted")]`
    #[test]
    fn two_classes_as_scikit_learn() {
        let (predictions, labels) = ([1, 1, 0, 1, 0, 0, 1, 0, 1, 1], [1, 0, 0, 1, 1, 0, 1, 0, 0, 1]);
        assert_close(scores(&predictions, &labels), [0.7, 0.7272727272727273, 0.696969696969697, 0.696969696969697]);
        assert_close(scores(&[0, 0, 0], &[0, 0, 1]), [0.6666666666666666, 0.0, 0.4, 0.5333333333333333]);
        assert_close(scores(&[0, 0, 0], &[0, 0, 0]), [1.0, 0.0, 1.0, 1.0]);
    }

    /// One class is never predicted and another is never a label. The binary score is
    /// `f1_score(y, p, average=None, labels=[1])[0]`.
    #[test]
    fn more_classes_as_scikit_learn() {
        let (predictions, labels) = ([0, 1, 2, 2, 1, 0, 7, 2, 1, 0], [0, 1, 2, 1, 1, 2, 0, 2, 5, 0]);
        assert_close(scores(&predictions, &labels), [0.6, 0.6666666666666666, 0.4, 0.6]);
    }

    /// Expected values from scikit-learn 1.9.1: `matthews_corrcoef(y, p)`.
    #[test]
    fn correlation_as_scikit_learn() {
        let close = |predictions: &[i64], labels: &[i64], expected: f64| {
            let found = matthews(predictions, labels).unwrap();
            assert!((found - expected).abs() < 1e-12, "{found}, not {expected}");
        };
        close(&[1, 1, 0, 1, 0, 0, 1, 0, 1, 1], &[1, 0, 0, 1, 1, 0, 1, 0, 0, 1], 0.408248290463863);
        close(&[0, 1, 2, 2, 1, 0, 7, 2, 1, 0], &[0, 1, 2, 1, 1, 2, 0, 2, 5, 0], 0.4583333333333333);
        close(&[1, 0, 1], &[0, 1, 0], -1.0);
        close(&[0, 0, 0], &[0, 1, 0], 0.0);
    }

    #[test]
    fn a_matrix_has_labels_down_and_predictions_across() {
        let matrix = confusion_matrix(&[0, 1, 1, 2], &[0, 0, 1, 1], 3).unwrap();
        assert_eq!(matrix, [[1, 1, 0], [0, 1, 1], [0, 0, 0]]);
        for (predictions, labels, class) in [([3], [0], 3), ([0], [-1], -1)] {
            let error = confusion_matrix(&predictions, &labels, 3).unwrap_err().to_string();
            assert_eq!(error, format!("confusion matrix: class {class} is out of range for 3 classes"));
        }
    }

    #[test]
    fn errors() {
        let none = "metric: no predictions";
        assert_eq!(accuracy(&[], &[]).unwrap_err().to_string(), none);
        assert_eq!(f1(&[], &[], Average::Macro).unwrap_err().to_string(), none);
        let uneven = "metric: the number of predictions (2) differs from the number of labels (1)";
        assert_eq!(accuracy(&[1, 2], &[1]).unwrap_err().to_string(), uneven);
        assert_eq!(f1(&[1, 2], &[1], Average::Macro).unwrap_err().to_string(), uneven);
    }
}
