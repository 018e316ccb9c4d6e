//! Sentences to vectors, for other programs: JSON Lines or tab-separated values.

mod common;

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, ValueEnum};
use cloze::prelude::*;
use common::{ModelArgument, Result};
use serde_json::json;

/// Turns sentences into vectors.
#[derive(Parser)]
struct Arguments {
    /// Sentences [default: some that come with the example]
    sentences: Vec<String>,
    #[command(flatten)]
    model: ModelArgument,
    /// Read a sentence a line from this file, or from standard input: -
    #[arg(long, value_name = "FILE", conflicts_with = "sentences")]
    input: Option<PathBuf>,
    /// Write the vectors to this file, not to standard output
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// How to write them: a JSON object a line, or the numbers and then the text, separated by tabs
    #[arg(long, value_enum, default_value_t = Format::Jsonl)]
    format: Format,
}

#[derive(Clone, Copy, ValueEnum)]
enum Format {
    Jsonl,
    Tsv,
}

const SENTENCES: [&str; 2] = ["Rosa keeps her money in the bank.", "A Rosa guarda o dinheiro no banco."];

fn main() -> ExitCode {
    common::code(run(&Arguments::parse()))
}

fn run(arguments: &Arguments) -> Result {
    let sentences = match &arguments.input {
        Some(path) => read(path)?,
        None if arguments.sentences.is_empty() => SENTENCES.map(String::from).to_vec(),
        None => arguments.sentences.clone(),
    };
    let model = SentenceEmbedder::open(arguments.model.place())?;
    let vectors = model.embed(&sentences.iter().map(String::as_str).collect::<Vec<_>>())?;

    let mut text = String::new();
    for (sentence, vector) in sentences.iter().zip(&vectors) {
        let line = match arguments.format {
            Format::Jsonl => json!({"text": sentence, "vector": vector}).to_string(),
            Format::Tsv => {
                let numbers = vector.iter().map(f32::to_string).collect::<Vec<_>>().join("\t");
                format!("{numbers}\t{}", sentence.replace(['\t', '\n', '\r'], " "))
            }
        };
        text.push_str(&line);
        text.push('\n');
    }
    match &arguments.out {
        Some(path) => {
            std::fs::write(path, text).map_err(|error| format!("{}: cannot write: {error}", path.display()))?;
        }
        None => {
            let written = std::io::stdout().write_all(text.as_bytes());
            written.map_err(|error| format!("standard output: cannot write: {error}"))?;
        }
    }
    Ok(())
}

/// The sentences of a file, one a line.
fn read(path: &Path) -> Result<Vec<String>> {
    let (name, text) = if path == Path::new("-") {
        let mut bytes = Vec::new();
        (String::from("standard input"), std::io::stdin().read_to_end(&mut bytes).map(|_| bytes))
    } else {
        (path.display().to_string(), std::fs::read(path))
    };
    let bytes = text.map_err(|error| format!("{name}: cannot read: {error}"))?;
    let text = String::from_utf8(bytes)
        .map_err(|error| format!("{name}: not UTF-8: invalid byte at offset {}", error.utf8_error().valid_up_to()))?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    if let Some(line) = text.lines().position(|line| line.trim().is_empty()) {
        return Err(format!("{name}: line {} is blank: a sentence a line is wanted", line + 1).into());
    }
    match text.is_empty() {
        true => Err(format!("{name}: has no sentence").into()),
        false => Ok(text.lines().map(str::to_string).collect()),
    }
}
