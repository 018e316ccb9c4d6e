//! Sentence embeddings.

use std::path::Path;

use cloze_tensor::{Device, Precision};

use super::Pipeline;
use super::output::finite;
use super::runner::Runner;
use crate::{Mode, PreTrainedModel, Result, SentenceEncoder, Tokenizer};

/// A pipeline that computes sentence embeddings, whose cosine measures similarity. Sentences that are too long are
/// truncated, as in `sentence-transformers`.
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
}

impl Pipeline for SentenceEmbedder {
    type Model = SentenceEncoder;

    fn new(model: SentenceEncoder, tokenizer: Tokenizer) -> Result<SentenceEmbedder> {
        Ok(SentenceEmbedder { runner: Runner::new(model, tokenizer)? })
    }

    fn open_on(place: impl AsRef<Path>, device: &Device) -> Result<SentenceEmbedder> {
        let (model, _) = SentenceEncoder::open(&place, device)?;
        SentenceEmbedder::new(model, SentenceEncoder::tokenizer(place)?)
    }

    fn precision(mut self, precision: Precision) -> Self {
        self.runner.precision = precision;
        self
    }
}

impl SentenceEmbedder {
    /// Computes the embedding of each sentence.
    ///
    /// # Errors
    /// Returns an error if a sentence is blank.
    pub fn embed(&self, sentences: &[&str]) -> Result<Vec<Vec<f32>>> {
        let encodings = self.runner.encode(sentences.iter().map(|sentence| (*sentence, None)), true)?;
        let mut vectors = Vec::with_capacity(sentences.len());
        self.runner.in_batches(&encodings, |model, batch, _| {
            let values = finite(&model.forward(batch, Mode::Eval)?)?; // [B, D]
            vectors.extend(values.chunks_exact(model.dimension()).map(<[f32]>::to_vec));
            Ok(())
        })?;
        Ok(vectors)
    }

    /// Returns the dimension of the embeddings.
    pub fn dimension(&self) -> usize {
        self.runner.model.dimension()
    }
}
