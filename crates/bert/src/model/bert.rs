//! The bare model: embeddings, encoder, pooler.

use cloze_tensor::{Dropout, Tensor, module};

use super::{Embeddings, Encoder, Linear, Mode, PreTrainedModel, Rows};
use crate::error::Inside as _;
use crate::weights::Weights;
use crate::{Batch, BertConfig, Error, ModelType, Result};

/// `bert.pooler`: a dense layer over the `[CLS]` token, with tanh; in DistilBERT, whose classifiers bring it along,
/// with ReLU.
#[derive(Clone)]
pub struct Pooler {
    /// `[H, H]`
    pub dense: Linear,
    model_type: ModelType,
}
module!(Pooler { dense });

impl Pooler {
    fn new(weights: Weights<'_>, config: &BertConfig) -> Result<Pooler> {
        let hidden = config.hidden_size;
        Ok(Pooler { dense: Linear::new(weights.at("dense"), hidden, hidden)?, model_type: config.model_type })
    }

    /// The hidden states of the `[CLS]` tokens, `[B, H]`, to one vector per sequence, `[B, H]`.
    pub fn forward(&self, cls: &Tensor) -> Result<Tensor> {
        let dense = self.dense.forward(cls)?;
        Ok(match self.model_type {
            ModelType::Bert => dense.tanh()?,
            ModelType::DistilBert => dense.relu()?,
        })
    }
}

/// The bare model.
#[derive(Clone)]
pub struct BertModel {
    /// `embeddings`
    pub embeddings: Embeddings,
    /// `encoder`
    pub encoder: Encoder,
    /// `pooler`, where the head needs it.
    pub pooler: Option<Pooler>,
    pub(super) config: BertConfig,
}
module!(BertModel { embeddings, encoder, pooler });

/// What each token became on its way up.
pub struct Hidden {
    /// `[T, H]` each: the embeddings, then the output of every layer.
    pub states: Vec<Tensor>,
    /// For each layer and sequence of length L the attention probabilities `[N, L, L]`.
    pub attentions: Vec<Vec<Tensor>>,
}

impl PreTrainedModel for BertModel {
    const ARCHITECTURE: &'static str = "BertModel";

    /// With a pooler, unless it is a DistilBERT.
    fn build(weights: Weights<'_>, config: &BertConfig) -> Result<BertModel> {
        match config.model_type {
            ModelType::Bert => BertModel::with_pooler(weights, config),
            ModelType::DistilBert => BertModel::without_pooler(weights, config),
        }
    }

    fn bert(&self) -> &BertModel {
        self
    }

    fn bert_mut(&mut self) -> &mut BertModel {
        self
    }
}

impl BertModel {
    /// The bare model for a head that looks at the pooled `[CLS]`.
    ///
    /// # Errors
    /// When the weights do not fit the configuration.
    pub fn with_pooler(weights: Weights<'_>, config: &BertConfig) -> Result<BertModel> {
        let pooler = Pooler::new(weights.at("pooler"), config)?;
        Ok(BertModel { pooler: Some(pooler), ..BertModel::without_pooler(weights, config)? })
    }

    /// The bare model for a head that looks at the tokens.
    ///
    /// # Errors
    /// When the weights do not fit the configuration.
    pub fn without_pooler(weights: Weights<'_>, config: &BertConfig) -> Result<BertModel> {
        Ok(BertModel {
            embeddings: Embeddings::new(weights.at("embeddings"), config)?,
            encoder: Encoder::new(weights.at("encoder"), config)?,
            pooler: None,
            config: config.clone(),
        })
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

    /// One vector for each sequence, by the pooler: `[B, H]`.
    ///
    /// # Errors
    /// As [`BertModel::forward`], and when the model has no pooler.
    pub fn pooled(&self, batch: &Batch, mode: Mode) -> Result<Tensor> {
        self.pool(&self.forward_rows(batch, &Rows::cls(batch.sequences()), mode)?)
    }

    /// The pooler's vectors of the hidden states of `[CLS]` tokens, both `[B, H]`.
    ///
    /// # Errors
    /// When the model has no pooler.
    pub fn pool(&self, cls: &Tensor) -> Result<Tensor> {
        let pooler = self.pooler.as_ref().ok_or_else(|| Error::config("the model has no pooler"))?;
        pooler.forward(cls).inside("pooler").inside("bert")
    }

    /// The dropout between the bare model and its head.
    pub(super) fn head_dropout(&self, p: f64, mode: Mode) -> Result<Dropout> {
        Ok(mode.dropout(p, self.encoder.next_site())?)
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
