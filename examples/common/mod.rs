//! What the examples share.

pub mod exit;
pub mod inspect;
pub mod report;

use std::path::{Path, PathBuf};

use cloze::prelude::*;

pub use exit::Result;

const MINI_CORPUS: &str = include_str!("../data/mini-corpus.txt");

/// Small documents in English and Portuguese.
pub fn mini_corpus() -> Result<Corpus> {
    let documents = MINI_CORPUS.split("\n\n").map(|document| document.lines().map(str::to_string).collect());
    Ok(Corpus::from_documents(documents.collect())?)
}

/// The folder or name that was asked for, or the small model of this repository.
pub fn model(asked: Option<&Path>) -> PathBuf {
    asked.map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("models/tiny"), Path::to_path_buf)
}

/// Learning rates for training from scratch.
pub fn default_learning_rate(config: &str) -> f64 {
    match config {
        "tiny" => 1e-3,
        "mini" => 5e-4,
        _ => 1e-4,
    }
}

/// Sets the number of threads of the process.
pub fn threads(threads: Option<usize>) -> Result {
    if let Some(threads) = threads {
        rayon::ThreadPoolBuilder::new().num_threads(threads).build_global()?;
    }
    Ok(())
}

/// Fails, naming the folder, when a model could not be saved there: before hours of training, not after.
pub fn check_writable(folder: &Path) -> Result {
    let existing = folder.ancestors().find(|ancestor| ancestor.exists() || ancestor.as_os_str().is_empty());
    let existing = existing.filter(|path| !path.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let writable = tempfile::NamedTempFile::new_in(existing);
    writable.map_err(|error| format!("{}: cannot write: {error}", folder.display()))?;
    Ok(())
}

/// Writes a value as JSON.
pub fn write_json(path: &Path, value: &impl serde::Serialize) -> Result {
    let text = serde_json::to_string_pretty(value)? + "\n";
    std::fs::write(path, text).map_err(|error| format!("{}: cannot write: {error}", path.display()).into())
}
