//! Multi-head self-attention and what follows it in a layer.

use cloze_tensor::{Inside as _, Sequences, Tensor, module};

use super::{LayerNorm, Linear, Mode, Rows};
use crate::error::Inside as _;
use crate::weights::Weights;
use crate::{BertConfig, Result};

/// `attention.self`: queries, keys and values, and the attention between the tokens of each sequence.
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

    /// Queries, keys and values of all heads side by side: `[T, H]` to `[T, 3H]`.
    fn projections(&self, x: &Tensor) -> cloze_tensor::Result<Tensor> {
        let layers = [&self.query, &self.key, &self.value];
        let qkv = x.projections(&layers.map(|linear| (&linear.weight, &linear.bias)))?;
        if layers.iter().all(|linear| linear.adapter.is_none()) {
            return Ok(qkv);
        }
        let correction = |linear: &Linear| match &linear.adapter {
            Some(adapter) => adapter.forward(x),
            None => Tensor::zeros(x.shape(), x.dtype(), &x.device()),
        };
        let corrections = layers.map(correction).into_iter().collect::<cloze_tensor::Result<Vec<_>>>()?;
        qkv.add(&Tensor::concat(&corrections.iter().collect::<Vec<_>>(), x.rank() - 1)?)
    }

    /// `[T, H]` to `[T, H]`
    pub fn forward(&self, x: &Tensor, sequences: &Sequences, mode: Mode) -> Result<Tensor> {
        let attended = || {
            let dropout = mode.dropout(self.dropout, self.site)?;
            let qkv = self.projections(x)?; // [T, 3H]
            qkv.attention(sequences, self.heads, &dropout)
        };
        Ok(attended().inside("self")?)
    }

    /// The attention probabilities of each sequence of length L: `[N, L, L]`.
    pub fn weights(&self, x: &Tensor, sequences: &Sequences) -> Result<Vec<Tensor>> {
        Ok(self.projections(x).and_then(|qkv| qkv.attention_weights(sequences, self.heads)).inside("self")?)
    }
}

/// `attention.output`: mixes the heads, adds the residual, normalises.
#[derive(Clone)]
pub struct AttentionOutput {
    /// `[H, H]`
    pub dense: Linear,
    /// Of the sum with the residual.
    pub layer_norm: LayerNorm,
    dropout: f64,
    site: u32,
}
module!(AttentionOutput { dense, layer_norm: "LayerNorm" });

impl AttentionOutput {
    /// What the heads gave and the residual, `[R, H]` both, to `[R, H]`.
    fn forward(&self, attended: &Tensor, residual: &Tensor, rows: &Rows<'_>, mode: Mode) -> Result<Tensor> {
        let mixed = self.dense.forward(attended)?;
        let dropout = mode.dropout(self.dropout, self.site)?;
        self.layer_norm.residual(&mixed, residual, &dropout, rows.coordinates())
    }
}

/// `attention`: self-attention and its output.
#[derive(Clone)]
pub struct Attention {
    /// `attention.self`
    pub self_attention: SelfAttention,
    /// `attention.output`
    pub output: AttentionOutput,
}
module!(Attention { self_attention: "self", output });

impl Attention {
    /// Uses dropout sites `site` and `site + 1`.
    pub(super) fn new(weights: Weights<'_>, config: &BertConfig, site: u32) -> Result<Attention> {
        let hidden = config.hidden_size;
        let output = weights.at("output");
        Ok(Attention {
            self_attention: SelfAttention::new(weights.at("self"), config, site)?,
            output: AttentionOutput {
                dense: Linear::new(output.at("dense"), hidden, hidden)?,
                layer_norm: LayerNorm::new(output.at("LayerNorm"), hidden, config.layer_norm_eps)?,
                dropout: config.hidden_dropout_prob,
                site: site + 1,
            },
        })
    }

    /// `[T, H]` to `[R, H]`, for the R rows that are wanted.
    pub fn forward(&self, x: &Tensor, sequences: &Sequences, rows: &Rows<'_>, mode: Mode) -> Result<Tensor> {
        let attended = self.self_attention.forward(x, sequences, mode)?; // [T, H]
        let (attended, residual) = (rows.of(&attended)?, rows.of(x)?); // [R, H]
        self.output.forward(&attended, &residual, rows, mode).inside("output")
    }
}
