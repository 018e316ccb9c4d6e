//! The workloads. Each is a model with seeded random weights and a sequence of batches, written to files that all
//! contestants read.

mod batches;

use std::fs::File;
use std::io::BufWriter;
use std::path::{Path, PathBuf};

use clap::ValueEnum;
use cloze::prelude::*;
use serde::Serialize;

use crate::Result;
use crate::protocol::{PaddedBatch, Task};
pub use batches::Tokens;

/// Random seed of all weights and batches.
pub const SEED: u64 = 7;

/// A workload to compare.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "snake_case")]
#[value(rename_all = "snake_case")]
pub enum Workload {
    /// Section 5.4 of the course: BERT-base, 8 sentence pairs padded to 64, masked words and next sentences
    Pretrain,
    /// BERT-base, 8 sequences of 128 tokens without padding, masked words and next sentences
    Dense,
    /// Section 5.6 of the course: BERT-base, 16 sentences padded to 128, 2 classes
    Finetune,
    /// BERT-base, 32 sentences of SST-2 padded to the longest of them, 2 classes
    FinetuneDynamic,
    /// BERT-large, question answering on 384 tokens
    Qa384,
    /// BERT-large, question answering on 55 tokens, as many as the course's question and text have
    Qa55,
    /// MiniLM-L6, embeddings of 32 sentences of 6 to 128 tokens
    Embed,
}

/// The files of a workload.
pub struct Files {
    pub model: PathBuf,
    pub batches: PathBuf,
    pub config: BertConfig,
    /// The contents of `batches`.
    pub padded: Vec<PaddedBatch>,
}

impl Workload {
    pub const ALL: [Workload; 7] = [
        Workload::Pretrain,
        Workload::Dense,
        Workload::Finetune,
        Workload::FinetuneDynamic,
        Workload::Qa384,
        Workload::Qa55,
        Workload::Embed,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Workload::Pretrain => "pretrain",
            Workload::Dense => "dense",
            Workload::Finetune => "finetune",
            Workload::FinetuneDynamic => "finetune_dynamic",
            Workload::Qa384 => "qa384",
            Workload::Qa55 => "qa55",
            Workload::Embed => "embed",
        }
    }

    pub fn task(self) -> Task {
        match self {
            Workload::Pretrain | Workload::Dense => Task::PreTraining,
            Workload::Finetune | Workload::FinetuneDynamic => Task::Classification,
            Workload::Qa384 | Workload::Qa55 => Task::QuestionAnswering,
            Workload::Embed => Task::Embedding,
        }
    }

    /// Returns the learning rate of the course.
    pub fn learning_rate(self) -> f64 {
        if self.task() == Task::Classification { 2e-5 } else { 5e-5 }
    }

    fn config(self, smoke: bool) -> BertConfig {
        match self {
            _ if smoke => BertConfig::tiny(2000),
            Workload::Qa384 | Workload::Qa55 => BertConfig::large(),
            Workload::Embed => BertConfig {
                hidden_size: 384,
                num_hidden_layers: 6,
                num_attention_heads: 12,
                intermediate_size: 1536,
                ..BertConfig::base()
            },
            _ => BertConfig::base(),
        }
    }

    /// Describes the workload, except for the source of its texts.
    pub fn description(self) -> &'static str {
        match self {
            Workload::Pretrain => "BERT-base, optimizer step on 8 pairs padded to 64",
            Workload::Dense => "BERT-base, optimizer step on 8 pairs of 128 tokens",
            Workload::Finetune => "BERT-base, optimizer step on 16 sentences padded to 128, 2 classes",
            Workload::FinetuneDynamic => "BERT-base, optimizer step on 32 sentences padded to the longest, 2 classes",
            Workload::Qa384 => "BERT-large, forward of 1 x 384 tokens",
            Workload::Qa55 => "BERT-large, forward of 1 x 55 tokens",
            Workload::Embed => "MiniLM-L6, vectors of 32 sentences of 6 to 128 tokens, padded to 128",
        }
    }

    /// Writes the files of this workload into `folder`. Weights are random unless `model` names a folder to take them
    /// from.
    ///
    /// # Errors
    /// Returns an error if required texts are missing, or if a file cannot be written.
    pub fn write(self, folder: &Path, texts: &Tokens, model: Option<&Path>, smoke: bool) -> Result<Files> {
        let folder = if smoke { folder.join("smoke") } else { folder.to_path_buf() };
        let (config, model) = match model {
            Some(place) => (BertModel::open(place, &Device::Cpu)?.config().clone(), place.to_path_buf()),
            None => {
                // Workloads of the same task share a model.
                let (config, place) = (self.config(smoke), folder.join("models").join(self.task().name()));
                save(self.task(), &config, &place)?;
                (config, place)
            }
        };
        let padded = texts.batches(self, config.vocab_size)?;
        let folder = folder.join(self.name());
        std::fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
        let batches = folder.join("batches.json");
        write(&batches, &padded)?;
        Ok(Files { model, batches, config, padded })
    }
}

impl Files {
    /// Returns the mean of `count` over the batches.
    pub fn mean(&self, count: impl Fn(&PaddedBatch) -> usize) -> f64 {
        self.padded.iter().map(count).sum::<usize>() as f64 / self.padded.len() as f64
    }

    /// Returns the same model with pre-training batches of this many sequences of 128 random tokens, without padding.
    ///
    /// # Errors
    /// Returns an error if the file cannot be written.
    pub fn resized(&self, sequences: usize) -> Result<Files> {
        let batches = self.batches.with_file_name(format!("batches-{sequences}.json"));
        let padded = batches::dense(sequences, self.config.vocab_size);
        write(&batches, &padded)?;
        Ok(Files { model: self.model.clone(), batches, config: self.config.clone(), padded })
    }
}

fn write(path: &Path, batches: &[PaddedBatch]) -> Result {
    let file = File::create(path).map_err(|error| format!("{}: cannot write: {error}", path.display()))?;
    Ok(serde_json::to_writer(BufWriter::new(file), batches)?)
}

/// Saves a model with random weights.
fn save(task: Task, config: &BertConfig, folder: &Path) -> Result {
    let device = &Device::Cpu;
    match task {
        Task::PreTraining => BertForPreTraining::new(config, device, SEED)?.save(folder)?,
        Task::Classification => BertForSequenceClassification::new(config, device, SEED)?.save(folder)?,
        Task::QuestionAnswering => BertForQuestionAnswering::new(config, device, SEED)?.save(folder)?,
        Task::Embedding => SentenceEncoder::new(config, device, SEED)?.normalized(true).save(folder)?,
    }
    Ok(())
}
