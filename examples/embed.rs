//! Sentence embeddings for other programs, as JSON Lines or tab-separated values.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, ValueEnum};
use cloze::prelude::*;
use cloze_examples::{ModelArgument, Result};
use serde::Serialize;

/// Embeds sentences: prints a vector for each.
#[derive(Parser)]
struct Arguments {
    /// Sentences to embed [default: two built-in sentences]
    sentences: Vec<String>,
    #[command(flatten)]
    model: ModelArgument,
    /// Precision of matrix products: f32, bf16 or int8, from most accurate to fastest
    #[arg(long, default_value_t = Precision::F32)]
    precision: Precision,
    /// The sentences are queries: put the model's prompt for queries before them instead of its default prompt
    #[arg(long)]
    query: bool,
    /// Put the prompt of this name, which the model defines, before the sentences instead of its default prompt
    #[arg(long, value_name = "NAME", conflicts_with = "query")]
    prompt: Option<String>,
    /// Cut the vectors to this many numbers, and normalise them again, for models that were trained for it
    #[arg(long, value_name = "NUMBERS")]
    dimension: Option<usize>,
    /// Read sentences that are too long in overlapping windows, and average their vectors, instead of cutting the end
    #[arg(long)]
    windows: bool,
    /// Read one sentence per line from this file, or from standard input if it is -
    #[arg(long, value_name = "FILE", conflicts_with = "sentences")]
    input: Option<PathBuf>,
    /// Write the vectors to this file instead of standard output
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Output format: a JSON object per line, or the numbers and then the text, separated by tabs
    #[arg(long, value_enum, default_value_t = Format::Jsonl)]
    format: Format,
}

#[derive(Clone, Copy, ValueEnum)]
enum Format {
    Jsonl,
    Tsv,
}

#[derive(Serialize)]
struct Line<'a> {
    text: &'a str,
    vector: &'a [f32],
}

const SENTENCES: [&str; 2] = ["Rosa keeps her money in the bank.", "A Rosa guarda o dinheiro no banco."];

fn main() -> ExitCode {
    cloze_examples::exit_code(|| run(&Arguments::parse()))
}

fn run(arguments: &Arguments) -> Result {
    let lines = arguments.input.as_deref().map_or_else(|| Ok(String::new()), read)?;
    let sentences: Vec<&str> = match lines.is_empty() {
        true => cloze_examples::texts(&arguments.sentences, &SENTENCES),
        false => lines.lines().collect(),
    };
    let model = arguments.model.pipeline::<SentenceEmbedder>()?.precision(arguments.precision);
    let model = if arguments.windows { model.long_texts(LongText::Windows) } else { model };
    let model = match arguments.dimension {
        Some(dimension) => model.truncated(dimension)?.normalized(true),
        None => model,
    };
    let vectors = match &arguments.prompt {
        Some(name) => model.prompted(name, &sentences)?,
        None if arguments.query => model.query(&sentences)?,
        None => model.embed(&sentences)?,
    };
    let vectors = cloze_examples::print_report(vectors);

    let mut text = String::new();
    for (sentence, vector) in sentences.iter().zip(&vectors) {
        let line = match arguments.format {
            Format::Jsonl => serde_json::to_string(&Line { text: sentence, vector })?,
            Format::Tsv => {
                let numbers = vector.iter().map(f32::to_string).collect::<Vec<_>>().join("\t");
                format!("{numbers}\t{}", sentence.replace(['\t', '\n', '\r'], " "))
            }
        };
        text.push_str(&line);
        text.push('\n');
    }
    match &arguments.out {
        Some(path) => cloze_examples::write_file(path, |file| file.write_all(text.as_bytes())),
        None => {
            print!("{text}");
            Ok(())
        }
    }
}

/// Reads a file with one sentence per line.
fn read(path: &Path) -> Result<String> {
    let mut bytes = Vec::new();
    let (name, read) = match path == Path::new("-") {
        true => ("standard input".to_string(), std::io::stdin().read_to_end(&mut bytes)),
        false => (path.display().to_string(), File::open(path).and_then(|mut file| file.read_to_end(&mut bytes))),
    };
    read.map_err(|error| format!("{name}: cannot read: {error}"))?;
    let text = String::from_utf8(bytes)
        .map_err(|error| format!("{name}: not UTF-8: invalid byte at offset {}", error.utf8_error().valid_up_to()))?;
    let text = text.trim_start_matches('\u{feff}');
    if let Some(line) = text.lines().position(|line| line.trim().is_empty()) {
        return Err(format!("{name}: line {} is blank: every line must be a sentence", line + 1).into());
    }
    match text.is_empty() {
        true => Err(format!("{name}: is empty: every line must be a sentence").into()),
        false => Ok(text.to_string()),
    }
}
