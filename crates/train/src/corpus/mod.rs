//! A corpus: documents of sentences, in order.
//!
//! The sentences are stored in one string without separators, with the end of each sentence and document in two lists. A
//! corpus in memory therefore takes the bytes of its text plus eight bytes per sentence.

mod assemble;
mod cached;
mod content;
mod files;
mod form;
mod json_text;
mod part;
mod pieces;
mod progress;
mod sentences;
mod shards;
mod source;
mod store;
mod tokenized;
mod zstandard;

use std::ops::Range;

pub use files::CorpusFiles;
pub use part::DroppedTexts;
use part::TextPart;
pub use shards::{CacheTrim, CorpusStatistics, LengthStatistics, ShardOptions, Shards, trim_cache};
pub use tokenized::TokenizedCorpus;
#[cfg(test)]
pub(crate) use tokenized::tests::numbered;

use crate::{Error, Result};

/// Documents of sentences, in order. There is at least one document, and every document has a sentence.
///
/// ```
/// use cloze_train::Corpus;
/// let corpus = Corpus::from_documents(vec![vec!["the cat sat.".into(), "it slept.".into()]])?;
/// assert_eq!((corpus.document_count(), corpus.sentence_count()), (1, 2));
/// assert_eq!(corpus.sentences().nth(1), Some("it slept."));
/// # Ok::<(), cloze_train::Error>(())
/// ```
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Corpus {
    text: String,
    /// The end of each sentence in `text`, which is the start of the next one.
    sentence_ends: Vec<usize>,
    /// The end of each document, counted in sentences.
    document_ends: Vec<usize>,
}

impl Corpus {
    /// Makes a corpus of documents given as lists of sentences. Blank sentences and documents without a sentence are
    /// dropped.
    ///
    /// # Errors
    /// Returns an error if no sentence is left.
    pub fn from_documents(documents: Vec<Vec<String>>) -> Result<Corpus> {
        let mut corpus = Corpus::default();
        for document in &documents {
            let mut part = TextPart::default();
            document.iter().for_each(|sentence| part.push(sentence));
            corpus.append(&part);
            corpus.end_document();
        }
        corpus.not_empty().ok_or_else(|| Error::data("corpus", "has no sentence"))
    }

    /// Makes a corpus of documents given as prose, with blank lines between paragraphs. They are split into sentences as
    /// [`Corpus::open`] does for the files of a folder.
    ///
    /// # Errors
    /// Returns an error if there is no sentence.
    pub fn from_prose(documents: &[impl AsRef<str>]) -> Result<Corpus> {
        let mut corpus = Corpus::default();
        for document in documents {
            let document = document.as_ref();
            corpus.append(&TextPart::of_prose(document.strip_prefix('\u{feff}').unwrap_or(document)));
            corpus.end_document();
        }
        corpus.not_empty().ok_or_else(|| Error::data("corpus", "has no sentence"))
    }

    /// Returns the number of documents.
    pub fn document_count(&self) -> usize {
        self.document_ends.len()
    }

    /// Returns the number of sentences in all documents.
    pub fn sentence_count(&self) -> usize {
        self.sentence_ends.len()
    }

    /// Returns the number of bytes of all sentences.
    pub fn byte_count(&self) -> usize {
        self.text.len()
    }

    /// Returns the documents in order.
    pub fn documents(&self) -> impl ExactSizeIterator<Item = Document<'_>> {
        (0..self.document_count()).map(|index| Document { corpus: self, sentences: span(&self.document_ends, index) })
    }

    /// Returns the sentences of all documents in order.
    pub fn sentences(&self) -> impl ExactSizeIterator<Item = &str> {
        (0..self.sentence_count()).map(|index| self.sentence(index))
    }

    fn sentence(&self, index: usize) -> &str {
        &self.text[span(&self.sentence_ends, index)]
    }

    fn end_document(&mut self) {
        if self.document_ends.last().copied().unwrap_or(0) < self.sentence_ends.len() {
            self.document_ends.push(self.sentence_ends.len());
        }
    }

    fn append(&mut self, part: &TextPart) {
        let (bytes, sentences) = (self.text.len(), self.sentence_ends.len());
        self.text.push_str(&part.text);
        self.sentence_ends.extend(part.sentence_ends.iter().map(|end| end + bytes));
        for end in part.document_ends.iter().map(|end| end + sentences) {
            if self.document_ends.last().copied().unwrap_or(0) < end {
                self.document_ends.push(end);
            }
        }
    }

    fn not_empty(self) -> Option<Corpus> {
        (!self.sentence_ends.is_empty()).then_some(self)
    }
}

impl std::fmt::Debug for Corpus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (documents, sentences) = (self.document_count(), self.sentence_count());
        write!(f, "Corpus({documents} documents, {sentences} sentences, {} bytes)", self.byte_count())
    }
}

/// A document of a [`Corpus`].
#[derive(Clone, Debug)]
pub struct Document<'a> {
    corpus: &'a Corpus,
    sentences: Range<usize>,
}

impl<'a> Document<'a> {
    /// Returns the number of sentences, at least one.
    pub fn sentence_count(&self) -> usize {
        self.sentences.len()
    }

    /// Returns the sentences in order.
    pub fn sentences(&self) -> impl ExactSizeIterator<Item = &'a str> + use<'a> {
        let corpus = self.corpus;
        self.sentences.clone().map(move |index| corpus.sentence(index))
    }
}

/// Returns the range of item `index`, given the ends of adjacent items.
fn span(ends: &[usize], index: usize) -> Range<usize> {
    let start = if index == 0 { 0 } else { ends[index - 1] };
    start..ends[index]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_keep_their_sentences() {
        let given = vec![vec!["a b.".to_string(), "  ".into(), " c. ".into()], vec![], vec!["d.".into()]];
        let corpus = Corpus::from_documents(given).unwrap();
        let read: Vec<Vec<&str>> = corpus.documents().map(|document| document.sentences().collect()).collect();
        assert_eq!(read, [vec!["a b.", "c."], vec!["d."]]);
        assert_eq!(corpus.documents().map(|document| document.sentence_count()).collect::<Vec<_>>(), [2, 1]);
        assert_eq!(corpus.sentences().collect::<Vec<_>>(), ["a b.", "c.", "d."]);
        assert_eq!(corpus.byte_count(), 8);
    }

    #[test]
    fn an_empty_corpus_is_refused() {
        for documents in [vec![], vec![vec![]], vec![vec![" \n".to_string()]]] {
            assert_eq!(Corpus::from_documents(documents).unwrap_err().to_string(), "corpus: has no sentence");
        }
        assert_eq!(Corpus::from_prose(&["\n\n"]).unwrap_err().to_string(), "corpus: has no sentence");
    }
}
