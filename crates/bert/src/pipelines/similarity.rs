//! Comparing sentences.

use std::path::Path;

use cloze_tensor::{Device, Precision};

use super::{Pipeline, SentenceEmbedder};
use crate::{Result, SentenceEncoder, Tokenizer};

/// Returns the cosine of the angle between two vectors, in [-1, 1], or 0 if one is zero.
pub fn cosine_similarity(a: &[f32], b: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| -> f64 { a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum() };
    let norms = (dot(a, a) * dot(b, b)).sqrt();
    if norms > 0.0 { (dot(a, b) / norms).clamp(-1.0, 1.0) } else { 0.0 }
}

/// A pipeline that compares sentences by the cosine of their embeddings.
pub struct Similarity {
    embedder: SentenceEmbedder,
}

impl Pipeline for Similarity {
    type Model = SentenceEncoder;

    fn new(model: SentenceEncoder, tokenizer: Tokenizer) -> Result<Similarity> {
        Ok(Similarity { embedder: SentenceEmbedder::new(model, tokenizer)? })
    }

    fn open_on(place: impl AsRef<Path>, device: &Device) -> Result<Similarity> {
        Ok(Similarity { embedder: SentenceEmbedder::open_on(place, device)? })
    }

    fn precision(self, precision: Precision) -> Similarity {
        Similarity { embedder: self.embedder.precision(precision) }
    }
}

impl Similarity {
    /// Returns the similarity of two sentences, in [-1, 1].
    ///
    /// # Errors
    /// Returns an error if a sentence is blank.
    pub fn score(&self, a: &str, b: &str) -> Result<f64> {
        Ok(self.matrix(&[a], &[b])?[0][0])
    }

    /// Returns the similarity of each of `a` to each of `b`.
    ///
    /// # Errors
    /// Returns an error if a sentence is blank.
    pub fn matrix(&self, a: &[&str], b: &[&str]) -> Result<Vec<Vec<f64>>> {
        let vectors = self.embedder.embed(&[a, b].concat())?;
        let (a, b) = vectors.split_at(a.len());
        Ok(a.iter().map(|a| b.iter().map(|b| cosine_similarity(a, b)).collect()).collect())
    }

    /// Returns the indices and similarities of the `k` candidates that are most similar to `query`, most similar first.
    ///
    /// # Errors
    /// Returns an error if a sentence is blank.
    pub fn most_similar(&self, query: &str, candidates: &[&str], k: usize) -> Result<Vec<(usize, f64)>> {
        let mut ranked: Vec<(usize, f64)> =
            self.matrix(&[query], candidates)?.concat().into_iter().enumerate().collect();
        ranked.sort_by(|a, b| b.1.total_cmp(&a.1));
        ranked.truncate(k);
        Ok(ranked)
    }
}
