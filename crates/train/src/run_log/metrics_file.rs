//! The file `metrics.jsonl`, which is appended to and read back.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind as Io, Write as _};
use std::path::{Path, PathBuf};

use cloze_tensor::write_file_atomically;

use super::records::{EvaluationRecord, LogLine, RunRecord, StepRecord};
use crate::{Error, ErrorKind, Result};

#[derive(Debug)]
pub(super) struct MetricsFile {
    path: PathBuf,
    file: File,
}

impl MetricsFile {
    /// Creates the file, which must not exist.
    pub(super) fn create(path: &Path) -> Result<MetricsFile> {
        let file =
            OpenOptions::new().append(true).create_new(true).open(path).map_err(|source| match source.kind() {
                Io::AlreadyExists => {
                    let why = "the directory already contains one: resume it or choose another directory";
                    Error::data_in(path, "run", why)
                }
                _ => Error::io(path, "cannot write", source),
            })?;
        Ok(MetricsFile { path: path.into(), file })
    }

    /// Opens the file, removes everything after `step` and returns the rest. A missing file is created.
    pub(super) fn resume(path: &Path, step: u32) -> Result<(MetricsFile, RunRecord)> {
        let bytes = match fs::read(path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == Io::NotFound => Vec::new(),
            Err(source) => return Err(Error::io(path, "cannot read", source)),
        };
        let (mut kept, mut record) = (Vec::with_capacity(bytes.len()), RunRecord::default());
        for (text, line) in lines(path, &bytes)? {
            if line.step() <= step {
                kept.extend_from_slice(text);
                kept.push(b'\n');
                record.push(line);
            }
        }
        if kept != bytes {
            write_file_atomically(path, &kept).map_err(|source| Error::io(path, "cannot write", source))?;
        }
        let file = OpenOptions::new().append(true).create(true).open(path);
        let file = file.map_err(|source| Error::io(path, "cannot write", source))?;
        Ok((MetricsFile { path: path.into(), file }, record))
    }

    pub(super) fn step(&mut self, record: &StepRecord) -> Result<()> {
        self.append(&LogLine::Step(*record))
    }

    pub(super) fn evaluation(&mut self, record: &EvaluationRecord) -> Result<()> {
        self.append(&LogLine::Evaluation(record.clone()))
    }

    pub(super) fn sync(&self) -> Result<()> {
        self.file.sync_data().map_err(|source| Error::io(&self.path, "cannot sync", source))
    }

    fn append(&mut self, line: &LogLine) -> Result<()> {
        let wrong = |source| Error::io(&self.path, "cannot write", source);
        let mut text = serde_json::to_vec(line).map_err(|error| wrong(error.into()))?;
        text.push(b'\n');
        // A single write keeps lines whole, unless the disk is full or the machine crashes.
        self.file.write_all(&text).map_err(wrong)
    }
}

pub(super) fn read(path: &Path) -> Result<RunRecord> {
    let bytes = fs::read(path).map_err(|source| Error::io(path, "cannot read", source))?;
    let mut record = RunRecord::default();
    lines(path, &bytes)?.into_iter().for_each(|(_, line)| record.push(line));
    Ok(record)
}

impl RunRecord {
    fn push(&mut self, line: LogLine) {
        match line {
            LogLine::Step(step) => self.steps.push(step),
            LogLine::Evaluation(evaluation) => self.evaluations.push(evaluation),
        }
    }
}

/// Returns the lines as text and parsed. A last line that is incomplete or malformed is left out.
fn lines<'a>(path: &Path, bytes: &'a [u8]) -> Result<Vec<(&'a [u8], LogLine)>> {
    let mut lines = Vec::new();
    let whole = bytes.iter().rposition(|&byte| byte == b'\n').and_then(|end| bytes.get(..end)).unwrap_or_default();
    let count = whole.split(|&byte| byte == b'\n').count();
    for (index, text) in whole.split(|&byte| byte == b'\n').enumerate() {
        if text.trim_ascii().is_empty() {
            continue;
        }
        match serde_json::from_slice(text) {
            Ok(line) => lines.push((text, line)),
            // After a power failure, the last line may be a block of zeros.
            Err(_) if index + 1 == count => {}
            Err(error) => {
                let why = format!("{error}; remove the line");
                let (path, line) = (Some(path.into()), Some(index + 1));
                return Err(ErrorKind::Data { what: "metrics", why, path, line }.into());
            }
        }
    }
    Ok(lines)
}
