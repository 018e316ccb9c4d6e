//! Correlation of predicted numbers with their labels.

use super::check;
use crate::Result;

/// Returns the Pearson correlation coefficient of `x` and `y`, in [-1, 1]: their covariance divided by the product of
/// their standard deviations. It measures how close the points are to a straight line.
///
/// The result is NaN where the correlation is undefined: if `x` or `y` is constant (a single value always is) or
/// contains a value that is not finite.
///
/// Source: K. Pearson, "Note on regression and inheritance in the case of two parents", 1895.
///
/// # Errors
/// Returns an error if there are no values, or if the lengths of `x` and `y` differ.
pub fn pearson(x: &[f64], y: &[f64]) -> Result<f64> {
    check(x.len(), y.len())?;
    let (Some(x), Some(y)) = (deviations(x), deviations(y)) else { return Ok(f64::NAN) };
    let product = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    Ok((product(&x, &y) / (product(&x, &x).sqrt() * product(&y, &y).sqrt())).clamp(-1.0, 1.0))
}

/// Returns the Spearman rank correlation of `x` and `y`, in [-1, 1]: the [`pearson`] correlation of their ranks, where
/// equal values share the mean of their ranks. It measures how close the relation is to a monotonic one.
///
/// The result is NaN where the correlation is undefined: if `x` or `y` is constant (a single value always is) or
/// contains a NaN.
///
/// Source: C. Spearman, "The proof and measurement of association between two things", 1904.
///
/// # Errors
/// Returns an error if there are no values, or if the lengths of `x` and `y` differ.
pub fn spearman(x: &[f64], y: &[f64]) -> Result<f64> {
    check(x.len(), y.len())?;
    if x.iter().chain(y).any(|value| value.is_nan()) {
        return Ok(f64::NAN);
    }
    pearson(&ranks(x), &ranks(y))
}

/// Returns the differences from the mean, scaled so that the largest is 1 and no square overflows. Returns `None` if
/// all values are equal or one is not finite.
fn deviations(values: &[f64]) -> Option<Vec<f64>> {
    // Compare values instead of deviations: rounding can make the mean of equal values differ from them.
    if values.windows(2).all(|pair| pair[0] == pair[1]) || values.iter().any(|value| !value.is_finite()) {
        return None;
    }
    let mean = values.iter().map(|value| value / values.len() as f64).sum::<f64>();
    let from_mean: Vec<f64> = values.iter().map(|value| value / 2.0 - mean / 2.0).collect();
    let largest = from_mean.iter().fold(0.0f64, |largest, value| largest.max(value.abs()));
    Some(from_mean.into_iter().map(|value| value / largest).collect())
}

/// Returns the ranks of `values`, counted from 1. No value may be NaN.
fn ranks(values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|&a, &b| values[a].total_cmp(&values[b]));
    let mut ranks = vec![0.0; values.len()];
    let mut before = 0;
    // `==` rather than the total order, which tells -0 from 0.
    for equal in order.chunk_by(|&a, &b| values[a] == values[b]) {
        let rank = before as f64 + (equal.len() + 1) as f64 / 2.0;
        equal.iter().for_each(|&index| ranks[index] = rank);
        before += equal.len();
    }
    ranks
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn assert_close(found: Result<f64>, expected: f64) {
        let found = found.unwrap();
        assert!((found - expected).abs() < 1e-12, "{found}, not {expected}");
    }

    /// Expected values from scipy 1.17.1: `scipy.stats.pearsonr(x, y).statistic` and `spearmanr(x, y).statistic`.
    #[test]
    fn as_scipy() {
        let (x, y) = ([1.0, 2.5, -3.0, 4.0, 0.5, 2.5, 7.0], [0.3, 2.0, -1.0, 2.0, 2.0, -4.0, 3.5]);
        assert_close(pearson(&x, &y), 0.46642578438708554);
        assert_close(spearman(&x, &y), 0.5609681940050744);
        assert_close(pearson(&[1e200, 2e200, 4e200], &[1e-200, 3e-200, 2e-200]), 0.32732683535398854);
        let (x, y) = ([1e9, 1e9 + 1.0, 1e9 + 2.0, 1e9 + 3.0], [1.0, 3.0, 2.0, 4.0]);
        assert_close(pearson(&x, &y), 0.8);
        assert_close(spearman(&x, &y), 0.8);
        assert_close(spearman(&[1.0, 2.0, f64::INFINITY, 4.0], &[3.0, 1.0, 2.0, 7.0]), 0.0);
        assert_close(spearman(&[-0.0, 0.0, 1.0], &[1.0, 0.0, 2.0]), 0.8660254037844387);
    }

    #[test]
    fn undefined_is_nan() {
        let y: Vec<f64> = (0..10).map(f64::from).collect();
        // In floating point, ten times 0.1 divided by ten is not 0.1.
        for x in [vec![0.1; 10], [&y[1..], &[f64::NAN]].concat()] {
            assert!(pearson(&x, &y).unwrap().is_nan() && spearman(&y, &x).unwrap().is_nan());
        }
        assert!(pearson(&[1.0], &[2.0]).unwrap().is_nan() && spearman(&[1.0], &[2.0]).unwrap().is_nan());
        assert!(pearson(&[1.0, f64::INFINITY], &[2.0, 1.0]).unwrap().is_nan());
    }

    #[test]
    fn errors() {
        for measure in [pearson, spearman] {
            assert_eq!(measure(&[], &[]).unwrap_err().to_string(), "metric: no predictions");
            let uneven = "metric: the number of predictions (1) differs from the number of labels (0)";
            assert_eq!(measure(&[1.0], &[]).unwrap_err().to_string(), uneven);
        }
    }

    proptest! {
        #[test]
        fn bounded_and_symmetric(pairs in prop::collection::vec((any::<f64>(), -3i8..3), 1..20)) {
            let (x, y): (Vec<f64>, Vec<f64>) = pairs.into_iter().map(|(x, y)| (x, f64::from(y))).unzip();
            for measure in [pearson, spearman] {
                let found = measure(&x, &y).unwrap();
                prop_assert!(found.is_nan() || (-1.0..=1.0).contains(&found));
                prop_assert_eq!(found.to_bits() << 1, measure(&y, &x).unwrap().to_bits() << 1);
            }
        }
    }
}
