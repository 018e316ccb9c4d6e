//! Fine-tunes BERT to classify sentences (section 5.6 of the course): cleans the rows, trains, and says loss, accuracy
//! and F1 after every epoch; then classifies some sentences.
//!
//! With no arguments, on a few built-in reviews and the small model of this repository. On data of your own:
//! `--train FILE --validation FILE`, TSV, CSV or JSON Lines; on a real model: `--model DIR_OR_NAME`.

mod common;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;
use cloze::prelude::*;
use cloze::train::metrics::Average;
use cloze::train::{Row, Sanitized, Step};
use common::{ModelArgument, Result};
use serde::Serialize;

/// Fine-tunes BERT to classify sentences.
#[derive(Parser, Serialize)]
struct Arguments {
    /// Rows to train on: .tsv, .csv or .jsonl [default: a few built-in reviews]
    #[arg(long, requires = "validation")]
    train: Option<PathBuf>,
    /// Rows to evaluate on
    #[arg(long, requires = "train")]
    validation: Option<PathBuf>,
    /// Column of the texts [default: sentence, text or content]
    #[arg(long)]
    text_column: Option<String>,
    /// Column of the labels
    #[arg(long, default_value = "label")]
    label_column: String,
    /// Names of the classes 0, 1, ..., with commas between them [default: as the labels say]
    #[arg(long, value_delimiter = ',')]
    labels: Vec<String>,
    #[command(flatten)]
    model: ModelArgument,
    /// Passes over the data [default: 2, or 30 for the built-in reviews]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    epochs: Option<u32>,
    /// Sentences in a batch [default: 16, or 8 for the built-in reviews]
    #[arg(long)]
    batch: Option<usize>,
    /// Peak learning rate [default: 2e-5, or 1e-3 for the small model]
    #[arg(long)]
    lr: Option<f64>,
    /// Most tokens of a sentence; longer ones are cut
    #[arg(long, default_value_t = 128, value_parser = clap::value_parser!(u16).range(3..))]
    max_length: u16,
    /// What matrix products are computed in: f32, or bf16, which processors with AVX512-BF16 compute twice as fast
    #[arg(long, default_value_t = Precision::F32)]
    precision: Precision,
    /// Seed of everything random
    #[arg(long, default_value_t = 42)]
    seed: u64,
    /// Threads; the result does not depend on them [default: one a core]
    #[arg(long)]
    threads: Option<usize>,
    /// Save the model and its tokenizer to this folder
    #[arg(long)]
    out: Option<PathBuf>,
    /// Also write what is printed to this file, as JSON
    #[arg(long)]
    json: Option<PathBuf>,
    /// Sentences to classify afterwards [default: some reviews]
    sentences: Vec<String>,
}

/// What is known after an epoch.
#[derive(Clone, Serialize)]
struct Epoch {
    epoch: u32,
    training_loss: f64,
    loss: f64,
    accuracy: f64,
    f1: f64,
}

/// What `--json` writes.
#[derive(Serialize)]
struct Report<'a> {
    arguments: &'a Arguments,
    labels: &'a [String],
    epochs: &'a [Epoch],
    predictions: Vec<(&'a str, String, Vec<f64>)>,
}

const TRAIN: &str = include_str!("data/reviews-train.tsv");
const VALIDATION: &str = include_str!("data/reviews-validation.tsv");
const SENTENCES: [&str; 4] = [
    "I absolutely loved this wonderful garden!",
    "A cold room and an awful night.",
    "The singers were excellent and the music was great.",
    "The story is weak and the end is boring.",
];

fn main() -> ExitCode {
    common::exit::code(|| run(&Arguments::parse()))
}

