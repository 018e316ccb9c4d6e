//! The training loop of the fine-tuning examples, and its command-line arguments.

use std::path::{Path, PathBuf};

use cloze::bert::ClassifierPooling;
use cloze::prelude::*;
use cloze::train::{DataSet, Learn, Step, Stopped, TrainingReport};
use serde::Serialize;
use serde_json::{Map, Value};

use crate::{
    HeldOutArgument, ModelArgument, RankArguments, Result, check_folder, check_json, new_page, remove_empty,
    set_threads, write_json,
};

/// Arguments of every fine-tuning example.
#[derive(clap::Args, Serialize)]
pub struct TrainingArguments {
    #[command(flatten)]
    #[expect(missing_docs, reason = "clap would take it for the description of the command")]
    pub model: ModelArgument,
    /// Passes over the data [default: depends on the task and the model; more if the data are few]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    epochs: Option<u32>,
    /// Examples in a batch [default: depends on the task and the model]
    #[arg(long)]
    batch: Option<usize>,
    /// Fill batches up to this many tokens, instead of a fixed number of examples
    #[arg(long, conflicts_with = "batch")]
    batch_tokens: Option<usize>,
    /// Batches to accumulate gradients over, per optimizer step
    #[arg(long, default_value_t = 1)]
    accumulate: usize,
    /// Peak learning rate [default: depends on the task and the model; the report shows it]
    #[arg(long)]
    lr: Option<f64>,
    /// Fraction of the steps over which the learning rate warms up, or their number if at least 1
    #[arg(long, default_value_t = 0.1)]
    warmup: f64,
    /// Factor of the learning rate from each layer to the layer below
    #[arg(long, default_value_t = 1.0)]
    layer_decay: f64,
    /// Steps between evaluations [default: evaluate after each epoch]
    #[arg(long)]
    evaluate_every: Option<u32>,
    /// Stop after this many evaluations without improvement, and keep the best model
    #[arg(long)]
    patience: Option<u32>,
    /// Dropout of hidden states and attention [default: from the model's configuration]
    #[arg(long, value_parser = crate::dropout)]
    dropout: Option<f64>,
    /// Train low-rank adapters of this rank on the encoder's queries and values, and the head, instead of all weights
    #[arg(long)]
    lora: Option<usize>,
    /// Precision of matrix products: f32; bf16, faster on GPUs and on CPUs with AVX512-BF16; or f16, for GPUs without
    /// bf16
    #[arg(long, default_value_t = Precision::F32)]
    pub precision: Precision,
    /// Random seed
    #[arg(long, default_value_t = 42)]
    pub seed: u64,
    /// Number of threads, which does not change the result [default: one per core]
    #[arg(long)]
    threads: Option<usize>,
    #[command(flatten)]
    #[serde(skip)]
    ranks: RankArguments,
    /// Run directory: receives checkpoints, a log and a report during training, then the model and its tokenizer
    #[arg(long)]
    out: Option<PathBuf>,
    /// Resume the run in --out from its last checkpoint
    #[arg(long, requires = "out")]
    resume: bool,
    /// Steps between checkpoints [default: save one after each epoch]
    #[arg(long, requires = "out")]
    checkpoint_every: Option<u32>,
    /// Train even if the run is predicted to need more memory than there is
    #[arg(long)]
    #[serde(skip)]
    no_memory_check: bool,
    /// Also write the results to this file, as JSON
    #[arg(long)]
    json: Option<PathBuf>,
}

/// The steps that a run should at least have, and the most epochs for them. A few dozen steps hardly move a new head (M.
/// Mosbach, M. Andriushchenko, D. Klakow, "On the stability of fine-tuning BERT", 2021, trains on small data for 20 epochs).
const MIN_STEPS: u32 = 150;
const MAX_EPOCHS: u32 = 30;

/// The settings that apply unless an argument overrides them.
pub struct Recipe {
    /// Passes over the data, if that is at least 150 steps. Fewer data are passed over more often, at most 30 times.
    pub epochs: u32,
    /// Examples in a batch.
    pub batch: usize,
    /// Peak learning rate.
    pub lr: f64,
}

