//! The encoder: layers of attention and feed-forward networks.

use cloze_tensor::{Gelu, Sequences, Tensor, module, recompute};

use super::{Attention, LayerNorm, Linear, Mode, Rows};
use crate::error::Inside;
use crate::weights::Weights;
use crate::{BertConfig, Result};

/// `intermediate`: the first half of the feed-forward network.
#[derive(Clone)]
pub struct Intermediate {
    /// `[I, H]`
    pub dense: Linear,
}
module!(Intermediate { dense });

/// `output`: the second half, the residual, the normalisation.
#[derive(Clone)]
pub struct Output {
    /// `[H, I]`
    pub dense: Linear,
    /// Of the sum with the residual.
    pub layer_norm: LayerNorm,
}
module!(Output { dense, layer_norm: "LayerNorm" });

/// `encoder.layer.N`
#[derive(Clone)]
pub struct Layer {
    /// Every token looks at every token of its sequence.
    pub attention: Attention,
    /// Every token for itself: H to I, GELU,
    pub intermediate: Intermediate,
    /// and back to H.
    pub output: Output,
    gelu: Gelu,
    dropout: f64,
    site: u32,
}
module!(Layer { attention, intermediate, output });

impl Layer {
    /// Uses dropout sites `site` to `site + 2`.
    fn new(weights: Weights<'_>, config: &BertConfig, site: u32) -> Result<Layer> {
        let (hidden, inner) = (config.hidden_size, config.intermediate_size);
        let output = weights.at("output");
        Ok(Layer {
            attention: Attention::new(weights.at("attention"), config, site)?,
            intermediate: Intermediate { dense: Linear::new(weights.at("intermediate").at("dense"), hidden, inner)? },
            output: Output {
                dense: Linear::new(output.at("dense"), inner, hidden)?,
                layer_norm: LayerNorm::new(output.at("LayerNorm"), hidden, config.layer_norm_eps)?,
            },
            gelu: config.hidden_act.into(),
            dropout: config.hidden_dropout_prob,
            site: site + 2,
        })
    }

    /// `[T, H]` to `[R, H]`, for the R rows that are wanted: after attention no row looks at another.
    pub fn forward(&self, x: &Tensor, sequences: &Sequences, rows: &Rows<'_>, mode: Mode) -> Result<Tensor> {
        let x = self.attention.forward(x, sequences, rows, mode).inside("attention")?; // [R, H]
        let dropout = mode.dropout(self.dropout, self.site)?;
        let (inner, outer) = (&self.intermediate.dense, &self.output.dense);
        let y = match (&inner.adapter, &outer.adapter) {
            (None, None) => x.feed_forward((&inner.weight, &inner.bias), self.gelu, (&outer.weight, &outer.bias))?,
            _ => outer.forward(&inner.forward_gelu(&x, self.gelu)?)?,
        };
        self.output.layer_norm.residual(&y, &x, &dropout, rows.coordinates()).inside("output")
    }
}

impl Layer {
    /// Its linear layers with their names.
    pub(super) fn linears(&self) -> [(&'static str, &Linear); 6] {
        let attention = &self.attention.self_attention;
        [
            ("attention.self.query", &attention.query),
            ("attention.self.key", &attention.key),
            ("attention.self.value", &attention.value),
            ("attention.output.dense", &self.attention.output.dense),
            ("intermediate.dense", &self.intermediate.dense),
            ("output.dense", &self.output.dense),
        ]
    }

    /// As [`Layer::linears`], to change.
    pub(super) fn linears_mut(&mut self) -> [(&'static str, &mut Linear); 6] {
        let Attention { self_attention: attention, output } = &mut self.attention;
        [
            ("attention.self.query", &mut attention.query),
            ("attention.self.key", &mut attention.key),
            ("attention.self.value", &mut attention.value),
            ("attention.output.dense", &mut output.dense),
            ("intermediate.dense", &mut self.intermediate.dense),
            ("output.dense", &mut self.output.dense),
        ]
    }

    fn forward_recomputed(&self, x: &Tensor, sequences: &Sequences, rows: &Rows<'_>, mode: Mode) -> Result<Tensor> {
        let (sequences, rows) = (sequences.clone(), rows.to_static());
        recompute(self, x, move |layer, x| layer.forward(x, &sequences, &rows, mode))
    }
}

/// The first dropout site of layer `index`, which uses three. Site 0 is the embeddings'.
fn first_site(index: usize) -> u32 {
    1 + 3 * index as u32
}

/// `bert.encoder`
#[derive(Clone)]
pub struct Encoder {
    /// From the embeddings upwards.
    pub layer: Vec<Layer>,
    /// Whether each layer keeps its input alone for backward, which then computes the layer again
    /// ([`recompute`]): a third more time, and memory for the activations of one layer instead of all.
    pub gradient_checkpointing: bool,
}
module!(Encoder { layer });

impl Encoder {
    pub(super) fn new(weights: Weights<'_>, config: &BertConfig) -> Result<Encoder> {
        let layers = weights.at("layer");
        let layer = |index: usize| Layer::new(layers.at(&index.to_string()), config, first_site(index));
        let layer = (0..config.num_hidden_layers).map(layer).collect::<Result<_>>()?;
        Ok(Encoder { layer, gradient_checkpointing: false })
    }

    /// The dropout site after all layers'.
    pub(super) fn next_site(&self) -> u32 {
        first_site(self.layer.len())
    }

    /// `[T, H]` to `[R, H]`: the last layer computes the rows that are wanted alone. `watch` sees what goes into
    /// every layer.
    pub(super) fn forward(
        &self,
        embeddings: Tensor,
        sequences: &Sequences,
        rows: &Rows<'_>,
        mode: Mode,
        mut watch: impl FnMut(&Layer, &Tensor) -> Result<()>,
    ) -> Result<Tensor> {
        let mut x = embeddings;
        let all = Rows::all(sequences);
        for (index, layer) in self.layer.iter().enumerate() {
            let rows = if index + 1 == self.layer.len() { rows } else { &all };
            let step = watch(layer, &x).and_then(|()| match self.gradient_checkpointing {
                true => layer.forward_recomputed(&x, sequences, rows, mode),
                false => layer.forward(&x, sequences, rows, mode),
            });
            x = step.inside(format_args!("encoder.layer.{index}"))?;
        }
        Ok(x)
    }
}
