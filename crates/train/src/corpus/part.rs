//! Sentences of a part of a corpus, and the document boundaries among them.

use super::sentences;

/// The sentences of a part of a corpus. Its last document may continue in the next part.
#[derive(Default)]
pub(super) struct TextPart {
    pub(super) text: String,
    /// The end of each sentence in `text`.
    pub(super) sentence_ends: Vec<usize>,
    /// The number of sentences before each document boundary; 0 if a document ends before the part.
    pub(super) document_ends: Vec<usize>,
}

impl TextPart {
    /// Splits prose into sentences.
    pub(super) fn of_prose(text: &str) -> TextPart {
        let mut part = TextPart::default();
        sentences::split_document(text, |sentence| part.push(sentence));
        part
    }

    /// Reads a sentence per line; a blank line ends a document.
    pub(super) fn of_lines(text: &str) -> TextPart {
        let mut part = TextPart::default();
        for line in text.lines() {
            match line.trim().is_empty() {
                true => part.end_document(),
                false => part.push(line),
            }
        }
        part
    }

    /// Appends a sentence, unless it is white space.
    pub(super) fn push(&mut self, sentence: &str) {
        let sentence = sentence.trim();
        if !sentence.is_empty() {
            self.text.push_str(sentence);
            self.sentence_ends.push(self.text.len());
        }
    }

    pub(super) fn end_document(&mut self) {
        if self.document_ends.last() != Some(&self.sentence_ends.len()) {
            self.document_ends.push(self.sentence_ends.len());
        }
    }

    pub(super) fn sentences(&self) -> impl Iterator<Item = &str> {
        let mut start = 0;
        self.sentence_ends.iter().map(move |&end| &self.text[std::mem::replace(&mut start, end)..end])
    }
}