/// The result of one evaluation. By default there is one per epoch.
#[derive(Clone, Serialize)]
pub struct Epoch {
    epoch: u32,
    step: u32,
    /// The mean over the steps since the last evaluation.
    training_loss: f64,
    #[serde(flatten)]
    metrics: Map<String, Value>,
}

impl TrainingArguments {
    /// Joins the job if there are several ranks, sets the number of threads, and checks that all outputs can be written.
    ///
    /// # Errors
    /// Returns an error if an output cannot be written. This way training does not start in vain.
    pub fn check(&self) -> Result {
        self.ranks.join(self.model.device())?;
        set_threads(self.threads)?;
        check_json(self.json.as_deref())?;
        self.out.as_deref().map_or(Ok(()), check_folder)
    }

    /// Returns options for opening the model: its head is initialised randomly if it has none.
    pub fn open_options(&self) -> OpenOptions {
        OpenOptions::new().fresh_head().seed(self.seed).dropout(self.dropout)
    }

    /// Opens the model of `--model`, and prints what was loaded.
    ///
    /// # Errors
    /// Returns an error if the model cannot be opened.
    pub fn open<M: PreTrainedModel>(&self, options: &OpenOptions) -> Result<M> {
        let (model, report) = M::open_reported(self.model.place(), self.model.device().open()?, options)?;
        println!("{}: {report}", self.model.name());
        Ok(model)
    }

    /// Trains by `recipe`, except where arguments override it, and prints each evaluation. A run only resumes with the
    /// data to evaluate on that it started with. The report is written to the folder of `--out`, or to a new page
    /// `target/EXAMPLE.html`, `target/EXAMPLE-2.html`, ... Returns `None` if a signal stopped the run, and on all ranks but the
    /// first, which does the rest alone.
    ///
    /// # Errors
    /// Returns an error if a setting is out of range, training fails, or a file cannot be written.
    pub fn train<M: PreTrainedModel + Learn<D::Batch>, D: DataSet>(
        &self,
        example: &str,
        model: &mut M,
        data: &D,
        recipe: &Recipe,
        held_out: &HeldOutArgument,
        mut evaluate: impl FnMut(&M) -> cloze::train::Result<Evaluation>,
    ) -> Result<Option<Vec<Epoch>>> {
        if let Some(rank) = self.lora {
            model.add_adapters(&LoraConfig::new(rank), self.seed)?;
        }
        let page = match &self.out {
            Some(out) => out.join("report.html"),
            None => new_page(example)?,
        };
        let mut trainer = self
            .trainer(model, recipe)
            .evaluate(every(self.evaluate_every), |model| self.precision.scope(|| evaluate(model)));
        let epochs = match self.epochs {
            Some(epochs) => epochs,
            None => {
                trainer = trainer.epochs(1);
                let for_steps = MIN_STEPS.div_ceil(trainer.count_steps(data)?.max(1)).min(MAX_EPOCHS);
                recipe.epochs.max(for_steps)
            }
        };
        trainer = trainer.epochs(epochs);
        let evaluations = match self.evaluate_every {
            Some(steps) => trainer.count_steps(data)? / steps.max(1),
            None => epochs,
        };
        let mut log = Log::new(evaluations);
        if let Some(held_out) = held_out.fingerprint()? {
            trainer = trainer.setting("validation", held_out);
        }
        let report = trainer
            .report(&page)
            .run_with(data, |_, step| {
                log.step(step);
                Ok(())
            })
            .inspect_err(|_| remove_empty(&page))?;
        if !self.is_complete(&report, &page) || crate::ranks().rank() > 0 {
            return Ok(None);
        }
        model.merge_adapters()?;
        Ok(Some(log.epochs))
    }

    /// Returns a trainer with these arguments applied.
    fn trainer<'m, M: PreTrainedModel>(&'m self, model: &'m mut M, recipe: &Recipe) -> Trainer<'m, M> {
        let settings = settings(model.config());
        let mut trainer = Trainer::new(model)
            .optimizer(AdamW::new(self.lr.unwrap_or(recipe.lr)).layer_decay(self.layer_decay))
            .schedule(Schedule::Linear { warmup: self.warmup })
            .batch_size(self.batch.unwrap_or(recipe.batch))
            .accumulate(self.accumulate)
            .precision(self.precision)
            .seed(self.seed)
            .communicator(crate::ranks())
            .reduce_dtype(self.ranks.reduce_dtype())
            .check_memory(!self.no_memory_check)
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
        if let Some(out) = &self.out {
            trainer = trainer.directory(out).resume(self.resume).checkpoint(every(self.checkpoint_every), 2);
        }
        trainer
    }

