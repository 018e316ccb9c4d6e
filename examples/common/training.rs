//! How the fine-tuning examples train, and the arguments that say so.

use std::path::PathBuf;

use cloze::bert::ClassifierPooling;
use cloze::prelude::*;
use cloze::train::{DataSet, Learn, Step, Stopped};
use serde::Serialize;
use serde_json::{Map, Value};

use super::{ModelArgument, Result, check_json, check_writable, default_page, dropout_of, threads};

/// Arguments of every fine-tuning example.
#[derive(clap::Args, Serialize)]
pub struct TrainingArguments {
    #[command(flatten)]
    pub model: ModelArgument,
    /// Passes over the data [default: as suits the task and the model]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    epochs: Option<u32>,
    /// Examples in a batch [default: as suits the task and the model]
    #[arg(long)]
    batch: Option<usize>,
    /// Instead: as many examples in a batch as have at most so many tokens
    #[arg(long, conflicts_with = "batch")]
    batch_tokens: Option<usize>,
    /// Batches of an optimizer step
    #[arg(long, default_value_t = 1)]
    accumulate: usize,
    /// Peak learning rate [default: as suits the task and the model; the report says which]
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
    /// Keep the model of the best evaluation, and stop after so many that are no better
    #[arg(long)]
    patience: Option<u32>,
    /// Dropout of hidden states and attention [default: as the model says]
    #[arg(long, value_parser = super::dropout)]
    dropout: Option<f64>,
    /// Train adapters of this rank beside the queries and values of the encoder, and the head, instead of all weights
    #[arg(long)]
    lora: Option<usize>,
    /// What matrix products are computed in: f32; bf16, which GPUs and processors with AVX512-BF16 compute faster; or f16, for GPUs without bf16
    #[arg(long, default_value_t = Precision::F32)]
    pub precision: Precision,
    /// Seed of everything random
    #[arg(long, default_value_t = 42)]
    pub seed: u64,
    /// Threads; the result does not depend on them [default: one a core]
    #[arg(long)]
    threads: Option<usize>,
    /// Save the model and its tokenizer to this folder, and on the way checkpoints, a log and a report
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
}

/// What holds where no argument says otherwise.
pub struct Recipe {
    pub epochs: u32,
    pub batch: usize,
    pub lr: f64,
}

/// What an evaluation found, most often that after an epoch.
#[derive(Clone, Serialize)]
pub struct Epoch {
    epoch: u32,
    step: u32,
    training_loss: f64,
    #[serde(flatten)]
    metrics: Map<String, Value>,
}

impl TrainingArguments {
    /// Fails before hours of training, not after; and sets the number of threads.
    pub fn check(&self) -> Result {
        threads(self.threads)?;
        check_json(self.json.as_deref())?;
        self.out.as_deref().map_or(Ok(()), check_writable)
    }

    /// How the model is opened, whose head may be new.
    pub fn open_options(&self) -> OpenOptions {
        OpenOptions::new().fresh_head().seed(self.seed).dropout(self.dropout)
    }

    /// Trains by `recipe`, where no argument says otherwise, and evaluates after every epoch; prints what it finds. The
    /// report goes to the folder of `--out`, or else to `target/EXAMPLE.html`. Gives nothing if a signal stopped it.
    pub fn train<M: PreTrainedModel + Learn<D::Batch>, D: DataSet>(
        &self,
        example: &str,
        model: &mut M,
        data: &D,
        recipe: &Recipe,
        mut evaluate: impl FnMut(&M) -> cloze::train::Result<Evaluation>,
    ) -> Result<Option<Vec<Epoch>>> {
        if let Some(rank) = self.lora {
            model.add_adapters(&LoraConfig::new(rank), self.seed)?;
        }
        let settings = settings(model.config());
        let every = |steps: Option<u32>| steps.map_or(Every::Epoch, Every::Steps);
        let mut trainer = Trainer::new(model)
            .optimizer(AdamW::new(self.lr.unwrap_or(recipe.lr)).layer_decay(self.layer_decay))
            .schedule(Schedule::Linear { warmup: self.warmup })
            .batch_size(self.batch.unwrap_or(recipe.batch))
            .accumulate(self.accumulate)
            .epochs(self.epochs.unwrap_or(recipe.epochs))
            .precision(self.precision)
            .seed(self.seed)
            .evaluate(every(self.evaluate_every), |model| self.precision.scope(|| evaluate(model)))
            .stop_on_signals();
        for (name, value) in settings {
            trainer = trainer.setting(name, value);
        }
        if let Some(tokens) = self.batch_tokens {
            trainer = trainer.batch_tokens(tokens);
        }
        if let Some(patience) = self.patience {
            trainer = trainer.early_stopping(patience);
        }
        let page = match &self.out {
            Some(out) => {
                trainer = trainer.directory(out).resume(self.resume).checkpoint(every(self.checkpoint_every), 2);
                out.join("report.html")
            }
            None => default_page(example)?,
        };
        let (mut epochs, mut losses) = (Vec::new(), Vec::new());
        let report = trainer.report(&page).run_with(data, |_, step: &Step| {
            losses.push(step.loss);
            if let Some(evaluation) = &step.evaluation {
                let training_loss = losses.iter().sum::<f64>() / losses.len() as f64;
                print_evaluation(step.epoch, training_loss, evaluation, epochs.is_empty());
                let metrics = evaluation.metrics().iter().map(|(name, value)| (name.clone(), (*value).into()));
                epochs.push(Epoch { epoch: step.epoch, step: step.step, training_loss, metrics: metrics.collect() });
                losses.clear();
            }
            Ok(())
        })?;
        if let (Some(_), Some((step, best))) = (self.patience, &report.best) {
            println!("the best was after step {step}: {best}");
        }
        println!("report: {}", page.display());
        if report.stopped == Some(Stopped::BySignal) {
            let how = if self.out.is_some() { " after a checkpoint: --resume goes on" } else { "; nothing is kept" };
            println!("\nstopped{how}");
            return Ok(None);
        }
        model.merge_adapters()?;
        Ok(Some(epochs))
    }

    /// Saves model and tokenizer where `--out` says.
    pub fn save(&self, model: &impl PreTrainedModel, tokenizer: &Tokenizer) -> Result {
        if let Some(out) = &self.out {
            model.save(out)?;
            tokenizer.save(out)?;
            println!("\nsaved to {}", out.display());
        }
        Ok(())
    }

    /// Writes a report where `--json` says.
    pub fn write_json(&self, report: &impl Serialize) -> Result {
        super::write_json(self.json.as_deref(), report)
    }
}

/// What training depends on and the trainer cannot see.
fn settings(config: &BertConfig) -> Vec<(&'static str, String)> {
    let mut settings = vec![("dropout", dropout_of(config))];
    if config.classifier_pooling() != ClassifierPooling::default() {
        settings.push(("pooling", config.classifier_pooling().name().into()));
    }
    if *config.labels != *BertConfig::tiny(1).labels {
        settings.push(("classes", config.labels.join(", ")));
    }
    settings
}

/// A line of a table, the first one under its header.
fn print_evaluation(epoch: u32, training_loss: f64, evaluation: &Evaluation, is_first: bool) {
    let metrics = evaluation.metrics();
    if is_first {
        let names = metrics.iter().map(|(name, _)| format!("  {name:>12}"));
        println!("\nepoch  training loss{}", names.collect::<String>());
    }
    let values = metrics.iter().map(|(_, value)| format!("  {value:12.4}"));
    println!("{epoch:5}  {training_loss:13.4}{}", values.collect::<String>());
}
