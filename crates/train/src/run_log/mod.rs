//! The log of a run: `metrics.jsonl`, with a JSON object per line, and event files for TensorBoard.

mod metrics_file;
mod records;
mod tensorboard;

use std::path::{Path, PathBuf};

use cloze_tensor::create_folders;

pub use records::{EvaluationRecord, RunRecord, StepRecord};

use crate::{Error, Result};
use metrics_file::MetricsFile;
use tensorboard::EventFile;

/// The log of a run. Measurements are written to the run directory immediately, so that a killed run loses none.
///
/// `metrics.jsonl` has a line for each step and each evaluation:
///
/// ```json
/// {"kind":"step","step":1,"epoch":1,"loss":0.69,"learning_rate":1e-05,"gradient_norm":2.1,"tokens":812,"elapsed":0.2}
/// {"kind":"evaluation","step":500,"loss":0.31,"accuracy":0.89}
/// ```
///
/// NaN and infinities, which JSON cannot express, are written as `null`. The same numbers are written to
/// `events.out.tfevents.*` files, one for each start of the run, for `tensorboard --logdir DIR`.
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
    /// Tokens and seconds up to the previous step, if any.
    before: Option<(u64, f64)>,
}

impl RunLog {
    /// Starts the log of a new run in `dir`, which is created if it does not exist.
    ///
    /// # Errors
    /// Returns an error if `dir` already contains the metrics of a run, or if a file cannot be written.
    pub fn create(dir: impl AsRef<Path>) -> Result<RunLog> {
        let dir = dir.as_ref();
        create_directory(dir)?;
        let metrics = MetricsFile::create(&metrics_path(dir))?;
        Ok(RunLog { metrics, events: EventFile::create(dir)?, before: None })
    }

    /// Resumes the log of a run after `step`. Lines of later steps and an incomplete last line are removed. Resuming
    /// after step 0 starts over.
    ///
    /// # Errors
    /// Returns an error if a line other than the last is malformed, or if a file cannot be read or written.
    pub fn resume(dir: impl AsRef<Path>, step: u32) -> Result<RunLog> {
        let dir = dir.as_ref();
        create_directory(dir)?;
        let (metrics, record) = MetricsFile::resume(&metrics_path(dir), step)?;
        let before = record.steps.last().map(|last| (last.tokens, last.elapsed));
        Ok(RunLog { metrics, events: EventFile::resume(dir, step)?, before })
    }

    /// Reads what the run in `dir` has measured so far. An incomplete last line is ignored.
    ///
    /// # Errors
    /// Returns an error if `metrics.jsonl` is missing or cannot be read, or if a line other than the last is malformed.
    pub fn read(dir: impl AsRef<Path>) -> Result<RunRecord> {
        metrics_file::read(&metrics_path(dir.as_ref()))
    }

    /// Logs an optimizer step.
    ///
    /// # Errors
    /// Returns an error if a file cannot be written.
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

    /// Logs the metrics of an evaluation after step `step`.
    ///
    /// # Errors
    /// Returns an error if a name is `kind`, `step` or a duplicate, or if a file cannot be written.
    pub fn evaluation(&mut self, step: u32, values: &[(String, f64)]) -> Result<()> {
        let record = EvaluationRecord { step, values: values.to_vec() };
        record.check()?;
        self.metrics.evaluation(&record)?;
        let tags: Vec<String> = values.iter().map(|(name, _)| format!("evaluation/{name}")).collect();
        let scalars: Vec<(&str, f64)> = tags.iter().map(String::as_str).zip(values.iter().map(|v| v.1)).collect();
        self.events.scalars(step, &scalars)
    }

    /// Makes what is logged survive a power failure.
    ///
    /// # Errors
    /// Returns an error if a file cannot be synced.
    pub(crate) fn sync(&self) -> Result<()> {
        self.metrics.sync()?;
        self.events.sync()
    }
}

fn create_directory(dir: &Path) -> Result<()> {
    create_folders(dir).map_err(|source| Error::io(dir, "cannot create the directory", source))
}

fn metrics_path(dir: &Path) -> PathBuf {
    dir.join("metrics.jsonl")
}

#[cfg(test)]
mod tests;
