//! What a run leaves behind to look at: `metrics.jsonl`, one JSON object a line, and event files for TensorBoard.

mod metrics_file;
mod records;
mod tensorboard;

use std::fs;
use std::path::{Path, PathBuf};

pub use records::{EvaluationRecord, RunRecord, StepRecord};

use crate::{Error, Result};
use metrics_file::MetricsFile;
use tensorboard::EventFile;

/// Writes the measurements of a run into a directory as they come, so that a run that is killed has lost none.
///
/// `metrics.jsonl` has a line for each step and each evaluation:
///
/// ```json
/// {"kind":"step","step":1,"epoch":1,"loss":0.69,"learning_rate":1e-05,"gradient_norm":2.1,"tokens":812,"elapsed":0.2}
/// {"kind":"evaluation","step":500,"loss":0.31,"accuracy":0.89}
/// ```
///
/// Numbers that JSON does not have (infinite, NaN) are `null`. Beside it, an `events.out.tfevents.*` file for each time
/// that the run was started has the same numbers for `tensorboard --logdir DIR`.
///
/// ```
/// use cloze_train::{RunLog, StepRecord};
/// # let folder = tempfile::tempdir()?;
/// # let dir = folder.path().join("run");
/// let mut log = RunLog::create(&dir)?;
/// let record = StepRecord { step: 1, epoch: 1, loss: 0.69, learning_rate: 1e-5, ..Default::default() };
/// log.step(&record)?;
/// log.evaluation(1, &[("accuracy".to_string(), 0.5)])?;
/// assert_eq!(RunLog::read(&dir)?.steps, [record]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct RunLog {
    metrics: MetricsFile,
    events: EventFile,
    /// Tokens and seconds at the step before, where there was one.
    before: Option<(u64, f64)>,
}

impl RunLog {
    /// The log of a new run in `dir`, which is made where it does not exist.
    ///
    /// # Errors
    /// When `dir` has the metrics of a run already, or the system refuses.
    pub fn create(dir: impl AsRef<Path>) -> Result<RunLog> {
        let dir = dir.as_ref();
        fs::create_dir_all(dir).map_err(|source| Error::io(dir, "cannot make the directory", source))?;
        let metrics = MetricsFile::create(&metrics_path(dir))?;
        Ok(RunLog { metrics, events: EventFile::create(dir)?, before: None })
    }

    /// The log of a run that goes on after `step`: what was written of later steps is cut off, and so is a last line
    /// that was only half written. After step 0, it is the log of a run that begins anew.
    ///
    /// # Errors
    /// When a line but the last of the metrics is none, or the system refuses.
    pub fn resume(dir: impl AsRef<Path>, step: u32) -> Result<RunLog> {
        let dir = dir.as_ref();
        fs::create_dir_all(dir).map_err(|source| Error::io(dir, "cannot make the directory", source))?;
        let (metrics, record) = MetricsFile::resume(&metrics_path(dir), step)?;
        let before = record.steps.last().map(|last| (last.tokens, last.elapsed));
        Ok(RunLog { metrics, events: EventFile::resume(dir, step)?, before })
    }

    /// What the run in `dir` has measured so far. A last line that is only half written is passed over.
    ///
    /// # Errors
    /// When there is no `metrics.jsonl`, it cannot be read, or a line but the last is none of the two kinds.
    pub fn read(dir: impl AsRef<Path>) -> Result<RunRecord> {
        metrics_file::read(&metrics_path(dir.as_ref()))
    }

    /// Writes down a step.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn step(&mut self, record: &StepRecord) -> Result<()> {
        self.metrics.step(record)?;
        let mut scalars = vec![
            ("train/loss", record.loss),
            ("train/learning_rate", record.learning_rate),
            ("train/gradient_norm", record.gradient_norm),
            ("train/epoch", f64::from(record.epoch)),
        ];
        let (tokens, elapsed) = self.before.unwrap_or_default();
        if record.elapsed > elapsed && record.tokens >= tokens {
            scalars.push(("train/tokens_per_second", (record.tokens - tokens) as f64 / (record.elapsed - elapsed)));
        }
        self.before = Some((record.tokens, record.elapsed));
        self.events.scalars(record.step, &scalars)
    }

    /// Writes down what an evaluation after step `step` measured.
    ///
    /// # Errors
    /// When a name is `kind` or `step` or there twice, or the system refuses.
    pub fn evaluation(&mut self, step: u32, values: &[(String, f64)]) -> Result<()> {
        let record = EvaluationRecord { step, values: values.to_vec() };
        record.check()?;
        self.metrics.evaluation(&record)?;
        let tags: Vec<String> = values.iter().map(|(name, _)| format!("evaluation/{name}")).collect();
        let scalars: Vec<(&str, f64)> = tags.iter().map(String::as_str).zip(values.iter().map(|v| v.1)).collect();
        self.events.scalars(step, &scalars)
    }
}

fn metrics_path(dir: &Path) -> PathBuf {
    dir.join("metrics.jsonl")
}

#[cfg(test)]
mod tests;
