//! Fine-tunes BERT to classify sentences (section 5.6 of the course): cleans the rows, trains, and says loss, accuracy
//! and F1 after every epoch; then classifies some sentences.
//!
//! With no arguments, on a few built-in reviews and the small model of this repository. On data of your own:
//! `--train FILE --validation FILE`, TSV, CSV or JSON Lines; on a real model: `--model DIR_OR_NAME`. With `--out DIR` a run
//! that was stopped, by Ctrl-C or by a power failure, goes on with `--resume`.

mod common;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use cloze::prelude::*;
use cloze::train::metrics::{Average, confusion_matrix};
use cloze::train::{Sanitized, Step, Stopped};
use common::{LabelledTexts, ModelArgument, Result, TextsArgument};
use serde::Serialize;

/// Fine-tunes BERT to classify sentences.
#[derive(Parser, Serialize)]
struct Arguments {
    #[command(flatten)]
    texts: TextsArgument,
    #[command(flatten)]
    model: ModelArgument,
    /// Passes over the data [default: 2, or 30 for the built-in reviews]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    epochs: Option<u32>,
    /// Sentences in a batch [default: 16, or 8 for the built-in reviews]
    #[arg(long)]
    batch: Option<usize>,
    /// Instead: as many sentences in a batch as have at most so many tokens
    #[arg(long, conflicts_with = "batch")]
    batch_tokens: Option<usize>,
    /// Batches of an optimizer step
    #[arg(long, default_value_t = 1)]
    accumulate: usize,
    /// Peak learning rate [default: 2e-5, or 1e-3 for the small model]
    #[arg(long)]
    lr: Option<f64>,
    /// Part of the steps in which the learning rate rises
    #[arg(long, default_value_t = 0.1)]
    warmup: f64,
    /// What the learning rate of each layer is multiplied with once for every layer above it
    #[arg(long, default_value_t = 1.0)]
    layer_decay: f64,
    /// Evaluate every so many steps, not after each epoch
    #[arg(long)]
    evaluate_every: Option<u32>,
    /// Keep the model of the best accuracy, and stop after so many evaluations that are no better
    #[arg(long)]
    patience: Option<u32>,
    /// Train adapters of this rank beside the queries and values of the encoder, and the head, instead of all weights
    #[arg(long)]
    lora: Option<usize>,
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
    /// Save the model and its tokenizer to this folder, and checkpoints on the way
    #[arg(long)]
    out: Option<PathBuf>,
    /// Go on where a run that was stopped left its last checkpoint in the folder of --out
    #[arg(long, requires = "out")]
    resume: bool,
    /// Write a checkpoint every so many steps, not after each epoch
    #[arg(long, requires = "out")]
    checkpoint_every: Option<u32>,
    /// Also write what is printed to this file, as JSON
    #[arg(long)]
    json: Option<PathBuf>,
    /// Sentences to classify afterwards [default: some reviews]
    sentences: Vec<String>,
}

/// What an evaluation found, most often that after an epoch.
#[derive(Clone, Serialize)]
struct Epoch {
    epoch: u32,
    step: u32,
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
    if arguments.texts.is_built_in() {
        println!("No --train and --validation: on the built-in reviews.");
    }
    let LabelledTexts { training, validation, labels } = arguments.texts.read()?;
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

    if let Some(rank) = arguments.lora {
        model.add_adapters(&LoraConfig::new(rank), arguments.seed)?;
    }
    let (epochs, stopped) = train(arguments, &mut model, &training, &validation, &labels)?;
    if stopped {
        println!("\nstopped after a checkpoint: --resume goes on");
        return Ok(());
    }
    model.merge_adapters()?;
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

/// Trains, printing each evaluation; gives them, and whether it was stopped on the way.
fn train(
    arguments: &Arguments,
    model: &mut BertForSequenceClassification,
    training: &LabelledData<i64>,
    validation: &LabelledData<i64>,
    labels: &[String],
) -> Result<(Vec<Epoch>, bool)> {
    let is_built_in = arguments.texts.is_built_in();
    let every = |steps: Option<u32>| steps.map_or(Every::Epoch, Every::Steps);
    let learning_rate = arguments.lr.unwrap_or(if arguments.model.is_small() { 1e-3 } else { 2e-5 });
    let mut trainer = Trainer::new(model)
        .optimizer(AdamW::new(learning_rate).layer_decay(arguments.layer_decay))
        .schedule(Schedule::Linear { warmup: arguments.warmup })
        .batch_size(arguments.batch.unwrap_or(if is_built_in { 8 } else { 16 }))
        .accumulate(arguments.accumulate)
        .epochs(arguments.epochs.unwrap_or(if is_built_in { 30 } else { 2 }))
        .precision(arguments.precision)
        .seed(arguments.seed)
        .evaluate(every(arguments.evaluate_every), |model| {
            let found = ClassificationEvaluation::run(model, validation, 32)?;
            let (accuracy, f1) = (found.accuracy()?, found.f1(Average::Weighted)?);
            let confusion = confusion_matrix(&found.predictions, &found.labels, labels.len())?;
            let evaluation = Evaluation::maximize("accuracy", accuracy).and("f1", f1).and("loss", found.loss);
            Ok(evaluation.confusion(labels, confusion))
        })
        .stop_on_signals();
    if let Some(tokens) = arguments.batch_tokens {
        trainer = trainer.batch_tokens(tokens);
    }
    if let Some(patience) = arguments.patience {
        trainer = trainer.early_stopping(patience);
    }
    if arguments.lora.is_some() {
        trainer = trainer.freeze(|name| !LoraConfig::trains(name));
    }
    if let Some(out) = &arguments.out {
        trainer = trainer.directory(out).resume(arguments.resume).checkpoint(every(arguments.checkpoint_every), 2);
    }
    let (mut epochs, mut losses) = (Vec::new(), Vec::new());
    println!("\nepoch  training loss  validation loss  accuracy      F1");
    let report = trainer.run_with(training, |_, step: &Step| {
        losses.push(step.loss);
        if let Some(evaluation) = &step.evaluation {
            let training_loss = losses.iter().sum::<f64>() / losses.len() as f64;
            let [accuracy, f1, loss] = ["accuracy", "f1", "loss"].map(|name| evaluation.get(name).unwrap_or(f64::NAN));
            println!("{:5}  {training_loss:13.4}  {loss:15.4}  {accuracy:8.4}  {f1:6.4}", step.epoch);
            epochs.push(Epoch { epoch: step.epoch, step: step.step, training_loss, loss, accuracy, f1 });
            losses.clear();
        }
        Ok(())
    })?;
    if let (Some(_), Some((step, best))) = (arguments.patience, &report.best) {
        println!("the best was after step {step}: {best}");
    }
    Ok((epochs, report.stopped == Some(Stopped::BySignal)))
}
