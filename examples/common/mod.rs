//! What examples share.

// No example uses all of it.
#![allow(dead_code, unused_imports)]

mod exit;
mod model;
mod table;

use std::path::Path;

use cloze::prelude::*;

pub use exit::{Result, code};
pub use model::ModelArgument;
pub use table::{Table, thousands};

const MINI_CORPUS: &str = include_str!("../data/mini-corpus.txt");

/// Small documents in English and Portuguese.
pub fn mini_corpus() -> Result<Corpus> {
    let documents = MINI_CORPUS.split("\n\n").map(|document| document.lines().map(str::to_string).collect());
    Ok(Corpus::from_documents(documents.collect())?)
}

/// Writes a value as JSON to the file, if one is given.
pub fn write_json(path: Option<&Path>, value: &impl serde::Serialize) -> Result {
    let Some(path) = path else { return Ok(()) };
    let text = serde_json::to_string_pretty(value)? + "\n";
    std::fs::write(path, text).map_err(|error| format!("{}: cannot write: {error}", path.display()).into())
}
