//! What the driver and a contestant say to each other: a JSON object a line, requests on the contestant's standard
//! input, replies on its standard output.

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::ValueEnum;
use cloze::prelude::Precision;
use serde::{Deserialize, Serialize};

/// What is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Task {
    /// Optimizer steps on masked words and next sentences.
    PreTraining,
    /// Optimizer steps of a classifier of sequences.
    Classification,
    /// Forward: logits of start and end for each token.
    QuestionAnswering,
    /// Forward: the mean of each sentence's hidden states, its norm made 1.
    Embedding,
}

impl Task {
    pub fn name(self) -> &'static str {
        match self {
            Task::PreTraining => "pre_training",
            Task::Classification => "classification",
            Task::QuestionAnswering => "question_answering",
            Task::Embedding => "embedding",
        }
    }

    /// Whether a run is an optimizer step.
    pub fn trains(self) -> bool {
        matches!(self, Task::PreTraining | Task::Classification)
    }
}

/// What matrix products are computed in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Dtype {
    F32,
    Bf16,
    /// Linear layers, inference only.
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

    /// Its name in the library.
    pub fn precision(self) -> Precision {
        match self {
            Dtype::F32 => Precision::F32,
            Dtype::Bf16 => Precision::Bf16,
            Dtype::Int8 => Precision::Int8,
        }
    }
}

/// What a contestant is to be ready for.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Preparation {
    pub task: Task,
    /// A folder as `transformers` writes it, in f32.
    pub model: PathBuf,
    /// A JSON list of [`PaddedBatch`]es.
    pub batches: PathBuf,
    pub dtype: Dtype,
    /// Whether PyTorch compiles the model.
    pub compile: bool,
    pub threads: usize,
    /// Of AdamW with PyTorch's defaults; gradients are clipped to norm 1.
    pub learning_rate: f64,
}

/// A request.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "snake_case")]
pub enum Request {
    /// Get ready. Comes first, and once.
    Prepare(Preparation),
    /// For training the losses of one step without dropout on each of the first [`CHECKED_STEPS`] batches; for
    /// inference the outputs for the first batch, of real tokens only. Comes before any [`Request::Run`].
    Check,
    /// One step on the next batch, from the first on and round again.
    Run,
}

/// Steps whose losses are compared.
pub const CHECKED_STEPS: usize = 3;

/// A reply.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    /// Ready, with these versions of these libraries.
    Ready(BTreeMap<String, String>),
    /// This contestant cannot do this, and why.
    Unable(String),
    /// What a check gave.
    Numbers(Vec<f64>),
    /// What a run took.
    Seconds(f64),
    /// What went wrong.
    Failed(String),
}

/// A batch as the course gives it: B rows, padded to one length L.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PaddedBatch {
    /// L.
    pub length: usize,
    /// `[B, L]`, row after row; so are the next two.
    pub ids: Vec<u32>,
    pub token_types: Vec<u32>,
    /// 1 for tokens, 0 for padding.
    pub attention_mask: Vec<u32>,
    /// `[B, L]` for pre-training, -100 where nothing is to be predicted; `[B]` for classification; else empty.
    pub labels: Vec<i64>,
    /// `[B]` for pre-training, else empty.
    pub next_sentence: Vec<i64>,
}

impl PaddedBatch {
    /// Tokens of each row.
    pub fn lengths(&self) -> Vec<usize> {
        let tokens = |row: &[u32]| row.iter().filter(|&&mask| mask != 0).count();
        self.attention_mask.chunks(self.length).map(tokens).collect()
    }

    /// Tokens to predict.
    pub fn targets(&self) -> usize {
        self.labels.iter().filter(|&&label| label >= 0).count()
    }
}
