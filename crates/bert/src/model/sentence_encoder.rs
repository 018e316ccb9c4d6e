//! Sentence embeddings (N. Reimers, I. Gurevych, "Sentence-BERT", 2019): the encoder, a pooling of its hidden states,
//! and the modules after it. The folders have the format of `sentence-transformers`.

use std::path::Path;

use cloze_tensor::{Device, Tensor, module};

use super::open::open_adapted;
use super::pre_trained::save_folder;
use super::sentence_modules::{After, Modules, read_entries};
use super::sentence_settings::{Settings, SimilarityFunction, Task, length_conflicts, open_tokenizer};
use super::{BertModel, Mode, OpenOptions, PreTrainedModel, Rows, SentencePooling};
use crate::checkpoint::{LoadReport, SaveOptions};
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
    pub(crate) settings: Settings,
}
module!(SentenceEncoder { bert, modules });

impl PreTrainedModel for SentenceEncoder {
    const ARCHITECTURE: &'static str = "BertModel";

    /// Builds an encoder with mean pooling.
    fn build(weights: Weights<'_>, config: &BertConfig) -> Result<SentenceEncoder> {
        let bert = BertModel::without_pooler(weights, config)?;
        Ok(SentenceEncoder { bert, modules: Modules::default(), settings: Settings::default() })
    }

    fn bert(&self) -> &BertModel {
        &self.bert
    }

    fn bert_mut(&mut self) -> &mut BertModel {
        &mut self.bert
    }

    fn open_reported(
        place: impl AsRef<Path>,
        device: &Device,
        options: &OpenOptions,
    ) -> Result<(SentenceEncoder, LoadReport)> {
        let folder = Folder::at(place.as_ref())?;
        let Some((transformer, entries)) = read_entries(&folder)? else {
            return open_adapted(&folder, device, options);
        };
        let settings = Settings::read(&folder, Task::Encoder)?;
        let inside = folder.inside(&transformer)?;
        let (model, mut report) =
            open_adapted::<SentenceEncoder>(&inside, device, &options.clone().without_tokenizer())?;
        report.conflicts.extend(length_conflicts(&inside));
        // As in `open_folder`.
        if options.reads_tokenizer()
            && inside.is_on_disk()
            && let Ok(tokenizer) = open_tokenizer(&inside, Task::Encoder)
        {
            report.add_tokenizer(&tokenizer, model.config());
        }
        let modules = Modules::open(&folder, &entries, model.config().hidden_size, device)?;
        Ok((SentenceEncoder { modules, settings, ..model }, report))
    }

    /// Writes the encoder, `modules.json`, the modules that it names and the prompts, so that `sentence-transformers`
    /// can open the folder.
    fn save_with(&self, dir: impl AsRef<Path>, options: &SaveOptions) -> Result<()> {
        let dir = dir.as_ref();
        save_folder(dir, &self.bert, self.config(), Self::ARCHITECTURE, options)?;
        self.settings.write(dir)?;
        self.modules.write(dir, self.config().hidden_size)
    }
}

impl SentenceEncoder {
    /// Sets the poolings, whose vectors are concatenated.
    ///
    /// # Errors
    /// Returns an error if `poolings` is empty, or if a dense layer after the pooling needs another number of them.
    pub fn pooled_by(mut self, poolings: &[SentencePooling]) -> Result<SentenceEncoder> {
        if poolings.is_empty() {
            return Err(Error::config("no pooling given: a sentence encoder needs at least one"));
        }
        let count = self.modules.pooling.poolings.len();
        let dense = self.modules.after.iter().any(|module| matches!(module, After::Dense(_)));
        if dense && poolings.len() != count {
            let given = poolings.len();
            return Err(Error::config(format!("{given} poolings given: the dense layer after them needs {count}")));
        }
        self.modules.pooling.poolings = poolings.to_vec();
        Ok(self)
    }

    /// Sets whether vectors are normalised to norm 1, after all other modules.
    pub fn normalized(mut self, normalize: bool) -> SentenceEncoder {
        while matches!(self.modules.after.last(), Some(After::Normalize)) {
            self.modules.after.pop();
        }
        self.modules.after.extend(normalize.then_some(After::Normalize));
        self
    }

    /// Returns whether the last module normalises vectors to norm 1.
    pub(crate) fn normalizes(&self) -> bool {
        matches!(self.modules.after.last(), Some(After::Normalize))
    }

    /// Sets the prompt of this name, a text that is put before each sentence. Its tokens are pooled with the others.
    pub fn with_prompt(mut self, name: impl Into<String>, prompt: impl Into<String>) -> SentenceEncoder {
        self.settings.prompts.insert(name.into(), prompt.into());
        self
    }

    /// Sets the name of the prompt that applies if no other is chosen.
    ///
    /// # Errors
    /// Returns an error if there is no prompt of this name.
    pub fn with_default_prompt(mut self, name: impl Into<String>) -> Result<SentenceEncoder> {
        self.settings.default_prompt = Some(name.into());
        self.settings.prompt(None)?;
        Ok(self)
    }

    /// Returns the measure by which vectors are compared: `similarity_fn_name` of the folder, or else the cosine.
    pub fn similarity_function(&self) -> SimilarityFunction {
        self.settings.similarity
    }

    /// Opens the tokenizer of the encoder in the folder `place`, or [of this name](crate#models-by-name), with the
    /// length and the case in `sentence_bert_config.json` or one of its older names, which take precedence.
    ///
    /// # Errors
    /// Returns an error like [`Tokenizer::open`], and if a settings file is invalid.
    pub fn tokenizer(place: impl AsRef<Path>) -> Result<Tokenizer> {
        let folder = Folder::at(place.as_ref())?;
        match read_entries(&folder)? {
            Some((transformer, _)) => open_tokenizer(&folder.inside(&transformer)?, Task::Encoder),
            None => Tokenizer::in_folder(&folder),
        }
    }

    /// Returns the dimension D of the vectors.
    pub fn dimension(&self) -> usize {
        self.modules.dimension(self.config().hidden_size)
    }

    /// Computes a vector per sequence: `[B, D]`.
    ///
    /// # Errors
    /// Returns an error if the batch does not fit the model.
    pub fn forward(&self, batch: &Batch, mode: Mode) -> Result<Tensor> {
        self.forward_prompted(batch, 0, mode)
    }

    /// Computes a vector per sequence, `[B, D]`, of which the first `prompt` tokens are `[CLS]` and a prompt. They are
    /// pooled or not, as the folder says.
    pub(crate) fn forward_prompted(&self, batch: &Batch, prompt: usize, mode: Mode) -> Result<Tensor> {
        let pooling = &self.modules.pooling;
        let skipped = if pooling.include_prompt { 0 } else { prompt };
        let pooled = if skipped == 0 && pooling.poolings == [SentencePooling::Cls] {
            self.bert.forward_rows(batch, &Rows::cls(batch.sequences()), mode)?
        } else {
            pooling.forward(&self.bert.forward(batch, mode)?, batch, skipped)?
        };
        self.modules.finish(pooled)
    }
}
