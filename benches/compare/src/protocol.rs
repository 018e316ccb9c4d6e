//! The protocol between the driver and a contestant: one JSON object per line, with requests on the contestant's
//! standard input and replies on its standard output.

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::ValueEnum;
use cloze::prelude::Precision;
use serde::{Deserialize, Serialize};

/// The task of a workload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Task {
    /// Optimizer steps on masked words and next sentences.
    PreTraining,
    /// Optimizer steps of a sequence classifier.
    Classification,
    /// Forward: start and end logits for each token.
    QuestionAnswering,
    /// Forward: the normalised mean of the hidden states of each sentence.
    Embedding,
}

impl Task {
    /// Returns its name in the protocol.
    pub fn name(self) -> &'static str {
        match self {
            Task::PreTraining => "pre_training",
            Task::Classification => "classification",
            Task::QuestionAnswering => "question_answering",
            Task::Embedding => "embedding",
        }
    }

    /// Returns whether a run is an optimizer step.
    pub fn trains(self) -> bool {
        matches!(self, Task::PreTraining | Task::Classification)
    }
}

/// The data type of matrix products.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Dtype {
    F32,
    Bf16,
    /// For linear layers in inference only.
    Int8,
}

impl Dtype {
    pub fn name(self) -> &'static str {
        match self {
            Dtype::F32 => "f32",
            Dtype::Bf16 => "bf16",
            Dtype::Int8 => "int8",
        }
    }

    /// Returns the corresponding precision of cloze.
    pub fn precision(self) -> Precision {
        match self {
            Dtype::F32 => Precision::F32,
            Dtype::Bf16 => Precision::Bf16,
            Dtype::Int8 => Precision::Int8,
        }
    }
}

/// The task, model and batches that a contestant prepares.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Preparation {
    pub task: Task,
    /// A model folder as written by `transformers`, in f32.
    pub model: PathBuf,
    /// A file with a JSON list of [`PaddedBatch`]es.
    pub batches: PathBuf,
    pub dtype: Dtype,
    /// Whether to use `torch.compile`.
    pub compile: bool,
    /// Whether torch computes sentences one by one or in groups of similar lengths, instead of padded batches.
    pub unpadded: bool,
    pub threads: usize,
    /// Learning rate of AdamW. Its other settings are PyTorch's defaults, and gradients are clipped to norm 1.
    pub learning_rate: f64,
}

/// A request.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "snake_case")]
pub enum Request {
    /// Prepares the model and the batches. The first request, sent once.
    Prepare(Preparation),
    /// For training, asks for the losses of one step without dropout on each of the first [`CHECKED_STEPS`] batches.
    /// For inference, asks for the outputs for the first batch, excluding padding. Sent before any [`Request::Run`].
    Check,
    /// Runs one step on the next batch. After the last batch, the first follows.
    Run,
}

/// Number of steps whose losses are compared.
pub const CHECKED_STEPS: usize = 3;

/// A reply.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    /// The contestant is ready. Contains the versions of its libraries.
    Ready(BTreeMap<String, String>),
    /// The contestant cannot run this task, and why.
    Unable(String),
    /// The numbers of a check.
    Numbers(Vec<f64>),
    /// The time of a run.
    Seconds(f64),
    /// The request failed, with the error message.
    Failed(String),
}

/// A batch as in the course: B rows, padded to one length L.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PaddedBatch {
    /// The length L.
    pub length: usize,
    /// `[B, L]`, row-major.
    pub ids: Vec<u32>,
    /// `[B, L]`.
    pub token_types: Vec<u32>,
    /// `[B, L]`: 1 for tokens, 0 for padding.
    pub attention_mask: Vec<u32>,
    /// `[B, L]` for pre-training, with the ignored label -100 for tokens that are not masked; `[B]` for classification;
    /// otherwise empty.
    pub labels: Vec<i64>,
    /// `[B]` for pre-training, otherwise empty.
    pub next_sentence: Vec<i64>,
}

impl PaddedBatch {
    /// Returns the number of tokens in each row.
    pub fn lengths(&self) -> Vec<usize> {
        let tokens = |row: &[u32]| row.iter().filter(|&&mask| mask != 0).count();
        self.attention_mask.chunks(self.length).map(tokens).collect()
    }

    /// Returns the number of tokens to predict.
    pub fn targets(&self) -> usize {
        self.labels.iter().filter(|&&label| label >= 0).count()
    }
}
