//! Made-up numbers and texts, the same in every run.

use cloze::prelude::*;
use cloze::tensor::random::{Purpose, Stream};

use crate::Result;

/// Returns a tensor of numbers between -`scale` and `scale`. The generator is chosen for speed, not for quality.
///
/// # Errors
/// Returns an error if the shape is invalid.
pub fn noise(shape: &[usize], scale: f32) -> Result<Tensor> {
    let mut state = shape.iter().fold(1u64, |state, &size| state.wrapping_mul(31).wrapping_add(size as u64));
    let number = || {
        // A linear congruential generator with D. Knuth's constants.
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        ((state >> 40) as f32 / (1 << 23) as f32 - 1.0) * scale
    };
    let numbers: Vec<f32> = std::iter::repeat_with(number).take(shape.iter().product()).collect();
    Ok(Tensor::from_vec(numbers, shape, &Device::Cpu)?)
}

/// Returns a leaf tensor as [`noise`] does, which requires a gradient.
///
/// # Errors
/// Returns an error if the shape is invalid.
pub fn leaf(shape: &[usize], scale: f32) -> Result<Tensor> {
    Ok(noise(shape, scale)?.requires_grad())
}

/// Returns the lengths of sequences with `tokens` tokens in total: first `longest`, then lengths drawn uniformly from 1
/// to `longest`.
pub fn lengths(longest: usize, tokens: usize) -> Vec<usize> {
    let mut stream = Stream::new(1, Purpose::User, 0, 0, 0);
    let (mut lengths, mut left) = (vec![longest], tokens.saturating_sub(longest));
    while left > 0 {
        let length = (1 + stream.below(longest)).min(left);
        lengths.push(length);
        left -= length;
    }
    lengths
}

const ONSETS: [&str; 16] = ["b", "c", "d", "f", "g", "l", "m", "n", "p", "r", "s", "t", "v", "st", "tr", "br"];
const VOWELS: [&str; 8] = ["a", "e", "i", "o", "u", "ei", "ou", "ã"];

/// Draws sentences of made-up words, a few of them frequent and most of them rare, as in a natural language.
pub struct Texts {
    words: Vec<String>,
    stream: Stream,
}

impl Texts {
    /// Creates a language of 20,000 words.
    #[expect(clippy::new_without_default, reason = "there is no other language to choose")]
    pub fn new() -> Texts {
        let mut stream = Stream::new(2, Purpose::User, 0, 0, 0);
        let mut word = |rank: usize| -> String {
            // Frequent words are short.
            let syllables = 1 + (rank > 100) as usize + stream.below(3);
            (0..syllables).flat_map(|_| [ONSETS[stream.below(16)], VOWELS[stream.below(8)]]).collect()
        };
        Texts { words: (0..20_000).map(&mut word).collect(), stream }
    }

    /// Draws a word, the one of rank r about as often as 1/r (G. K. Zipf, 1935).
    pub fn word(&mut self) -> &str {
        let rank = (self.words.len() as f64).powf(self.stream.uniform()) as usize;
        &self.words[rank.min(self.words.len()) - 1]
    }

    /// Draws a sentence of this many words, with commas, a capital letter and a full stop.
    pub fn sentence(&mut self, words: usize) -> String {
        let mut sentence = String::new();
        for number in 0..words {
            if number > 0 {
                sentence.push_str(if self.stream.below(12) == 0 { ", " } else { " " });
            }
            let word = self.word();
            let first = if number == 0 { word[..1].to_uppercase() } else { word[..1].to_string() };
            sentence.push_str(&first);
            sentence.push_str(&word[1..]);
        }
        sentence + "."
    }

    /// Draws sentences of 4 to 30 words, until they have this many bytes.
    pub fn sentences(&mut self, bytes: usize) -> Vec<String> {
        let (mut sentences, mut written) = (Vec::new(), 0);
        while written < bytes {
            let words = 4 + self.stream.below(27);
            let sentence = self.sentence(words);
            written += sentence.len();
            sentences.push(sentence);
        }
        sentences
    }
}

/// Trains a tokenizer with 8,000 tokens on such texts.
///
/// # Errors
/// Returns an error if training fails.
pub fn tokenizer() -> Result<Tokenizer> {
    Ok(Tokenizer::train(Texts::new().sentences(1 << 20), 8_000, &TrainOptions::new())?)
}
