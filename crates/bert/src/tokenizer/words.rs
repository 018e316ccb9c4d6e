//! Fast splitting of text into normalized words.
//!
//! The complete normalization and split track where each character came from, which a corpus does not need. Without
//! combining marks, a string can be normalized character by character. So each character of two Unicode ranges without
//! combining marks is normalized once, into a table, and text in these ranges needs one look-up per character. Other text
//! takes the complete path.

use std::ops::Range;

use super::normalizer::{BertNormalizer, aligned, is_mark};
use super::pre_tokenizer::PreTokenizer;

/// Latin, IPA and spacing modifiers, up to the first combining mark.
const LOW: Range<u32> = 0..0x300;
/// General punctuation: dashes, quotation marks, ellipsis, special blanks.
const HIGH: Range<u32> = 0x2000..0x2070;

/// The bytes of a text that take the complete path at once, which needs fifty times as much memory.
const BLOCK: usize = if cfg!(any(test, fuzzing)) { 1 << 4 } else { 1 << 14 };

/// The effect of normalization and splitting on a character.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    /// It is removed.
    Dropped,
    /// It ends a word.
    Blank,
    /// It is a separate word.
    Punctuation,
    /// It is part of a word.
    Letter,
    /// It is not in the table.
    Unknown,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    class: Class,
    /// The number of bytes of `text` in use.
    length: u8,
    /// The replacement of the character, in UTF-8.
    text: [u8; 6],
}

/// Splits text into normalized words.
pub(super) struct Words {
    normalizer: BertNormalizer,
    low: Vec<Entry>,
    high: Vec<Entry>,
}

impl Words {
    pub(super) fn new(normalizer: BertNormalizer) -> Words {
        let table = |range: Range<u32>| range.map(|code| entry(&normalizer, code)).collect();
        Words { normalizer, low: table(LOW), high: table(HIGH) }
    }

    #[inline]
    fn entry(&self, c: char) -> Option<&Entry> {
        let code = c as u32;
        let entry = self.low.get(code as usize).or_else(|| self.high.get(code.wrapping_sub(HIGH.start) as usize))?;
        (entry.class != Class::Unknown).then_some(entry)
    }

    /// Calls `each` with every normalized word of `text`, in order. `word` is a buffer that is reused.
    pub(super) fn for_each(&self, text: &str, word: &mut String, mut each: impl FnMut(&str)) {
        for chunk in text.split([' ', '\t', '\n', '\r']).filter(|chunk| !chunk.is_empty()) {
            if chunk.is_ascii() || chunk.chars().all(|c| self.entry(c).is_some()) {
                self.by_table(chunk, word, &mut each);
            } else if chunk.len() <= BLOCK {
                split(&self.normalizer, chunk).iter().for_each(|word| each(word));
            } else {
                self.completely(chunk, word, &mut each);
            }
        }
    }

    /// Returns the effect of any character.
    pub(super) fn class(&self, c: char) -> Class {
        self.entry(c).map_or_else(|| entry(&self.normalizer, c.into()).class, |entry| entry.class)
    }

    /// Returns whether a character ends the word before it, whatever follows.
    pub(super) fn separates(&self, c: char) -> bool {
        matches!(self.class(c), Class::Blank | Class::Punctuation)
    }

    /// Splits a text by the complete path, in blocks that begin with a character that does not combine with the one before.
    fn completely(&self, chunk: &str, word: &mut String, each: &mut impl FnMut(&str)) {
        word.clear();
        let mut rest = chunk;
        while !rest.is_empty() {
            let end = rest.char_indices().find(|(at, c)| *at >= BLOCK && !is_mark(*c)).map_or(rest.len(), |(at, _)| at);
            // A letter on each side shows whether the words at the ends go on in the blocks around.
            let words = split(&self.normalizer, &format!("x{}x", &rest[..end]));
            for (at, part) in words.iter().enumerate() {
                let (first, last) = (at == 0, at + 1 == words.len());
                if !first && !word.is_empty() {
                    each(word);
                    word.clear();
                }
                word.push_str(&part[usize::from(first)..part.len() - usize::from(last)]);
            }
            rest = &rest[end..];
        }
        if !word.is_empty() {
            each(word);
        }
    }

