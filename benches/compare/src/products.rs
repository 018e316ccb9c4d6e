//! Counts the floating-point operations in the matrix products of a step of cloze.

use cloze::prelude::*;

use crate::protocol::{PaddedBatch, Task};

/// Returns the GFLOP of the matrix products that cloze computes for a step on this batch. A multiplication and an
/// addition count as two operations.
///
/// With T tokens in sequences of length L, H hidden, I intermediate, and R rows of the last layer that a head reads:
/// - a layer: queries, keys, values 2 T H 3H; scores and their product with the values 2 · 2 ΣL² H; output 2 T H H;
///   feed-forward 2 · 2 T H I. In the last layer the last two are of R rows, not T.
/// - pre-training (R: B `[CLS]`, M targets; V words): transform 2 M H H, decoder 2 M H V, pooler 2 B H H, next sentence
///   2 B H 2; classification (R = B) of C classes: pooler 2 B H H, classifier 2 B H C; answers (R = T): 2 T H 2.
///
/// A backward has twice as many, for the gradients of both operands. Recomputed products are not counted.
pub fn gflop(task: Task, config: &BertConfig, batch: &PaddedBatch) -> f64 {
    let lengths = batch.lengths();
    let (hidden, inner, layers) = (config.hidden_size, config.intermediate_size, config.num_hidden_layers);
    let (tokens, sequences) = (lengths.iter().sum::<usize>(), lengths.len());
    let squares: usize = lengths.iter().map(|length| length * length).sum();
    let targets = batch.targets();
    let rows = match task {
        Task::PreTraining => sequences + targets,
        Task::Classification => sequences,
        Task::QuestionAnswering | Task::Embedding => tokens,
    };
    let attention = tokens * hidden * 3 * hidden + 2 * squares * hidden;
    let per_row = hidden * hidden + 2 * hidden * inner;
    let head = match task {
        Task::PreTraining => targets * hidden * (hidden + config.vocab_size) + sequences * hidden * (hidden + 2),
        Task::Classification => sequences * hidden * (hidden + config.num_labels()),
        Task::QuestionAnswering => tokens * hidden * 2,
        Task::Embedding => 0,
    };
    let products = layers * attention + ((layers - 1) * tokens + rows) * per_row + head;
    2e-9 * products as f64 * if task.trains() { 3.0 } else { 1.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One layer of width 2, inner width 4, one sequence of 3 tokens and one of padding.
    #[test]
    fn counts_by_hand() {
        let config = BertConfig {
            hidden_size: 2,
            intermediate_size: 4,
            num_hidden_layers: 1,
            vocab_size: 10,
            ..BertConfig::tiny(10)
        };
        let batch = PaddedBatch { length: 4, attention_mask: vec![1, 1, 1, 0], ..PaddedBatch::default() };
        // qkv 3·2·6, scores and context 2·9·2, output 3·2·2, feed-forward 2·3·2·4, answers 3·2·2.
        let answers = gflop(Task::QuestionAnswering, &config, &batch);
        assert!((answers - 2e-9 * (36.0 + 36.0 + 12.0 + 48.0 + 12.0)).abs() < 1e-15);
        // Rows: [CLS] and one target. Output 2·4, feed-forward 2·16, transform 4, decoder 20, pooler 4, next sentence
        // 4.
        let batch = PaddedBatch { labels: vec![-100, 5, -100, -100], ..batch };
        let step = gflop(Task::PreTraining, &config, &batch);
        assert!((step - 6e-9 * (36.0 + 36.0 + 8.0 + 32.0 + 4.0 + 20.0 + 4.0 + 4.0)).abs() < 1e-15);
    }
}
