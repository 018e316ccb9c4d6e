//! The number of parameters of each part of a model, computed from its configuration.

use crate::{BertConfig, ModelType};

/// The number of parameters of each part of a model with V tokens, P positions, S token types, hidden size H,
/// intermediate size I and L layers. Numbers saturate at `u64::MAX`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ParameterCounts {
    /// The three tables and LayerNorm: (V + P + S) H + 2 H.
    pub embeddings: u64,
    /// One layer, with query, key, value and output projections, two feed-forward layers and two LayerNorms:
    /// 4 (H² + H) + 2 H I + I + H + 4 H.
    pub layer: u64,
    /// All L layers.
    pub encoder: u64,
    /// The pooler: H² + H, 0 in a DistilBERT.
    pub pooler: u64,
    /// The masked-language-model head: H² + H + 2 H + V, and V H for a decoder that is not tied to the word embeddings.
    pub mlm_head: u64,
    /// The next-sentence head: 2 H + 2, 0 in a DistilBERT.
    pub nsp_head: u64,
}

impl ParameterCounts {
    /// Returns the number for the bare model: embeddings, encoder, pooler.
    pub fn model(&self) -> u64 {
        self.embeddings.saturating_add(self.encoder).saturating_add(self.pooler)
    }

    /// Returns the number for the model with both pre-training heads.
    pub fn pre_training(&self) -> u64 {
        self.model().saturating_add(self.mlm_head).saturating_add(self.nsp_head)
    }
}

/// Returns the number of parameters of a linear layer.
fn linear(input: u64, output: u64) -> u64 {
    input.saturating_add(1).saturating_mul(output)
}

impl BertConfig {
    /// Returns the number of parameters of each part of the model.
    ///
    /// ```
    /// # use cloze_bert::BertConfig;
    /// assert_eq!(BertConfig::base().parameter_counts().model(), 109_482_240);
    /// ```
    pub fn parameter_counts(&self) -> ParameterCounts {
        let [v, p, s] = [self.vocab_size, self.max_position_embeddings, self.type_vocab_size].map(|n| n as u64);
        let [h, i, layers] = [self.hidden_size, self.intermediate_size, self.num_hidden_layers].map(|n| n as u64);
        let norm = h.saturating_mul(2);
        let sum = |terms: &[u64]| terms.iter().fold(0u64, |sum, &term| sum.saturating_add(term));
        let square = linear(h, h);
        let layer = sum(&[square, square, square, square, linear(h, i), linear(i, h), norm, norm]);
        let of_bert = |count: u64| if self.model_type == ModelType::Bert { count } else { 0 };
        ParameterCounts {
            embeddings: sum(&[sum(&[v, p, s]).saturating_mul(h), norm]),
            layer,
            encoder: layer.saturating_mul(layers),
            pooler: of_bert(square),
            mlm_head: sum(&[square, norm, v, if self.tie_word_embeddings() { 0 } else { v.saturating_mul(h) }]),
            nsp_head: of_bert(linear(h, 2)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The expected numbers come from `transformers`.
    #[test]
    fn published_models_have_their_counts() {
        let base = BertConfig::base().parameter_counts();
        assert_eq!(base.model(), 109_482_240);
        assert_eq!(base.pre_training(), 110_106_428);
        let large = BertConfig::large().parameter_counts();
        assert_eq!(large.model(), 335_141_888);
        assert_eq!(large.pre_training(), 336_226_108);
        let distilled = BertConfig::distilbert().parameter_counts();
        assert_eq!(distilled.model(), 66_362_880);
    }

    #[test]
    fn absurd_sizes_do_not_overflow() {
        let config = BertConfig { vocab_size: usize::MAX, hidden_size: usize::MAX, ..BertConfig::base() };
        assert_eq!(config.parameter_counts().pre_training(), u64::MAX);
    }
}
