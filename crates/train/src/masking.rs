//! Masked language modelling: the choice of targets, and their replacement.
//!
//! Source: J. Devlin, M.-W. Chang, K. Lee, K. Toutanova, "BERT: Pre-training of deep bidirectional
//! transformers for language understanding", NAACL 2019, section 3.1 and appendix A.1. Whole-word masking follows
//! the second release of models by the same authors.

use std::fmt;
use std::ops::Range;
use std::str::FromStr;

use cloze_tensor::random::Stream;
use serde::{Deserialize, Serialize};

use crate::{Error, Result};

mod rate;
mod spans;
mod vocabulary;

pub use rate::MaskingRate;
pub use vocabulary::VocabularyTable;

/// What is selected, and masked, as a whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum MaskingUnit {
    /// A token, as in BERT.
    #[default]
    Token,
    /// All pieces of a word, as in the second release of BERT. The replacement is still drawn per piece.
    WholeWord,
    /// A span of whole words. The replacement is drawn per span.
    ///
    /// The first word of a span is drawn uniformly. The number of its words is drawn from the geometric distribution with
    /// p = 0.2, restricted to at most 10, so that spans have 3.8 words on average. A span ends early at a special token, at
    /// another span, and where the next word would exceed the number of targets.
    ///
    /// Source: M. Joshi, D. Chen, Y. Liu, D. S. Weld, L. Zettlemoyer, O. Levy, "SpanBERT: Improving pre-training by
    /// representing and predicting spans", TACL 2020, section 3.1. There, the last word of the last span may be cut.
    Span,
}

/// The name of the unit: `token`, `word` or `span`.
impl fmt::Display for MaskingUnit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            MaskingUnit::Token => "token",
            MaskingUnit::WholeWord => "word",
            MaskingUnit::Span => "span",
        })
    }
}

/// Reads the name of a unit.
impl FromStr for MaskingUnit {
    type Err = Error;

    fn from_str(name: &str) -> Result<MaskingUnit> {
        [MaskingUnit::Token, MaskingUnit::WholeWord, MaskingUnit::Span]
            .into_iter()
            .find(|unit| unit.to_string() == name)
            .ok_or_else(|| Error::invalid("masking unit", name, "token, word or span"))
    }
}

/// The rule for the number of targets of a sequence.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Selection {
    /// The rate times the number of tokens, rounded, as in BERT.
    #[default]
    Fixed,
    /// An independent draw per token (or word), as in the course and in common data collators. Not for spans.
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
    rate: MaskingRate,
    selection: Selection,
    unit: MaskingUnit,
    max_targets: Option<usize>,
    /// Whether a sequence may have no target.
    #[serde(default)]
    no_minimum: bool,
    mask: f64,
    random: f64,
}

impl Default for Masking {
    fn default() -> Masking {
        Masking::bert()
    }
}

/// The unit and the rate: `token, rate 0.15`.
impl fmt::Display for Masking {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, rate {}", self.unit, self.rate)
    }
}

impl Masking {
    /// Returns BERT's rule.
    pub fn bert() -> Masking {
        Masking {
            rate: MaskingRate::Constant(0.15),
            selection: Selection::Fixed,
            unit: MaskingUnit::Token,
            max_targets: None,
            no_minimum: false,
            mask: 0.8,
            random: 0.1,
        }
    }

    /// Sets the fraction of tokens that become targets: a number above 0 and at most 1, or a [`MaskingRate`] that changes
    /// during the run. A sequence with an ordinary token always has at least one target, unless there is [no
    /// minimum](Masking::without_minimum).
    pub fn rate(self, rate: impl Into<MaskingRate>) -> Masking {
        Masking { rate: rate.into(), ..self }
    }

    /// Sets the rule for the number of targets.
    pub fn selection(self, selection: Selection) -> Masking {
        Masking { selection, ..self }
    }

    /// Sets what is selected as a whole: tokens, words or spans of words.
    pub fn unit(self, unit: MaskingUnit) -> Masking {
        Masking { unit, ..self }
    }

    /// Sets the most targets per sequence. If every word has more pieces than that, the shortest word exceeds it.
    pub fn max_targets(self, max_targets: usize) -> Masking {
        Masking { max_targets: Some(max_targets), ..self }
    }

    /// Allows sequences without a target, which short ones then often are. With [`Selection::Bernoulli`], this is the plain
    /// draw of the course and of common data collators. A batch without any target has no loss of masked tokens.
    pub fn without_minimum(self) -> Masking {
        Masking { no_minimum: true, ..self }
    }

    /// Sets the fractions of targets that become the mask token and a random token. The others are kept.
    pub fn replacement(self, mask: f64, random: f64) -> Masking {
        Masking { mask, random, ..self }
    }

