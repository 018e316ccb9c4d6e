//! The bare model: embeddings, encoder and, if the head needs it, the pooler.

use cloze_tensor::{Dropout, Inside as _, Pooling, Tensor, module, no_grad};

use super::{Embeddings, Encoder, Layer, Linear, Mode, Rows};
use crate::weights::Weights;
use crate::{Batch, BertConfig, ClassifierPooling, Error, ModelType, Result};

/// `bert.pooler`: a dense layer on the `[CLS]` token with tanh. In a DistilBERT, where it belongs to the classifier,
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

    /// Computes a vector per sequence from the hidden states of the `[CLS]` tokens: `[B, H]` to `[B, H]`.
    ///
    /// # Errors
    /// Returns an error if the shapes do not match.
    pub fn forward(&self, cls: &Tensor) -> Result<Tensor> {
        let dense = self.dense.forward(cls)?;
        Ok(match self.model_type {
            ModelType::Bert => dense.tanh()?,
            ModelType::DistilBert => dense.relu()?,
        })
    }
}

/// BERT without a head.
#[derive(Clone)]
pub struct BertModel {
    /// `embeddings`
    pub embeddings: Embeddings,
    /// `encoder`
    pub encoder: Encoder,
    /// `pooler`, if the head needs it.
    pub pooler: Option<Pooler>,
    pub(super) config: BertConfig,
}
module!(BertModel { embeddings, encoder, pooler });

/// The hidden states and attention probabilities of every layer.
pub struct Hidden {
    /// `[T, H]` each: the embeddings, then the output of every layer.
    pub states: Vec<Tensor>,
    /// The attention probabilities of each layer and, within it, of each sequence of length L: `[N, L, L]`.
    pub attentions: Vec<Vec<Tensor>>,
}

impl BertModel {
    /// Creates the model for a head on the pooled `[CLS]`.
    ///
    /// # Errors
    /// Returns an error if the weights do not fit the configuration.
    pub fn with_pooler(weights: Weights<'_>, config: &BertConfig) -> Result<BertModel> {
        let pooler = Pooler::new(weights.at("pooler"), config)?;
        Ok(BertModel { pooler: Some(pooler), ..BertModel::without_pooler(weights, config)? })
    }

    /// Creates the model for a head on the tokens.
    ///
    /// # Errors
    /// Returns an error if the weights do not fit the configuration.
    pub fn without_pooler(weights: Weights<'_>, config: &BertConfig) -> Result<BertModel> {
        Ok(BertModel {
            embeddings: Embeddings::new(weights.at("embeddings"), config)?,
            encoder: Encoder::new(weights.at("encoder"), config)?,
            pooler: None,
            config: config.clone(),
        })
    }

    /// Computes the last hidden state of every token: `[T, H]`.
    ///
    /// # Errors
    /// Returns an error if a sequence is longer than `max_position_embeddings` or an id is out of range.
    pub fn forward(&self, batch: &Batch, mode: Mode) -> Result<Tensor> {
        self.forward_rows(batch, &Rows::all(batch.sequences()), mode)
    }

    /// Computes the last hidden states of the R selected rows: `[R, H]`. They equal those of
    /// [`forward`](BertModel::forward), but the last layer computes no other rows.
    ///
    /// # Errors
    /// Returns an error like [`forward`](BertModel::forward), and if a row is out of range.
    pub fn forward_rows(&self, batch: &Batch, rows: &Rows<'_>, mode: Mode) -> Result<Tensor> {
        self.watched(batch, rows, mode, |_, _| Ok(())).inside("bert")
    }

    /// Computes one vector per sequence, the pooled `[CLS]`: `[B, H]`.
    ///
    /// # Errors
    /// Returns an error like [`forward`](BertModel::forward), and if the model has no pooler.
    pub fn pooled(&self, batch: &Batch, mode: Mode) -> Result<Tensor> {
        self.pool(&self.forward_rows(batch, &Rows::cls(batch.sequences()), mode)?)
    }

    /// Applies the pooler to the hidden states of `[CLS]` tokens: `[B, H]` to `[B, H]`.
    ///
    /// # Errors
    /// Returns an error if the model has no pooler.
    pub fn pool(&self, cls: &Tensor) -> Result<Tensor> {
        let pooler = self.pooler.as_ref().ok_or_else(|| Error::config("the model has no pooler"))?;
        pooler.forward(cls).inside("pooler").inside("bert")
    }

