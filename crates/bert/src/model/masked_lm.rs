//! Masked-language modelling: predicting the tokens that were masked (J. Devlin, M.-W. Chang, K. Lee, K. Toutanova,
//! "BERT", 2018).

use cloze_tensor::{DType, Inside as _, Precision, Tensor, module};

use super::{BertModel, LayerNorm, Linear, Mode, PreTrainedModel, Rows};
use crate::weights::{Init, Weights};
use crate::{Batch, BertConfig, HiddenAct, Result};

/// `cls.predictions.transform`
#[derive(Clone)]
pub struct Transform {
    /// `[H, H]`, with the activation of the model
    pub dense: Linear,
    /// Normalises the result.
    pub layer_norm: LayerNorm,
    act: HiddenAct,
}
module!(Transform { dense, layer_norm: "LayerNorm" });

/// `cls.predictions`: the masked-language-model head. Its decoder is the table of word embeddings, unless the
/// configuration says otherwise (`tie_word_embeddings`).
#[derive(Clone)]
pub struct LmPredictionHead {
    /// The transformation before the decoder.
    pub transform: Transform,
    /// The bias of the decoder, `[V]`.
    pub bias: Tensor,
    /// The matrix of a decoder that is not tied to the word embeddings, `[V, H]`.
    pub decoder: Option<Tensor>,
}
module!(LmPredictionHead { transform, bias, decoder: "decoder.weight" });

impl LmPredictionHead {
    /// # Errors
    /// Returns an error if the weights do not fit the configuration.
    pub(super) fn new(weights: Weights<'_>, config: &BertConfig) -> Result<LmPredictionHead> {
        let (hidden, transform) = (config.hidden_size, weights.at("transform"));
        let table = [config.vocab_size, hidden];
        let decoder = || weights.at("decoder").parameter("weight", &table, Init::Normal);
        Ok(LmPredictionHead {
            transform: Transform {
                dense: Linear::new(transform.at("dense"), hidden, hidden)?,
                layer_norm: LayerNorm::new(transform.at("LayerNorm"), hidden, config.layer_norm_eps)?,
                act: config.hidden_act,
            },
            bias: weights.parameter("bias", &[config.vocab_size], Init::Zeros)?,
            decoder: if config.tie_word_embeddings() { None } else { Some(decoder()?) },
        })
    }

    /// Computes logits over the vocabulary, `[M, V]`, from hidden states `[M, H]`. The word embeddings `[V, H]` are the
    /// decoder, unless it is not tied to them.
    ///
    /// # Errors
    /// Returns an error if the shapes do not match.
    pub fn forward(&self, hidden: &Tensor, word_embeddings: &Tensor) -> Result<Tensor> {
        let run = || self.decode(&self.transformed(hidden)?, word_embeddings);
        run().inside("cls.predictions")
    }

    /// Computes the logits of [`forward`](LmPredictionHead::forward) for a loss: in the type of
    /// [activations](Precision::activations), because they are much larger than any other tensor of a head.
    ///
    /// # Errors
    /// Returns an error if the shapes do not match.
    pub fn logits_for_loss(&self, hidden: &Tensor, word_embeddings: &Tensor) -> Result<Tensor> {
        let run = || -> Result<Tensor> {
            let transformed = self.transformed(hidden)?;
            let dtype = match transformed.dtype() {
                DType::F32 => Precision::current().activations(&transformed.device()),
                dtype => dtype,
            };
            self.decode(&transformed.to_dtype(dtype)?, word_embeddings)
        };
        run().inside("cls.predictions")
    }

    /// Computes the input of the decoder, `[M, H]`.
    fn transformed(&self, hidden: &Tensor) -> Result<Tensor> {
        let activated = self.transform.dense.forward_act(hidden, self.transform.act)?;
        self.transform.layer_norm.forward(&activated)
    }

    fn decode(&self, transformed: &Tensor, word_embeddings: &Tensor) -> Result<Tensor> {
        Ok(transformed.linear(self.decoder.as_ref().unwrap_or(word_embeddings), &self.bias)?)
    }
}

/// Computes the mean cross-entropy of logits `[M, V]` against the masked tokens.
pub(super) fn masked_lm_loss(logits: &Tensor, labels: &[i64]) -> Result<Tensor> {
    Ok(logits.cross_entropy(labels).inside("cls.predictions")?)
}

/// `cls` of [`BertForMaskedLM`].
#[derive(Clone)]
pub struct MaskedLmHead {
    /// `cls.predictions`
    pub predictions: LmPredictionHead,
}
module!(MaskedLmHead { predictions });

/// BERT with the masked-language-model head.
#[derive(Clone)]
pub struct BertForMaskedLM {
    /// The bare model, without a pooler.
    pub bert: BertModel,
    /// The head.
    pub cls: MaskedLmHead,
}
module!(BertForMaskedLM { bert, cls });

impl PreTrainedModel for BertForMaskedLM {
    const ARCHITECTURE: &'static str = "BertForMaskedLM";

    fn build(weights: Weights<'_>, config: &BertConfig) -> Result<BertForMaskedLM> {
        let predictions = LmPredictionHead::new(weights.at("cls").at("predictions"), config)?;
        Ok(BertForMaskedLM {
            bert: BertModel::without_pooler(weights.at("bert"), config)?,
            cls: MaskedLmHead { predictions },
        })
    }

    fn bert(&self) -> &BertModel {
        &self.bert
    }

    fn bert_mut(&mut self) -> &mut BertModel {
        &mut self.bert
    }
}

impl BertForMaskedLM {
    /// Computes logits over the vocabulary at M rows of the batch: `[M, V]`. Decodes no other rows.
    ///
    /// # Errors
    /// Returns an error if the batch does not fit the model or a row is out of range.
    pub fn forward(&self, batch: &Batch, rows: &[u32], mode: Mode) -> Result<Tensor> {
        let hidden = self.bert.forward_rows(batch, &Rows::some(batch.sequences(), rows), mode)?; // [M, H]
        self.cls.predictions.forward(&hidden, &self.bert.embeddings.word_embeddings.weight)
    }

    /// Computes the logits of [`forward`](BertForMaskedLM::forward) for a loss: see [`LmPredictionHead::logits_for_loss`].
    ///
    /// # Errors
    /// Returns an error like [`forward`](BertForMaskedLM::forward).
    pub fn logits_for_loss(&self, batch: &Batch, rows: &[u32], mode: Mode) -> Result<Tensor> {
        let hidden = self.bert.forward_rows(batch, &Rows::some(batch.sequences(), rows), mode)?; // [M, H]
        self.cls.predictions.logits_for_loss(&hidden, &self.bert.embeddings.word_embeddings.weight)
    }

    /// Computes the mean cross-entropy, in nats, of the original tokens `labels` at `rows`. The label -100 is ignored.
    ///
    /// # Errors
    /// Returns an error like [`forward`](BertForMaskedLM::forward), and if the number of labels differs from the
    /// number of rows, a label is out of range, or all are ignored.
    pub fn loss(&self, batch: &Batch, rows: &[u32], labels: &[i64], mode: Mode) -> Result<Tensor> {
        masked_lm_loss(&self.logits_for_loss(batch, rows, mode)?, labels)
    }
}
