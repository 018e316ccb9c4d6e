//! Correlation of predicted numbers with the right ones.

use super::check;
use crate::Result;

/// Pearson's correlation: the covariance of `x` and `y` divided by both standard deviations, in [-1, 1]. How close
/// they are to a straight line.
///
/// NaN where it is undefined: when either is constant (a single number is), or has a number that is not finite.
///
/// Source: K. Pearson, "Note on regression and inheritance in the case of two parents", 1895.
///
/// # Errors
/// When there is no number, or `x` has not as many as `y`.
pub fn pearson(x: &[f64], y: &[f64]) -> Result<f64> {
    check(x.len(), y.len())?;
    let (Some(x), Some(y)) = (deviations(x), deviations(y)) else { return Ok(f64::NAN) };
    let product = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    Ok((product(&x, &y) / (product(&x, &x).sqrt() * product(&y, &y).sqrt())).clamp(-1.0, 1.0))
}

/// Spearman's correlation: [`pearson`]'s of the ranks, in [-1, 1]. How close `y` is to rising with `x`. Equal numbers
/// share the mean of their ranks.
///
/// NaN where it is undefined: when either is constant (a single number is), or has a NaN.
///
/// Source: C. Spearman, "The proof and measurement of association between two things", 1904.
///
/// # Errors
/// When there is no number, or `x` has not as many as `y`.
pub fn spearman(x: &[f64], y: &[f64]) -> Result<f64> {
    check(x.len(), y.len())?;
    if x.iter().chain(y).any(|value| value.is_nan()) {
        return Ok(f64::NAN);
    }
    pearson(&ranks(x), &ranks(y))
}

/// Differences from the mean, the largest of them 1 so that no square leaves the range of floats. `None` when all
/// are equal or one is not finite.
fn deviations(values: &[f64]) -> Option<Vec<f64>> {
    // The mean of equal numbers can differ from them by rounding.
    if values.windows(2).all(|pair| pair[0] == pair[1]) || values.iter().any(|value| !value.is_finite()) {
        return None;
    }
    let mean = values.iter().map(|value| value / values.len() as f64).sum::<f64>();
    let from_mean: Vec<f64> = values.iter().map(|value| value / 2.0 - mean / 2.0).collect();
    let largest = from_mean.iter().fold(0.0f64, |largest, value| largest.max(value.abs()));
    Some(from_mean.into_iter().map(|value| value / largest).collect())
}

/// Ranks from 1. None of the values is NaN.
fn ranks(values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|&a, &b| values[a].total_cmp(&values[b]));
    let mut ranks = vec![0.0; values.len()];
    let mut before = 0;
    // `==` and not the total order, by which -0 and 0 differ.
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

    /// `scipy.stats.pearsonr(x, y).statistic` and `spearmanr(x, y).statistic`, scipy 1.17.1.
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
        for x in [[0.1; 3], [1.0, 2.0, f64::NAN]] {
            assert!(pearson(&x, &[1.0, 2.0, 3.0]).unwrap().is_nan());
            assert!(spearman(&[1.0, 2.0, 3.0], &x).unwrap().is_nan());
        }
        assert!(pearson(&[1.0], &[2.0]).unwrap().is_nan() && spearman(&[1.0], &[2.0]).unwrap().is_nan());
        assert!(pearson(&[1.0, f64::INFINITY], &[2.0, 1.0]).unwrap().is_nan());
    }

    #[test]
    fn errors() {
        for measure in [pearson, spearman] {
            assert_eq!(measure(&[], &[]).unwrap_err().to_string(), "metric: there is no prediction");
            assert_eq!(measure(&[1.0], &[]).unwrap_err().to_string(), "metric: 1 predictions for 0 labels");
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
