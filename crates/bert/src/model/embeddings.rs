//! The input of the encoder: the sum of word, position and token-type embeddings, with LayerNorm and dropout.

use std::borrow::Cow;

use cloze_tensor::{EmbeddingIds, Inside as _, Tensor, module};

use super::Mode;
use super::layers::{Embedding, LayerNorm};
use crate::weights::Weights;
use crate::{Batch, BertConfig, Result};

/// `bert.embeddings`
#[derive(Clone)]
pub struct Embeddings {
    /// `[V, H]`; also the decoder of the masked-language-model head.
    pub word_embeddings: Embedding,
    /// `[max_position_embeddings, H]`; learned positions.
    pub position_embeddings: Embedding,
    /// `[type_vocab_size, H]`: first and second segment. `None` in a DistilBERT.
    pub token_type_embeddings: Option<Embedding>,
    /// Normalises the sum.
    pub layer_norm: LayerNorm,
    dropout: f64,
}
module!(Embeddings { word_embeddings, position_embeddings, token_type_embeddings, layer_norm: "LayerNorm" });

/// The dropout site of the embeddings; those of the layers follow.
const SITE: u32 = 0;

impl Embeddings {
    pub(super) fn new(weights: Weights<'_>, config: &BertConfig) -> Result<Embeddings> {
        let hidden = config.hidden_size;
        let table = |name, entries| Embedding::new(weights.at(name), entries, hidden);
        Ok(Embeddings {
            word_embeddings: table("word_embeddings", config.vocab_size)?,
            position_embeddings: table("position_embeddings", config.max_position_embeddings)?,
            token_type_embeddings: match config.type_vocab_size {
                0 => None,
                types => Some(table("token_type_embeddings", types)?),
            },
            layer_norm: LayerNorm::new(weights.at("LayerNorm"), hidden, config.layer_norm_eps)?,
            dropout: config.hidden_dropout_prob,
        })
    }

    /// Computes the embeddings of the tokens of a batch: `[T, H]`.
    ///
    /// # Errors
    /// Returns an error if an id, position or token type is out of range.
    pub fn forward(&self, batch: &Batch, mode: Mode) -> Result<Tensor> {
        let words = &self.word_embeddings.weight;
        let (types, token_types) = match &self.token_type_embeddings {
            Some(table) => (table.weight.clone(), Cow::Borrowed(batch.token_types())),
            None => {
                let zeros = Tensor::zeros(&[1, words.shape()[1]], words.dtype(), &words.device())?;
                (zeros, Cow::Owned(vec![0; batch.tokens()]))
            }
        };
        let ids = EmbeddingIds { words: batch.ids(), positions: batch.positions(), token_types: &token_types };
        let normalised = words.embeddings_layer_norm(
            &self.position_embeddings.weight,
            &types,
            &self.layer_norm.weight,
            &self.layer_norm.bias,
            self.layer_norm.eps,
            ids,
        );
        let dropped = || normalised?.dropout(&mode.dropout(self.dropout, SITE)?, batch.sequences().rows());
        Ok(dropped().inside("embeddings")?)
    }
}
