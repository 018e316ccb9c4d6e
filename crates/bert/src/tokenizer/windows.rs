//! The windows of a text of any length, made one by one.

use super::encoding::{Frame, Layout, Tokens};
use super::start::{self, Parts};
use super::{EncodeOptions, Encoding, Tokenizer};
use crate::Result;

/// The windows of a text or of a pair of texts: see [`Tokenizer::windows`].
pub struct Windows<'t> {
    frame: Frame<'t>,
    layout: Layout,
    texts: Vec<Tokens<'t>>,
    next: usize,
}

impl Tokenizer {
    /// Returns what [`encode_with`](Tokenizer::encode_with) returns, but one window after the other, each made when it is
    /// asked for. Only the tokens of a window and a few thousand more are in memory, however long the text is.
    ///
    /// ```
    /// use cloze_bert::{EncodeOptions, Tokenizer, TrainOptions, Truncation};
    /// let tokenizer = Tokenizer::train(["the cat sat on the mat"], 60, &TrainOptions::new())?;
    /// let options = EncodeOptions::new().max_length(16).truncation(Truncation::OnlySecond).stride(4);
    /// let book = "the cat sat on the mat ".repeat(100);
    /// for window in tokenizer.windows("the cat sat", Some(&book), &options)? {
    ///     assert!(window.len() <= 16);
    /// }
    /// # Ok::<(), cloze_bert::Error>(())
    /// ```
    ///
    /// # Errors
    /// Returns an error like [`encode_with`](Tokenizer::encode_with).
    pub fn windows<'t>(
        &'t self,
        text: &'t str,
        second: Option<&'t str>,
        options: &EncodeOptions,
    ) -> Result<Windows<'t>> {
        let lengths: Vec<usize> = [Some(text), second].into_iter().flatten().map(|text| self.count(text)).collect();
        let layout = Layout::new(&lengths, self.max_length, options)?;
        Ok(self.windows_of(text, second, layout, options))
    }

    /// Returns the windows of texts that are laid out already.
    pub(crate) fn windows_of<'t>(
        &'t self,
        text: &'t str,
        second: Option<&'t str>,
        layout: Layout,
        options: &EncodeOptions,
    ) -> Windows<'t> {
        let texts = [Some(text), second].into_iter().flatten().enumerate();
        let tokens = |(at, text)| Tokens::none(Parts::new(&self.inner, text, start::BYTES), options, at);
        Windows { frame: self.frame(), layout, texts: texts.map(tokens).collect(), next: 0 }
    }

    /// Returns the number of tokens of a text of any length, without special tokens.
    pub(crate) fn count(&self, text: &str) -> usize {
        self.inner.count(text)
    }

    /// Returns the positions of the tokens of a text, without special tokens, that have this id.
    pub(crate) fn positions(&self, text: &str, id: u32) -> Vec<usize> {
        self.inner.positions(text, id)
    }

    pub(super) fn frame(&self) -> Frame<'_> {
        let (names, ids) = (&self.inner.names, &self.inner.ids);
        let typed = self.inner.source.has_token_types();
        Frame { cls: (&names.cls, ids.cls), sep: (&names.sep, ids.sep), typed }
    }
}

impl Windows<'_> {
    /// Returns the next window. The further ones of [`encode_with`](Tokenizer::encode_with) are in `overflowing`, which is empty
    /// here.
    fn make(&mut self) -> Option<Encoding> {
        let number = self.next;
        self.next += 1;
        (number < self.layout.count()).then(|| self.layout.encoding(&self.frame, &mut self.texts, number))
    }
}

impl Iterator for Windows<'_> {
    type Item = Encoding;

    fn next(&mut self) -> Option<Encoding> {
        self.nth(0)
    }

    /// Skips windows without making them.
    fn nth(&mut self, skipped: usize) -> Option<Encoding> {
        self.next = self.next.saturating_add(skipped).min(self.layout.count());
        self.make()
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = self.layout.count().saturating_sub(self.next);
        (left, Some(left))
    }
}

impl ExactSizeIterator for Windows<'_> {}
