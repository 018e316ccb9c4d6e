//! Long texts. They are encoded part by part, because the letters of a text with their places take fifty times its size. And of a
//! text of a hundred megabytes, truncation keeps a few hundred tokens: only these get their spelling and place, the rest is
//! counted.

use std::ops::Range;

use super::Inner;
use super::pipeline::Encoded;

/// The length of a part that is encoded on its own, in bytes. In a shorter text, there is nothing to gain, except that fuzzing tries
/// more of them.
pub(super) const BYTES: usize = if cfg!(fuzzing) { 1 << 6 } else { 1 << 14 };

/// Encodes a text of which at most `most` tokens are kept, in parts of at least `bytes` bytes that end before a blank. The tokens
/// after the part that completes `most` are only counted.
pub(super) fn encode(inner: &Inner, text: &str, most: usize, bytes: usize) -> Encoded {
    // Other tokenizers may join what a blank separates.
    if inner.words.is_none() || text.len() <= bytes {
        return inner.pipeline.encode(text);
    }
    let parts = inner.pipeline.added().cut(text, false);
    let (mut encoded, mut start, mut characters) = (Encoded::default(), 0, 0);
    while start < text.len() {
        if start > 0 && encoded.ids.len() >= most {
            let mut rest = Vec::new();
            inner.ids_into(&text[start..], &mut rest);
            encoded.rest = rest.len();
            break;
        }
        // A part begins with the blank that ended the one before.
        let end = blank(text, &parts, start + bytes.max(1)).unwrap_or(text.len());
        let part = &text[start..end];
        encoded.append(inner.pipeline.encode(part), characters);
        characters += part.chars().count();
        start = end;
    }
    encoded
}

/// Returns the first place of a blank at `bytes` or later that no added token contains.
fn blank(text: &str, parts: &[(Option<u32>, Range<usize>)], bytes: usize) -> Option<usize> {
    let behind = text.as_bytes().get(bytes..)?;
    let blanks = behind.iter().enumerate().filter(|(_, byte)| matches!(byte, b' ' | b'\t' | b'\n' | b'\r'));
    blanks.map(|(at, _)| bytes + at).find(|&place| {
        let part = parts.partition_point(|(_, range)| range.end <= place);
        parts.get(part).is_some_and(|(token, _)| token.is_none())
    })
}

impl Inner {
    /// Appends the ids of a text to a vector.
    pub(super) fn ids_into(&self, text: &str, ids: &mut Vec<u32>) {
        let Some(words) = &self.words else {
            ids.extend(self.pipeline.encode(text).ids);
            return;
        };
        let mut word = String::new();
        for (token, bytes) in self.pipeline.added().cut(text, false) {
            match token {
                Some(id) => ids.push(id),
                None => words.for_each(&text[bytes], &mut word, |word| self.pipeline.model().pieces.push(word, ids)),
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
            prop_assert_eq!(ids, whole.ids);
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
