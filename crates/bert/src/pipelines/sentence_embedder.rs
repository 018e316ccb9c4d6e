//! Sentence embeddings.

use std::path::Path;

use cloze_tensor::{Device, Precision};

use super::Pipeline;
use super::output::finite;
use super::runner::Runner;
use crate::model::shorten;
use crate::{Error, Mode, OpenOptions, PreTrainedModel, Result, SentenceEncoder, SimilarityFunction, Tokenizer};

/// A pipeline that computes sentence embeddings, whose cosine measures similarity. As in `sentence-transformers`,
/// sentences that are too long are truncated, and a blank one has the embedding of `[CLS]` and `[SEP]`.
///
/// ```no_run
/// use cloze_bert::{Pipeline, SentenceEmbedder};
/// let embedder = SentenceEmbedder::open("models/all-MiniLM-L6-v2")?;
/// let vectors = embedder.embed(&["A man is eating food.", "A man is eating a piece of bread."])?;
/// assert_eq!(vectors[0].len(), embedder.dimension());
/// # Ok::<(), cloze_bert::Error>(())
/// ```
pub struct SentenceEmbedder {
    runner: Runner<SentenceEncoder>,
    dimension: Option<usize>,
    normalize: bool,
}

impl Pipeline for SentenceEmbedder {
    type Model = SentenceEncoder;

    fn new(model: SentenceEncoder, tokenizer: Tokenizer) -> Result<SentenceEmbedder> {
        let dimension = model.settings.dimension;
        Ok(SentenceEmbedder { runner: Runner::new(model, tokenizer)?, dimension, normalize: false })
    }

    fn open_on(place: impl AsRef<Path>, device: &Device) -> Result<SentenceEmbedder> {
        let (model, _) = SentenceEncoder::open_with(&place, device, &OpenOptions::new().quiet())?;
        SentenceEmbedder::new(model, SentenceEncoder::tokenizer(place)?)
    }

    fn precision(mut self, precision: Precision) -> Self {
        self.runner.precision = precision;
        self
    }
}

impl SentenceEmbedder {
    /// Cuts embeddings to their first `dimension` elements, for models that were trained for it (A. Kusupati et al.,
    /// "Matryoshka Representation Learning", 2022). They are then no longer of norm 1, unless
    /// [`normalized`](SentenceEmbedder::normalized) again.
    ///
    /// # Errors
    /// Returns an error if `dimension` is 0 or above that of the model.
    pub fn truncated(self, dimension: usize) -> Result<SentenceEmbedder> {
        let most = self.runner.model.dimension();
        match (1..=most).contains(&dimension) {
            true => Ok(SentenceEmbedder { dimension: Some(dimension), ..self }),
            false => Err(Error::config(format!("dimension is {dimension}: must be from 1 to {most}"))),
        }
    }

    /// Sets whether embeddings are normalised to norm 1 at the end, after truncation. Models that normalise them by
    /// themselves do so in any case.
    pub fn normalized(self, normalize: bool) -> SentenceEmbedder {
        SentenceEmbedder { normalize, ..self }
    }

    /// Computes the embedding of each sentence, behind the default prompt of the model if it has one.
    ///
    /// # Errors
    /// Returns an error if the model computes a number that is not finite.
    pub fn embed(&self, sentences: &[&str]) -> Result<Vec<Vec<f32>>> {
        self.run(self.runner.model.settings.prompt(None)?, sentences)
    }

    /// Computes the embedding of each query, behind the prompt `query` of the model if it has one.
    ///
    /// # Errors
    /// Returns an error like [`embed`](SentenceEmbedder::embed).
    pub fn query(&self, queries: &[&str]) -> Result<Vec<Vec<f32>>> {
        self.prompted("query", queries)
    }

    /// Computes the embedding of each document, behind the prompt `document` of the model if it has one.
    ///
    /// # Errors
    /// Returns an error like [`embed`](SentenceEmbedder::embed).
    pub fn document(&self, documents: &[&str]) -> Result<Vec<Vec<f32>>> {
        self.prompted("document", documents)
    }

    /// Computes the embedding of each sentence, behind the prompt of this name.
    ///
    /// # Errors
    /// Returns an error like [`embed`](SentenceEmbedder::embed), and if the model has no prompt of this name.
    pub fn prompted(&self, name: &str, sentences: &[&str]) -> Result<Vec<Vec<f32>>> {
        self.run(self.runner.model.settings.prompt(Some(name))?, sentences)
    }

    fn run(&self, prompt: &str, sentences: &[&str]) -> Result<Vec<Vec<f32>>> {
        let encode = |sentence: &&str| self.runner.encode_any(&format!("{prompt}{sentence}"), None);
        let encodings = sentences.iter().map(encode).collect::<Result<Vec<_>>>()?;
        // [CLS] and the prompt, without [SEP].
        let prompt = if prompt.is_empty() { 0 } else { self.runner.encode_any(prompt, None)?.len() - 1 };
        let mut vectors = Vec::with_capacity(sentences.len());
        self.runner.in_batches(&encodings, |model, batch, _| {
            let computed = model.forward_prompted(batch, prompt, Mode::Eval)?; // [B, D]
            let values = finite(&shorten(&computed, self.dimension, self.normalize)?)?;
            vectors.extend(values.chunks_exact(self.dimension()).map(<[f32]>::to_vec));
            Ok(())
        })?;
        Ok(vectors)
    }

    /// Returns the dimension of the embeddings.
    pub fn dimension(&self) -> usize {
        let most = self.runner.model.dimension();
        self.dimension.unwrap_or(most).min(most)
    }

    /// Returns the measure by which the embeddings are compared.
    pub fn similarity_function(&self) -> SimilarityFunction {
        self.runner.model.similarity_function()
    }
}
