//! Fine-tunes BERT to re-rank documents: a cross-encoder reads a query together with a document, and predicts the
//! probability that the document answers the query. Prints NDCG@10, MRR@10 and MAP over the queries after every epoch,
//! and then ranks some documents.
//!
//! Without arguments, uses built-in queries and the small model of this repository. To use your own data, pass `--train
//! FILE` and `--validation FILE` or `--split FRACTION` with a query, a document and a label in each row: 1 if the document answers the query, 0 if
//! not, or a number in between. To use a real model, pass `--model DIR_OR_NAME`. The folder of `--out` opens as a
//! `CrossEncoder` here and in `sentence-transformers`.

use std::process::ExitCode;

use clap::Parser;
use cloze::prelude::*;
use cloze::tensor::random::{Purpose, Stream};
use cloze::train::metrics::ranking;
use cloze::train::{RegressionEvaluation, Row, split_by_group};
use cloze_examples::{Pairs, PairsArgument, Recipe, Result, TrainingArguments};
use serde::Serialize;
use serde_json::json;

/// Fine-tunes BERT to re-rank documents.
#[derive(Parser, Serialize)]
struct Arguments {
    #[command(flatten)]
    pairs: PairsArgument,
    /// Columns with the query, the document and the label [default: query,document,label, or 1,2,3 with --no-header]
    #[arg(long, value_delimiter = ',', num_args = 1..=3)]
    columns: Vec<String>,
    /// Maximum number of tokens of a query and a document together; the longer of the two is truncated
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u16).range(3..))]
    max_length: u16,
    #[command(flatten)]
    training: TrainingArguments,
}

/// The number of documents that count for NDCG and MRR, and that are ranked at the end.
const TOP: usize = 10;

fn main() -> ExitCode {
    cloze_examples::exit_code(|| run(&cloze_examples::parse()))
}

fn run(arguments: &Arguments) -> Result {
    arguments.training.check()?;
    let seed = arguments.training.seed;
    let built_in = || (built_in(120, false, seed), built_in(10, true, seed));
    // All documents of a query together.
    let split = |rows, fraction| split_by_group(rows, fraction, seed, |row: &Row| row.text.to_string());
    let names = ["query", "document", "label"];
    let [training, validation] = arguments.pairs.read(&arguments.columns, names, split, built_in)?;
    check_labels("train", &training)?;
    check_labels("validation", &validation)?;

    // One label that may apply or not: the score is a probability, and the loss is binary cross-entropy.
    let options = arguments.training.open_options().labels(["relevance"]).problem_type(ProblemType::MultiLabel);
    let mut model: BertForSequenceClassification = arguments.training.open(&options)?;
    let tokenizer = Tokenizer::open(arguments.training.model.place())?;
    let max_length = usize::from(arguments.max_length).min(model.config().max_position_embeddings);
    let (data, report) = training.encode(&tokenizer, max_length)?;
    println!("training: {report}");
    let (queries, documents) = (validation.texts.clone(), validation.second_texts.clone());
    let (validation, report) = validation.encode(&tokenizer, max_length)?;
    println!("validation: {report}");
    let relevant: Vec<bool> = validation.labels().iter().map(|&label| label > 0.5).collect();

    let recipe = match arguments.training.model.is_tiny() {
        true => Recipe { epochs: 6, batch: 16, lr: 1e-3 },
        false => Recipe { epochs: 1, batch: 16, lr: 2e-5 },
    };
    let data = data.seed(seed);
    let epochs = arguments.training.train(
        "finetune_reranker",
        &mut model,
        &data,
        &recipe,
        &arguments.pairs.held_out,
        |model| {
            let found = RegressionEvaluation::run(model, &validation, 32)?;
            let scores = ranking(&queries, &relevant, &found.predictions, TOP)?;
            Ok(Evaluation::maximize("NDCG@10", scores.ndcg).and("MRR@10", scores.mrr).and("MAP", scores.map))
        },
    )?;
    let Some(epochs) = epochs else { return Ok(()) };
    arguments.training.save(&model, &tokenizer)?;

    let query = &queries[0];
    let documents: Vec<&str> =
        queries.iter().zip(&documents).filter(|(other, _)| *other == query).map(|(_, document)| &**document).collect();
    println!("\n{query}");
    for (index, score) in CrossEncoder::new(model, tokenizer)?.rank(query, &documents, TOP)? {
        println!("{score:>8.4}  {}", documents[index]);
    }
    arguments.training.write_json(&json!({"arguments": arguments, "epochs": epochs}))
}

fn check_labels(name: &str, pairs: &Pairs) -> Result {
    match pairs.labels.iter().find(|label| !(0.0..=1.0).contains(*label)) {
        Some(label) => Err(format!("{name}: label {label} is out of range: 0 is irrelevant, 1 is relevant").into()),
        None => Ok(()),
    }
}

const WHO: [&str; 6] = ["The dog", "The cat", "Rosa", "The baker", "The boat", "The teacher"];
const DOES: [&str; 6] = ["sleeps", "runs", "sings", "waits", "eats bread", "looks back"];
const WHERE: [&str; 4] = ["in the garden", "by the river", "in the house", "at night"];

/// Returns questions, each with documents of which about a third answer it. The documents to evaluate on are about
/// others than those to train on.
fn built_in(documents: usize, is_validation: bool, seed: u64) -> Vec<Row> {
    let mut random = Stream::new(seed, Purpose::User, u32::from(is_validation), 0, 0);
    let who = if is_validation { &WHO[4..] } else { &WHO[..4] };
    let mut rows = Vec::new();
    for (asked, name) in WHERE.iter().enumerate() {
        let query = format!("Who is {name}?");
        for _ in 0..documents {
            let is_relevant = random.below(3) == 0;
            let place = if is_relevant { asked } else { (asked + 1 + random.below(WHERE.len() - 1)) % WHERE.len() };
            let text = format!("{} {} {}.", who[random.below(who.len())], DOES[random.below(DOES.len())], WHERE[place]);
            let label = f64::from(u8::from(is_relevant));
            rows.push(Row { second_text: Some(text.into()), ..Row::new(rows.len() + 1, query.clone(), label) });
        }
    }
    rows
}
