//! The memory of a rank.

use super::{Job, MASKED};
use crate::optimizer::shares::BUCKET;

/// The memory of a rank on CPUs, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RankMemory {
    /// The parameters, of which each rank has all.
    pub weights: u64,
    /// Their gradients.
    pub gradients: u64,
    /// The running means of AdamW, of which each rank has its share.
    pub means: u64,
    /// With several ranks, the added gradients of the share, and a bucket that is received (as bf16, also one that is sent).
    pub exchange: u64,
    /// What forward keeps for backward, of one batch.
    pub activations: u64,
}

impl RankMemory {
    /// Returns the sum of the parts.
    pub fn total(&self) -> u64 {
        self.weights + self.gradients + self.means + self.exchange + self.activations
    }
}

impl Job {
    /// Predicts the memory of a rank.
    pub fn memory(&self) -> RankMemory {
        let (parameters, ranks) = (self.parameters(), self.ranks.max(1) as u64);
        let share = parameters.div_ceil(ranks);
        RankMemory {
            weights: 4 * parameters,
            gradients: 4 * parameters,
            means: 8 * share,
            exchange: if ranks > 1 { 4 * share + 4 * BUCKET as u64 } else { 0 },
            activations: self.activations(),
        }
    }

    /// A layer keeps its input, queries, keys, values, the output of attention and the input of the feed-forward network, and its
    /// inner values before and after GELU. The head keeps logits of the masked tokens and their gradient.
    fn activations(&self) -> u64 {
        let [hidden, inner, layers, vocabulary] = [
            self.config.hidden_size,
            self.config.intermediate_size,
            self.config.num_hidden_layers,
            self.config.vocab_size,
        ]
        .map(|size| size as f64);
        let tokens = (self.sequences_per_rank().div_ceil(self.accumulate.max(1)) * self.length) as f64;
        let elements = tokens * (layers * (6.0 * hidden + 2.0 * inner) + MASKED * 2.0 * vocabulary);
        4 * elements as u64
    }
}
