//! Indexing a text by characters.

use std::ops::Range;

/// The number of characters between two whose bytes are known.
const STEP: usize = 64;

/// A text that is indexed by characters.
pub(crate) struct Characters<'t> {
    text: &'t str,
    /// The byte offset of each [`STEP`]th character.
    starts: Vec<usize>,
}

impl<'t> Characters<'t> {
    pub(crate) fn new(text: &'t str) -> Characters<'t> {
        Characters { text, starts: text.char_indices().step_by(STEP).map(|(byte, _)| byte).collect() }
    }

    /// Returns the bytes of the characters `start..end`, as far as the text has them.
    pub(crate) fn bytes(&self, start: usize, end: usize) -> Range<usize> {
        let byte = |character| self.byte(character).unwrap_or(self.text.len());
        let start = byte(start);
        start..byte(end).max(start)
    }

    /// Returns the characters `start..end`, as far as the text has them.
    pub(crate) fn part(&self, start: usize, end: usize) -> &'t str {
        &self.text[self.bytes(start, end)]
    }

    /// Returns the byte offset of a character, or of the end of the text. `None` if the text is shorter.
    pub(crate) fn byte(&self, character: usize) -> Option<usize> {
        let block = (character / STEP).min(self.starts.len().saturating_sub(1));
        let start = self.starts.get(block).copied().unwrap_or(0);
        let mut ends = self.text[start..].char_indices().map(|(byte, _)| byte).chain([self.text.len() - start]);
        ends.nth(character - block * STEP).map(|byte| start + byte)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_those_of_the_characters() {
        for text in ["aé中😀 ".repeat(40), "e\u{301}".repeat(32), "é".repeat(64), String::new()] {
            let (characters, all) = (Characters::new(&text), text.chars().collect::<Vec<_>>());
            for start in 0..=all.len() {
                for end in start..=all.len() {
                    assert!(characters.part(start, end).chars().eq(all[start..end].iter().copied()), "{start}..{end}");
                    assert_eq!(&text[characters.bytes(start, end)], characters.part(start, end));
                }
            }
            assert_eq!((characters.byte(all.len()), characters.byte(all.len() + 1)), (Some(text.len()), None));
            assert_eq!((characters.part(all.len(), 999), characters.part(999, 1000)), ("", ""));
            assert_eq!(characters.byte(9999), None);
        }
    }
}
