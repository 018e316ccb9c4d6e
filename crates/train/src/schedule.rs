//! Learning rate schedules.

use std::fmt;

use crate::{Error, Result};

/// A learning rate schedule: the learning rate of each step as a factor of its peak.
///
/// Every schedule begins with a linear warm-up from 0 and then follows its curve. The factors equal those of the schedules in
/// transformers, and `warmup` is its `warmup_steps`: below 1, a fraction of all steps, rounded up; from 1, a number of steps.
///
/// ```
/// use cloze_train::Schedule;
/// assert_eq!(Schedule::Cosine { warmup: 0.0 }.factor(50, 100), 0.5);
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Schedule {
    /// Decays linearly from the peak to 0.
    Linear {
        /// The fraction of all steps spent on the warm-up, or their number if it is at least 1.
        warmup: f64,
    },
    /// Stays at the peak.
    Constant {
        /// The fraction of all steps spent on the warm-up, or their number if it is at least 1.
        warmup: f64,
    },
    /// Decays from the peak to 0 along half a cosine wave.
    Cosine {
        /// The fraction of all steps spent on the warm-up, or their number if it is at least 1.
        warmup: f64,
    },
    /// Repeats the cosine decay several times, restarting from the peak. All cycles have the same length.
    ///
    /// Source: I. Loshchilov, F. Hutter, "SGDR: Stochastic gradient descent with warm restarts", 2017.
    CosineRestarts {
        /// The fraction of all steps spent on the warm-up, or their number if it is at least 1.
        warmup: f64,
        /// Number of cycles, at least 1.
        cycles: u32,
    },
    /// Decays from the peak to `end` in proportion to the fraction of steps left, raised to `power`.
    Polynomial {
        /// The fraction of all steps spent on the warm-up, or their number if it is at least 1.
        warmup: f64,
        /// Exponent, greater than 0; 1 is linear.
        power: f64,
        /// Factor at the last step, in [0, 1].
        end: f64,
    },
}

impl Default for Schedule {
    fn default() -> Schedule {
        Schedule::Linear { warmup: 0.1 }
    }
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Schedule::Linear { .. } => f.write_str("linear")?,
            Schedule::Constant { .. } => f.write_str("constant")?,
            Schedule::Cosine { .. } => f.write_str("cosine")?,
            Schedule::CosineRestarts { cycles, .. } => write!(f, "cosine, {cycles} cycles")?,
            Schedule::Polynomial { power, end, .. } => write!(f, "polynomial, power {power}, to {end} of the peak")?,
        }
        match self.warmup() {
            0.0 => Ok(()),
            warmup if warmup < 1.0 => write!(f, ", warm-up over {warmup} of the steps"),
            warmup => write!(f, ", warm-up over {warmup} steps"),
        }
    }
}

impl Schedule {
    fn warmup(self) -> f64 {
        match self {
            Schedule::Linear { warmup }
            | Schedule::Constant { warmup }
            | Schedule::Cosine { warmup }
            | Schedule::CosineRestarts { warmup, .. }
            | Schedule::Polynomial { warmup, .. } => warmup,
        }
    }

    pub(crate) fn check(self) -> Result<()> {
        let (part, warmup) = (0.0..=1.0, self.warmup());
        let is_number = warmup >= 1.0 && warmup.fract() == 0.0 && warmup.is_finite();
        if !part.contains(&warmup) && !is_number {
            return Err(Error::invalid("warmup", warmup, "a fraction below 1 or a whole number of steps"));
        }
        match self {
            Schedule::CosineRestarts { cycles: 0, .. } => Err(Error::invalid("cycles", 0, "at least 1")),
            Schedule::Polynomial { power, .. } if !(power > 0.0 && power.is_finite()) => {
                Err(Error::invalid("power", power, "greater than 0 and finite"))
            }
            Schedule::Polynomial { end, .. } if !part.contains(&end) => Err(Error::invalid("end", end, "from 0 to 1")),
            _ => Ok(()),
        }
    }

