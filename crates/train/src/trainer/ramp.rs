//! The ramp of the batch size: small batches first.

use std::fmt;

use crate::{Error, Result};

/// A ramp of the batch size. The first steps of a run have fewer examples (or tokens): a fraction of the full number that
/// grows linearly.
///
/// At the start, the gradients of different examples agree, and a small batch gives about the same step as a large one.
///
/// Source: T. Brown et al., "Language models are few-shot learners", 2020, appendix B. There, the ramp is measured in
/// tokens; here, in steps, like the warm-up of a [`Schedule`](crate::Schedule).
///
/// ```
/// use cloze_train::BatchRamp;
/// let ramp = BatchRamp { from: 0.25, over: 0.5 };
/// assert_eq!([0, 25, 50, 99].map(|step| ramp.size(64, step, 100)), [16, 40, 64, 64]);
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BatchRamp {
    /// Size of the first step as a fraction of the full size, above 0 and at most 1.
    pub from: f64,
    /// Fraction of all steps over which the size grows, in [0, 1].
    pub over: f64,
}

/// `from 0.25 of the size, over 0.5 of the steps`
impl fmt::Display for BatchRamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "from {} of the size, over {} of the steps", self.from, self.over)
    }
}

impl BatchRamp {
    /// Returns the size of optimizer step `step` (from 0) of `total`, if the full size is `full`. It is rounded, and at
    /// least 1 unless the full size is 0.
    pub fn size(self, full: usize, step: u32, total: u32) -> usize {
        self.size_within(full, step, self.steps(total))
    }

    /// Returns the size of optimizer step `step`, if it grows over `steps` steps.
    pub(super) fn size_within(self, full: usize, step: u32, steps: u32) -> usize {
        if step >= steps {
            return full;
        }
        let fraction = self.from + (1.0 - self.from) * f64::from(step) / f64::from(steps);
        ((fraction * full as f64).round() as usize).clamp(full.min(1), full)
    }

    /// Returns the number of steps over which the size grows, in a run of `total` steps.
    pub(super) fn steps(self, total: u32) -> u32 {
        (self.over * f64::from(total)).round() as u32
    }

    /// Returns the mean size of the steps of a run, as a fraction of the full size.
    pub(super) fn mean(self) -> f64 {
        1.0 - self.over * (1.0 - self.from) / 2.0
    }

    pub(super) fn check(self) -> Result<()> {
        if !(self.from > 0.0 && self.from <= 1.0) {
            return Err(Error::invalid("start of the batch ramp", self.from, "above 0 and at most 1"));
        }
        if !(0.0..=1.0).contains(&self.over) {
            return Err(Error::invalid("length of the batch ramp", self.over, "from 0 to 1"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_grow_along_a_line_and_stay() {
        let ramp = BatchRamp { from: 0.25, over: 0.4 };
        let sizes: Vec<usize> = (0..100).map(|step| ramp.size(80, step, 100)).collect();
        for (step, &size) in sizes[..40].iter().enumerate() {
            assert_eq!(size, (20.0 + 60.0 * step as f64 / 40.0).round() as usize);
        }
        assert!(sizes[40..].iter().all(|&size| size == 80));
        let mean = sizes.iter().sum::<usize>() as f64 / 100.0 / 80.0;
        assert!((mean - ramp.mean()).abs() < 0.01, "{mean}");
    }

    #[test]
    fn no_size_is_zero_or_above_the_full_size() {
        for (from, over) in [(1e-9, 1.0), (0.25, 0.0), (1.0, 1.0), (0.6, 0.5)] {
            let ramp = BatchRamp { from, over };
            assert!(ramp.check().is_ok());
            for (full, total) in [(1, 1), (1, 50), (7, 3), (64, 1000), (5, 0)] {
                assert_eq!(ramp.size(0, 0, total), 0);
                assert!((0..=total).all(|step| (1..=full).contains(&ramp.size(full, step, total))));
                assert_eq!(ramp.size(full, total, total), full);
            }
        }
    }

    #[test]
    fn settings_out_of_range_are_refused() {
        for (from, over, said) in [
            (0.0, 0.5, "start of the batch ramp is 0, must be above 0 and at most 1"),
            (1.5, 0.5, "start of the batch ramp is 1.5, must be above 0 and at most 1"),
            (0.25, -0.1, "length of the batch ramp is -0.1, must be from 0 to 1"),
            (0.25, f64::NAN, "length of the batch ramp is NaN, must be from 0 to 1"),
        ] {
            assert_eq!(BatchRamp { from, over }.check().unwrap_err().to_string(), said);
        }
    }
}
