//! Fine-tunes BERT to classify sentences (section 5.6 of the course): cleans the rows, trains, prints loss, accuracy
//! and F1 after every epoch, and then classifies some sentences.
//!
//! Without arguments, uses the rows of the course, some more like them, and the small model of this repository. To use your own data, pass
//! `--train FILE` (TSV, CSV or JSON Lines) with `--validation FILE` or `--split FRACTION`; to use a real model, `--model
//! DIR_OR_NAME`. With `--out DIR`, a run stopped by Ctrl-C or a power failure continues with `--resume`.
//!
//! Labels that are lists, or `--label-columns`, are several that may apply to the same sentence; `--second-text-column`
//! classifies pairs of sentences.

use std::process::ExitCode;

use clap::Parser;
use cloze::bert::ClassifierPooling;
use cloze::prelude::*;
use cloze::train::metrics::{Average, confusion_matrix};
use cloze::train::{LabelledBatch, Learn, MultiLabelEvaluation};
use cloze_examples::{ClassLossArguments, Epoch, LabelledTexts, Recipe, Result, TextsArgument, TrainingArguments};
use serde::Serialize;

/// Fine-tunes BERT to classify sentences.
#[derive(Parser, Serialize)]
struct Arguments {
    #[command(flatten)]
    texts: TextsArgument,
    /// Column with the second text, for pairs of texts
    #[arg(long, value_name = "NAME", requires = "train")]
    second_text_column: Option<String>,
    /// Columns of 0 and 1, one for each of several labels that may apply
    #[arg(long, value_name = "NAMES", value_delimiter = ',', requires = "train", conflicts_with = "label_column")]
    label_columns: Vec<String>,
    /// Any number of labels may apply [default: found out from lists in the label column]
    #[arg(long)]
    multi_label: bool,
    #[command(flatten)]
    loss: ClassLossArguments,
    /// Maximum number of tokens; longer sentences are truncated
    #[arg(long, default_value_t = 128, value_parser = clap::value_parser!(u16).range(3..))]
    max_length: u16,
    /// Input of the classifier: [CLS], or the mean of all tokens, which is better after little
    /// pre-training [default: mean for the built-in reviews and model, otherwise from the model's configuration]
    #[arg(long, value_parser = ClassifierPooling::ALL.map(ClassifierPooling::name))]
    pooling: Option<String>,
    #[command(flatten)]
    training: TrainingArguments,
    /// Sentences to classify after training [default: those of the course]
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
    "i absolutely loved this movie!",
    "this was a complete waste of time.",
    "the performances are strong and convincing.",
    "the plot is weak and the pacing is terrible.",
];

fn main() -> ExitCode {
    cloze_examples::exit_code(|| run(&cloze_examples::parse()))
}

fn run(arguments: &Arguments) -> Result {
    arguments.training.check()?;
    let is_built_in = arguments.texts.is_built_in();
    if is_built_in {
        println!("No --train: using the built-in reviews.");
    }
    let columns = arguments.columns();
    let several = arguments.multi_label || !arguments.label_columns.is_empty();
    let rows = arguments.texts.rows(&columns, several, arguments.training.seed)?;
    if !several && !rows.have_lists() {
        let texts = arguments.texts.classes(rows, &columns)?;
        let weighted = |data, labels: &[String]| arguments.loss.apply(data, labels);
        return fine_tune(arguments, texts, arguments.training.open_options(), weighted, classes);
    }
    arguments.loss.check_unused("here several labels may apply")?;
    let texts = arguments.texts.several_labels(rows)?;
    println!("any number of {} labels may apply: {}", texts.labels.len(), texts.labels.join(", "));
    let options = arguments.training.open_options().problem_type(ProblemType::MultiLabel);
    fine_tune(arguments, texts, options, |data, _| Ok(data), several_labels)
}

impl Arguments {
    fn columns(&self) -> Columns {
        let columns = self.texts.columns();
        let columns = self.second_text_column.iter().fold(columns, |columns, name| columns.second_text(name));
        if self.label_columns.is_empty() { columns } else { columns.labels(&self.label_columns) }
    }
}

