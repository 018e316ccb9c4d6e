//! The encoder: a stack of layers, each an attention block and a feed-forward network.

use cloze_tensor::{DType, Inside as _, Precision, Sequences, Tensor, module, recompute};

use super::layers::{LayerNorm, Linear, feed_forward};
use super::{AttentionBlock, Mode, Rows};
use crate::weights::Weights;
use crate::{BertConfig, HiddenAct, Result};

/// `intermediate`: the first half of the feed-forward network.
#[derive(Clone)]
pub struct Intermediate {
    /// `[I, H]`
    pub dense: Linear,
}
module!(Intermediate { dense });

/// `output`: the second half of the feed-forward network, and the LayerNorm of the sum with the residual.
#[derive(Clone)]
pub struct Output {
    /// `[H, I]`
    pub dense: Linear,
    /// Normalises the sum with the residual.
    pub layer_norm: LayerNorm,
}
module!(Output { dense, layer_norm: "LayerNorm" });

/// `encoder.layer.N`
#[derive(Clone)]
pub struct Layer {
    /// Lets every token attend to every token of its sequence.
    pub attention: AttentionBlock,
    /// Widens each token from H to I, with the activation.
    pub intermediate: Intermediate,
    /// Narrows each token back to H.
    pub output: Output,
    act: HiddenAct,
    dropout: f64,
    site: u32,
}
module!(Layer { attention, intermediate, output });

impl Layer {
    /// Creates a layer that uses the dropout sites `site` to `site + 2`.
    fn new(weights: Weights<'_>, config: &BertConfig, site: u32) -> Result<Layer> {
        let (hidden, inner) = (config.hidden_size, config.intermediate_size);
        let output = weights.at("output");
        Ok(Layer {
            attention: AttentionBlock::new(weights.at("attention"), config, site)?,
            intermediate: Intermediate { dense: Linear::new(weights.at("intermediate").at("dense"), hidden, inner)? },
            output: Output {
                dense: Linear::new(output.at("dense"), inner, hidden)?,
                layer_norm: LayerNorm::new(output.at("LayerNorm"), hidden, config.layer_norm_eps)?,
            },
            act: config.hidden_act,
            dropout: config.hidden_dropout_prob,
            site: site + 2,
        })
    }

    /// Computes the R selected rows of the output, `[T, H]` to `[R, H]`. Everything after attention runs on these
    /// rows only.
    ///
    /// # Errors
    /// Returns an error if the shapes do not match or a row is out of range.
    pub fn forward(&self, x: &Tensor, sequences: &Sequences, rows: &Rows<'_>, mode: Mode) -> Result<Tensor> {
        let x = self.attention.forward(x, sequences, rows, mode).inside("attention")?; // [R, H]
        let dropout = mode.dropout(self.dropout, self.site)?;
        let y = feed_forward(&self.intermediate.dense, &self.output.dense, self.act, &x)?;
        self.output.layer_norm.residual(&y, &x, &dropout, rows.coordinates()).inside("output")
    }

    /// Returns the linear layers and their names.
    pub(super) fn linears_mut(&mut self) -> [(&'static str, &mut Linear); 6] {
        let AttentionBlock { self_attention: attention, output } = &mut self.attention;
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

/// Returns the first of the three dropout sites of layer `index`. The embeddings use site 0.
fn first_site(index: usize) -> u32 {
    1 + 3 * index as u32
}

/// `bert.encoder`
#[derive(Clone)]
pub struct Encoder {
    /// The layers, the one next to the embeddings first.
    pub layer: Vec<Layer>,
    /// Whether backward recomputes the activations of each layer from its input ([`recompute`]) instead of keeping
    /// them. Training then needs memory for the activations of one layer instead of all, and about a third more time.
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

    /// Returns the first dropout site that no layer uses.
    pub(super) fn next_site(&self) -> u32 {
        first_site(self.layer.len())
    }

    /// Computes `[R, H]` from the embeddings `[T, H]`; the last layer computes only the selected rows. Calls `watch`
    /// with every layer and its input. The input and the output of a layer have the type of
    /// [activations](Precision::activations).
    pub(super) fn forward(
        &self,
        embeddings: Tensor,
        sequences: &Sequences,
        rows: &Rows<'_>,
        mode: Mode,
        mut watch: impl FnMut(&Layer, &Tensor) -> Result<()>,
    ) -> Result<Tensor> {
        let dtype = embeddings.dtype();
        let mut x = match dtype {
            DType::F32 => embeddings.to_dtype(Precision::current().activations(&embeddings.device()))?,
            _ => embeddings,
        };
        let all = Rows::all(sequences);
        for (index, layer) in self.layer.iter().enumerate() {
            let rows = if index + 1 == self.layer.len() { rows } else { &all };
            let step = watch(layer, &x).and_then(|()| match self.gradient_checkpointing {
                true => layer.forward_recomputed(&x, sequences, rows, mode),
                false => layer.forward(&x, sequences, rows, mode),
            });
            x = step.inside(format_args!("encoder.layer.{index}"))?;
        }
        Ok(x.to_dtype(dtype)?)
    }
}
