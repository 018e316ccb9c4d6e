//! Re-ranking: a cross-encoder reads a query together with each document, and sorts the documents by its scores.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use cloze::prelude::*;
use cloze_examples::{DeviceArgument, Result};
use serde_json::json;

/// Sorts documents by how well they answer a query.
#[derive(Parser)]
struct Arguments {
    /// Query
    query: String,
    /// Documents
    #[arg(required = true)]
    documents: Vec<String>,
    /// Folder of a cross-encoder, or its name on the Hugging Face Hub
    #[arg(long, value_name = "DIR_OR_NAME")]
    model: PathBuf,
    #[command(flatten)]
    device: DeviceArgument,
    /// Read documents that are too long in overlapping windows, and average their scores, instead of cutting the end
    #[arg(long)]
    windows: bool,
    /// Number of documents to print [default: all]
    #[arg(long)]
    top: Option<usize>,
    /// Also write the results to this file, as JSON
    #[arg(long)]
    json: Option<PathBuf>,
}

fn main() -> ExitCode {
    cloze_examples::exit_code(|| run(&Arguments::parse()))
}

fn run(arguments: &Arguments) -> Result {
    let model = CrossEncoder::open_on(&arguments.model, &arguments.device.device)?;
    let model = if arguments.windows { model.long_texts(LongText::Windows) } else { model };
    let documents: Vec<&str> = arguments.documents.iter().map(String::as_str).collect();
    let ranked = model.rank(&arguments.query, &documents, arguments.top.unwrap_or(documents.len()))?;
    let ranked = cloze_examples::print_report(ranked);
    for (index, score) in &ranked {
        println!("{score:>8.4}  {}", documents[*index]);
    }
    let ranked: Vec<_> =
        ranked.iter().map(|(index, score)| json!({"document": documents[*index], "score": score})).collect();
    cloze_examples::write_json(arguments.json.as_deref(), &json!({"query": arguments.query, "ranked": ranked}))
}