    /// Computes the input of a head on sequences, `[B, H]`: `[CLS]` or the mean of the tokens
    /// ([`ClassifierPooling`]), the pooler, dropout.
    ///
    /// # Errors
    /// Returns an error like [`pooled`](BertModel::pooled).
    pub fn pooled_for_head(&self, batch: &Batch, mode: Mode) -> Result<Tensor> {
        let rows = Rows::cls(batch.sequences());
        let seen = match self.config.classifier_pooling() {
            ClassifierPooling::Cls => self.forward_rows(batch, &rows, mode)?,
            ClassifierPooling::Mean => self.forward(batch, mode)?.pool(batch.sequences(), Pooling::Mean)?,
        };
        let pooled = self.pool(&seen)?; // [B, H]
        let dropout = self.head_dropout(self.config.classifier_dropout_prob(), mode)?;
        Ok(pooled.dropout(&dropout, rows.coordinates())?)
    }

    /// Computes the input of a head on tokens, `[T, H]`: the last hidden states with dropout `p`.
    ///
    /// # Errors
    /// Returns an error like [`forward`](BertModel::forward), and if `p` is out of range.
    pub fn tokens_for_head(&self, batch: &Batch, p: f64, mode: Mode) -> Result<Tensor> {
        let hidden = self.forward(batch, mode)?;
        Ok(hidden.dropout(&self.head_dropout(p, mode)?, batch.sequences().rows())?)
    }

    /// Returns the dropout between the bare model and its head.
    fn head_dropout(&self, p: f64, mode: Mode) -> Result<Dropout> {
        Ok(mode.dropout(p, self.encoder.next_site())?)
    }

    /// Computes the hidden states of every layer: the embeddings, then the output of each, `[T, H]` all. Unlike
    /// [`hidden`](BertModel::hidden), this neither computes nor keeps attention probabilities, which would need memory for
    /// N L² numbers per sequence and layer.
    ///
    /// ```
    /// use cloze_bert::{Batch, BertConfig, BertModel, Mode, PreTrainedModel};
    /// let model = BertModel::new(&BertConfig::tiny(1000), &cloze_tensor::Device::Cpu, 7)?;
    /// let batch = Batch::new(&[([2, 40, 3], [0, 0, 0])])?;
    /// let states = model.hidden_states(&batch, Mode::Eval)?;
    /// assert_eq!(states.len(), model.config().num_hidden_layers + 1);
    /// assert_eq!(states[1].shape(), [3, model.config().hidden_size]);
    /// # Ok::<(), cloze_bert::Error>(())
    /// ```
    ///
    /// # Errors
    /// Returns an error like [`forward`](BertModel::forward).
    pub fn hidden_states(&self, batch: &Batch, mode: Mode) -> Result<Vec<Tensor>> {
        let mut states = Vec::with_capacity(self.config.num_hidden_layers + 1);
        let last = self.watch_inputs(batch, mode, |_, x| {
            states.push(x);
            Ok(())
        })?;
        states.push(last);
        Ok(states)
    }

    /// Computes the hidden states and attention probabilities of every layer, for inspection. Records no graph.
    ///
    /// # Errors
    /// Returns an error like [`forward`](BertModel::forward).
    pub fn hidden(&self, batch: &Batch) -> Result<Hidden> {
        no_grad(|| {
            let mut hidden = Hidden { states: Vec::new(), attentions: Vec::new() };
            let last = self.watch_inputs(batch, Mode::Eval, |layer, x| {
                let attention = &layer.attention.self_attention;
                hidden.attentions.push(attention.weights(&x, batch.sequences()).inside("attention")?);
                hidden.states.push(x);
                Ok(())
            });
            hidden.states.push(last?);
            Ok(hidden)
        })
    }

    /// Computes all rows, and calls `watch` with every layer and its input in the type of the embeddings.
    fn watch_inputs(
        &self,
        batch: &Batch,
        mode: Mode,
        mut watch: impl FnMut(&Layer, Tensor) -> Result<()>,
    ) -> Result<Tensor> {
        let dtype = self.embeddings.word_embeddings.weight.dtype();
        let watch = |layer: &Layer, x: &Tensor| watch(layer, x.to_dtype(dtype)?);
        self.watched(batch, &Rows::all(batch.sequences()), mode, watch).inside("bert")
    }

    /// Computes the selected rows, and calls `watch` with every layer and its input.
    fn watched(
        &self,
        batch: &Batch,
        rows: &Rows<'_>,
        mode: Mode,
        watch: impl FnMut(&Layer, &Tensor) -> Result<()>,
    ) -> Result<Tensor> {
        batch.check(&self.config)?;
        let embeddings = self.embeddings.forward(batch, mode)?;
        self.encoder.forward(embeddings, batch.sequences(), rows, mode, watch)
    }
}
