//! The masking rate, which may fall during a run.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// The fraction of tokens that become targets, as a function of the optimizer step.
///
/// ```
/// use cloze_train::{Masking, MaskingRate};
/// let rate = MaskingRate::Linear { from: 0.3, to: 0.15, steps: 10_000 };
/// assert!((rate.at(5_000) - 0.225).abs() < 1e-12);
/// let masking = Masking::bert().rate(rate);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum MaskingRate {
    /// The same rate in every step; BERT's is 0.15.
    Constant(f64),
    /// A rate that changes linearly during the first steps.
    ///
    /// Source: Z. Ankner, N. Saphra, D. Blalock, J. Frankle, M. Leavitt, "Dynamic masking rate schedules for MLM
    /// pretraining", EACL 2024, where it falls from 0.3 to 0.15 over the whole run.
    Linear {
        /// Rate of the first step.
        from: f64,
        /// Rate from step `steps` on, also of evaluations.
        to: f64,
        /// Number of optimizer steps.
        steps: u32,
    },
}

impl From<f64> for MaskingRate {
    fn from(rate: f64) -> MaskingRate {
        MaskingRate::Constant(rate)
    }
}

/// `0.15`, or `0.3 to 0.15 over 10000 steps`
impl fmt::Display for MaskingRate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            MaskingRate::Constant(rate) => write!(f, "{rate}"),
            MaskingRate::Linear { from, to, steps } => write!(f, "{from} to {to} over {steps} steps"),
        }
    }
}

impl MaskingRate {
    /// Returns the rate of optimizer step `step`, from 0.
    pub fn at(self, step: u32) -> f64 {
        match self {
            MaskingRate::Constant(rate) => rate,
            MaskingRate::Linear { to, steps, .. } if step >= steps => to,
            MaskingRate::Linear { from, to, steps } => from + (to - from) * f64::from(step) / f64::from(steps),
        }
    }

    pub(super) fn check(self) -> Result<()> {
        let (from, to) = match self {
            MaskingRate::Constant(rate) => (rate, rate),
            MaskingRate::Linear { from, to, .. } => (from, to),
        };
        match [from, to].into_iter().find(|&rate| !(rate > 0.0 && rate <= 1.0)) {
            Some(rate) => Err(Error::invalid("masking rate", rate, "above 0 and at most 1")),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_fall_along_a_line_and_stay() {
        let rate = MaskingRate::Linear { from: 0.3, to: 0.15, steps: 100 };
        for step in 0..=100 {
            let expected = (0.3 * f64::from(100 - step) + 0.15 * f64::from(step)) / 100.0;
            assert!((rate.at(step) - expected).abs() < 1e-15, "{step}");
        }
        assert_eq!([rate.at(0), rate.at(100), rate.at(101), rate.at(u32::MAX)], [0.3, 0.15, 0.15, 0.15]);
        assert_eq!(MaskingRate::Linear { from: 0.3, to: 0.15, steps: 0 }.at(0), 0.15);
        assert_eq!([0, 7, u32::MAX].map(|step| MaskingRate::from(0.4).at(step)), [0.4; 3]);
    }

    #[test]
    fn rates_out_of_range_are_refused() {
        for (from, to, said) in [(0.0, 0.1, "0"), (1.1, 0.1, "1.1"), (0.1, -0.5, "-0.5"), (0.1, f64::NAN, "NaN")] {
            let error = MaskingRate::Linear { from, to, steps: 5 }.check().unwrap_err().to_string();
            assert_eq!(error, format!("masking rate is {said}, must be above 0 and at most 1"));
        }
        assert!(MaskingRate::Linear { from: 1.0, to: 0.1, steps: 5 }.check().is_ok());
    }

    #[test]
    fn rates_in_words() {
        assert_eq!(MaskingRate::Constant(0.15).to_string(), "0.15");
        let falling = MaskingRate::Linear { from: 0.3, to: 0.15, steps: 50 };
        assert_eq!(falling.to_string(), "0.3 to 0.15 over 50 steps");
    }
}
