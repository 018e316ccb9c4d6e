//! The time of a step.

use super::{Job, MASKED, Network, RankSpeed};
use crate::optimizer::shares::Shares;

/// The share of forward in forward and backward, which computes two products for each one of forward.
const FORWARD: f64 = 1.0 / 3.0;

/// The parts of the time of a step, in seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct StepTime {
    /// Forward and backward, without what else occupies the cores meanwhile.
    pub compute: f64,
    /// The time by which an exchange that needs the same cores makes backward longer.
    pub slowed: f64,
    /// After backward, until all gradients are exchanged.
    pub gradients_wait: f64,
    /// The exchange of the norm of all gradients.
    pub norm_wait: f64,
    /// The optimizer, on the share of this rank.
    pub update: f64,
    /// After the update, until all parameters are here.
    pub parameters_wait: f64,
    /// The whole exchange of gradients, most of it during backward.
    pub gradients_total: f64,
    /// The whole exchange of parameters, part of it during the update.
    pub parameters_total: f64,
}

impl StepTime {
    /// Returns the time of the step.
    pub fn total(&self) -> f64 {
        self.compute + self.slowed + self.visible() + self.update
    }

    /// Returns the time in which a rank waits for others.
    pub fn visible(&self) -> f64 {
        self.gradients_wait + self.norm_wait + self.parameters_wait
    }

    /// Returns the part of the exchange of gradients that backward hides; 1 if there is none.
    pub fn hidden_share(&self) -> f64 {
        if self.gradients_total > 0.0 { 1.0 - self.gradients_wait / self.gradients_total } else { 1.0 }
    }
}

impl Job {
    /// Predicts the time of a step.
    ///
    /// Backward comes to the heads first, then from the last layer to the first, and the last gradients are those of the
    /// embeddings. A bucket is sent as soon as its gradients are final and the one before has been exchanged.
    pub fn step_time(&self, speed: &RankSpeed, network: &Network) -> StepTime {
        let batches = self.accumulate.max(1) as f64;
        let tokens = (self.sequences_per_rank() * self.length) as f64;
        let compute = tokens / speed.tokens_per_second + batches * speed.overhead;
        let update = self.parameters() as f64 / self.ranks.max(1) as f64 / speed.parameters_per_second;
        let mut time = StepTime { compute, update, ..StepTime::default() };
        if self.ranks > 1 {
            // Only the last batch's backward hides anything.
            self.exchange_gradients(&mut time, compute / batches * (1.0 - FORWARD), network);
            time.norm_wait = network.time(self.ranks, self.parameters() as f64 / 512.0);
            self.exchange_parameters(&mut time, network);
        }
        time
    }

    /// Adds the exchange of gradients to a backward of this time.
    fn exchange_gradients(&self, time: &mut StepTime, backward: f64, network: &Network) {
        // The times count from the start of backward.
        let mut end = 0.0;
        for bucket in self.shares().buckets().rev() {
            let (elements, bytes) = self.of_others(bucket.range.len(), self.gradient_bytes());
            let core = bytes * network.core_per_byte + elements * network.core_per_gradient;
            let total = network.time(self.ranks, bytes) + elements * network.core_per_gradient;
            let is_final = self.final_at(bucket.range.start) * backward + time.slowed;
            if is_final.max(end) < backward + time.slowed {
                time.slowed += core;
            }
            end = is_final.max(end) + total;
            time.gradients_total += total;
        }
        time.gradients_wait = (end - backward - time.slowed).max(0.0);
    }

    /// Adds the exchange of parameters to the update.
    fn exchange_parameters(&self, time: &mut StepTime, network: &Network) {
        let (mut updated, mut end) = (0.0, 0.0f64);
        for bucket in self.shares().buckets() {
            let (_, bytes) = self.of_others(bucket.range.len(), 4.0);
            let total = network.time(self.ranks, bytes);
            updated += time.update * bucket.range.len() as f64 / self.parameters() as f64;
            end = updated.max(end) + total;
            time.parameters_total += total;
        }
        time.parameters_wait = (end - updated).max(0.0);
    }

    /// Returns the cut of the parameters into the buckets of an exchange.
    fn shares(&self) -> Shares {
        Shares::new(self.parameters() as usize, self.ranks)
    }

    /// Returns the elements of a bucket and, of those, the bytes that a rank exchanges with others.
    fn of_others(&self, elements: usize, size: f64) -> (f64, f64) {
        let ranks = self.ranks as f64;
        (elements as f64, elements as f64 * size * (ranks - 1.0) / ranks)
    }

    /// Returns the part of backward after which the gradients from this element on are final.
    fn final_at(&self, element: usize) -> f64 {
        let counts = self.config.parameter_counts();
        let [hidden, inner, vocabulary] =
            [self.config.hidden_size, self.config.intermediate_size, self.config.vocab_size].map(|size| size as f64);
        let layers = self.config.num_hidden_layers as f64;
        // Multiplications and additions per token.
        let layer = 4.0 * hidden * hidden + 2.0 * hidden * inner + 2.0 * self.length as f64 * hidden;
        let head = MASKED * (hidden * hidden + hidden * vocabulary);
        let head = head / (head + layers * layer);
        let (first, past) = (counts.embeddings as f64, (counts.embeddings + counts.encoder) as f64);
        match element as f64 {
            element if element < first => 1.0,
            element => head + (1.0 - head) * (past - element).max(0.0) / (past - first),
        }
    }
}
