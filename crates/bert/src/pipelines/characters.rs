//! Indexing a text by characters.

/// The number of characters between two whose bytes are known.
const STEP: usize = 64;

/// A text that is indexed by characters.
pub(super) struct Characters<'t> {
    text: &'t str,
    /// The byte offset of each [`STEP`]th character.
    starts: Vec<usize>,
}

impl<'t> Characters<'t> {
    pub(super) fn new(text: &'t str) -> Characters<'t> {
        Characters { text, starts: text.char_indices().step_by(STEP).map(|(byte, _)| byte).collect() }
    }

    /// Returns the characters `start..end`.
    pub(super) fn part(&self, start: usize, end: usize) -> &'t str {
        self.text.get(self.byte(start)..self.byte(end)).unwrap_or_default()
    }

    fn byte(&self, character: usize) -> usize {
        let Some(&start) = self.starts.get(character / STEP) else { return self.text.len() };
        let behind = self.text[start..].char_indices().nth(character % STEP);
        behind.map_or(self.text.len(), |(byte, _)| start + byte)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_those_of_the_characters() {
        let text = "aé中😀 ".repeat(40);
        let (characters, all) = (Characters::new(&text), text.chars().collect::<Vec<_>>());
        for start in 0..=all.len() {
            for end in start..=all.len() {
                assert!(characters.part(start, end).chars().eq(all[start..end].iter().copied()), "{start}..{end}");
            }
        }
        assert_eq!((characters.part(198, 999).chars().count(), characters.part(999, 1000)), (2, ""));
    }
}
