//! Evaluations during a run.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize};

use crate::{Error, Result};

/// An interval in a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Every {
    /// After each epoch and at the end.
    Epoch,
    /// After every this many optimizer steps and at the end.
    Steps(u32),
}

impl fmt::Display for Every {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Every::Epoch => f.write_str("after each epoch"),
            Every::Steps(steps) => write!(f, "every {steps} steps"),
        }
    }
}

impl Every {
    pub(super) fn check(self, setting: &'static str) -> Result<()> {
        match self {
            Every::Steps(0) => Err(Error::invalid(setting, "every 0 steps", "at least every 1 step")),
            _ => Ok(()),
        }
    }

    pub(super) fn is_due(self, step: u32, epoch_ends: bool, is_last: bool) -> bool {
        is_last
            || match self {
                Every::Epoch => epoch_ends,
                Every::Steps(steps) => step.is_multiple_of(steps),
            }
    }
}

/// The metrics of an evaluation. The first one decides which evaluation is [the best](crate::Trainer::keep_best).
///
/// ```
/// use cloze_train::Evaluation;
/// let evaluation = Evaluation::maximize("accuracy", 0.91).and("f1", 0.89).and("loss", 0.25);
/// assert_eq!(evaluation.get("f1"), Some(0.89));
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    #[serde(deserialize_with = "metrics")]
    metrics: Vec<(String, f64)>,
    is_minimized: bool,
    #[serde(skip)]
    confusion: Option<Confusion>,
}

/// The names of classes, and the number of examples per true class (row) and predicted class (column).
pub(super) type Confusion = (Vec<String>, Vec<Vec<usize>>);

impl Evaluation {
    /// Makes an evaluation whose first metric is better when larger.
    pub fn maximize(name: impl Into<String>, value: f64) -> Evaluation {
        Evaluation { metrics: vec![(name.into(), value)], is_minimized: false, confusion: None }
    }

    /// Makes an evaluation whose first metric, such as a loss, is better when smaller.
    pub fn minimize(name: impl Into<String>, value: f64) -> Evaluation {
        Evaluation { metrics: vec![(name.into(), value)], is_minimized: true, confusion: None }
    }

    /// Adds a metric to show.
    pub fn and(mut self, name: impl Into<String>, value: f64) -> Evaluation {
        self.metrics.push((name.into(), value));
        self
    }

    /// Adds the confusion matrix of classes named `labels`, as [`confusion_matrix`](crate::metrics::confusion_matrix)
    /// returns it. The report of a run shows the last one.
    pub fn confusion<S: AsRef<str>>(self, labels: &[S], counts: Vec<Vec<usize>>) -> Evaluation {
        let labels = labels.iter().map(|label| label.as_ref().to_string()).collect();
        Evaluation { confusion: Some((labels, counts)), ..self }
    }

    /// Returns the metrics alone.
    pub(super) fn without_confusion_matrix(&self) -> Evaluation {
        Evaluation { confusion: None, ..self.clone() }
    }

    /// Returns the confusion matrix, if there is one.
    pub(super) fn confusion_matrix(&self) -> Option<&Confusion> {
        self.confusion.as_ref()
    }

    /// Returns the names and values of all metrics, the deciding one first.
    pub fn metrics(&self) -> &[(String, f64)] {
        &self.metrics
    }

    /// Returns the metric of this name.
    pub fn get(&self, name: &str) -> Option<f64> {
        self.metrics.iter().find(|(other, _)| other == name).map(|(_, value)| *value)
    }

    /// Returns whether this evaluation is better than another. A metric that is not finite is never better.
    pub(super) fn is_better_than(&self, other: &Evaluation) -> bool {
        let value = |evaluation: &Evaluation| evaluation.metrics.first().map(|(_, value)| *value);
        match (value(self).filter(|value| value.is_finite()), value(other).filter(|value| value.is_finite())) {
            (Some(new), Some(old)) => {
                if self.is_minimized {
                    new < old
                } else {
                    new > old
                }
            }
            (new, old) => new.is_some() && old.is_none(),
        }
    }
}

/// Reads metrics. JSON has `null` for values that are not finite; [`Evaluation::is_better_than`] treats them all alike.
fn metrics<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<(String, f64)>, D::Error> {
    let read = Vec::<(String, Option<f64>)>::deserialize(deserializer)?;
    Ok(read.into_iter().map(|(name, value)| (name, value.unwrap_or(f64::NAN))).collect())
}

/// `accuracy 0.9100, loss 0.2500`
impl std::fmt::Display for Evaluation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (at, (name, value)) in self.metrics.iter().enumerate() {
            write!(f, "{}{name} {value:.4}", if at == 0 { "" } else { ", " })?;
        }
        Ok(())
    }
}

/// The best evaluation so far.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Best {
    pub(super) step: u32,
    pub(super) evaluation: Evaluation,
    /// The number of evaluations since then.
    pub(super) since: u32,
}

impl Best {
    /// Adds an evaluation and returns whether it is the best one.
    pub(super) fn update(best: &mut Option<Best>, step: u32, evaluation: &Evaluation) -> bool {
        match best {
            Some(best) if !evaluation.is_better_than(&best.evaluation) => {
                best.since += 1;
                false
            }
            _ => {
                *best = Some(Best { step, evaluation: evaluation.clone(), since: 0 });
                true
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_is_the_first_of_equals() {
        for (evaluation, values) in [
            (
                Evaluation::maximize as fn(&'static str, f64) -> Evaluation,
                [f64::NAN, 0.3, 0.5, 0.5, f64::INFINITY, 0.4],
            ),
            (Evaluation::minimize, [f64::INFINITY, 0.3, 0.1, 0.1, f64::NAN, 0.2]),
        ] {
            let mut best = None;
            let taken = (1..).zip(values).map(|(step, value)| Best::update(&mut best, step, &evaluation("m", value)));
            assert_eq!(taken.collect::<Vec<_>>(), [true, true, true, false, false, false]);
            let best = best.unwrap();
            assert_eq!((best.step, best.since), (3, 3));
        }
    }

    #[test]
    fn due() {
        let due = |every: Every| (1..=7).filter(|&s| every.is_due(s, s % 3 == 0, s == 7)).collect::<Vec<u32>>();
        assert_eq!(due(Every::Epoch), [3, 6, 7]);
        assert_eq!(due(Every::Steps(2)), [2, 4, 6, 7]);
        assert_eq!(
            Every::Steps(0).check("evaluation").unwrap_err().to_string(),
            "evaluation is every 0 steps, must be at least every 1 step"
        );
    }
}
