//! Long texts. They are encoded part by part, because the letters of a text with their places take fifty times its size. And of a
//! text of a hundred megabytes, truncation keeps a few hundred tokens: only these get their spelling and place, the rest is
//! counted.
//!
//! A part begins with a character that ends the word before it: a blank, a punctuation mark, a Chinese character. A text that has
//! none for longer than a part has a word there that no vocabulary knows, which is found without its letters.

use std::collections::HashMap;
use std::ops::Range;

use super::Inner;
use super::normalizer::is_mark;
use super::pipeline::Encoded;
use super::words::{Class, Words};

/// The length of a part that is encoded on its own, in bytes. In a shorter text, there is nothing to gain, except that fuzzing tries
/// more of them.
pub(super) const BYTES: usize = if cfg!(fuzzing) { 1 << 6 } else { 1 << 14 };

/// Encodes a text of which at most `most` tokens are kept, in parts of at least `bytes` bytes that end before a blank. The tokens
/// after the part that completes `most` are only counted.
pub(super) fn encode(inner: &Inner, text: &str, most: usize, bytes: usize) -> Encoded {
    let (mut encoded, mut parts) = (Encoded::default(), Parts::new(inner, text, bytes));
    while encoded.ids.len() < most
        && let Some(part) = parts.next()
    {
        encoded.append(part);
    }
    encoded.rest = inner.count(&text[parts.start..]);
    encoded
}

/// The parts of a text, each encoded when it is asked for. Offsets and words are those of the whole text.
pub(super) struct Parts<'t> {
    inner: &'t Inner,
    text: &'t str,
    bytes: usize,
    /// The text cut at its added tokens, once the first part is asked for.
    cuts: Option<Vec<(Option<u32>, Range<usize>)>>,
    /// The bytes, characters and words before the next part.
    start: usize,
    characters: usize,
    words: u32,
}

impl<'t> Parts<'t> {
    pub(super) fn new(inner: &'t Inner, text: &'t str, bytes: usize) -> Parts<'t> {
        Parts { inner, text, bytes, cuts: None, start: 0, characters: 0, words: 0 }
    }

    /// Returns the end of the next part.
    fn end(&mut self) -> usize {
        // Other tokenizers may join what a blank separates.
        if self.inner.words.is_none() || self.text.len() - self.start <= self.bytes {
            return self.text.len();
        }
        let added = self.inner.pipeline.added();
        self.cuts.get_or_insert_with(|| added.cut(self.text, false));
        places(self.text, self.least()..self.text.len()).find(|&place| self.ends(place)).unwrap_or(self.text.len())
    }

    /// The first place where the next part may end.
    fn least(&self) -> usize {
        let least = self.start + self.bytes.max(1);
        (least..self.text.len()).find(|&place| self.text.is_char_boundary(place)).unwrap_or(self.text.len())
    }

    /// Returns whether what is before a place and what is behind it can be encoded apart.
    fn ends(&self, place: usize) -> bool {
        let (Some(words), Some(cuts)) = (&self.inner.words, &self.cuts) else { return false };
        let Some((token, range)) = cuts.get(cuts.partition_point(|(_, range)| range.end <= place)) else {
            return false;
        };
        let next = self.text[place..].chars().next().unwrap_or(' ');
        if self.inner.pipeline.added().looks_around() {
            return token.is_none() && matches!(next, ' ' | '\t' | '\n' | '\r');
        }
        place == range.start || (token.is_none() && words.separates(next))
    }

    /// Encodes a part that has a long word at its end, without the letters of that.
    fn encode_long(&self, words: &Words, end: usize) -> Option<Encoded> {
        let (text, cuts) = (self.text, self.cuts.as_ref()?);
        let last =
            places(text, self.start + 1..self.least()).rev().find(|&place| self.ends(place)).unwrap_or(self.start);
        let in_token = cuts.iter().any(|(token, range)| token.is_some() && range.contains(&last));
        let separator = text[last..end].chars().next().filter(|&c| words.separates(c));
        let behind = last + separator.map_or(0, char::len_utf8);
        if in_token || self.inner.pipeline.added().looks_around() || text[behind..end].starts_with(is_mark) {
            return None;
        }
        let mut encoded = self.inner.pipeline.encode(&text[self.start..behind]);
        let mut word = long_word(self.inner, words, &text[behind..end]);
        word.shift(text[self.start..behind].chars().count(), encoded.words.last().map_or(0, |last| last + 1));
        encoded.append(word);
        Some(encoded)
    }
}

