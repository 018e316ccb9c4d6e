//! Made-up numbers and texts: the same in every run.

use cloze::prelude::*;
use cloze::tensor::random::{Purpose, Stream};

use super::Result;

/// A tensor of numbers between -`scale` and `scale`. Their quality does not matter, that they are made fast does.
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

/// As [`noise`], and it wants a gradient.
pub fn leaf(shape: &[usize], scale: f32) -> Result<Tensor> {
    Ok(noise(shape, scale)?.requires_grad())
}

/// Lengths of sequences that are evenly spread from 1 to `longest`, which comes first, of `tokens` tokens together.
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

/// Sentences of made-up words, some frequent and most rare, as in a language.
pub struct Texts {
    words: Vec<String>,
    stream: Stream,
}

impl Texts {
    /// Of 20,000 words.
    pub fn new() -> Texts {
        let mut stream = Stream::new(2, Purpose::User, 0, 0, 0);
        let mut word = |rank: usize| -> String {
            // Frequent words are short.
            let syllables = 1 + (rank > 100) as usize + stream.below(3);
            (0..syllables).flat_map(|_| [ONSETS[stream.below(16)], VOWELS[stream.below(8)]]).collect()
        };
        Texts { words: (0..20_000).map(&mut word).collect(), stream }
    }

    /// A word: the one of rank r about as often as 1/r (G. K. Zipf, 1935).
    pub fn word(&mut self) -> &str {
        let rank = (self.words.len() as f64).powf(self.stream.uniform()) as usize;
        &self.words[rank.min(self.words.len()) - 1]
    }

    /// So many words, with a comma here and there, a capital at the beginning and a full stop.
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

    /// Sentences of 4 to 30 words, of so many bytes together.
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

/// A tokenizer of 8,000 tokens for such texts.
pub fn tokenizer() -> Result<Tokenizer> {
    Ok(Tokenizer::train(Texts::new().sentences(1 << 20), 8_000, &TrainOptions::new())?)
}
