//! Re-ranking: a cross-encoder reads a query together with each document, and sorts the documents by its scores.
//!
//! Without `--model`, the small model of this repository scores how likely each document follows the query, which it
//! learned in pre-training. With `--model DIR_OR_NAME`, uses a real model.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use cloze::prelude::*;
use cloze_examples::{DeviceArgument, Result};
use serde_json::json;

/// Sorts documents by how well they answer a query.
#[derive(Parser)]
struct Arguments {
    /// Query [default: a built-in sentence, and documents to go with it]
    #[arg(requires = "documents")]
    query: Option<String>,
    /// Documents
    documents: Vec<String>,
    /// Cross-encoder, a folder or a name on the Hugging Face Hub [default: the next-sentence head of
    /// models/tiny in this repository]
    #[arg(long, value_name = "DIR_OR_NAME")]
    model: Option<PathBuf>,
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

const QUERY: &str = "Tom is a baker and he makes bread.";

const DOCUMENTS: [&str; 4] = [
    "The red boat is on the river.",
    "He makes the bread at night.",
    "The rain falls on the river and on the boat.",
    "The old dog sleeps at the door.",
];

fn main() -> ExitCode {
    cloze_examples::exit_code(|| run(&Arguments::parse()))
}

fn run(arguments: &Arguments) -> Result {
    cloze_examples::check_json(arguments.json.as_deref())?;
    let model = match &arguments.model {
        Some(place) => arguments.device.pipeline(place)?,
        None => next_sentence(arguments)?,
    };
    let model: CrossEncoder = if arguments.windows { model.long_texts(LongText::Windows) } else { model };
    let query = arguments.query.as_deref().unwrap_or(QUERY);
    let documents = cloze_examples::texts(&arguments.documents, &DOCUMENTS);
    let ranked = model.rank(query, &documents, arguments.top.unwrap_or(documents.len()))?;
    let ranked = cloze_examples::print_report(ranked);
    println!("{query}");
    for (index, score) in &ranked {
        println!("{score:>8.4}  {}", documents[*index]);
    }
    let ranked: Vec<_> =
        ranked.iter().map(|(index, score)| json!({"document": documents[*index], "score": score})).collect();
    cloze_examples::write_json(arguments.json.as_deref(), &json!({"query": query, "ranked": ranked}))
}

/// Returns a cross-encoder whose score is the probability that the document follows the query. The sigmoid of the
/// difference of two logits is their softmax, so the difference of the two rows of the next-sentence head is its head.
fn next_sentence(arguments: &Arguments) -> Result<CrossEncoder> {
    let (place, device) = (cloze_examples::tiny_model(), arguments.device.open()?);
    println!("No --model: scoring with the next-sentence head of models/tiny\n");
    let next = BertForNextSentencePrediction::open(&place, device)?;
    let options = OpenOptions::new().labels(["follows"]).fresh_head();
    let mut model = BertForSequenceClassification::open_with(&place, device, &options)?;
    let head = next.cls.seq_relationship;
    model.classifier.weight = head.weight.narrow(0, 0, 1)?.sub(&head.weight.narrow(0, 1, 1)?)?;
    model.classifier.bias = head.bias.narrow(0, 0, 1)?.sub(&head.bias.narrow(0, 1, 1)?)?;
    Ok(CrossEncoder::new(model, Tokenizer::open(&place)?)?)
}
