//! Embeddings in fewer bytes: one per element, or one bit (S. Shakir, T. Aarsen, "Binary and Scalar Embedding
//! Quantization", 2024). The numbers equal those of `quantize_embeddings` in `sentence-transformers`.

use crate::{Error, Result};

/// The range of each element of embeddings, which 256 levels divide.
#[derive(Clone, Debug, PartialEq)]
pub struct Int8Ranges {
    /// The lowest level of each element, and the distance of two levels.
    levels: Vec<(f32, f32)>,
}

impl Int8Ranges {
    /// Measures the range of each element over a sample of embeddings, such as those of all documents. Quantize queries
    /// with the same ranges.
    ///
    /// # Errors
    /// Returns an error if there are no embeddings or their lengths differ.
    pub fn of(embeddings: &[Vec<f32>]) -> Result<Int8Ranges> {
        let Some(first) = embeddings.first() else {
            return Err(Error::input("no embeddings given: ranges need at least one"));
        };
        if let Some(other) = embeddings.iter().find(|embedding| embedding.len() != first.len()) {
            let (first, other) = (first.len(), other.len());
            return Err(Error::input(format!("embeddings have {first} and {other} elements: must be equally long")));
        }
        let level = |at: usize| {
            let values = || embeddings.iter().map(|embedding| embedding[at]);
            let (least, most) = (values().fold(f32::INFINITY, f32::min), values().fold(f32::NEG_INFINITY, f32::max));
            let step = (most - least) / 255.0;
            (least, if step == 0.0 { 1.0 } else { step })
        };
        Ok(Int8Ranges { levels: (0..first.len()).map(level).collect() })
    }

    /// Returns the level of each element of an embedding, from -128 to 127. Elements out of range get the first or
    /// last.
    ///
    /// # Errors
    /// Returns an error if the embedding has another length.
    pub fn quantize(&self, embedding: &[f32]) -> Result<Vec<i8>> {
        if embedding.len() != self.levels.len() {
            let (given, own) = (embedding.len(), self.levels.len());
            return Err(Error::input(format!("the embedding has {given} elements: must be {own}, like the ranges")));
        }
        let level = |(x, (least, step)): (&f32, &(f32, f32))| ((x - least) / step).floor().clamp(0.0, 255.0) - 128.0;
        Ok(embedding.iter().zip(&self.levels).map(|pair| level(pair) as i8).collect())
    }
}

/// Returns whether each element of an embedding is above 0, eight per byte, the first in the highest bit.
pub fn to_bits(embedding: &[f32]) -> Vec<u8> {
    let byte =
        |elements: &[f32]| elements.iter().enumerate().fold(0, |byte, (at, x)| byte | (u8::from(*x > 0.0) << (7 - at)));
    embedding.chunks(8).map(byte).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The numbers come from `quantize_embeddings` in sentence-transformers 6.2.
    #[test]
    fn levels_and_bits_are_those_of_sentence_transformers() {
        let embeddings = vec![vec![0.1, -0.5, 0.3, 0.0], vec![-0.2, 0.4, 0.3, 0.9], vec![0.05, 0.1, 0.3, -0.7]];
        let ranges = Int8Ranges::of(&embeddings).unwrap();
        let levels: Vec<Vec<i8>> = embeddings.iter().map(|embedding| ranges.quantize(embedding).unwrap()).collect();
        assert_eq!(levels, [[127, -128, -128, -17], [-128, 127, -128, 127], [84, 42, -128, -128]]);
        assert_eq!(ranges.quantize(&[5.0, -5.0, 0.0, 0.1]).unwrap(), [127, -128, -128, -1]);
        assert_eq!(to_bits(&[0.1, -0.5, 0.0, 2.0, 1.0, -1.0, 1.0, 1.0, 0.5, -0.1]), [155, 128]);
        assert!(Int8Ranges::of(&[]).is_err() && Int8Ranges::of(&[vec![1.0], vec![]]).is_err());
        assert!(ranges.quantize(&[1.0]).is_err());
    }
}
