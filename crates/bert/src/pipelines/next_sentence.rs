//! Deciding whether one sentence follows another.

use cloze_tensor::Precision;

use super::Pipeline;
use super::output::{finite, softmax};
use super::runner::Runner;
use crate::{BertForNextSentencePrediction, Mode, Result, Tokenizer};

/// A pipeline that estimates whether a sentence follows another.
pub struct NextSentence {
    runner: Runner<BertForNextSentencePrediction>,
}

impl Pipeline for NextSentence {
    type Model = BertForNextSentencePrediction;

    fn new(model: BertForNextSentencePrediction, tokenizer: Tokenizer) -> Result<NextSentence> {
        Ok(NextSentence { runner: Runner::new(model, tokenizer)? })
    }

    fn precision(mut self, precision: Precision) -> Self {
        self.runner.precision = precision;
        self
    }
}

impl NextSentence {
    /// Returns the probability that `second` follows `first`.
    ///
    /// # Errors
    /// Returns an error if a sentence is blank, or the pair is longer than the model or the tokenizer allows.
    pub fn probability(&self, first: &str, second: &str) -> Result<f64> {
        Ok(self.probabilities(&[(first, second)])?[0])
    }

    /// Returns for each pair the probability that the second sentence follows the first.
    ///
    /// # Errors
    /// Returns an error like [`probability`](NextSentence::probability).
    pub fn probabilities(&self, pairs: &[(&str, &str)]) -> Result<Vec<f64>> {
        let encodings = self.runner.encode(pairs.iter().map(|(first, second)| (*first, Some(*second))), false)?;
        let mut probabilities = Vec::with_capacity(pairs.len());
        self.runner.in_batches(&encodings, |model, batch, _| {
            let logits = finite(&model.forward(batch, Mode::Eval)?)?; // [B, 2]
            probabilities.extend(logits.chunks_exact(2).map(|pair| softmax(pair)[0]));
            Ok(())
        })?;
        Ok(probabilities)
    }
}
