//! Masked language modelling: the choice of targets, and their replacement.
//!
//! Source: J. Devlin, M.-W. Chang, K. Lee, K. Toutanova, "BERT: Pre-training of deep bidirectional
//! transformers for language understanding", NAACL 2019, section 3.1 and appendix A.1. Whole-word masking follows
//! the second release of models by the same authors.

use std::ops::Range;

use cloze_tensor::random::Stream;
use serde::{Deserialize, Serialize};

use crate::{Error, Result};

mod vocabulary;

pub use vocabulary::VocabularyTable;

/// The rule for the number of targets of a sequence.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Selection {
    /// The probability times the number of tokens, rounded, as in BERT.
    #[default]
    Fixed,
    /// An independent draw per token (or word), as in the course and in common data collators.
    Bernoulli,
}

/// The replacement of a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TargetKind {
    /// The mask token.
    Masked,
    /// A random token of the vocabulary that is not special. It may happen to be the original one.
    Random,
    /// The original token.
    Kept,
}

/// A token to predict.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    /// The position in the sequence.
    pub position: u32,
    /// The id of the original token, which is to be predicted.
    pub original: u32,
    /// The replacement.
    pub kind: TargetKind,
}

/// The masking rule. The default is BERT's: 15 % of the tokens are targets; 80 % of these become the mask token, 10 % a
/// random token, and 10 % are kept.
///
/// Masking is dynamic: the draw depends on the given stream, hence on the step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Masking {
    probability: f64,
    selection: Selection,
    whole_word: bool,
    max_targets: Option<usize>,
    mask: f64,
    random: f64,
}

impl Default for Masking {
    fn default() -> Masking {
        Masking::bert()
    }
}

impl Masking {
    /// Returns BERT's rule.
    pub fn bert() -> Masking {
        Masking {
            probability: 0.15,
            selection: Selection::Fixed,
            whole_word: false,
            max_targets: None,
            mask: 0.8,
            random: 0.1,
        }
    }

    /// Sets the fraction of tokens that become targets, above 0 and at most 1. A sequence with an ordinary token always
    /// has at least one target.
    pub fn probability(self, probability: f64) -> Masking {
        Masking { probability, ..self }
    }

    /// Sets the rule for the number of targets.
    pub fn selection(self, selection: Selection) -> Masking {
        Masking { selection, ..self }
    }

    /// Makes all pieces of a word targets together. The replacement is still drawn per piece.
    pub fn whole_word(self, whole_word: bool) -> Masking {
        Masking { whole_word, ..self }
    }

    /// Sets the most targets per sequence. If every word has more pieces than that, the shortest word exceeds it.
    pub fn max_targets(self, max_targets: usize) -> Masking {
        Masking { max_targets: Some(max_targets), ..self }
    }

    /// Sets the fractions of targets that become the mask token and a random token. The others are kept.
    pub fn replacement(self, mask: f64, random: f64) -> Masking {
        Masking { mask, random, ..self }
    }

    /// Checks the settings, as [`mask`](Masking::mask) does.
    ///
    /// # Errors
    /// Returns an error if a probability is out of range, the fractions add up to more than 1, or no target is allowed.
    pub fn check(&self) -> Result<()> {
        if !(self.probability > 0.0 && self.probability <= 1.0) {
            return Err(Error::invalid("masking probability", self.probability, "above 0 and at most 1"));
        }
        for (setting, value) in [("fraction of masked targets", self.mask), ("fraction of random targets", self.random)]
        {
            if !(0.0..=1.0).contains(&value) {
                return Err(Error::invalid(setting, value, "from 0 to 1"));
            }
        }
        // Sums like 0.9 + 0.1 may exceed 1 by rounding.
        if self.mask + self.random > 1.0 + 1e-9 {
            let sum = self.mask + self.random;
            return Err(Error::invalid("fraction of masked and random targets", sum, "at most 1"));
        }
        if self.max_targets == Some(0) {
            return Err(Error::invalid("max_targets", 0, "at least 1"));
        }
        Ok(())
    }

    /// Replaces targets among `ids` and returns them by ascending position. Special tokens are never targets.
    ///
    /// `stream` is `Stream::new(seed, Purpose::Masking, 0, step, sequence)`, so the draw does not depend on batches or
    /// threads.
    ///
    /// # Errors
    /// Returns an error and leaves `ids` unchanged if a setting is invalid or an id is not in the vocabulary.
    pub fn mask(&self, ids: &mut [u32], vocabulary: &VocabularyTable, stream: &mut Stream) -> Result<Vec<Target>> {
        self.check()?;
        vocabulary.check(ids)?;
        let units = self.units(ids, vocabulary);
        let mut positions: Vec<usize> = self.select(units, stream).into_iter().flatten().collect();
        positions.sort_unstable();

        let replace = |position: usize| {
            let original = ids[position];
            let draw = stream.uniform();
            let kind = if draw < self.mask {
                ids[position] = vocabulary.mask_id();
                TargetKind::Masked
            } else if draw < self.mask + self.random {
                ids[position] = vocabulary.ordinary(stream.below(vocabulary.ordinary_count()));
                TargetKind::Random
            } else {
                TargetKind::Kept
            };
            Target { position: position as u32, original, kind }
        };
        Ok(positions.into_iter().map(replace).collect())
    }

    /// Returns the positions that are chosen together: those of a word, or a single token.
    fn units(&self, ids: &[u32], vocabulary: &VocabularyTable) -> Vec<Range<usize>> {
        let mut units: Vec<Range<usize>> = Vec::new();
        for (position, &id) in ids.iter().enumerate() {
            if vocabulary.is_special(id) {
                continue;
            }
            match units.last_mut() {
                Some(word) if self.whole_word && vocabulary.continues_word(id) && word.end == position => word.end += 1,
                _ => units.push(position..position + 1),
            }
        }
        units
    }

    /// Returns the units that become targets, in no particular order.
    fn select(&self, mut units: Vec<Range<usize>>, stream: &mut Stream) -> Vec<Range<usize>> {
        let tokens: usize = units.iter().map(|unit| unit.len()).sum();
        let limit = self.max_targets.unwrap_or(usize::MAX);
        let budget = match self.selection {
            Selection::Fixed => ((self.probability * tokens as f64).round() as usize).clamp(1, limit),
            Selection::Bernoulli => limit,
        };
        if self.selection == Selection::Bernoulli {
            let drawn: Vec<Range<usize>> =
                units.iter().filter(|_| stream.uniform() < self.probability).cloned().collect();
            // If no unit was drawn, a shuffle picks one of them all.
            if drawn.is_empty() {
                stream.shuffle(&mut units);
                units.truncate(1);
            } else {
                units = drawn;
            }
        }
        stream.shuffle(&mut units);
        let shortest = units.iter().min_by_key(|unit| unit.len()).cloned();
        let mut left = budget;
        // A word that no longer fits is skipped; a later, shorter one may fit.
        units.retain(|unit| {
            let fits = unit.len() <= left;
            left -= if fits { unit.len() } else { 0 };
            fits
        });
        if units.is_empty() {
            units.extend(shortest);
        }
        units
    }
}

#[cfg(test)]
mod tests;
