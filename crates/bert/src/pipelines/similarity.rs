//! Comparing sentences.

use std::path::Path;

use cloze_tensor::{Device, Precision};

use super::long_text::{LongText, Reported};
use super::output::best;
use super::{Pipeline, SentenceEmbedder};
use crate::{LoadReport, Result, SentenceEncoder, SimilarityFunction, Tokenizer};

/// Returns the cosine of the angle between two vectors, in [-1, 1], or 0 if one is zero.
pub fn cosine_similarity(a: &[f32], b: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| -> f64 { a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum() };
    let norms = (dot(a, a) * dot(b, b)).sqrt();
    if norms > 0.0 { (dot(a, b) / norms).clamp(-1.0, 1.0) } else { 0.0 }
}

impl SimilarityFunction {
    /// Compares two vectors. A larger number means more similar.
    pub fn compare(self, a: &[f32], b: &[f32]) -> f64 {
        let pairs = || a.iter().zip(b).map(|(&a, &b)| (f64::from(a), f64::from(b)));
        match self {
            SimilarityFunction::Cosine => cosine_similarity(a, b),
            SimilarityFunction::Dot => pairs().map(|(a, b)| a * b).sum(),
            SimilarityFunction::Euclidean => -pairs().map(|(a, b)| (a - b).powi(2)).sum::<f64>().sqrt(),
            SimilarityFunction::Manhattan => -pairs().map(|(a, b)| (a - b).abs()).sum::<f64>(),
        }
    }
}

/// A pipeline that compares sentences by their embeddings: by the cosine, or by another
/// [`SimilarityFunction`] if the folder of the model names one.
pub struct Similarity {
    embedder: SentenceEmbedder,
}

impl Pipeline for Similarity {
    type Model = SentenceEncoder;

    fn new(model: SentenceEncoder, tokenizer: Tokenizer) -> Result<Similarity> {
        Ok(Similarity { embedder: SentenceEmbedder::new(model, tokenizer)? })
    }

    fn open_reported(place: impl AsRef<Path>, device: &Device) -> Result<(Similarity, LoadReport)> {
        let (embedder, report) = SentenceEmbedder::open_reported(place, device)?;
        Ok((Similarity { embedder }, report))
    }

    fn precision(self, precision: Precision) -> Similarity {
        Similarity { embedder: self.embedder.precision(precision) }
    }

    fn model(&self) -> &SentenceEncoder {
        self.embedder.model()
    }

    fn tokenizer(&self) -> &Tokenizer {
        self.embedder.tokenizer()
    }
}

impl Similarity {
    /// Sets what happens to sentences that are too long, like [`SentenceEmbedder::long_texts`].
    pub fn long_texts(self, long_texts: LongText) -> Similarity {
        Similarity { embedder: self.embedder.long_texts(long_texts) }
    }

    /// Returns the similarity of two sentences, a cosine in [-1, 1] by default.
    ///
    /// # Errors
    /// Returns an error like [`SentenceEmbedder::embed`].
    pub fn score(&self, a: &str, b: &str) -> Result<Reported<f64>> {
        Ok(self.matrix(&[a], &[b])?.map(|matrix| matrix[0][0]))
    }

    /// Returns the similarity of each of `a` to each of `b`. The report is about all of `a`, and then all of `b`.
    ///
    /// # Errors
    /// Returns an error like [`SentenceEmbedder::embed`].
    pub fn matrix(&self, a: &[impl AsRef<str>], b: &[impl AsRef<str>]) -> Result<Reported<Vec<Vec<f64>>>> {
        let function = self.embedder.similarity_function();
        let texts: Vec<&str> = a.iter().map(AsRef::as_ref).chain(b.iter().map(AsRef::as_ref)).collect();
        let vectors = self.embedder.embed(&texts)?;
        Ok(vectors.map(|vectors| {
            let (a, b) = vectors.split_at(a.len());
            a.iter().map(|a| b.iter().map(|b| function.compare(a, b)).collect()).collect()
        }))
    }

    /// Returns the indices and similarities of the `k` candidates that are most similar to `query`, most similar first.
    /// The report is about the query, and then all candidates.
    ///
    /// # Errors
    /// Returns an error like [`SentenceEmbedder::embed`].
    pub fn most_similar(
        &self,
        query: &str,
        candidates: &[impl AsRef<str>],
        k: usize,
    ) -> Result<Reported<Vec<(usize, f64)>>> {
        Ok(self.matrix(&[query], candidates)?.map(|matrix| best(matrix.concat(), k)))
    }
}
