//! Does one sentence follow another?

use cloze_tensor::Precision;

use super::{Asked, Pipeline};
use crate::{BertForNextSentencePrediction, Mode, Result, Tokenizer};

/// Judges whether a sentence follows another.
pub struct NextSentence {
    asked: Asked<BertForNextSentencePrediction>,
}

impl Pipeline for NextSentence {
    type Model = BertForNextSentencePrediction;

    fn new(model: BertForNextSentencePrediction, tokenizer: Tokenizer) -> Result<NextSentence> {
        Ok(NextSentence { asked: Asked::new(model, tokenizer)? })
    }

    fn precision(mut self, precision: Precision) -> Self {
        self.asked.precision = precision;
        self
    }
}

impl NextSentence {
    /// The probability that `second` follows `first`.
    ///
    /// # Errors
    /// When a sentence is blank, or the pair is longer than the model or the tokenizer takes.
    pub fn probability(&self, first: &str, second: &str) -> Result<f64> {
        Ok(self.probabilities(&[(first, second)])?[0])
    }

    /// The probability of each pair that its second sentence follows its first.
    ///
    /// # Errors
    /// As [`probability`](NextSentence::probability).
    pub fn probabilities(&self, pairs: &[(&str, &str)]) -> Result<Vec<f64>> {
        let encodings = self.asked.encode(pairs.iter().map(|(first, second)| (*first, Some(*second))), false)?;
        let mut probabilities = Vec::with_capacity(pairs.len());
        self.asked.in_batches(&encodings, |model, batch, _| {
            let logits = super::finite(&model.forward(batch, Mode::Eval)?)?; // [B, 2]
            probabilities.extend(logits.chunks_exact(2).map(|pair| super::softmax(pair)[0]));
            Ok(())
        })?;
        Ok(probabilities)
    }
}
