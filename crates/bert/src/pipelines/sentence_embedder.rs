//! Sentence embeddings.

use std::path::Path;

use cloze_tensor::{Device, Precision};

use super::Pipeline;
use super::long_text::{LongText, Reported};
use super::runner::{Runner, prompted};
use crate::{
    Error, LoadReport, Mode, OpenOptions, PreTrainedModel, Result, SentenceEncoder, SimilarityFunction, Tokenizer,
};

/// A pipeline that computes sentence embeddings, whose cosine measures similarity. As in `sentence-transformers`,
/// sentences that are too long are truncated, unless [`long_texts`](SentenceEmbedder::long_texts) says otherwise, and a
/// blank one has the embedding of `[CLS]` and `[SEP]`.
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
        Ok(SentenceEmbedder { runner: Runner::new(model, tokenizer, LongText::Truncate)?, dimension, normalize: false })
    }

    fn open_reported(place: impl AsRef<Path>, device: &Device) -> Result<(SentenceEmbedder, LoadReport)> {
        let (model, mut report) =
            SentenceEncoder::open_reported(&place, device, &OpenOptions::new().without_tokenizer())?;
        let tokenizer = SentenceEncoder::tokenizer(place)?;
        report.add_tokenizer(&tokenizer, model.config());
        Ok((SentenceEmbedder::new(model, tokenizer)?, report))
    }

    fn precision(mut self, precision: Precision) -> Self {
        self.runner.precision = precision;
        self
    }

    fn model(&self) -> &SentenceEncoder {
        &self.runner.model
    }

    fn tokenizer(&self) -> &Tokenizer {
        &self.runner.tokenizer
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

    /// Sets what happens to sentences that are too long, [`LongText::Truncate`] by default. The embedding of windows is
    /// the mean of theirs, normalised to norm 1 if the model normalises embeddings.
    pub fn long_texts(mut self, long_texts: LongText) -> SentenceEmbedder {
        self.runner.long_texts = long_texts;
        self
    }

    /// Computes the embedding of each sentence, behind the default prompt of the model if it has one.
    ///
    /// # Errors
    /// Returns an error if a sentence is too long and [refused](LongText::Refuse), if the prompt leaves no room in a
    /// window, or if a number that the model computes is not finite.
    pub fn embed(&self, sentences: &[impl AsRef<str>]) -> Result<Reported<Vec<Vec<f32>>>> {
        self.run(self.runner.model.settings.prompt(None)?, sentences)
    }

    /// Computes the embedding of each query, behind the prompt `query` of the model if it has one.
    ///
    /// # Errors
    /// Returns an error like [`embed`](SentenceEmbedder::embed).
    pub fn query(&self, queries: &[impl AsRef<str>]) -> Result<Reported<Vec<Vec<f32>>>> {
        self.prompted("query", queries)
    }

    /// Computes the embedding of each document, behind the prompt `document` of the model if it has one.
    ///
    /// # Errors
    /// Returns an error like [`embed`](SentenceEmbedder::embed).
    pub fn document(&self, documents: &[impl AsRef<str>]) -> Result<Reported<Vec<Vec<f32>>>> {
        self.prompted("document", documents)
    }

    /// Computes the embedding of each sentence, behind the prompt of this name.
    ///
    /// # Errors
    /// Returns an error like [`embed`](SentenceEmbedder::embed), and if the model has no prompt of this name.
    pub fn prompted(&self, name: &str, sentences: &[impl AsRef<str>]) -> Result<Reported<Vec<Vec<f32>>>> {
        self.run(self.runner.model.settings.prompt(Some(name))?, sentences)
    }

    fn run(&self, prompt: &str, sentences: &[impl AsRef<str>]) -> Result<Reported<Vec<Vec<f32>>>> {
        let texts = sentences.iter().map(|sentence| (prompted(prompt, sentence.as_ref()), None));
        let prompt = self.runner.tokenizer.count(prompt);
        let texts = self.runner.read_any(texts, prompt)?;
        let skipped = if prompt == 0 { 0 } else { 1 + prompt }; // [CLS], too
        let vectors = self.runner.means(texts, |model, batch| model.forward_prompted(batch, skipped, Mode::Eval))?;
        let Reported { mut value, report } = vectors;
        for (vector, &windows) in value.iter_mut().zip(&report.windows) {
            if windows > 1 && self.runner.model.normalizes() {
                normalize(vector);
            }
            vector.truncate(self.dimension());
            if self.normalize {
                normalize(vector);
            }
        }
        Ok(Reported { value, report })
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

/// Divides a vector by its norm, unless that is 0.
fn normalize(vector: &mut [f32]) {
    let norm = vector.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>().sqrt();
    if norm > 0.0 {
        vector.iter_mut().for_each(|x| *x = (f64::from(*x) / norm) as f32);
    }
}
