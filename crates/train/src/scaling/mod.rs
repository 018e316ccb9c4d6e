//! A model of the time and the memory of pre-training on several ranks.
//!
//! It follows what [`Optimizer`](crate::Optimizer) does, bucket by bucket: gradients are exchanged while backward computes
//! others, and updated parameters while the next ones are updated. It takes a few measured numbers: the speed of one rank, and
//! that of the network. The page *Scaling* of the book compares it with measurements.
//!
//! ```
//! use cloze_bert::BertConfig;
//! use cloze_tensor::DType;
//! use cloze_train::scaling::{Job, Network, RankSpeed};
//! let speed = RankSpeed { tokens_per_second: 800.0, overhead: 0.1, parameters_per_second: 1e9 };
//! let network = Network::ethernet(10.0, 50e-6);
//! let job = Job { sequences: 32, ranks: 4, ..Job::new(BertConfig::base()) };
//! let time = job.step_time(&speed, &network);
//! assert!(time.hidden_share() > 0.5 && time.total() < Job { ranks: 2, ..job.clone() }.step_time(&speed, &network).total());
//! // The running means are divided by the ranks, and the gradients of the own share come on top.
//! let alone = Job { ranks: 1, ..job.clone() };
//! assert!(job.memory()?.means.abs_diff(alone.memory()?.means / 4) < 1 << 20);
//! # Ok::<(), cloze_train::Error>(())
//! ```

mod memory;
mod step;
#[cfg(test)]
mod tests;

use cloze_bert::BertConfig;
use cloze_tensor::DType;

pub use step::StepTime;

/// The part of the tokens that are targets of the masked-language model.
const MASKED: f64 = 0.15;

/// What a job trains in a step, and on how many ranks.
#[derive(Clone, Debug)]
pub struct Job {
    /// The configuration of the model, which has both pre-training heads.
    pub config: BertConfig,
    /// The number of sequences in a step, of all ranks together.
    pub sequences: usize,
    /// The number of tokens in a sequence.
    pub length: usize,
    /// The number of batches that a rank divides its sequences into, whose gradients it accumulates.
    pub accumulate: usize,
    /// The number of ranks.
    pub ranks: usize,
    /// The type in which gradients travel, f32 or bf16.
    pub reduce: DType,
}

/// The speed of a rank that shares its machine with the ranks that will run there.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RankSpeed {
    /// The tokens per second of forward and backward.
    pub tokens_per_second: f64,
    /// The time that forward and backward of a batch take in addition to that of their tokens, in seconds.
    pub overhead: f64,
    /// The parameters per second of the optimizer: the norm of their gradients and AdamW.
    pub parameters_per_second: f64,
}

/// The speed of a network in which each rank has a port of its own that sends and receives at the same time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Network {
    /// The time of an exchange without data, in seconds.
    pub latency: f64,
    /// The time by which each further rank makes an exchange longer, in seconds.
    pub per_message: f64,
    /// The bytes per second of a port, in each direction.
    pub bytes_per_second: f64,
    /// The time of a core that takes to send a byte and to receive one, in seconds. Backward loses it if all cores compute.
    pub core_per_byte: f64,
    /// The time of a core that an exchanged gradient takes to be converted and added, in seconds.
    pub core_per_gradient: f64,
}

impl Network {
    /// Returns a network of this bandwidth, in Gbit/s, and latency, in seconds, whose transport takes no time of the cores or
    /// GPUs that compute.
    pub fn ethernet(gigabits_per_second: f64, latency: f64) -> Network {
        Network {
            latency,
            per_message: 1e-6,
            bytes_per_second: gigabits_per_second * 1e9 / 8.0,
            core_per_byte: 0.0,
            core_per_gradient: 0.0,
        }
    }

    /// Returns the time of an exchange between `ranks` in which each sends and receives `bytes`.
    fn time(&self, ranks: usize, bytes: f64) -> f64 {
        self.latency + (ranks as f64 - 2.0).max(0.0) * self.per_message + bytes / self.bytes_per_second
    }
}

impl Job {
    /// Returns the job of one rank with 256 sequences of 512 tokens in a step, in one batch, as BERT was trained.
    pub fn new(config: BertConfig) -> Job {
        Job { config, sequences: 256, length: 512, accumulate: 1, ranks: 1, reduce: DType::F32 }
    }

    /// Returns the number of tokens in a step, of all ranks together.
    pub fn tokens(&self) -> usize {
        self.sequences * self.length
    }

    /// Returns the sequences of the rank that has the most.
    pub fn sequences_per_rank(&self) -> usize {
        self.sequences.div_ceil(self.ranks.max(1))
    }

    /// Returns the number of parameters.
    pub fn parameters(&self) -> u64 {
        self.config.parameter_counts().pre_training()
    }

    /// Returns the bytes of a gradient that travels.
    fn gradient_bytes(&self) -> f64 {
        if self.reduce == DType::F32 { 4.0 } else { 2.0 }
    }
}