impl Iterator for Parts<'_> {
    type Item = Encoded;

    fn next(&mut self) -> Option<Encoded> {
        if self.start == self.text.len() {
            return None;
        }
        let end = self.end();
        let part = &self.text[self.start..end];
        let words = self.inner.words.as_ref().filter(|_| part.len() > 4 * self.bytes.max(1));
        let encoded = words.and_then(|words| self.encode_long(words, end));
        let mut encoded = encoded.unwrap_or_else(|| self.inner.pipeline.encode(part));
        encoded.shift(self.characters, self.words);
        self.start = end;
        self.characters += part.chars().count();
        self.words = encoded.words.last().map_or(self.words, |last| last + 1);
        Some(encoded)
    }
}

/// Returns the places of the characters of a part of a text.
fn places(text: &str, bytes: Range<usize>) -> impl DoubleEndedIterator<Item = usize> {
    let first = (bytes.start..bytes.end).find(|&place| text.is_char_boundary(place)).unwrap_or(bytes.end);
    text[first..bytes.end].char_indices().map(move |(at, _)| first + at)
}

/// Encodes a text without anything that ends a word.
fn long_word(inner: &Inner, words: &Words, text: &str) -> Encoded {
    let model = inner.pipeline.model();
    let (most, unknown) = model.pieces.limit();
    // The characters that normalization keeps, as far as a word may have them, and the last one.
    let (mut classes, mut kept, mut last) = (HashMap::new(), Vec::new(), 0);
    for (at, c) in text.chars().enumerate() {
        if *classes.entry(c).or_insert_with(|| words.class(c)) != Class::Dropped {
            last = at;
            if kept.len() <= most {
                kept.push((at, c));
            }
        }
    }
    if kept.len() > most {
        return Encoded::single(unknown, model.unknown.clone(), (kept[0].0, last + 1));
    }
    let mut encoded = inner.pipeline.encode(&kept.iter().map(|(_, c)| c).collect::<String>());
    for (start, end) in &mut encoded.offsets {
        (*start, *end) = (kept[*start].0, kept[*end - 1].0 + 1);
    }
    encoded
}

impl Inner {
    /// Appends the ids of a text to a vector.
    pub(super) fn ids_into(&self, text: &str, ids: &mut Vec<u32>) {
        self.each_word(text, ids, |_| ());
    }

    /// Returns the number of tokens of a text.
    pub(super) fn count(&self, text: &str) -> usize {
        let mut count = 0;
        self.each_word(text, &mut Vec::new(), |ids| count += ids.drain(..).len());
        count
    }

    /// Returns the positions of the tokens of a text that have this id.
    pub(super) fn positions(&self, text: &str, id: u32) -> Vec<usize> {
        let (mut positions, mut before) = (Vec::new(), 0);
        self.each_word(text, &mut Vec::new(), |ids| {
            positions.extend(ids.iter().enumerate().filter(|(_, other)| **other == id).map(|(at, _)| before + at));
            before += ids.drain(..).len();
        });
        positions
    }

