//! Sentences of a part of a corpus, and the document boundaries among them.

use serde::{Deserialize, Serialize};

use super::sentences;

/// The number of texts in JSON Lines and Parquet files that are no documents, by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct DroppedTexts {
    /// Texts without a sentence. Files of prose that are blank count too.
    pub blank: u64,
    /// Texts that are `null`.
    pub null: u64,
    /// Texts of Parquet files that are not UTF-8. In other files, this is an error.
    pub not_utf8: u64,
}

impl DroppedTexts {
    pub(super) fn add(&mut self, other: DroppedTexts) {
        self.blank += other.blank;
        self.null += other.null;
        self.not_utf8 += other.not_utf8;
    }
}

/// The sentences of a part of a corpus. Its last document may continue in the next part.
#[derive(Default)]
pub(super) struct TextPart {
    pub(super) text: String,
    /// The end of each sentence in `text`.
    pub(super) sentence_ends: Vec<usize>,
    /// The number of sentences before each document boundary; 0 if a document ends before the part.
    pub(super) document_ends: Vec<usize>,
    pub(super) dropped: DroppedTexts,
    /// The number of bytes that the part was read from, after decompression.
    pub(super) read_bytes: u64,
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

    /// Appends a whole document of prose.
    pub(super) fn push_document(&mut self, text: &str) {
        let before = self.sentence_ends.len();
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        sentences::split_document(text, |sentence| self.push(sentence));
        match self.sentence_ends.len() > before {
            true => self.end_document(),
            false => self.dropped.blank += 1,
        }
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
