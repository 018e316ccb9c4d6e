//! Fine-tunes BERT to classify sentences (section 5.6 of the course): cleans the rows, trains, prints loss, accuracy
//! and F1 after every epoch, and then classifies some sentences.
//!
//! Without arguments, uses a few built-in reviews and the small model of this repository. To use your own data, pass
//! `--train FILE --validation FILE` (TSV, CSV or JSON Lines); to use a real model, `--model DIR_OR_NAME`. With `--out
//! DIR`, a run stopped by Ctrl-C or a power failure continues with `--resume`.

use std::process::ExitCode;

use clap::Parser;
use cloze::bert::ClassifierPooling;
use cloze::prelude::*;
use cloze::train::metrics::{Average, confusion_matrix};
use cloze::train::{Sanitized, balanced_class_weights};
use cloze_examples::{Epoch, LabelledTexts, Recipe, Result, TextsArgument, TrainingArguments};
use serde::Serialize;

/// Fine-tunes BERT to classify sentences.
#[derive(Parser, Serialize)]
struct Arguments {
    #[command(flatten)]
    texts: TextsArgument,
    /// Maximum number of tokens; longer sentences are truncated
    #[arg(long, default_value_t = 128, value_parser = clap::value_parser!(u16).range(3..))]
    max_length: u16,
    /// Input of the classifier: [CLS], or the mean of all tokens, which is better after little
    /// pre-training [default: from the model's configuration]
    #[arg(long, value_parser = ClassifierPooling::ALL.map(ClassifierPooling::name))]
    pooling: Option<String>,
    /// Weight of the loss of each class, in the order of the labels, such as 1,3; or balanced, for the same weight of
    /// all classes together [default: 1 each]
    #[arg(long, value_name = "WEIGHTS")]
    class_weights: Option<String>,
    /// Part of each label, from 0 to 1, that is shared equally between all classes
    #[arg(long, value_name = "FRACTION", default_value_t = 0.0)]
    label_smoothing: f64,
    #[command(flatten)]
    training: TrainingArguments,
    /// Sentences to classify after training [default: some built-in reviews]
    sentences: Vec<String>,
}

/// The contents of the file of `--json`.
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
    cloze_examples::exit_code(|| run(&Arguments::parse()))
}

fn run(arguments: &Arguments) -> Result {
    arguments.training.check()?;
    let is_built_in = arguments.texts.is_built_in();
    if is_built_in {
        println!("No --train and --validation: using the built-in reviews.");
    }
    let LabelledTexts { training, validation, labels } = arguments.texts.read()?;
    println!("{} sentences to train on, {} to evaluate on", training.texts.len(), validation.texts.len());

    let pooling = arguments.pooling.as_deref().and_then(ClassifierPooling::from_name);
    let options = arguments.training.open_options().labels(&labels).classifier_pooling(pooling);
    let mut model: BertForSequenceClassification = arguments.training.open(&options)?;
    let tokenizer = Tokenizer::open(arguments.training.model.place())?;
    let max_length = usize::from(arguments.max_length).min(model.config().max_position_embeddings);
    let data = |clean: &Sanitized| LabelledData::of_texts(&clean.texts, clean.labels.clone(), &tokenizer, max_length);
    let (training, report) = data(&training)?;
    println!("training: {report}");
    let (validation, report) = data(&validation)?;
    println!("validation: {report}");

    let recipe = Recipe {
        epochs: if is_built_in { 30 } else { 2 },
        batch: if is_built_in { 8 } else { 16 },
        lr: if arguments.training.model.is_tiny() { 1e-3 } else { 2e-5 },
    };
    let training = weighted(arguments, training, labels.len())?.seed(arguments.training.seed);
    let epochs = arguments.training.train("finetune", &mut model, &training, &recipe, |model| {
        let found = ClassificationEvaluation::run(model, &validation, 32)?;
        let confusion = confusion_matrix(&found.predictions, &found.labels, labels.len())?;
        let evaluation = Evaluation::maximize("accuracy", found.accuracy()?).and("F1", found.f1(Average::Weighted)?);
        Ok(evaluation.and("loss", found.loss).confusion(&labels, confusion))
    })?;
    let Some(epochs) = epochs else { return Ok(()) };
    arguments.training.save(&model, &tokenizer)?;

    let sentences = cloze_examples::texts(&arguments.sentences, &SENTENCES);
    let predictions = classify(TextClassification::new(model, tokenizer)?, &labels, &sentences)?;
    arguments.training.write_json(&Report { arguments, labels: &labels, epochs: &epochs, predictions })
}

/// Returns the data with the class weights and the label smoothing of the command line.
fn weighted(arguments: &Arguments, data: LabelledData<i64>, classes: usize) -> Result<LabelledData<i64>> {
    let data = data.label_smoothing(arguments.label_smoothing);
    let weights = match arguments.class_weights.as_deref() {
        None => return Ok(data),
        Some("balanced") => balanced_class_weights(data.labels(), classes),
        Some(given) => {
            given.split(',').map(str::parse).collect::<std::result::Result<Vec<f32>, _>>().map_err(|_| {
                format!("--class-weights is {given:?}: must be balanced, or a number for each of the {classes} labels")
            })?
        }
    };
    Ok(data.class_weights(weights))
}

/// Classifies the sentences and prints the probabilities of all classes.
fn classify<'a>(
    classifier: TextClassification,
    labels: &[String],
    sentences: &[&'a str],
) -> Result<Vec<(&'a str, String, Vec<f64>)>> {
    let found = cloze_examples::print_report(classifier.classify(sentences)?);
    println!("\n=== Predictions ===");
    for (sentence, found) in sentences.iter().zip(&found) {
        let probabilities = labels.iter().zip(&found.scores).map(|(label, p)| format!("{label} {p:.4}"));
        println!("- {sentence}\n  -> {}  ({})", found.label, probabilities.collect::<Vec<_>>().join(", "));
    }
    Ok(sentences.iter().zip(found).map(|(text, found)| (*text, found.label, found.scores)).collect())
}
