//! Which words were left out: the masked-language-model head, and BERT with it alone.

use cloze_tensor::{CrossEntropy, Gelu, Inside as _, Reduction, Tensor, module};

use super::{BertForPreTraining, BertModel, LayerNorm, Linear, Mode, PreTrainedModel, Rows};
use crate::error::Inside as _;
use crate::weights::{Init, Weights};
use crate::{Batch, BertConfig, Error, Result};

/// `cls.predictions.transform`
#[derive(Clone)]
pub struct Transform {
    /// `[H, H]`, with GELU
    pub dense: Linear,
    /// Of the result.
    pub layer_norm: LayerNorm,
    gelu: Gelu,
}
module!(Transform { dense, layer_norm: "LayerNorm" });

/// `cls.predictions`: the masked-language-model head. Its decoder is the table of word embeddings.
#[derive(Clone)]
pub struct LmPredictionHead {
    /// Before the decoder.
    pub transform: Transform,
    /// Of the decoder, `[V]`.
    pub bias: Tensor,
}
module!(LmPredictionHead { transform, bias });

impl LmPredictionHead {
    /// # Errors
    /// When the weights do not fit the configuration, or it says that the decoder is not tied.
    pub(super) fn new(weights: Weights<'_>, config: &BertConfig) -> Result<LmPredictionHead> {
        if config.extra.get("tie_word_embeddings").and_then(serde_json::Value::as_bool) == Some(false) {
            let reason =
                "tie_word_embeddings is false: must be true or absent, the decoder is tied to the word embeddings";
            return Err(Error::config(reason));
        }
        let (hidden, transform) = (config.hidden_size, weights.at("transform"));
        Ok(LmPredictionHead {
            transform: Transform {
                dense: Linear::new(transform.at("dense"), hidden, hidden)?,
                layer_norm: LayerNorm::new(transform.at("LayerNorm"), hidden, config.layer_norm_eps)?,
                gelu: config.hidden_act.into(),
            },
            bias: weights.parameter("bias", &[config.vocab_size], Init::Zeros)?,
        })
    }

    /// Logits over the vocabulary for hidden states `[M, H]`, with the word embeddings `[V, H]` as decoder: `[M, V]`.
    ///
    /// # Errors
    /// When the shapes do not fit.
    pub fn forward(&self, hidden: &Tensor, word_embeddings: &Tensor) -> Result<Tensor> {
        let run = || -> Result<Tensor> {
            let transformed = self.transform.dense.forward_gelu(hidden, self.transform.gelu)?;
            let normalised = self.transform.layer_norm.forward(&transformed)?;
            Ok(normalised.linear(word_embeddings, &self.bias)?)
        };
        run().inside("cls.predictions")
    }
}

/// Mean cross-entropy of logits `[M, V]` for the words that stood there, or their sum by a divisor.
pub(super) fn masked_lm_loss(logits: &Tensor, labels: &[i64], reduction: Reduction) -> Result<Tensor> {
    let settings = CrossEntropy { reduction, ..CrossEntropy::default() };
    Ok(logits.cross_entropy_with(labels, settings).inside("cls.predictions")?)
}

/// `cls` of a model with this head alone.
#[derive(Clone)]
pub struct MaskedLmHead {
    /// The head.
    pub predictions: LmPredictionHead,
}
module!(MaskedLmHead { predictions });

/// BERT with the masked-language-model head.
#[derive(Clone)]
pub struct BertForMaskedLM {
    /// The bare model.
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

/// The masked-language model in a model with both pre-training heads. The two share their weights: drop this one
/// before the other trains on.
impl From<&BertForPreTraining> for BertForMaskedLM {
    fn from(model: &BertForPreTraining) -> BertForMaskedLM {
        BertForMaskedLM {
            bert: BertModel { pooler: None, ..model.bert.clone() },
            cls: MaskedLmHead { predictions: model.cls.predictions.clone() },
        }
    }
}

impl BertForMaskedLM {
    /// Logits over the vocabulary at some rows of the batch: `[M, V]`. Nothing is decoded for the others.
    ///
    /// # Errors
    /// When the batch does not fit the model, or a row is not below T.
    pub fn forward(&self, batch: &Batch, rows: &[u32], mode: Mode) -> Result<Tensor> {
        let hidden = self.bert.forward_rows(batch, &Rows::some(batch.sequences(), rows), mode)?; // [M, H]
        self.cls.predictions.forward(&hidden, &self.bert.embeddings.word_embeddings.weight)
    }

    /// Mean cross-entropy of the tokens `labels` that stood at `rows`, in nats.
    ///
    /// # Errors
    /// As [`forward`](BertForMaskedLM::forward); when there are not as many labels as rows, one is no token, or all
    /// are -100, which is to be ignored.
    pub fn loss(&self, batch: &Batch, rows: &[u32], labels: &[i64], mode: Mode) -> Result<Tensor> {
        masked_lm_loss(&self.forward(batch, rows, mode)?, labels, Reduction::Mean)
    }
}
