//! How the learning rate changes over a run.

use crate::{Error, Result};

/// The learning rate of each step, as a factor of the peak: a linear warm-up from 0, then a linear decay to
/// 0 at the end. The same numbers as `get_linear_schedule_with_warmup` of transformers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Schedule {
    /// Warm-up over this part of the steps, then linear decay to 0.
    Linear {
        /// Part of all steps, in [0, 1].
        warmup: f64,
    },
    /// Warm-up over this part of the steps, then constant.
    Constant {
        /// Part of all steps, in [0, 1].
        warmup: f64,
    },
}

impl Default for Schedule {
    fn default() -> Schedule {
        Schedule::Linear { warmup: 0.1 }
    }
}

impl Schedule {
    pub(crate) fn check(self) -> Result<()> {
        let (Schedule::Linear { warmup } | Schedule::Constant { warmup }) = self;
        match (0.0..=1.0).contains(&warmup) {
            true => Ok(()),
            false => Err(Error::invalid("warmup", warmup, "from 0 to 1")),
        }
    }

    /// The factor of step `step` (from 0) of `total`, in [0, 1]. A warm-up that is not a number counts as none.
    pub fn factor(self, step: u32, total: u32) -> f64 {
        let (Schedule::Linear { warmup } | Schedule::Constant { warmup }) = self;
        let part = if warmup.is_nan() { 0.0 } else { warmup.clamp(0.0, 1.0) };
        let warmup = (part * f64::from(total)).round();
        let (step, total) = (f64::from(step), f64::from(total));
        if step < warmup {
            return step / warmup;
        }
        match self {
            Schedule::Constant { .. } => 1.0,
            Schedule::Linear { .. } => ((total - step) / (total - warmup).max(1.0)).max(0.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warm_up_and_decay() {
        let schedule = Schedule::Linear { warmup: 0.2 };
        let factors: Vec<f64> = (0..=25).map(|step| schedule.factor(step, 25)).collect();
        assert_eq!(factors[..6], [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]);
        assert_eq!(factors[24], 1.0 / 20.0);
        assert_eq!(factors[25], 0.0);
        assert_eq!(Schedule::Constant { warmup: 0.0 }.factor(0, 10), 1.0);
        assert_eq!(Schedule::Constant { warmup: 0.5 }.factor(9, 10), 1.0);
        assert_eq!(Schedule::Linear { warmup: 0.0 }.factor(0, 0), 0.0);
    }

    #[test]
    fn factors_stay_between_0_and_1() {
        for warmup in [f64::NAN, -3.0, f64::NEG_INFINITY, 7.0, f64::INFINITY, 0.0, 0.3, 1.0] {
            for schedule in [Schedule::Linear { warmup }, Schedule::Constant { warmup }] {
                for (step, total) in [(0, 1000), (1, 1000), (999, 1000), (1000, 1000), (1001, 1000), (0, 0), (5, 1)] {
                    let factor = schedule.factor(step, total);
                    assert!((0.0..=1.0).contains(&factor), "{schedule:?} gives {factor} at {step} of {total}");
                }
                assert_eq!(schedule.check().is_ok(), (0.0..=1.0).contains(&warmup));
            }
        }
        let error = Schedule::Linear { warmup: f64::NAN }.check().unwrap_err().to_string();
        assert_eq!(error, "warmup is NaN, must be from 0 to 1");
    }
}