/// Trains a classifier, evaluates it after every epoch, saves it, and classifies the sentences.
fn fine_tune<L: Clone>(
    arguments: &Arguments,
    texts: LabelledTexts<L>,
    options: OpenOptions,
    prepare: impl FnOnce(LabelledData<L>, &[String]) -> Result<LabelledData<L>>,
    evaluate: fn(&BertForSequenceClassification, &LabelledData<L>, &[String]) -> cloze::train::Result<Evaluation>,
) -> Result
where
    BertForSequenceClassification: Learn<LabelledBatch<L>>,
{
    let LabelledTexts { training, validation, labels } = texts;
    println!("{} sentences to train on, {} to evaluate on", training.texts.len(), validation.texts.len());
    let are_pairs = !training.second_texts.is_empty();
    let is_built_in = arguments.texts.is_built_in();
    // After little pre-training, [CLS] alone knows too little of the sentence.
    let usual = (is_built_in && arguments.training.model.is_tiny()).then_some(ClassifierPooling::Mean);
    let pooling = arguments.pooling.as_deref().map_or(usual, ClassifierPooling::from_name);
    let options = options.labels(&labels).classifier_pooling(pooling);
    let mut model: BertForSequenceClassification = arguments.training.open(&options)?;
    let tokenizer = Tokenizer::open(arguments.training.model.place())?;
    let max_length = usize::from(arguments.max_length).min(model.config().max_position_embeddings);
    let (training, report) = training.encode(&tokenizer, max_length)?;
    println!("training: {report}");
    let (validation, report) = validation.encode(&tokenizer, max_length)?;
    println!("validation: {report}");

    let recipe = Recipe {
        epochs: 2,
        batch: if is_built_in { 8 } else { 16 },
        lr: if arguments.training.model.is_tiny() { 1e-3 } else { 2e-5 },
    };
    let training = prepare(training.seed(arguments.training.seed), &labels)?;
    let epochs =
        arguments.training.train("finetune", &mut model, &training, &recipe, &arguments.texts.held_out, |model| {
            evaluate(model, &validation, &labels)
        })?;
    let Some(epochs) = epochs else { return Ok(()) };
    arguments.training.save(&model, &tokenizer)?;

    let sentences = match are_pairs {
        true => Vec::new(),
        false => cloze_examples::texts(&arguments.sentences, &SENTENCES),
    };
    let predictions = classify(TextClassification::new(model, tokenizer)?, &labels, &sentences)?;
    arguments.training.write_json(&Report { arguments, labels: &labels, epochs: &epochs, predictions })
}

fn classes(
    model: &BertForSequenceClassification,
    validation: &LabelledData<i64>,
    labels: &[String],
) -> cloze::train::Result<Evaluation> {
    let found = ClassificationEvaluation::run(model, validation, 32)?;
    let confusion = confusion_matrix(&found.predictions, &found.labels, labels.len())?;
    let evaluation = Evaluation::maximize("accuracy", found.accuracy()?).and("F1", found.f1(Average::Weighted)?);
    Ok(evaluation.and("macro F1", found.f1(Average::Macro)?).and("loss", found.loss).confusion(labels, confusion))
}

fn several_labels(
    model: &BertForSequenceClassification,
    validation: &LabelledData<Vec<bool>>,
    _: &[String],
) -> cloze::train::Result<Evaluation> {
    let found = MultiLabelEvaluation::run(model, validation, 32)?;
    let scores = found.scores()?;
    let evaluation = Evaluation::maximize("micro F1", scores.micro.f1).and("macro F1", scores.macro_average.f1);
    Ok(evaluation.and("exact match", scores.exact_match).and("loss", found.loss))
}

/// Classifies the sentences and prints the probabilities of all labels.
fn classify<'a>(
    classifier: TextClassification,
    labels: &[String],
    sentences: &[&'a str],
) -> Result<Vec<(&'a str, String, Vec<f64>)>> {
    if sentences.is_empty() {
        return Ok(Vec::new());
    }
    let found = cloze_examples::print_report(classifier.classify(sentences)?);
    println!("\n=== Predictions ===");
    for (sentence, found) in sentences.iter().zip(&found) {
        let probabilities = labels.iter().zip(&found.scores).map(|(label, p)| format!("{label} {p:.4}"));
        println!("- {sentence}\n  -> {}  ({})", found.label, probabilities.collect::<Vec<_>>().join(", "));
    }
    Ok(sentences.iter().zip(found).map(|(text, found)| (*text, found.label, found.scores)).collect())
}
