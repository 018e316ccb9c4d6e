//! BERT's pre-training: which words were masked, and does the second sentence follow the first?
//! (J. Devlin, M.-W. Chang, K. Lee, K. Toutanova, 2018.)

use std::path::Path;

use cloze_tensor::{CrossEntropy, Device, Gelu, Inside as _, Reduction, Tensor, module};

use super::{BertModel, LayerNorm, Linear, Mode, Rows};
use crate::checkpoint::{self, LoadReport};
use crate::config::CONFIG_FILE;
use crate::error::Inside as _;
use crate::weights::{Init, Weights};
use crate::{Batch, BertConfig, Error, Result};

/// `cls.predictions.transform`
pub struct Transform {
    /// `[H, H]`, with GELU
    pub dense: Linear,
    /// Of the result.
    pub layer_norm: LayerNorm,
    gelu: Gelu,
}
module!(Transform { dense, layer_norm: "LayerNorm" });

/// `cls.predictions`: the masked-language-model head. Its decoder is the table of word embeddings.
pub struct LmPredictionHead {
    /// Before the decoder.
    pub transform: Transform,
    /// Of the decoder, `[V]`.
    pub bias: Tensor,
}
module!(LmPredictionHead { transform, bias });

/// `cls`: both heads.
pub struct PreTrainingHeads {
    /// Masked language model.
    pub predictions: LmPredictionHead,
    /// Next sentence: `[2, H]`.
    pub seq_relationship: Linear,
}
module!(PreTrainingHeads { predictions, seq_relationship });

/// BERT with both pre-training heads.
pub struct BertForPreTraining {
    /// The bare model.
    pub bert: BertModel,
    /// The heads.
    pub cls: PreTrainingHeads,
}
module!(BertForPreTraining { bert, cls });

/// What the model should have said of a batch.
#[derive(Clone, Debug, Default)]
pub struct PreTrainingTargets {
    /// Packed rows that are to be predicted: `[M]`.
    pub rows: Vec<u32>,
    /// The token that stood there: `[M]`.
    pub labels: Vec<i64>,
    /// 0: the second segment follows the first, 1: it does not; `[B]`. Empty: next sentences are not trained.
    pub next_sentence: Vec<i64>,
    /// What the two losses are divided by, where a step is made of several batches: the number of targets
    /// and of sequences of the whole step. `None`: of this batch.
    pub divisors: Option<(f64, f64)>,
}

impl PreTrainingTargets {
    /// A mean over no token is not a number, and would not say why.
    fn check(&self) -> Result<()> {
        let ignore = CrossEntropy::default().ignore_index;
        match self.divisors {
            None if self.labels.iter().all(|&label| label == ignore) => {
                Err(Error::batch("no token is to be predicted, so there is no mean loss: mask at least one token"))
            }
            Some((targets, sequences)) if !(targets > 0.0 && sequences > 0.0) => {
                Err(Error::batch(format!("divisors are {targets} and {sequences}: must be above 0")))
            }
            _ => Ok(()),
        }
    }
}

/// Losses in nats, as numbers with a graph.
pub struct PreTrainingLoss {
    /// The sum of the two.
    pub loss: Tensor,
    /// Per masked token.
    pub mlm: Tensor,
    /// Per pair of sentences, where there are labels.
    pub nsp: Option<Tensor>,
}

impl BertForPreTraining {
    /// A model with random weights: normal with standard deviation `initializer_range`, biases zero.
    ///
    /// # Errors
    /// When the configuration describes no model.
    pub fn new(config: &BertConfig, device: &Device, seed: u64) -> Result<BertForPreTraining> {
        config.validate()?;
        Weights::random(config, device, seed, |weights| BertForPreTraining::build(weights, config))
    }

    /// The model in folder `dir`, as `transformers` or [`BertForPreTraining::save`] wrote it: `config.json`
    /// and `model.safetensors`. The report says what was found; heads that are missing are made anew.
    ///
    /// # Errors
    /// When a file cannot be read or is not what it should be, the encoder is not complete, or the decoder is
    /// not tied to the word embeddings.
    pub fn open(dir: impl AsRef<Path>, device: &Device) -> Result<(BertForPreTraining, LoadReport)> {
        let dir = dir.as_ref();
        let config = BertConfig::open(dir)?;
        checkpoint::check_tied(&config).map_err(|error| error.in_file(&dir.join(CONFIG_FILE)))?;
        checkpoint::load(dir, &config, device, |weights| BertForPreTraining::build(weights, &config))
    }