    /// Prints how the run ended. Returns false if a signal stopped it.
    fn is_complete(&self, report: &TrainingReport, page: &Path) -> bool {
        if let (Some(_), Some((step, best))) = (self.patience, &report.best) {
            println!("best evaluation, after step {step}: {best}");
        }
        println!("report: {}", page.display());
        let is_stopped = report.stopped == Some(Stopped::BySignal);
        if is_stopped && self.out.is_some() {
            println!("\nstopped after saving a checkpoint: continue with --resume");
        } else if is_stopped {
            println!("\nstopped; nothing was saved");
        }
        !is_stopped
    }

    /// Saves the model and its tokenizer to the folder of `--out`, if it is given.
    ///
    /// # Errors
    /// Returns an error if a file cannot be written.
    pub fn save(&self, model: &impl PreTrainedModel, tokenizer: &Tokenizer) -> Result {
        if let Some(out) = &self.out {
            model.save(out)?;
            tokenizer.save(out)?;
            println!("\nsaved to {}", out.display());
        }
        Ok(())
    }

    /// Writes the results to the file of `--json`, if it is given.
    ///
    /// # Errors
    /// Returns an error if the file cannot be written.
    pub fn write_json(&self, results: &impl Serialize) -> Result {
        write_json(self.json.as_deref(), results)
    }
}

fn every(steps: Option<u32>) -> Every {
    steps.map_or(Every::Epoch, Every::Steps)
}

/// Describes the dropout of a model, for reports and for the settings that a resumed run must share.
pub fn describe_dropout(config: &BertConfig) -> String {
    format!("{} of hidden states, {} of attention", config.hidden_dropout_prob, config.attention_probs_dropout_prob)
}

/// Returns the settings that training depends on but that the trainer cannot see.
fn settings(config: &BertConfig) -> Vec<(&'static str, String)> {
    let mut settings = vec![("dropout", describe_dropout(config))];
    if config.classifier_pooling() != ClassifierPooling::default() {
        settings.push(("pooling", config.classifier_pooling().name().into()));
    }
    if config.labels != BertConfig::default().labels {
        settings.push(("classes", config.labels.join(", ")));
    }
    settings
}

/// Collects evaluations, and prints at most [`LINES`] of them as a table.
struct Log {
    /// Losses of the steps since the last evaluation.
    losses: Vec<f64>,
    epochs: Vec<Epoch>,
    /// The number of evaluations between lines.
    every: usize,
    /// The number of evaluations in the run.
    evaluations: usize,
}

/// The most lines of a table of evaluations.
const LINES: u32 = 20;

impl Log {
    fn new(evaluations: u32) -> Log {
        let every = evaluations.div_ceil(LINES).max(1) as usize;
        Log { losses: Vec::new(), epochs: Vec::new(), every, evaluations: evaluations as usize }
    }

    fn step(&mut self, step: &Step) {
        self.losses.push(step.loss);
        let Some(evaluation) = &step.evaluation else { return };
        let training_loss = self.losses.iter().sum::<f64>() / self.losses.len() as f64;
        self.losses.clear();
        let metrics = evaluation.metrics();
        if self.epochs.is_empty() {
            let names = metrics.iter().map(|(name, _)| format!("  {name:>12}"));
            println!("\nepoch  training loss{}", names.collect::<String>());
        }
        let number = self.epochs.len() + 1;
        if number.is_multiple_of(self.every) || number == self.evaluations {
            let values = metrics.iter().map(|(_, value)| format!("  {value:12.4}"));
            println!("{:5}  {training_loss:13.4}{}", step.epoch, values.collect::<String>());
        }
        let metrics = metrics.iter().map(|(name, value)| (name.clone(), (*value).into()));
        self.epochs.push(Epoch { epoch: step.epoch, step: step.step, training_loss, metrics: metrics.collect() });
    }
}