    /// Returns the factor of step `step` (from 0) of `total`, in [0, 1]. Settings out of range are clamped, and NaN
    /// counts as 0.
    pub fn factor(self, step: u32, total: u32) -> f64 {
        let part = |x: f64| if x.is_nan() { 0.0 } else { x.clamp(0.0, 1.0) };
        let (step, total) = (f64::from(step), f64::from(total));
        let warmup = match self.warmup() {
            steps if steps >= 1.0 => steps.trunc(),
            fraction => (part(fraction) * total).ceil(),
        };
        if step < warmup {
            return step / warmup;
        }
        // The fraction of the steps after the warm-up that has passed.
        let passed = ((step - warmup) / (total - warmup).max(1.0)).min(1.0);
        let cosine = |passed: f64| 0.5 * (1.0 + (std::f64::consts::PI * passed).cos());
        match self {
            Schedule::Constant { .. } => 1.0,
            Schedule::Linear { .. } => ((total - step) / (total - warmup).max(1.0)).max(0.0),
            Schedule::Cosine { .. } => cosine(passed),
            Schedule::CosineRestarts { .. } if passed == 1.0 => 0.0,
            Schedule::CosineRestarts { cycles, .. } => cosine((f64::from(cycles.max(1)) * passed).fract()),
            Schedule::Polynomial { power, end, .. } => {
                let (power, end) = (if power.is_nan() { 0.0 } else { power.max(0.0) }, part(end));
                (1.0 - end) * (1.0 - passed).powf(power) + end
            }
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

    /// Expected values from `TrainingArguments(warmup_steps=..).get_warmup_steps(total)` of transformers 5.23.
    #[test]
    fn fractions_are_rounded_up_as_in_transformers() {
        let steps = [
            (0.0, 10, 0),
            (0.1, 25, 3),
            (0.1, 30, 3),
            (0.07, 100, 8), // 0.07 × 100 is above 7 in f64
            (0.001, 10, 1),
            (0.999, 1000, 999),
            (1.0, 10, 1),
            (4.0, 10, 4),
            (40.0, 10, 40),
        ];
        for (warmup, total, expected) in steps {
            let schedule = Schedule::Constant { warmup };
            let found = (0..=100).take_while(|&step| schedule.factor(step, total) < 1.0).count();
            assert_eq!(found.min(expected.max(101)), expected.min(101), "{warmup} of {total}");
        }
        let said = |warmup| Schedule::Linear { warmup }.to_string();
        assert_eq!(said(0.1), "linear, warm-up over 0.1 of the steps");
        assert_eq!(said(100.0), "linear, warm-up over 100 steps");
    }

    fn all(warmup: f64) -> [Schedule; 5] {
        [
            Schedule::Linear { warmup },
            Schedule::Constant { warmup },
            Schedule::Cosine { warmup },
            Schedule::CosineRestarts { warmup, cycles: 3 },
            Schedule::Polynomial { warmup, power: 2.0, end: 0.1 },
        ]
    }

    /// Expected values from transformers 5.23, from step 3 of 10 with a warm-up of 2 steps:
    /// `get_cosine_schedule_with_warmup`, `get_cosine_with_hard_restarts_schedule_with_warmup` with `num_cycles=3`, and
    /// `get_polynomial_decay_schedule_with_warmup` with a peak of 1 and `lr_end=0.1, power=2`.
    #[test]
    fn decays_as_transformers() {
        let expected = [
            [0.961939766, 0.853553391, 0.691341716, 0.5, 0.308658284, 0.146446609, 0.038060234, 0.0],
            [0.691341716, 0.146446609, 0.961939766, 0.5, 0.038060234, 0.853553391, 0.308658284, 0.0],
            [0.7890625, 0.60625, 0.4515625, 0.325, 0.2265625, 0.15625, 0.1140625, 0.1],
        ];
        for (schedule, expected) in all(0.2)[2..].iter().zip(expected) {
            assert_eq!([0, 1, 2].map(|step| schedule.factor(step, 10)), [0.0, 0.5, 1.0]);
            for (step, expected) in (3..).zip(expected) {
                let found = schedule.factor(step, 10);
                assert!((found - expected).abs() < 1e-9, "{schedule:?}: {found} at {step}, not {expected}");
            }
        }
    }

    #[test]
    fn settings_that_make_no_sense_are_errors() {
        let said = |schedule: Schedule| schedule.check().unwrap_err().to_string();
        assert_eq!(said(Schedule::CosineRestarts { warmup: 0.0, cycles: 0 }), "cycles is 0, must be at least 1");
        for power in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            let polynomial = Schedule::Polynomial { warmup: 0.0, power, end: 0.0 };
            assert_eq!(said(polynomial), format!("power is {power}, must be greater than 0 and finite"));
            assert!((0.0..=1.0).contains(&polynomial.factor(5, 10)));
        }
        for end in [-0.1, 1.5, f64::NAN] {
            let polynomial = Schedule::Polynomial { warmup: 0.0, power: 1.0, end };
            assert_eq!(said(polynomial), format!("end is {end}, must be from 0 to 1"));
            assert!((0.0..=1.0).contains(&polynomial.factor(5, 10)));
        }
    }

    #[test]
    fn factors_stay_between_0_and_1() {
        for warmup in [f64::NAN, -3.0, f64::NEG_INFINITY, 7.0, f64::INFINITY, 0.0, 0.3, 1.0] {
            for schedule in all(warmup) {
                for (step, total) in [(0, 1000), (1, 1000), (999, 1000), (1000, 1000), (1001, 1000), (0, 0), (5, 1)] {
                    let factor = schedule.factor(step, total);
                    assert!((0.0..=1.0).contains(&factor), "{schedule:?} gives {factor} at {step} of {total}");
                }
                assert_eq!(schedule.check().is_ok(), [0.0, 0.3, 1.0, 7.0].contains(&warmup), "{schedule:?}");
            }
        }
        for warmup in [f64::NAN, -0.5, 1.5] {
            let error = Schedule::Linear { warmup }.check().unwrap_err().to_string();
            assert_eq!(error, format!("warmup is {warmup}, must be a fraction below 1 or a whole number of steps"));
        }
    }
}