    /// Writes `config.json` and `model.safetensors` into folder `dir`, making it if need be.
    ///
    /// # Errors
    /// When a file cannot be written; older files are then left as they were.
    pub fn save(&self, dir: impl AsRef<Path>) -> Result<()> {
        checkpoint::save(dir.as_ref(), self, self.config(), "BertForPreTraining")
    }

    fn build(weights: Weights<'_>, config: &BertConfig) -> Result<BertForPreTraining> {
        let (hidden, cls) = (config.hidden_size, weights.at("cls"));
        let predictions = cls.at("predictions");
        let transform = predictions.at("transform");
        Ok(BertForPreTraining {
            bert: BertModel::new(weights.at("bert"), config)?,
            cls: PreTrainingHeads {
                predictions: LmPredictionHead {
                    transform: Transform {
                        dense: Linear::new(transform.at("dense"), hidden, hidden)?,
                        layer_norm: LayerNorm::new(transform.at("LayerNorm"), hidden, config.layer_norm_eps)?,
                        gelu: config.hidden_act.into(),
                    },
                    bias: predictions.parameter("bias", &[config.vocab_size], Init::Zeros)?,
                },
                seq_relationship: Linear::new(cls.at("seq_relationship"), hidden, 2)?,
            },
        })
    }

    /// The configuration.
    pub fn config(&self) -> &BertConfig {
        self.bert.config()
    }

    /// Logits over the vocabulary for the hidden states `[M, H]` of masked tokens: `[M, V]`.
    ///
    /// # Errors
    /// When the hidden states are not of this model.
    pub fn mlm_logits(&self, hidden: &Tensor) -> Result<Tensor> {
        let head = &self.cls.predictions;
        let run = || -> Result<Tensor> {
            let transformed = head.transform.dense.forward_gelu(hidden, head.transform.gelu)?;
            let normalised = head.transform.layer_norm.forward(&transformed)?;
            Ok(normalised.linear(&self.bert.embeddings.word_embeddings.weight, &head.bias)?)
        };
        run().inside("cls.predictions")
    }

    /// Logits of "follows" and "does not follow" from the hidden states of the `[CLS]` tokens, `[B, H]`: `[B, 2]`.
    ///
    /// # Errors
    /// When the model has no pooler.
    pub fn nsp_logits(&self, cls: &Tensor) -> Result<Tensor> {
        let pooler = self.bert.pooler.as_ref().ok_or_else(|| Error::config("the model has no pooler"))?;
        let pooled = pooler.forward(cls).inside("bert.pooler")?; // [B, H]
        self.cls.seq_relationship.forward(&pooled).inside("cls.seq_relationship")
    }

    /// The loss of a batch: mean cross-entropy of the masked tokens plus, where `targets` has labels, that of
    /// the next sentences.
    ///
    /// # Errors
    /// When the batch or the targets do not fit the model, or there is nothing to take the mean of.
    pub fn loss(&self, batch: &Batch, targets: &PreTrainingTargets, mode: Mode) -> Result<PreTrainingLoss> {
        targets.check()?;
        let wanted = [batch.sequences().starts(), &targets.rows].concat();
        let hidden = self.bert.forward_rows(batch, &Rows::some(batch.sequences(), &wanted), mode)?; // [B + M, H]
        let (cls, masked) = (hidden.narrow(0, 0, batch.len())?, hidden.narrow(0, batch.len(), targets.rows.len())?);
        let settings = |divisor: Option<f64>| CrossEntropy {
            reduction: divisor.map_or(Reduction::Mean, Reduction::Divide),
            ..CrossEntropy::default()
        };
        let logits = self.mlm_logits(&masked)?; // [M, V]
        let divisor = targets.divisors.map(|(targets, _)| targets);
        let mlm = logits.cross_entropy_with(&targets.labels, settings(divisor)).inside("cls.predictions")?;
        if targets.next_sentence.is_empty() {
            return Ok(PreTrainingLoss { loss: mlm.clone(), mlm, nsp: None });
        }
        let logits = self.nsp_logits(&cls)?; // [B, 2]
        let settings = settings(targets.divisors.map(|(_, sequences)| sequences));
        let nsp = logits.cross_entropy_with(&targets.next_sentence, settings).inside("cls.seq_relationship")?;
        Ok(PreTrainingLoss { loss: mlm.add(&nsp)?, mlm, nsp: Some(nsp) })
    }
}
