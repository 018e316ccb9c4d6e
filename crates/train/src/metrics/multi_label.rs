//! Precision, recall and F1 of several labels that may all apply.

use super::PrecisionRecall;
use super::check;
use crate::{Error, Result};

/// Scores of predictions to which several labels may apply.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct MultiLabelScores {
    /// The scores of each label.
    pub by_label: Vec<PrecisionRecall>,
    /// The scores over all labels together.
    pub micro: PrecisionRecall,
    /// The unweighted mean over the labels.
    pub macro_average: PrecisionRecall,
    /// The mean over the labels, each weighted by how often it applies.
    pub weighted: PrecisionRecall,
    /// The fraction of examples of which every label is predicted right.
    pub exact_match: f64,
}

/// Returns the scores of predictions, each of which says which of the C labels apply.
///
/// The results equal scikit-learn's `precision_recall_fscore_support` with `zero_division=0`, and `accuracy_score` for
/// the exact match.
///
/// # Errors
/// Returns an error if there are no predictions, the numbers of predictions and labels differ, or one has another number
/// of labels than the first.
pub fn multi_label<P: AsRef<[bool]>>(predictions: &[P], labels: &[P]) -> Result<MultiLabelScores> {
    check(predictions.len(), labels.len())?;
    let classes = labels[0].as_ref().len();
    if let Some(other) = predictions.iter().chain(labels).map(|row| row.as_ref().len()).find(|&len| len != classes) {
        let why = format!("an example has {other} labels, but the first has {classes}");
        return Err(Error::data("metric", why));
    }
    // Right, predicted and labelled, per label.
    let mut counts = vec![[0; 3]; classes];
    let mut exact = 0;
    for (predicted, labelled) in predictions.iter().zip(labels) {
        let (predicted, labelled) = (predicted.as_ref(), labelled.as_ref());
        exact += usize::from(predicted == labelled);
        for ((count, &predicted), &labelled) in counts.iter_mut().zip(predicted).zip(labelled) {
            let of = [predicted && labelled, predicted, labelled];
            count.iter_mut().zip(of).for_each(|(count, applies)| *count += usize::from(applies));
        }
    }
    let scores = |[right, predicted, labelled]: [usize; 3]| PrecisionRecall::of(right, predicted, labelled);
    let all = [0, 1, 2].map(|which| counts.iter().map(|count| count[which]).sum());
    let by_label: Vec<PrecisionRecall> = counts.into_iter().map(scores).collect();
    Ok(MultiLabelScores {
        micro: scores(all),
        macro_average: PrecisionRecall::mean(by_label.iter(), |_| 1.0),
        weighted: PrecisionRecall::mean(by_label.iter(), |label| label.support as f64),
        exact_match: exact as f64 / labels.len() as f64,
        by_label,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const LABELS: [[bool; 4]; 6] = [
        [true, false, true, false],
        [false, false, true, false],
        [true, true, false, false],
        [false, false, false, false],
        [true, true, true, false],
        [false, true, false, false],
    ];
    const PREDICTIONS: [[bool; 4]; 6] = [
        [true, true, true, false],
        [false, false, true, false],
        [true, false, false, false],
        [true, false, false, false],
        [true, true, false, false],
        [false, false, false, true],
    ];

    /// Expected values from scikit-learn 1.9: `precision_recall_fscore_support(y, p, average=.., zero_division=0)` and
    /// `accuracy_score(y, p)`.
    #[test]
    fn as_scikit_learn() {
        let found = multi_label(&PREDICTIONS, &LABELS).unwrap();
        let close = |found: PrecisionRecall, expected: [f64; 3]| {
            let found = [found.precision, found.recall, found.f1];
            assert!(found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-9), "{found:?}, not {expected:?}");
        };
        close(found.micro, [0.6666666667, 0.6666666667, 0.6666666667]);
        close(found.macro_average, [0.5625000000, 0.5000000000, 0.5142857143]);
        close(found.weighted, [0.7500000000, 0.6666666667, 0.6857142857]);
        close(found.by_label[0], [0.7500000000, 1.0000000000, 0.8571428571]);
        close(found.by_label[1], [0.5000000000, 0.3333333333, 0.4000000000]);
        close(found.by_label[2], [1.0000000000, 0.6666666667, 0.8000000000]);
        close(found.by_label[3], [0.0000000000, 0.0000000000, 0.0000000000]);
        let support: Vec<usize> = found.by_label.iter().map(|label| label.support).collect();
        assert_eq!(support, [3, 3, 3, 0]);
        assert!((found.exact_match - 0.1666666667).abs() < 1e-9);
    }

    #[test]
    fn errors() {
        assert!(multi_label(&[] as &[[bool; 2]], &[]).is_err());
        assert!(multi_label(&[[true]], &[[true], [false]]).is_err());
        let error = multi_label(&[vec![true, false]], &[vec![true]]).unwrap_err().to_string();
        assert_eq!(error, "metric: an example has 2 labels, but the first has 1");
    }
}
