//! The bare model: embeddings, encoder, pooler.

use cloze_tensor::{Tensor, module};

use super::{Embeddings, Encoder, Linear, Mode, Rows};
use crate::error::Inside;
use crate::weights::Weights;
use crate::{Batch, BertConfig, Result};

/// `bert.pooler`: a dense layer with tanh over the `[CLS]` token.
pub struct Pooler {
    /// `[H, H]`
    pub dense: Linear,
}
module!(Pooler { dense });

impl Pooler {
    /// The hidden states of the `[CLS]` tokens, `[B, H]`, to one vector per sequence, `[B, H]`.
    pub fn forward(&self, cls: &Tensor) -> Result<Tensor> {
        Ok(self.dense.forward(cls)?.tanh()?)
    }
}

/// The bare model.
pub struct BertModel {
    /// `embeddings`
    pub embeddings: Embeddings,
    /// `encoder`
    pub encoder: Encoder,
    /// `pooler`, where the head needs it.
    pub pooler: Option<Pooler>,
    config: BertConfig,
}
module!(BertModel { embeddings, encoder, pooler });

/// What each token became on its way up.
pub struct Hidden {
    /// `[T, H]` each: the embeddings, then the output of every layer.
    pub states: Vec<Tensor>,
    /// For each layer and sequence of length L the attention probabilities `[N, L, L]`.
    pub attentions: Vec<Vec<Tensor>>,
}

impl BertModel {
    pub(crate) fn new(weights: Weights<'_>, config: &BertConfig) -> Result<BertModel> {
        let pooler = weights.at("pooler").at("dense");
        Ok(BertModel {
            embeddings: Embeddings::new(weights.at("embeddings"), config)?,
            encoder: Encoder::new(weights.at("encoder"), config)?,
            pooler: Some(Pooler { dense: Linear::new(pooler, config.hidden_size, config.hidden_size)? }),
            config: config.clone(),
        })
    }

    /// The configuration.
    pub fn config(&self) -> &BertConfig {
        &self.config
    }

    /// The last layer's hidden states: `[T, H]`.
    ///
    /// # Errors
    /// When a sequence is longer than `max_position_embeddings`, or an id is not below its table's size.
    pub fn forward(&self, batch: &Batch, mode: Mode) -> Result<Tensor> {
        self.forward_rows(batch, &Rows::all(batch.sequences()), mode)
    }

    /// Some rows of the last layer's hidden states, `[R, H]`: as picking them from all, but the last layer computes
    /// no others.
    ///
    /// # Errors
    /// As [`BertModel::forward`], and when a row is not below T.
    pub fn forward_rows(&self, batch: &Batch, rows: &Rows<'_>, mode: Mode) -> Result<Tensor> {
        self.watched(batch, rows, mode, |_, _| Ok(())).inside("bert")
    }

    /// Hidden states and attention probabilities of every layer, for looking at. Records no graph.
    ///
    /// # Errors
    /// As [`BertModel::forward`].
    pub fn hidden(&self, batch: &Batch) -> Result<Hidden> {
        cloze_tensor::no_grad(|| {
            let mut hidden = Hidden { states: Vec::new(), attentions: Vec::new() };
            let rows = Rows::all(batch.sequences());
            let last = self.watched(batch, &rows, Mode::Eval, |layer, x| {
                hidden.states.push(x.clone());
                let attention = &layer.attention.self_attention;
                hidden.attentions.push(attention.weights(x, batch.sequences()).inside("attention")?);
                Ok(())
            });
            hidden.states.push(last.inside("bert")?);
            Ok(hidden)
        })
    }

    fn watched(
        &self,
        batch: &Batch,
        rows: &Rows<'_>,
        mode: Mode,
        watch: impl FnMut(&super::Layer, &Tensor) -> Result<()>,
    ) -> Result<Tensor> {
        batch.check(&self.config)?;
        let embeddings = self.embeddings.forward(batch, mode)?;
        self.encoder.forward(embeddings, batch.sequences(), rows, mode, watch)
    }
}
