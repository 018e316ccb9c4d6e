//! Sentence embeddings (N. Reimers, I. Gurevych, "Sentence-BERT", 2019): the encoder, a pooling of its hidden states,
//! and optional normalisation. The folders have the format of `sentence-transformers`.

use std::path::Path;

use cloze_tensor::{Device, Pooling, Sequences, Tensor, module};
use serde_json::{Map, Value};

use super::open::open_folder;
use super::pre_trained::save_folder;
use super::sentence_modules::{Modules, SentencePooling};
use super::{BertModel, Mode, OpenOptions, PreTrainedModel, Rows};
use crate::checkpoint::{LoadReport, SaveOptions};
use crate::files::read_object;
use crate::folder::Folder;
use crate::weights::Weights;
use crate::{Batch, BertConfig, Error, Result, Tokenizer};

/// A sentence encoder. Opens folders written by `sentence-transformers`, and those of any bare encoder, whose hidden
/// states it averages.
#[derive(Clone)]
pub struct SentenceEncoder {
    /// The bare model, without a pooler.
    pub bert: BertModel,
    modules: Modules,
}
module!(SentenceEncoder { bert });

impl PreTrainedModel for SentenceEncoder {
    const ARCHITECTURE: &'static str = "BertModel";

    /// Builds an encoder with mean pooling.
    fn build(weights: Weights<'_>, config: &BertConfig) -> Result<SentenceEncoder> {
        Ok(SentenceEncoder { bert: BertModel::without_pooler(weights, config)?, modules: Modules::default() })
    }

    fn bert(&self) -> &BertModel {
        &self.bert
    }

    fn bert_mut(&mut self) -> &mut BertModel {
        &mut self.bert
    }

    fn open_with(
        place: impl AsRef<Path>,
        device: &Device,
        options: &OpenOptions,
    ) -> Result<(SentenceEncoder, LoadReport)> {
        let folder = Folder::at(place.as_ref())?;
        let modules = Modules::read(&folder)?;
        let (model, report) =
            open_folder(&folder.inside(&modules.transformer)?, device, options, SentenceEncoder::build)?;
        Ok((SentenceEncoder { modules, ..model }, report))
    }

    /// Writes the encoder, `modules.json` and the settings of the pooling, so that `sentence-transformers` can open the
    /// folder.
    fn save_with(&self, dir: impl AsRef<Path>, options: &SaveOptions) -> Result<()> {
        let dir = dir.as_ref();
        save_folder(dir, &self.bert, self.config(), Self::ARCHITECTURE, options)?;
        self.modules.write(dir, self.config().hidden_size)
    }
}

impl SentenceEncoder {
    /// Sets the poolings, whose vectors are concatenated.
    ///
    /// # Errors
    /// Returns an error if `poolings` is empty.
    pub fn pooled_by(self, poolings: &[SentencePooling]) -> Result<SentenceEncoder> {
        match poolings.is_empty() {
            true => Err(Error::config("no pooling given: a sentence encoder needs at least one")),
            false => Ok(SentenceEncoder { modules: Modules { poolings: poolings.to_vec(), ..self.modules }, ..self }),
        }
    }

    /// Sets whether vectors are normalised to norm 1.
    pub fn normalized(self, normalize: bool) -> SentenceEncoder {
        SentenceEncoder { modules: Modules { normalize, ..self.modules }, ..self }
    }

    /// Opens the tokenizer of the encoder in the folder `place`, or [of this name](crate#models-by-name), limited to
    /// the length in `sentence_bert_config.json`.
    ///
    /// # Errors
    /// Returns an error like [`Tokenizer::open`], and if a settings file is invalid.
    pub fn tokenizer(place: impl AsRef<Path>) -> Result<Tokenizer> {
        let folder = Folder::at(place.as_ref())?;
        let folder = folder.inside(&Modules::read(&folder)?.transformer)?;
        let tokenizer = Tokenizer::in_folder(&folder)?;
        let settings =
            folder.find("sentence_bert_config.json")?.map_or_else(|| Ok(Map::new()), |path| read_object(&path))?;
        let limit =
            settings.get("max_seq_length").and_then(Value::as_u64).and_then(|limit| usize::try_from(limit).ok());
        let max_length = limit.map_or(tokenizer.max_length(), |limit| limit.min(tokenizer.max_length()));
        Ok(tokenizer.with_max_length(max_length))
    }

    /// Returns the dimension D of the vectors.
    pub fn dimension(&self) -> usize {
        self.modules.poolings.len() * self.config().hidden_size
    }

    /// Computes a vector per sequence: `[B, D]`.
    ///
    /// # Errors
    /// Returns an error if the batch does not fit the model.
    pub fn forward(&self, batch: &Batch, mode: Mode) -> Result<Tensor> {
        let pooled = self.pooled(batch, mode)?;
        if !self.modules.normalize {
            return Ok(pooled);
        }
        // The added number keeps a vector of zeros, and its gradient, finite.
        let norms = pooled.mul(&pooled)?.sum_keep(&[1])?.add_scalar(1e-24)?.sqrt()?; // [B, 1]
        Ok(pooled.div(&norms)?)
    }

    fn pooled(&self, batch: &Batch, mode: Mode) -> Result<Tensor> {
        let sequences = batch.sequences();
        if self.modules.poolings == [SentencePooling::Cls] {
            return self.bert.forward_rows(batch, &Rows::cls(sequences), mode);
        }
        let hidden = self.bert.forward(batch, mode)?; // [T, H]
        let pooled = self.modules.poolings.iter().map(|pooling| pool(&hidden, sequences, *pooling));
        let pooled = pooled.collect::<Result<Vec<_>>>()?;
        Ok(Tensor::concat(&pooled.iter().collect::<Vec<_>>(), 1)?)
    }
}

/// Combines the hidden states of each sequence, `[T, H]`, into one vector: `[B, H]`.
fn pool(hidden: &Tensor, sequences: &Sequences, pooling: SentencePooling) -> Result<Tensor> {
    Ok(match pooling {
        SentencePooling::Cls => hidden.gather_rows(sequences.starts())?,
        SentencePooling::Max => hidden.pool(sequences, Pooling::Max)?,
        SentencePooling::Mean => hidden.pool(sequences, Pooling::Mean)?,
        SentencePooling::MeanSqrtLen => {
            let length = |ends: &[u32]| ((ends[1] - ends[0]) as f32).sqrt();
            let lengths: Vec<f32> = sequences.cu_seqlens().windows(2).map(length).collect();
            let lengths = Tensor::from_vec(lengths, &[sequences.len(), 1], &hidden.device())?;
            hidden.pool(sequences, Pooling::Mean)?.mul(&lengths)?
        }
    })
}
