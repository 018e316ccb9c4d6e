//! Sentence similarity: the cosines of sentence embeddings, and the sentences most similar to a query.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use cloze::prelude::*;
use cloze_examples::{ModelArgument, Result, Table};
use serde_json::json;

/// Compares sentences by the cosines of their embeddings.
#[derive(Parser)]
struct Arguments {
    /// Sentences to compare [default: some built-in sentences]
    sentences: Vec<String>,
    #[command(flatten)]
    model: ModelArgument,
    /// Sentence to rank the others by [default: the first of the given sentences, or a built-in query]
    #[arg(long)]
    query: Option<String>,
    /// Number of most similar sentences to print [default: all]
    #[arg(long)]
    top: Option<usize>,
    /// Also write the results to this file, as JSON
    #[arg(long)]
    json: Option<PathBuf>,
}

const QUERY: &str = "The clerk takes her money to the bank.";

const SENTENCES: [&str; 7] = [
    "Rosa keeps her money in the bank.",
    "Grandmother takes the coins to the bank.",
    "A frog sits on the bank of the river.",
    "The dog barked at the postman.",
    "O cachorro latiu e mordeu o carteiro.",
    "A Rosa foi ao banco sacar dinheiro.",
    "O gato dormiu no tapete da sala.",
];

fn main() -> ExitCode {
    cloze_examples::exit_code(|| run(&Arguments::parse()))
}

fn run(arguments: &Arguments) -> Result {
    let model: Similarity = arguments.model.pipeline()?;
    let given: Vec<&str> = arguments.sentences.iter().map(String::as_str).collect();
    let (sentences, default_query) = match given.first() {
        None => (SENTENCES.to_vec(), QUERY),
        Some(first) => (given.clone(), *first),
    };
    let query = arguments.query.as_deref().unwrap_or(default_query);
    let matrix = cloze_examples::print_report(model.matrix(&sentences, &sentences)?);
    for (sentence, number) in sentences.iter().zip(1..) {
        println!("{number:>3}  {sentence}");
    }
    println!("\npairwise cosines\n\n{}", Table::square(&matrix));
    println!("most similar to {query:?}\n");
    let ranked = cloze_examples::print_report(model.most_similar(
        query,
        &sentences,
        arguments.top.unwrap_or(sentences.len()),
    )?);
    for (index, cosine) in &ranked {
        println!("{cosine:>7.3}  {}", sentences[*index]);
    }

    let ranked: Vec<_> =
        ranked.iter().map(|(index, cosine)| json!({"sentence": sentences[*index], "cosine": cosine})).collect();
    let report = json!({"sentences": sentences, "cosines": matrix, "query": query, "most_similar": ranked});
    cloze_examples::write_json(arguments.json.as_deref(), &report)
}
