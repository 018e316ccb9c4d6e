//! Medians and ranges.

/// Sorts the values and returns their median: the middle one, or the mean of the two in the middle. Returns NaN if there
/// are no values.
pub fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => values[n / 2],
        n => (values[n / 2 - 1] + values[n / 2]) / 2.0,
    }
}

/// The median and the range of some values.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    /// The median.
    pub median: f64,
    /// The smallest value.
    pub min: f64,
    /// The largest value.
    pub max: f64,
}

impl Spread {
    /// Computes median and range. Without values, they are NaN and infinite.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Spread {
        let mut values: Vec<f64> = values.into_iter().collect();
        let median = median(&mut values);
        let min = values.first().copied().unwrap_or(f64::INFINITY);
        Spread { median, min, max: values.last().copied().unwrap_or(f64::NEG_INFINITY) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians() {
        assert_eq!(median(&mut [3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&mut [4.0, 1.0, 2.0, 3.0]), 2.5);
        assert!(median(&mut []).is_nan());
        assert_eq!(Spread::of([3.0, 1.0, 2.0, 9.0]), Spread { median: 2.5, min: 1.0, max: 9.0 });
    }
}