    /// Checks the settings, as [`mask`](Masking::mask) does.
    ///
    /// # Errors
    /// Returns an error if the rate is out of range, the fractions add up to more than 1, no target is allowed, or spans
    /// are to be selected by [`Selection::Bernoulli`].
    pub fn check(&self) -> Result<()> {
        self.rate.check()?;
        if self.unit == MaskingUnit::Span && self.selection == Selection::Bernoulli {
            return Err(Error::invalid("selection", "Bernoulli", "Fixed to mask spans"));
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

    /// Replaces targets among `ids` at the rate of optimizer step `step`, and returns them by ascending position. Special
    /// tokens are never targets.
    ///
    /// `stream` is `Stream::new(seed, Purpose::Masking, 0, step, sequence)`, so the draw does not depend on batches or
    /// threads.
    ///
    /// # Errors
    /// Returns an error and leaves `ids` unchanged if a setting is invalid or an id is not in the vocabulary.
    pub fn mask(
        &self,
        ids: &mut [u32],
        vocabulary: &VocabularyTable,
        step: u32,
        stream: &mut Stream,
    ) -> Result<Vec<Target>> {
        self.check()?;
        vocabulary.check(ids)?;
        let mut selected = self.select(self.words(ids, vocabulary), self.rate.at(step), stream);
        selected.sort_unstable_by_key(|range| range.start);
        let mut targets = Vec::new();
        let mut replace = |range: Range<usize>| {
            let kind = self.kind(stream);
            for position in range {
                targets.push(Target { position: position as u32, original: ids[position], kind });
                match kind {
                    TargetKind::Masked => ids[position] = vocabulary.mask_id(),
                    TargetKind::Random => {
                        ids[position] = vocabulary.ordinary(stream.below(vocabulary.ordinary_count()));
                    }
                    TargetKind::Kept => {}
                }
            }
        };
        match self.unit {
            MaskingUnit::Span => selected.into_iter().for_each(replace),
            _ => selected.into_iter().flatten().for_each(|position| replace(position..position + 1)),
        }
        Ok(targets)
    }

    /// Draws a replacement.
    fn kind(&self, stream: &mut Stream) -> TargetKind {
        let draw = stream.uniform();
        if draw < self.mask {
            TargetKind::Masked
        } else if draw < self.mask + self.random {
            TargetKind::Random
        } else {
            TargetKind::Kept
        }
    }

    /// Returns the positions of each word or, if tokens are selected on their own, of each token.
    fn words(&self, ids: &[u32], vocabulary: &VocabularyTable) -> Vec<Range<usize>> {
        let are_whole = self.unit != MaskingUnit::Token;
        let mut words: Vec<Range<usize>> = Vec::new();
        for (position, &id) in ids.iter().enumerate() {
            if vocabulary.is_special(id) {
                continue;
            }
            match words.last_mut() {
                Some(word) if are_whole && vocabulary.continues_word(id) && word.end == position => word.end += 1,
                _ => words.push(position..position + 1),
            }
        }
        words
    }

    /// Returns the words or spans that become targets, in no particular order.
    fn select(&self, words: Vec<Range<usize>>, rate: f64, stream: &mut Stream) -> Vec<Range<usize>> {
        let tokens: usize = words.iter().map(|word| word.len()).sum();
        let limit = self.max_targets.unwrap_or(usize::MAX);
        let budget = match self.selection {
            Selection::Fixed => ((rate * tokens as f64).round() as usize).clamp(usize::from(!self.no_minimum), limit),
            Selection::Bernoulli => limit,
        };
        match self.unit {
            MaskingUnit::Span if budget == 0 => Vec::new(),
            MaskingUnit::Span => spans::select(&words, budget, stream),
            _ => within(self.shuffled(words, rate, stream), budget, self.no_minimum),
        }
    }

    /// Returns the words in random order, only those drawn one by one if the selection is [`Selection::Bernoulli`].
    fn shuffled(&self, mut words: Vec<Range<usize>>, rate: f64, stream: &mut Stream) -> Vec<Range<usize>> {
        if self.selection == Selection::Bernoulli {
            let drawn: Vec<Range<usize>> = words.iter().filter(|_| stream.uniform() < rate).cloned().collect();
            // If no word was drawn, a shuffle picks one of them all.
            if drawn.is_empty() && !self.no_minimum {
                stream.shuffle(&mut words);
                words.truncate(1);
            } else {
                words = drawn;
            }
        }
        stream.shuffle(&mut words);
        words
    }
}

/// Returns the first words with at most `budget` tokens together, or the shortest word if all are longer and some word must be
/// returned. A word that no
/// longer fits is skipped; a later, shorter one may fit.
fn within(mut words: Vec<Range<usize>>, mut budget: usize, may_be_none: bool) -> Vec<Range<usize>> {
    let shortest = words.iter().min_by_key(|word| word.len()).cloned();
    words.retain(|word| {
        let fits = word.len() <= budget;
        budget -= if fits { word.len() } else { 0 };
        fits
    });
    if words.is_empty() && !may_be_none {
        words.extend(shortest);
    }
    words
}

#[cfg(test)]
mod tests;
