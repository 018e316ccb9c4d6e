//! What examples share.

// No example uses all of it.
#![allow(dead_code, unused_imports)]

pub mod exit;
pub mod invented;
mod model;
mod picture;
mod reviews;
mod table;
mod training;

use std::path::Path;

use cloze::prelude::*;

pub use exit::Result;
pub use model::{DeviceArgument, ModelArgument, model};
pub use picture::{PictureArgument, default_page, is_svg};
pub use reviews::{LabelledTexts, TextsArgument};
pub use table::{Table, thousands};
pub use training::{Epoch, Recipe, TrainingArguments};

const MINI_CORPUS: &str = include_str!("../data/mini-corpus.txt");

/// Small documents in English and Portuguese.
pub fn mini_corpus() -> Result<Corpus> {
    let documents = MINI_CORPUS.split("\n\n").map(|document| document.lines().map(str::to_string).collect());
    Ok(Corpus::from_documents(documents.collect())?)
}

/// The texts that were given, or else those that come with the example.
pub fn texts<'a>(given: &'a [String], own: &[&'a str]) -> Vec<&'a str> {
    if given.is_empty() { own.to_vec() } else { given.iter().map(String::as_str).collect() }
}

/// An argument that is a number above 0.
pub fn positive(text: &str) -> std::result::Result<f32, String> {
    let number = text.parse().map_err(|error| format!("{error}"))?;
    if number > 0.0 && f32::is_finite(number) { Ok(number) } else { Err("must be above 0, and finite".into()) }
}

/// An argument that is a dropout which models can have.
pub fn dropout(text: &str) -> std::result::Result<f64, String> {
    let p = text.parse().map_err(|error| format!("{error}"))?;
    let config = BertConfig { hidden_dropout_prob: p, ..BertConfig::tiny(100) };
    config.validate().map(|()| p).map_err(|error| error.to_string())
}

/// What a model drops in training, in words.
pub fn dropout_of(config: &BertConfig) -> String {
    format!("{} of hidden states, {} of attention", config.hidden_dropout_prob, config.attention_probs_dropout_prob)
}

/// More threads than any machine has cores for.
const MOST_THREADS: usize = 1024;

/// Sets the number of threads of the process.
pub fn threads(threads: Option<usize>) -> Result {
    if let Some(threads) = threads {
        if !(1..=MOST_THREADS).contains(&threads) {
            return Err(format!("--threads is {threads}: must be from 1 to {MOST_THREADS}").into());
        }
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

/// Fails, naming the file, when [`write_json`] could not write it: before training, not after.
pub fn check_json(path: Option<&Path>) -> Result {
    let Some(path) = path else { return Ok(()) };
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let writable = if path.exists() {
        std::fs::OpenOptions::new().append(true).open(path).map(|_| ())
    } else {
        tempfile::NamedTempFile::new_in(folder).map(|_| ())
    };
    writable.map_err(|error| format!("{}: cannot write: {}", path.display(), error.kind()).into())
}

/// Writes a value as JSON to the file, if one is given.
pub fn write_json(path: Option<&Path>, value: &impl serde::Serialize) -> Result {
    let Some(path) = path else { return Ok(()) };
    let text = serde_json::to_string_pretty(value)? + "\n";
    std::fs::write(path, text).map_err(|error| format!("{}: cannot write: {error}", path.display()).into())
}
