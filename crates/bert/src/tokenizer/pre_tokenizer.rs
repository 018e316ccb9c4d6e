//! Splitting a normalized text into words.

use std::ops::Range;

use serde::{Deserialize, Serialize};
use unicode_categories::UnicodeCategories;
use unicode_normalization_alignments::char::is_combining_mark;

use super::normalizer::Aligned;

/// The `pre_tokenizer` of a `tokenizer.json`, which splits a text into words: the types that BERT models use.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "type")]
#[allow(clippy::enum_variant_names, reason = "the names of tokenizer.json")]
pub(super) enum PreTokenizer {
    /// Splits at blanks; each punctuation mark is a word.
    BertPreTokenizer,
    /// Splits at blanks, and between runs of word characters and runs of others.
    Whitespace,
    /// Splits at blanks only.
    WhitespaceSplit,
    /// Each punctuation mark is a word.
    Punctuation {
        #[serde(default)]
        behavior: Behavior,
    },
    Sequence {
        pretokenizers: Vec<PreTokenizer>,
    },
}

/// How a split treats a punctuation mark.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(super) enum Behavior {
    #[default]
    Isolated,
    Removed,
}

/// The part of a character in a split.
#[derive(PartialEq, Eq)]
enum Part {
    Blank,
    Isolated,
    /// Runs of letters of one kind stay together.
    Letter(u8),
}

impl PreTokenizer {
    /// Splits each of `words`, ranges of `text`, into smaller ones.
    pub(super) fn split(&self, text: &[Aligned], words: Vec<Range<usize>>) -> Vec<Range<usize>> {
        let part: fn(char) -> Part = match self {
            PreTokenizer::Sequence { pretokenizers } => {
                return pretokenizers.iter().fold(words, |words, next| next.split(text, words));
            }
            PreTokenizer::BertPreTokenizer => |c| match c {
                c if c.is_whitespace() => Part::Blank,
                c if is_punctuation(c) => Part::Isolated,
                _ => Part::Letter(0),
            },
            PreTokenizer::Whitespace => |c| match c {
                c if c.is_whitespace() => Part::Blank,
                c => Part::Letter(u8::from(is_word(c))),
            },
            PreTokenizer::WhitespaceSplit => |c| if c.is_whitespace() { Part::Blank } else { Part::Letter(0) },
            PreTokenizer::Punctuation { behavior: Behavior::Isolated } => {
                |c| if is_punctuation(c) { Part::Isolated } else { Part::Letter(0) }
            }
            PreTokenizer::Punctuation { behavior: Behavior::Removed } => {
                |c| if is_punctuation(c) { Part::Blank } else { Part::Letter(0) }
            }
        };
        let mut split = Vec::with_capacity(words.len());
        words.into_iter().for_each(|word| split_word(text, word, part, &mut split));
        split
    }
}

fn split_word(text: &[Aligned], word: Range<usize>, part: fn(char) -> Part, split: &mut Vec<Range<usize>>) {
    let mut before = Part::Blank;
    for at in word {
        let here = part(text[at].c);
        match &here {
            Part::Blank => {}
            Part::Letter(_) if here == before => {
                if let Some(last) = split.last_mut() {
                    last.end = at + 1;
                }
            }
            Part::Letter(_) | Part::Isolated => split.push(at..at + 1),
        }
        before = here;
    }
}

/// Returns whether a character is punctuation to BERT: Unicode's, and every ASCII symbol.
fn is_punctuation(c: char) -> bool {
    c.is_ascii_punctuation() || c.is_punctuation()
}

/// Returns whether a character is one of `\w` in a regular expression. Combining marks that Unicode added after the
/// tokenizer's tables were made are not.
pub(super) fn is_word(c: char) -> bool {
    c.is_alphabetic()
        || c.is_number_decimal_digit()
        || c.is_punctuation_connector()
        || c.is_mark()
        || is_combining_mark(c)
        || matches!(c, '\u{200c}' | '\u{200d}')
}
