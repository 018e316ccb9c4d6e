//! The attention block of a layer: multi-head self-attention, its output projection, the residual and LayerNorm.

use cloze_tensor::{Inside as _, Sequences, Tensor, module};

use super::layers::{LayerNorm, Linear, projections};
use super::{Mode, Rows};
use crate::weights::Weights;
use crate::{BertConfig, Result};

/// `attention.self`: multi-head attention between the tokens of each sequence.
#[derive(Clone)]
pub struct SelfAttention {
    /// `[H, H]`
    pub query: Linear,
    /// `[H, H]`
    pub key: Linear,
    /// `[H, H]`
    pub value: Linear,
    heads: usize,
    dropout: f64,
    site: u32,
}
module!(SelfAttention { query, key, value });

impl SelfAttention {
    fn new(weights: Weights<'_>, config: &BertConfig, site: u32) -> Result<SelfAttention> {
        let hidden = config.hidden_size;
        Ok(SelfAttention {
            query: Linear::new(weights.at("query"), hidden, hidden)?,
            key: Linear::new(weights.at("key"), hidden, hidden)?,
            value: Linear::new(weights.at("value"), hidden, hidden)?,
            heads: config.num_attention_heads,
            dropout: config.attention_probs_dropout_prob,
            site,
        })
    }

    /// Computes queries, keys and values of all heads side by side: `[T, H]` to `[T, 3H]`.
    fn projections(&self, x: &Tensor) -> Result<Tensor> {
        projections([&self.query, &self.key, &self.value], x)
    }

    /// Computes the attention output of all heads side by side: `[T, H]` to `[T, H]`.
    ///
    /// # Errors
    /// Returns an error if the shapes do not match.
    pub fn forward(&self, x: &Tensor, sequences: &Sequences, mode: Mode) -> Result<Tensor> {
        let attended = || -> Result<Tensor> {
            let dropout = mode.dropout(self.dropout, self.site)?;
            let qkv = self.projections(x)?; // [T, 3H]
            Ok(qkv.attention(sequences, self.heads, &dropout)?)
        };
        attended().inside("self")
    }

    /// Computes the attention probabilities of each sequence of length L: `[N, L, L]`.
    ///
    /// # Errors
    /// Returns an error if the shapes do not match.
    pub fn weights(&self, x: &Tensor, sequences: &Sequences) -> Result<Vec<Tensor>> {
        let weights = || -> Result<_> { Ok(self.projections(x)?.attention_weights(sequences, self.heads)?) };
        weights().inside("self")
    }
}

/// `attention.output`: mixes the heads, adds the residual and normalises.
#[derive(Clone)]
pub struct AttentionOutput {
    /// `[H, H]`
    pub dense: Linear,
    /// Normalises the sum with the residual.
    pub layer_norm: LayerNorm,
    dropout: f64,
    site: u32,
}
module!(AttentionOutput { dense, layer_norm: "LayerNorm" });

impl AttentionOutput {
    /// Computes `[R, H]` from the output of the heads and the residual, both `[R, H]`.
    fn forward(&self, attended: &Tensor, residual: &Tensor, rows: &Rows<'_>, mode: Mode) -> Result<Tensor> {
        let mixed = self.dense.forward(attended)?;
        let dropout = mode.dropout(self.dropout, self.site)?;
        self.layer_norm.residual(&mixed, residual, &dropout, rows.coordinates())
    }
}

/// `attention`: self-attention and its output.
#[derive(Clone)]
pub struct AttentionBlock {
    /// `attention.self`
    pub self_attention: SelfAttention,
    /// `attention.output`
    pub output: AttentionOutput,
}
module!(AttentionBlock { self_attention: "self", output });

impl AttentionBlock {
    /// Creates a block that uses the dropout sites `site` and `site + 1`.
    pub(super) fn new(weights: Weights<'_>, config: &BertConfig, site: u32) -> Result<AttentionBlock> {
        let hidden = config.hidden_size;
        let output = weights.at("output");
        Ok(AttentionBlock {
            self_attention: SelfAttention::new(weights.at("self"), config, site)?,
            output: AttentionOutput {
                dense: Linear::new(output.at("dense"), hidden, hidden)?,
                layer_norm: LayerNorm::new(output.at("LayerNorm"), hidden, config.layer_norm_eps)?,
                dropout: config.hidden_dropout_prob,
                site: site + 1,
            },
        })
    }

    /// Computes the R selected rows of the output: `[T, H]` to `[R, H]`.
    ///
    /// # Errors
    /// Returns an error if the shapes do not match or a row is out of range.
    pub fn forward(&self, x: &Tensor, sequences: &Sequences, rows: &Rows<'_>, mode: Mode) -> Result<Tensor> {
        let attended = self.self_attention.forward(x, sequences, mode)?; // [T, H]
        let (attended, residual) = (rows.of(&attended)?, rows.of(x)?); // [R, H]
        self.output.forward(&attended, &residual, rows, mode).inside("output")
    }
}
