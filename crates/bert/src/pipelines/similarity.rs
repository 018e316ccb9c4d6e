//! How similar are sentences?

use std::path::Path;

use cloze_tensor::{Device, Precision};

use super::{Pipeline, SentenceEmbedder};
use crate::{Result, SentenceEncoder, Tokenizer};

/// The cosine of the angle between two vectors, in [-1, 1]; 0 when one has no direction.
pub fn cosine_similarity(a: &[f32], b: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| -> f64 { a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum() };
    let norms = (dot(a, a) * dot(b, b)).sqrt();
    if norms > 0.0 { (dot(a, b) / norms).clamp(-1.0, 1.0) } else { 0.0 }
}

/// Compares sentences by the cosine of their vectors.
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
    /// How similar two sentences are, in [-1, 1].
    ///
    /// # Errors
    /// When one is blank.
    pub fn score(&self, a: &str, b: &str) -> Result<f64> {
        Ok(self.matrix(&[a], &[b])?[0][0])
    }

    /// How similar each of `a` is to each of `b`.
    ///
    /// # Errors
    /// When a sentence is blank.
    pub fn matrix(&self, a: &[&str], b: &[&str]) -> Result<Vec<Vec<f64>>> {
        let vectors = self.embedder.embed(&[a, b].concat())?;
        let (a, b) = vectors.split_at(a.len());
        Ok(a.iter().map(|a| b.iter().map(|b| cosine_similarity(a, b)).collect()).collect())
    }

    /// The `k` of `candidates` that are most similar to `query`, most similar first: their indices and similarities.
    ///
    /// # Errors
    /// When a sentence is blank.
    pub fn most_similar(&self, query: &str, candidates: &[&str], k: usize) -> Result<Vec<(usize, f64)>> {
        let mut ranked: Vec<(usize, f64)> =
            self.matrix(&[query], candidates)?.concat().into_iter().enumerate().collect();
        ranked.sort_by(|a, b| b.1.total_cmp(&a.1));
        ranked.truncate(k);
        Ok(ranked)
    }
}
