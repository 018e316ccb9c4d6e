//! Fine-tunes BERT to classify sentences (section 5.6 of the course): cleans the rows, trains, and says loss, accuracy
//! and F1 after every epoch; then classifies some sentences.
//!
//! With no arguments, on a few built-in reviews and the small model of this repository. On data of your own:
//! `--train FILE --validation FILE`, TSV, CSV or JSON Lines; on a real model: `--model DIR_OR_NAME`. With `--out DIR` a run
//! that was stopped, by Ctrl-C or by a power failure, goes on with `--resume`.

mod common;

use std::process::ExitCode;

use clap::Parser;
use cloze::bert::ClassifierPooling;
use cloze::prelude::*;
use cloze::train::Sanitized;
use cloze::train::metrics::{Average, confusion_matrix};
use common::{Epoch, LabelledTexts, Recipe, Result, TextsArgument, TrainingArguments};
use serde::Serialize;

/// Fine-tunes BERT to classify sentences.
#[derive(Parser, Serialize)]
struct Arguments {
    #[command(flatten)]
    texts: TextsArgument,
    /// Most tokens of a sentence; longer ones are cut
    #[arg(long, default_value_t = 128, value_parser = clap::value_parser!(u16).range(3..))]
    max_length: u16,
    /// What the classifier sees of a sentence: [CLS], or the mean of all tokens, which is better after little pre-training
    /// [default: as the model says]
    #[arg(long, value_parser = ClassifierPooling::ALL.map(ClassifierPooling::name))]
    pooling: Option<String>,
    #[command(flatten)]
    training: TrainingArguments,
    /// Sentences to classify afterwards [default: some reviews]
    sentences: Vec<String>,
}

/// What `--json` writes.
#[derive(Serialize)]
struct Report<'a> {
    arguments: &'a Arguments,
    labels: &'a [String],
    epochs: &'a [Epoch],
    predictions: Vec<(&'a str, String, Vec<f64>)>,
}

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
    arguments.training.check()?;
    let is_built_in = arguments.texts.is_built_in();
    if is_built_in {
        println!("No --train and --validation: on the built-in reviews.");
    }
    let LabelledTexts { training, validation, labels } = arguments.texts.read()?;
    println!("{} sentences to train on, {} to evaluate on", training.texts.len(), validation.texts.len());

    let (asked, seed) = (&arguments.training.model, arguments.training.seed);
    let pooling = arguments.pooling.as_deref().and_then(ClassifierPooling::from_name);
    let options = arguments.training.open_options().labels(&labels).classifier_pooling(pooling);
    let (mut model, report) = BertForSequenceClassification::open_with(asked.place(), asked.device(), &options)?;
    println!("{}: {report}", asked.name());
    let tokenizer = Tokenizer::open(asked.place())?;
    let max_length = usize::from(arguments.max_length).min(model.config().max_position_embeddings);
    let data = |clean: &Sanitized| LabelledData::of_texts(&clean.texts, clean.labels.clone(), &tokenizer, max_length);
    let (training, report) = data(&training)?;
    println!("{report}");
    let (validation, _) = data(&validation)?;

    let recipe = Recipe {
        epochs: if is_built_in { 30 } else { 2 },
        batch: if is_built_in { 8 } else { 16 },
        lr: if asked.is_small() { 1e-3 } else { 2e-5 },
    };
    let epochs = arguments.training.train("finetune", &mut model, &training.seed(seed), &recipe, |model| {
        let found = ClassificationEvaluation::run(model, &validation, 32)?;
        let confusion = confusion_matrix(&found.predictions, &found.labels, labels.len())?;
        let evaluation = Evaluation::maximize("accuracy", found.accuracy()?).and("F1", found.f1(Average::Weighted)?);
        Ok(evaluation.and("loss", found.loss).confusion(&labels, confusion))
    })?;
    let Some(epochs) = epochs else { return Ok(()) };
    arguments.training.save(&model, &tokenizer)?;

    let sentences = common::texts(&arguments.sentences, &SENTENCES);
    let found = TextClassification::new(model, tokenizer)?.truncate(true).classify(&sentences)?;
    println!("\n=== Predictions ===");
    for (sentence, found) in sentences.iter().zip(&found) {
        let probabilities = labels.iter().zip(&found.scores).map(|(label, p)| format!("{label} {p:.4}"));
        println!("- {sentence}\n  -> {}  ({})", found.label, probabilities.collect::<Vec<_>>().join(", "));
    }
    let predictions = sentences.iter().zip(found).map(|(text, found)| (*text, found.label, found.scores)).collect();
    arguments.training.write_json(&Report { arguments, labels: &labels, epochs: &epochs, predictions })
}
