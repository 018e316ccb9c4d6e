//! Indexing a text by characters.

/// A text that is indexed by characters.
pub(super) struct Characters<'t> {
    text: &'t str,
    /// The byte offset of each character.
    starts: Vec<usize>,
}

impl<'t> Characters<'t> {
    pub(super) fn new(text: &'t str) -> Characters<'t> {
        Characters { text, starts: text.char_indices().map(|(byte, _)| byte).collect() }
    }

    /// Returns the characters `start..end`.
    pub(super) fn part(&self, start: usize, end: usize) -> &'t str {
        let byte = |character: usize| self.starts.get(character).copied().unwrap_or(self.text.len());
        self.text.get(byte(start)..byte(end)).unwrap_or_default()
    }
}