    fn by_table(&self, chunk: &str, word: &mut String, each: &mut impl FnMut(&str)) {
        word.clear();
        for c in chunk.chars() {
            let Some(entry) = self.entry(c) else { continue };
            // Always valid, because `entry` copied the bytes from a string.
            let text = std::str::from_utf8(&entry.text[..entry.length as usize]).unwrap_or_default();
            match entry.class {
                Class::Letter => word.push_str(text),
                Class::Dropped | Class::Unknown => {}
                Class::Blank | Class::Punctuation => {
                    if !word.is_empty() {
                        each(word);
                        word.clear();
                    }
                    if entry.class == Class::Punctuation {
                        each(text);
                    }
                }
            }
        }
        if !word.is_empty() {
            each(word);
        }
    }
}

/// Returns the normalized words of a text by the complete path.
fn split(normalizer: &BertNormalizer, text: &str) -> Vec<String> {
    let mut letters = aligned(text);
    normalizer.normalize(&mut letters);
    let whole = 0..letters.len();
    let words = PreTokenizer::BertPreTokenizer.split(&letters, vec![whole]);
    words.into_iter().map(|word| letters[word].iter().map(|letter| letter.c).collect()).collect()
}

/// Computes the entry of a character by splitting it between two letters `x`.
fn entry(normalizer: &BertNormalizer, code: u32) -> Entry {
    let unknown = Entry { class: Class::Unknown, length: 0, text: [0; 6] };
    let Some(c) = char::from_u32(code) else { return unknown };
    let words = split(normalizer, &format!("x{c}x"));
    let (class, text) = match words.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["xx"] => (Class::Dropped, ""),
        ["x", "x"] => (Class::Blank, ""),
        ["x", mark, "x"] => (Class::Punctuation, *mark),
        [word] => (Class::Letter, word.get(1..word.len() - 1).unwrap_or_default()),
        _ => return unknown,
    };
    let mut entry = Entry { class, ..unknown };
    let Some(room) = entry.text.get_mut(..text.len()) else { return unknown };
    room.copy_from_slice(text.as_bytes());
    entry.length = text.len() as u8;
    entry
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bert(lowercase: bool, strip_accents: Option<bool>) -> BertNormalizer {
        BertNormalizer { clean_text: true, handle_chinese_chars: true, strip_accents, lowercase }
    }

    fn both(normalizer: BertNormalizer, text: &str) -> (Vec<String>, Vec<String>) {
        let mut fast = Vec::new();
        Words::new(normalizer).for_each(text, &mut String::new(), |word| fast.push(word.to_string()));
        (fast, split(&normalizer, text))
    }

    #[test]
    fn accents_punctuation_blanks_and_controls() {
        let (fast, slow) = both(bert(true, None), "Ação:\u{a0}“É\u{200d} o  fim”…\u{7}\u{b}s\u{85}");
        assert_eq!(fast, slow);
        assert_eq!(fast, ["acao", ":", "“", "e", "o", "fim", "”", "…", "s"]);
    }

    #[test]
    fn blocks_are_joined() {
        for text in
            ["ä".repeat(50), "か".repeat(50), "が、".repeat(20), "e\u{301}\u{327}".repeat(30), "\u{301}".repeat(40)]
        {
            for (lowercase, accents) in [(true, None), (false, None), (false, Some(true))] {
                let (fast, slow) = both(bert(lowercase, accents), &text);
                assert_eq!(fast, slow, "{text}");
            }
        }
    }

    #[test]
    fn every_character_of_the_ranges_has_an_entry() {
        for lowercase in [true, false] {
            let words = Words::new(bert(lowercase, None));
            let unknown = words.low.iter().chain(&words.high).filter(|entry| entry.class == Class::Unknown).count();
            assert_eq!(unknown, 0);
        }
    }

    proptest! {
        #[test]
        fn equals_the_complete_path(
            text in "([a-zA-Z]|[\\u{0}-\\u{2ff}]|[\\u{300}-\\u{36f}]|[\\u{2000}-\\u{206f}]|[ \\n.,]|\\PC|\\p{Han}|\\p{Hangul}){0,40}",
            lowercase in any::<bool>(),
            accents in any::<Option<bool>>(),
        ) {
            let (fast, slow) = both(bert(lowercase, accents), &text);
            prop_assert_eq!(fast, slow);
        }
    }
}
