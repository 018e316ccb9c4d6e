//! Accuracy and F1 of predicted classes.

use std::collections::BTreeMap;

use super::check;
use crate::Result;

/// How the F1 of several classes become one number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Average {
    /// That of this class alone, such as 1 of classes 0 and 1.
    Binary(i64),
    /// The mean over the classes that are a label or a prediction.
    Macro,
    /// The mean over the classes, each weighted by how often it is a label.
    Weighted,
}

/// The part of the predictions that are right.
///
/// # Errors
/// When there is no prediction, or there are not as many labels.
pub fn accuracy(predictions: &[i64], labels: &[i64]) -> Result<f64> {
    check(predictions.len(), labels.len())?;
    let right = predictions.iter().zip(labels).filter(|(prediction, label)| prediction == label).count();
    Ok(right as f64 / labels.len() as f64)
}

/// F1, the harmonic mean of precision and recall: `2 TP / (2 TP + FP + FN)` of a class that is right TP times, said
/// wrongly FP times and missed FN times. A class that is neither label nor prediction has 0.
///
/// Source: C. J. van Rijsbergen, "Information Retrieval", 1979, chapter 7. The numbers are scikit-learn's `f1_score`
/// with `zero_division=0`.
///
/// # Errors
/// When there is no prediction, or there are not as many labels.
pub fn f1(predictions: &[i64], labels: &[i64], average: Average) -> Result<f64> {
    check(predictions.len(), labels.len())?;
    let mut classes: BTreeMap<i64, Counts> = BTreeMap::new();
    for (&prediction, &label) in predictions.iter().zip(labels) {
        classes.entry(prediction).or_default().predicted += 1;
        let class = classes.entry(label).or_default();
        class.labelled += 1;
        class.right += usize::from(prediction == label);
    }
    Ok(match average {
        Average::Binary(class) => classes.get(&class).map_or(0.0, Counts::f1),
        Average::Macro => classes.values().map(Counts::f1).sum::<f64>() / classes.len() as f64,
        Average::Weighted => {
            classes.values().map(|class| class.f1() * class.labelled as f64).sum::<f64>() / labels.len() as f64
        }
    })
}

#[derive(Default)]
struct Counts {
    right: usize,
    predicted: usize,
    labelled: usize,
}

impl Counts {
    /// With FP = predicted - right and FN = labelled - right. Neither count is 0 where a class was seen.
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

    /// Two classes, by scikit-learn 1.9.1:
    /// `[accuracy_score(y, p)] + [f1_score(y, p, average=a, zero_division=0) for a in ("binary", "macro", "weighted")]`
    #[test]
    fn two_classes_as_scikit_learn() {
        let (predictions, labels) = ([1, 1, 0, 1, 0, 0, 1, 0, 1, 1], [1, 0, 0, 1, 1, 0, 1, 0, 0, 1]);
        assert_close(scores(&predictions, &labels), [0.7, 0.7272727272727273, 0.696969696969697, 0.696969696969697]);
        assert_close(scores(&[0, 0, 0], &[0, 0, 1]), [0.6666666666666666, 0.0, 0.4, 0.5333333333333333]);
        assert_close(scores(&[0, 0, 0], &[0, 0, 0]), [1.0, 0.0, 1.0, 1.0]);
    }

    /// Of more classes, of which one is never predicted and another never a label. Binary is
    /// `f1_score(y, p, average=None, labels=[1])[0]`.
    #[test]
    fn more_classes_as_scikit_learn() {
        let (predictions, labels) = ([0, 1, 2, 2, 1, 0, 7, 2, 1, 0], [0, 1, 2, 1, 1, 2, 0, 2, 5, 0]);
        assert_close(scores(&predictions, &labels), [0.6, 0.6666666666666666, 0.4, 0.6]);
    }

    #[test]
    fn errors() {
        let none = "metric: there is no prediction";
        assert_eq!(accuracy(&[], &[]).unwrap_err().to_string(), none);
        assert_eq!(f1(&[], &[], Average::Macro).unwrap_err().to_string(), none);
        let uneven = "metric: 2 predictions for 1 labels";
        assert_eq!(accuracy(&[1, 2], &[1]).unwrap_err().to_string(), uneven);
        assert_eq!(f1(&[1, 2], &[1], Average::Macro).unwrap_err().to_string(), uneven);
    }
}
