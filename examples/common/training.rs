//! How the fine-tuning examples train, and the arguments that say so.

use std::path::PathBuf;

use cloze::prelude::*;
use cloze::train::{DataSet, Error, Learn, Step};
use serde::Serialize;

use super::{ModelArgument, Result, check_json, check_writable, threads};

/// Arguments of every fine-tuning example.
#[derive(clap::Args, Serialize)]
pub struct TrainingArguments {
    #[command(flatten)]
    pub model: ModelArgument,
    /// Passes over the data
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    epochs: Option<u32>,
    /// Examples in a batch
    #[arg(long)]
    batch: Option<usize>,
    /// Peak learning rate
    #[arg(long)]
    lr: Option<f64>,
    /// What matrix products are computed in: f32, or bf16, which processors with AVX512-BF16 compute twice as fast
    #[arg(long, default_value_t = Precision::F32)]
    pub precision: Precision,
    /// Seed of everything random
    #[arg(long, default_value_t = 42)]
    pub seed: u64,
    /// Threads; the result does not depend on them [default: one a core]
    #[arg(long)]
    threads: Option<usize>,
    /// Save the model and its tokenizer to this folder, and on the way a checkpoint after each epoch, a log and a report
    #[arg(long)]
    out: Option<PathBuf>,
    /// Go on where a run that was stopped left its last checkpoint in the folder of --out
    #[arg(long, requires = "out")]
    resume: bool,
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

/// What is known after an epoch.
#[derive(Clone, Serialize)]
pub struct Epoch {
    epoch: u32,
    training_loss: f64,
    measures: Vec<(String, f64)>,
}

impl TrainingArguments {
    /// Fails before hours of training, not after; and sets the number of threads.
    pub fn check(&self) -> Result {
        threads(self.threads)?;
        check_json(self.json.as_deref())?;
        self.out.as_deref().map_or(Ok(()), check_writable)
    }

    /// Trains by `recipe`, where no argument says otherwise, and evaluates after every epoch; prints what it finds.
    pub fn train<M: Learn<D::Batch>, D: DataSet>(
        &self,
        model: &mut M,
        data: &D,
        recipe: &Recipe,
        mut evaluate: impl FnMut(&M) -> cloze::train::Result<Vec<(&'static str, f64)>>,
    ) -> Result<Vec<Epoch>> {
        let mut trainer = Trainer::new(model)
            .optimizer(AdamW::new(self.lr.unwrap_or(recipe.lr)))
            .batch_size(self.batch.unwrap_or(recipe.batch))
            .epochs(self.epochs.unwrap_or(recipe.epochs))
            .precision(self.precision)
            .seed(self.seed)
            .evaluate(Every::Epoch, |model| {
                let mut measures = evaluate(model)?.into_iter();
                let (name, value) = measures.next().ok_or_else(|| Error::data("evaluation", "measures nothing"))?;
                Ok(measures.fold(Evaluation::maximize(name, value), |found, (name, value)| found.and(name, value)))
            });
        if let Some(out) = &self.out {
            trainer = trainer.directory(out).resume(self.resume);
        }
        let (mut epochs, mut losses): (Vec<Epoch>, Vec<f64>) = (Vec::new(), Vec::new());
        trainer.run_with(data, |_, step: &Step| {
            losses.push(step.loss);
            if let Some(evaluation) = &step.evaluation {
                let measures = evaluation.metrics().to_vec();
                if epochs.is_empty() {
                    let names = measures.iter().map(|(name, _)| format!("  {name:>12}"));
                    println!("\nepoch  training loss{}", names.collect::<String>());
                }
                let training_loss = losses.iter().sum::<f64>() / losses.len() as f64;
                let values = measures.iter().map(|(_, value)| format!("  {value:12.4}"));
                println!("{:5}  {training_loss:13.4}{}", step.epoch, values.collect::<String>());
                epochs.push(Epoch { epoch: step.epoch, training_loss, measures });
                losses.clear();
            }
            Ok(())
        })?;
        Ok(epochs)
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