    /// Appends the ids of each word of a text to a vector, and then calls `after` with it.
    fn each_word(&self, text: &str, ids: &mut Vec<u32>, mut after: impl FnMut(&mut Vec<u32>)) {
        let Some(words) = &self.words else {
            ids.extend(self.pipeline.encode(text).ids);
            return after(ids);
        };
        let mut word = String::new();
        for (token, bytes) in self.pipeline.added().cut(text, false) {
            match token {
                Some(id) => {
                    ids.push(id);
                    after(ids);
                }
                None => words.for_each(&text[bytes], &mut word, |word| {
                    self.pipeline.model().pieces.push(word, ids);
                    after(ids);
                }),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use proptest::prelude::*;

    use super::*;
    use crate::{Tokenizer, TrainOptions};

    fn tokenizer() -> Tokenizer {
        let lines = ["the cat sat on the mat", "a dog ran, and ran", "new york is a city"];
        Tokenizer::train(lines, 120, &TrainOptions::new()).unwrap()
    }

    proptest! {
        #[test]
        fn the_start_and_the_count_are_those_of_the_whole_text(
            text in "(the|cat|unseen|[a-z]{1,5}|[ \\n\\t\u{a0}]|[.,]|new york|new|\\[MASK\\]|\\[E\\]|e\u{301}|\u{301}|\\p{Han}){0,60}",
            most in 0usize..40,
            bytes in 0usize..60,
            adds in any::<bool>(),
        ) {
            static TOKENIZERS: LazyLock<[Tokenizer; 2]> =
                LazyLock::new(|| [tokenizer(), tokenizer().add_tokens(["new york", "[E]"]).unwrap()]);
            let tokenizer = &TOKENIZERS[usize::from(adds)];
            let (start, whole) = (encode(&tokenizer.inner, &text, most, bytes), tokenizer.inner.pipeline.encode(&text));
            let kept = start.ids.len();
            prop_assert_eq!(start.length(), whole.ids.len());
            prop_assert!(kept >= most.min(whole.ids.len()));
            prop_assert_eq!(&start.ids, &whole.ids[..kept]);
            prop_assert_eq!(&start.tokens, &whole.tokens[..kept]);
            prop_assert_eq!(&start.offsets, &whole.offsets[..kept]);
            prop_assert_eq!(&start.words, &whole.words[..kept]);
            let mut ids = Vec::new();
            tokenizer.inner.ids_into(&text, &mut ids);
            prop_assert_eq!(tokenizer.inner.count(&text), ids.len());
            let mask = tokenizer.mask_id();
            let masks: Vec<usize> = (0..ids.len()).filter(|&at| ids[at] == mask).collect();
            prop_assert_eq!(tokenizer.inner.positions(&text, mask), masks);
            prop_assert_eq!(ids, whole.ids);
        }
    }

    #[test]
    fn long_words_are_unknown() {
        let added = tokenizer().add_tokens(["new york", "[E]"]).unwrap();
        for tokenizer in [tokenizer(), added] {
            for word in ["a", "\u{3042}", "\u{e4}", "e\u{301}", "\u{1}", "\u{1}x\u{7}", "\u{1}catcat\u{200d}"] {
                for (before, after) in
                    [("", ""), ("the.", ".cat"), ("\u{6f22}", "\u{6f22}"), (" ", " "), ("the[MASK]", "[E] the")]
                {
                    for times in [1, 30, 200] {
                        let text = format!("{before}{}{after}", word.repeat(times));
                        let (parts, whole) =
                            (encode(&tokenizer.inner, &text, 999, 3), tokenizer.inner.pipeline.encode(&text));
                        assert_eq!(
                            (parts.ids, parts.tokens, parts.offsets, parts.words),
                            (whole.ids, whole.tokens, whole.offsets, whole.words),
                            "{text:?}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn a_long_text_is_cut() {
        let (tokenizer, text) = (tokenizer(), "the cat sat ".repeat(10_000));
        let start = encode(&tokenizer.inner, &text, 512, BYTES);
        assert_eq!(start.length(), 30_000);
        assert!(start.ids.len() < 5_000, "{}", start.ids.len());
    }
}