fn run(arguments: &Arguments) -> Result {
    common::threads(arguments.threads)?;
    common::check_json(arguments.json.as_deref())?;
    if let Some(out) = &arguments.out {
        common::check_writable(out)?;
    }
    let is_built_in = arguments.train.is_none();
    let (training, validation) = match (&arguments.train, &arguments.validation) {
        (Some(training), Some(validation)) => (rows(training, arguments)?, rows(validation, arguments)?),
        _ => {
            println!("No --train and --validation: on the built-in reviews.");
            (built_in(TRAIN), built_in(VALIDATION))
        }
    };
    let labels = match arguments.labels.is_empty() {
        true => label_names(&training).map_err(|error| format!("train: {error}"))?,
        false => arguments.labels.clone(),
    };
    check_labels(&labels)?;
    let training = clean("train", training, &labels)?;
    let validation = clean("validation", validation, &labels)?;
    println!("{} sentences to train on, {} to evaluate on", training.texts.len(), validation.texts.len());

    let place = arguments.model.place();
    let options = OpenOptions::new().labels(&labels).fresh_head().seed(arguments.seed);
    let (mut model, report) = BertForSequenceClassification::open_with(&place, &Device::Cpu, &options)?;
    println!("{}: {report}", arguments.model.name());
    let tokenizer = Tokenizer::open(&place)?;
    let max_length = usize::from(arguments.max_length).min(model.config().max_position_embeddings);
    let data = |clean: &Sanitized| LabelledData::of_texts(&clean.texts, clean.labels.clone(), &tokenizer, max_length);
    let (training, report) = data(&training)?;
    println!("{report}");
    let training = training.seed(arguments.seed);
    let (validation, _) = data(&validation)?;

    let is_small = arguments.model.is_small();
    let trainer = Trainer::new(&mut model)
        .optimizer(AdamW::new(arguments.lr.unwrap_or(if is_small { 1e-3 } else { 2e-5 })))
        .batch_size(arguments.batch.unwrap_or(if is_built_in { 8 } else { 16 }))
        .epochs(arguments.epochs.unwrap_or(if is_built_in { 30 } else { 2 }))
        .precision(arguments.precision)
        .seed(arguments.seed);
    let (mut epochs, mut losses) = (Vec::new(), Vec::new());
    println!("\nepoch  training loss  validation loss  accuracy      F1");
    trainer.run_with(&training, |model, step: &Step| {
        losses.push(step.loss);
        if step.epoch_ends {
            let found = ClassificationEvaluation::run(model, &validation, 32)?;
            let training_loss = losses.iter().sum::<f64>() / losses.len() as f64;
            let (loss, accuracy, f1) = (found.loss, found.accuracy()?, found.f1(Average::Weighted)?);
            println!("{:5}  {training_loss:13.4}  {loss:15.4}  {accuracy:8.4}  {f1:6.4}", step.epoch);
            epochs.push(Epoch { epoch: step.epoch, training_loss, loss, accuracy, f1 });
            losses.clear();
        }
        Ok(())
    })?;

    if let Some(out) = &arguments.out {
        model.save(out)?;
        tokenizer.save(out)?;
        println!("\nsaved to {}", out.display());
    }
    let sentences = common::texts(&arguments.sentences, &SENTENCES);
    let found = TextClassification::new(model, tokenizer)?.truncate(true).classify(&sentences)?;
    println!("\n=== Predictions ===");
    for (sentence, found) in sentences.iter().zip(&found) {
        let probabilities = labels.iter().zip(&found.scores).map(|(label, p)| format!("{label} {p:.4}"));
        println!("- {sentence}\n  -> {}  ({})", found.label, probabilities.collect::<Vec<_>>().join(", "));
    }
    let predictions = sentences.iter().zip(found).map(|(text, found)| (*text, found.label, found.scores)).collect();
    let report = Report { arguments, labels: &labels, epochs: &epochs, predictions };
    common::write_json(arguments.json.as_deref(), &report)
}

/// A single class is nothing to learn, and to the library a regression.
fn check_labels(labels: &[String]) -> Result {
    if let [only] = labels {
        return Err(format!("{only} is the only class: to classify takes at least two (--labels names them)").into());
    }
    match (1..labels.len()).find(|&at| labels[..at].contains(&labels[at])) {
        Some(at) => Err(format!("--labels names {} twice", labels[at]).into()),
        None => Ok(()),
    }
}

fn rows(path: &Path, arguments: &Arguments) -> Result<Vec<Row>> {
    let columns = Columns::new().label(&arguments.label_column);
    let columns = match &arguments.text_column {
        Some(name) => columns.text(name),
        None => columns,
    };
    Ok(read_rows(path, &columns)?)
}

fn built_in(text: &str) -> Vec<Row> {
    let rows = (2..).zip(text.lines().skip(1)).filter_map(|(line, row)| Some((line, row.split_once('\t')?)));
    rows.map(|(line, (text, label))| Row::new(line, text, label)).collect()
}

/// The rows that serve; says what was dropped.
fn clean(name: &str, rows: Vec<Row>, labels: &[String]) -> Result<Sanitized> {
    let clean = sanitize(name, rows, Some(labels));
    if clean.dropped.total() > 0 {
        println!("{}", clean.dropped);
    }
    match clean.texts.is_empty() {
        true => Err(format!("{name}: no row is left after cleaning").into()),
        false => Ok(clean),
    }
}
