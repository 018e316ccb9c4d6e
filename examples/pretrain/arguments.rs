//! The command line, and the defaults that depend on other arguments.

use std::path::PathBuf;

use clap::Parser;
use cloze::prelude::*;
use cloze_examples::{DeviceArgument, RankArguments, VocabularyArguments};
use serde::Serialize;

/// Pre-trains BERT on raw text: masked words and, by default, next sentences.
#[derive(Parser, Serialize)]
pub struct Arguments {
    /// File (a sentence per line, a blank line between documents), folder of prose files, or folder of shards that
    /// prepare_corpus wrote [default: a small built-in corpus]
    #[arg(long)]
    pub corpus: Option<PathBuf>,
    /// File or folder of text to evaluate on [default: a twentieth of the documents of the corpus]
    #[arg(long, value_name = "PATH", conflicts_with = "pairs", requires = "corpus")]
    pub held_out: Option<PathBuf>,
    /// Folder to cache the tokens of the corpus in, for text larger than memory; later runs read them from there
    #[arg(long, requires = "corpus")]
    pub cache: Option<PathBuf>,
    /// Most gigabytes of the cache: corpora that were not used for longest are removed from it, but not this one
    #[arg(long, value_name = "GB", requires = "cache")]
    pub cache_limit: Option<f64>,
    /// Continue from the weights and tokenizer of an existing model, a folder or a name on the Hugging Face Hub,
    /// instead of random weights
    #[arg(
        long,
        value_name = "DIR_OR_NAME",
        conflicts_with_all = ["config", "layers", "hidden", "heads", "vocab", "vocab_size", "cased", "accents"]
    )]
    pub model: Option<PathBuf>,
    /// Size of the model: tiny, mini, base, large, or the path of a config.json, whose vocab_size is replaced
    #[arg(long, default_value = "tiny")]
    pub config: String,
    /// Number of layers [default: from --config]
    #[arg(long)]
    pub layers: Option<usize>,
    /// Size of the hidden states; the feed-forward networks are four times as wide [default: from --config]
    #[arg(long)]
    pub hidden: Option<usize>,
    /// Number of attention heads [default: from --config, or with --hidden as many as have size 64]
    #[arg(long)]
    pub heads: Option<usize>,
    #[command(flatten)]
    #[serde(flatten)]
    pub vocabulary: VocabularyArguments,
    /// Draw this many sentence pairs once, as the course does, and hold out a tenth of them. Without it, segments are
    /// filled up to the maximum length, as in BERT, and whole documents are held out [default for the built-in corpus:
    /// 1000]
    #[arg(long)]
    pub pairs: Option<usize>,
    /// Train on masked words only, without next sentences: single segments, filled with whole sentences of a document
    /// up to the maximum length. The model is a BertForMaskedLM
    #[arg(long, conflicts_with = "pairs")]
    pub no_nsp: bool,
    #[command(flatten)]
    pub masking: MaskingArguments,
    /// Train even if the run is predicted to need more memory than there is
    #[arg(long)]
    #[serde(skip)]
    pub no_memory_check: bool,
    /// Sequences in a batch [default: 8 with --pairs, 16 without]
    #[arg(long)]
    pub batch: Option<usize>,
    /// Begin with this fraction of --batch, and grow to all of it [default: all from the start]
    #[arg(long, value_name = "FRACTION")]
    pub batch_ramp: Option<f64>,
    /// Fraction of the steps over which the batch grows
    #[arg(long, value_name = "FRACTION", default_value_t = 0.25, requires = "batch_ramp")]
    pub batch_ramp_over: f64,
    /// Maximum number of tokens in a sequence
    #[arg(long, default_value_t = 64)]
    pub seq_len: usize,
    /// Passes over the data [default: 60 with --pairs or the built-in corpus, 1 otherwise]
    #[arg(long, conflicts_with_all = ["steps", "minutes"])]
    pub epochs: Option<u32>,
    /// Number of optimizer steps
    #[arg(long, conflicts_with = "minutes")]
    pub steps: Option<u32>,
    /// Minutes to train for; up to 20 steps are timed first, to find how many fit
    #[arg(long)]
    pub minutes: Option<f64>,
    /// Peak learning rate [default: 1e-3 up to a hidden size of 128, 5e-4 up to 384, 1e-4 above, 5e-5 with
    /// --model]
    #[arg(long)]
    pub lr: Option<f64>,
    /// Fraction of the steps over which the learning rate warms up, or their number if at least 1
    #[arg(long, default_value_t = 0.02)]
    pub warmup: f64,
    /// Curve of the learning rate after the warm-up
    #[arg(long, default_value = "linear", value_parser = ["linear", "cosine", "constant"])]
    pub schedule: String,
    /// Weight decay, except of biases and LayerNorm
    #[arg(long, default_value_t = 0.01)]
    pub weight_decay: f64,
    /// Dropout of hidden states and attention [default: from the configuration with --model or a config.json;
    /// otherwise 0.1 with --pairs, which are seen many times, and 0 without]
    #[arg(long, value_parser = cloze_examples::dropout)]
    pub dropout: Option<f64>,
    /// Precision of matrix products: f32; bf16, faster on GPUs and on CPUs with AVX512-BF16; or f16, for GPUs without
    /// bf16
    #[arg(long, default_value_t = Precision::F32)]
    pub precision: Precision,
    /// Also print how much of the training time each operation took
    #[arg(long)]
    pub profile: bool,
    #[command(flatten)]
    pub device: DeviceArgument,
    /// Random seed
    #[arg(long, default_value_t = 7)]
    pub seed: u64,
    /// Number of threads, which does not change the result [default: one per core]
    #[arg(long)]
    pub threads: Option<usize>,
    #[command(flatten)]
    #[serde(skip)]
    pub ranks: RankArguments,
    /// Run directory: receives checkpoints, a log and a report during training, then the model and its tokenizer
    #[arg(long)]
    pub out: Option<PathBuf>,
    /// Resume the run in --out from its last checkpoint. To resume a run started with --minutes, pass the --steps that
    /// it printed at the start
    #[arg(long, requires = "out", conflicts_with = "minutes")]
    pub resume: bool,
    /// Steps between checkpoints
    #[arg(long, default_value_t = 1000)]
    pub checkpoint_every: u32,
    /// Data type of the saved weights
    #[arg(long, default_value = "f32", value_parser = ["f32", "bf16", "f16"])]
    pub dtype: String,
    /// Sentence pairs to inspect, as JSON: [{"a": "..", "b": ".. [MASK] .."}, ..]
    #[arg(long)]
    pub inspect: Option<PathBuf>,
    /// Before training, write all training and evaluation batches to this file, as JSON Lines, so that another library
    /// can train on the same
    #[arg(long)]
    pub write_batches: Option<PathBuf>,
    /// Also write the results to this file, as JSON
    #[arg(long)]
    pub json: Option<PathBuf>,
}

