//! Deciding whether one sentence follows another.

use cloze_tensor::Precision;

use super::Pipeline;
use super::long_text::{LongText, Reported};
use super::output::softmax;
use super::runner::Runner;
use crate::{BertForNextSentencePrediction, Mode, Result, Tokenizer};

/// A pipeline that estimates whether a sentence follows another.
pub struct NextSentence {
    runner: Runner<BertForNextSentencePrediction>,
}

impl Pipeline for NextSentence {
    type Model = BertForNextSentencePrediction;

    fn new(model: BertForNextSentencePrediction, tokenizer: Tokenizer) -> Result<NextSentence> {
        Ok(NextSentence { runner: Runner::new(model, tokenizer, LongText::Truncate)? })
    }

    fn precision(mut self, precision: Precision) -> Self {
        self.runner.precision = precision;
        self
    }

    fn model(&self) -> &BertForNextSentencePrediction {
        &self.runner.model
    }

    fn tokenizer(&self) -> &Tokenizer {
        &self.runner.tokenizer
    }
}

impl NextSentence {
    /// Sets what happens to pairs that are too long, [`LongText::Truncate`] by default. With windows, the logits are
    /// averaged before they become a probability.
    pub fn long_texts(mut self, long_texts: LongText) -> NextSentence {
        self.runner.long_texts = long_texts;
        self
    }

    /// Returns the probability that `second` follows `first`.
    ///
    /// # Errors
    /// Returns an error if a sentence is blank, or the pair is too long and [refused](LongText::Refuse).
    pub fn probability(&self, first: &str, second: &str) -> Result<Reported<f64>> {
        Ok(self.probabilities(&[(first, second)])?.map(|probabilities| probabilities[0]))
    }

    /// Returns for each pair the probability that the second sentence follows the first.
    ///
    /// # Errors
    /// Returns an error like [`probability`](NextSentence::probability).
    pub fn probabilities(&self, pairs: &[(impl AsRef<str>, impl AsRef<str>)]) -> Result<Reported<Vec<f64>>> {
        let texts = self.runner.read(pairs.iter().map(|(first, second)| (first.as_ref(), Some(second.as_ref()))))?;
        let logits = self.runner.means(texts, |model, batch| model.forward(batch, Mode::Eval))?; // [pairs, 2]
        Ok(logits.map(|logits| logits.iter().map(|pair| softmax(pair)[0]).collect()))
    }
}
