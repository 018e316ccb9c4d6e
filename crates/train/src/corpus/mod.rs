//! A corpus: documents of sentences, in order.
//!
//! All text lies in one string, the sentences one after the other without anything between them; two lists
//! of ends say where sentences and documents stop. So a corpus takes the bytes of its text and eight bytes a
//! sentence, whatever the sentences' number.

mod assemble;
mod cache_file;
mod cached;
mod content;
mod files;
mod pieces;
mod progress;
mod sentences;
mod store;
mod tokenized;

use std::ops::Range;

pub use files::CorpusFiles;
use pieces::Part;
pub use tokenized::TokenizedCorpus;
#[cfg(test)]
pub(crate) use tokenized::tests::numbered;

use crate::{Error, Result};

/// Documents of sentences, in order. There is at least one document, and none without a sentence.
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
    /// Where each sentence ends in `text`; it begins where the one before ends.
    sentence_ends: Vec<usize>,
    /// Where each document ends, counted in sentences.
    document_ends: Vec<usize>,
}

impl Corpus {
    /// Documents given as lists of sentences. Sentences of white space and documents without a sentence are
    /// left out.
    ///
    /// # Errors
    /// When no sentence is left.
    pub fn from_documents(documents: Vec<Vec<String>>) -> Result<Corpus> {
        let mut corpus = Corpus::default();
        for document in &documents {
            document.iter().for_each(|sentence| corpus.push_sentence(sentence));
            corpus.end_document();
        }
        corpus.not_empty().ok_or_else(|| Error::data("corpus", "has no sentence"))
    }

    /// Documents given as prose: paragraphs with blank lines between them, which are split into sentences as
    /// [`Corpus::open`] splits the files of a folder.
    ///
    /// # Errors
    /// When no sentence is found.
    pub fn from_prose(documents: &[impl AsRef<str>]) -> Result<Corpus> {
        let mut corpus = Corpus::default();
        for document in documents {
            let document = document.as_ref();
            corpus.append(&Part::of_prose(document.strip_prefix('\u{feff}').unwrap_or(document)));
            corpus.end_document();
        }
        corpus.not_empty().ok_or_else(|| Error::data("corpus", "has no sentence"))
    }

    /// The number of documents.
    pub fn document_count(&self) -> usize {
        self.document_ends.len()
    }

    /// The number of sentences in all documents.
    pub fn sentence_count(&self) -> usize {
        self.sentence_ends.len()
    }

    /// The number of bytes of all sentences.
    pub fn byte_count(&self) -> usize {
        self.text.len()
    }

    /// The documents in order.
    pub fn documents(&self) -> impl ExactSizeIterator<Item = Document<'_>> {
        (0..self.document_count()).map(|index| Document { corpus: self, sentences: span(&self.document_ends, index) })
    }

    /// The sentences of all documents in order.
    pub fn sentences(&self) -> impl ExactSizeIterator<Item = &str> {
        (0..self.sentence_count()).map(|index| self.sentence(index))
    }

    fn sentence(&self, index: usize) -> &str {
        &self.text[span(&self.sentence_ends, index)]
    }

    fn push_sentence(&mut self, sentence: &str) {
        let sentence = sentence.trim();
        if !sentence.is_empty() {
            self.text.push_str(sentence);
            self.sentence_ends.push(self.text.len());
        }
    }

    fn end_document(&mut self) {
        if self.document_ends.last().copied().unwrap_or(0) < self.sentence_ends.len() {
            self.document_ends.push(self.sentence_ends.len());
        }
    }

    fn append(&mut self, part: &Part) {
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
    /// The number of sentences, at least one.
    pub fn sentence_count(&self) -> usize {
        self.sentences.len()
    }

    /// The sentences in order.
    pub fn sentences(&self) -> impl ExactSizeIterator<Item = &'a str> + use<'a> {
        let corpus = self.corpus;
        self.sentences.clone().map(move |index| corpus.sentence(index))
    }
}

/// The range of item `index` when each item begins where the one before ends.
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
    fn nothing_is_an_error() {
        for documents in [vec![], vec![vec![]], vec![vec![" \n".to_string()]]] {
            assert_eq!(Corpus::from_documents(documents).unwrap_err().to_string(), "corpus: has no sentence");
        }
        assert_eq!(Corpus::from_prose(&["\n\n"]).unwrap_err().to_string(), "corpus: has no sentence");
    }
}