/// How tokens are masked in training. Held-out text is always masked by BERT's rule, 15 % of single tokens, so that losses
/// can be compared.
#[derive(clap::Args, Serialize)]
pub struct MaskingArguments {
    /// What is masked as a whole: token; word, all its pieces; or span, several words in a row, as in SpanBERT
    #[arg(long, default_value_t = MaskingUnit::Token)]
    masking_unit: MaskingUnit,
    /// Fraction of the tokens to predict
    #[arg(long, value_name = "FRACTION", default_value_t = 0.15)]
    masking_rate: f64,
    /// Let --masking-rate change linearly to this fraction over the run [default: constant]
    #[arg(long, value_name = "FRACTION")]
    final_masking_rate: Option<f64>,
}

impl MaskingArguments {
    /// Returns the rule for a run of `steps` steps.
    pub fn masking(&self, steps: u32) -> Masking {
        let from = self.masking_rate;
        let rate = match self.final_masking_rate {
            Some(to) => MaskingRate::Linear { from, to, steps },
            None => MaskingRate::Constant(from),
        };
        Masking::bert().unit(self.masking_unit).rate(rate)
    }
}

impl Arguments {
    /// Returns the number of sentence pairs to draw once, or `None` to fill segments up to the maximum length.
    pub fn pairs(&self) -> Option<usize> {
        self.pairs.or((self.corpus.is_none() && !self.no_nsp).then_some(1000))
    }

    /// Returns the number of sequences in a full batch.
    pub fn batch(&self) -> usize {
        self.batch.unwrap_or(if self.pairs().is_some() { 8 } else { 16 })
    }

    pub fn batch_ramp(&self) -> Option<BatchRamp> {
        self.batch_ramp.map(|from| BatchRamp { from, over: self.batch_ramp_over })
    }

    /// Returns the number of sequences in step `step` of `steps`.
    pub fn batch_of_step(&self, step: u32, steps: u32) -> usize {
        self.batch_ramp().map_or(self.batch(), |ramp| ramp.size(self.batch(), step, steps))
    }

    /// Returns a short name for the model.
    pub fn name(&self) -> String {
        let last = |place: &PathBuf| place.file_name().unwrap_or(place.as_os_str()).to_string_lossy().into_owned();
        self.model.as_ref().map_or_else(|| self.config.clone(), last)
    }

    /// Returns the peak learning rate of a model of this size.
    pub fn learning_rate(&self, config: &BertConfig) -> f64 {
        self.lr.unwrap_or(match config.hidden_size {
            _ if self.model.is_some() => 5e-5,
            ..=128 => 1e-3,
            129..=384 => 5e-4,
            _ => 1e-4,
        })
    }

    pub fn schedule(&self) -> Schedule {
        let warmup = self.warmup;
        match self.schedule.as_str() {
            "cosine" => Schedule::Cosine { warmup },
            "constant" => Schedule::Constant { warmup },
            _ => Schedule::Linear { warmup },
        }
    }

    pub fn save_options(&self) -> SaveOptions {
        SaveOptions::new().dtype(match self.dtype.as_str() {
            "bf16" => DType::BF16,
            "f16" => DType::F16,
            _ => DType::F32,
        })
    }
}
