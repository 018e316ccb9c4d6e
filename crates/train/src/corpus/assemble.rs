//! Tokenizes the sentences of a corpus part by part, and joins the parts.

use cloze_bert::Tokenizer;

use super::store::{IdSection, Section, Store};
use crate::{Error, Result};

/// The token ids of a part of a corpus.
#[derive(Default)]
pub(super) struct TokenPart {
    pub(super) ids: Vec<u32>,
    /// The end of each sentence in `ids`. A sentence without a token ends where it starts.
    pub(super) sentence_ends: Vec<usize>,
    /// The number of sentences before each document boundary, ascending; 0 if a document ends before the part.
    pub(super) document_ends: Vec<usize>,
}

impl TokenPart {
    /// Tokenizes sentences.
    ///
    /// # Errors
    /// Returns the errors of the tokenizer.
    pub(super) fn new<'a>(
        sentences: impl Iterator<Item = &'a str>,
        document_ends: Vec<usize>,
        tokenizer: &Tokenizer,
    ) -> Result<TokenPart> {
        let (mut ids, mut sentence_ends) = (Vec::new(), Vec::with_capacity(sentences.size_hint().0));
        for sentence in sentences {
            tokenizer.ids_into(sentence, &mut ids)?;
            sentence_ends.push(ids.len());
        }
        Ok(TokenPart { ids, sentence_ends, document_ends })
    }
}

/// The running totals by which parts are placed in the whole corpus. Sentences without a token, and documents without such
/// a sentence, are dropped.
#[derive(Default)]
pub(super) struct CorpusCounts {
    pub(super) tokens: u64,
    pub(super) sentences: u64,
    pub(super) documents: u64,
    /// The number of sentences in documents that have ended.
    ended: u64,
    pub(super) largest_id: u32,
}

impl CorpusCounts {
    /// Appends the ends of sentences and documents of the next part, counted over the whole corpus.
    pub(super) fn place(&mut self, part: &TokenPart, sentence_ends: &mut Vec<u64>, document_ends: &mut Vec<u64>) {
        let mut breaks = part.document_ends.iter().peekable();
        let mut start = 0;
        for (number, &end) in part.sentence_ends.iter().enumerate() {
            while breaks.next_if(|&&after| after <= number).is_some() {
                self.end_document(document_ends);
            }
            if end > start {
                self.tokens += (end - start) as u64;
                self.sentences += 1;
                sentence_ends.push(self.tokens);
                start = end;
            }
        }
        if breaks.next().is_some() {
            self.end_document(document_ends);
        }
        self.largest_id = part.ids.iter().fold(self.largest_id, |largest, &id| largest.max(id));
    }

    /// Ends the current document, if it has a sentence.
    pub(super) fn end_document(&mut self, document_ends: &mut Vec<u64>) {
        if self.ended < self.sentences {
            self.ended = self.sentences;
            self.documents += 1;
            document_ends.push(self.sentences);
        }
    }

    /// Checks that the corpus has a token, and fewer than 2^32 documents: random draws are numbered by document.
    pub(super) fn check(&self) -> Result<()> {
        if self.tokens == 0 {
            return Err(Error::data("corpus", "no sentence has a token"));
        }
        match u32::try_from(self.documents) {
            Ok(_) => Ok(()),
            Err(_) => Err(Error::invalid("number of documents", self.documents, "below 2^32")),
        }
    }
}

/// A corpus that is assembled in memory.
#[derive(Default)]
pub(super) struct InMemory {
    counts: CorpusCounts,
    ids: Vec<u32>,
    sentence_ends: Vec<u64>,
    document_ends: Vec<u64>,
}

impl InMemory {
    pub(super) fn push(&mut self, part: &TokenPart) {
        self.counts.place(part, &mut self.sentence_ends, &mut self.document_ends);
        self.ids.extend_from_slice(&part.ids);
    }

    /// Returns the assembled corpus.
    ///
    /// # Errors
    /// Returns the errors of [`CorpusCounts::check`].
    pub(super) fn finish(mut self) -> Result<Store> {
        self.counts.end_document(&mut self.document_ends);
        self.counts.check()?;
        let ids = IdSection::Wide(Section::Memory(self.ids));
        let (sentence_ends, document_ends) = (Section::Memory(self.sentence_ends), Section::Memory(self.document_ends));
        Ok(Store::new(ids, sentence_ends, document_ends, self.counts.largest_id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_joined_without_empty_sentences() {
        let mut whole = InMemory::default();
        let mut push = |ids: &[u32], sentence_ends: &[usize], document_ends: &[usize]| {
            let (sentence_ends, document_ends) = (sentence_ends.to_vec(), document_ends.to_vec());
            whole.push(&TokenPart { ids: ids.to_vec(), sentence_ends, document_ends });
        };
        push(&[], &[], &[0]);
        push(&[1, 2, 3], &[0, 2, 2, 3], &[1]);
        push(&[4], &[1], &[]);
        push(&[], &[0, 0], &[0, 1, 2]);
        push(&[5, 9], &[1, 2], &[0, 1]);
        let store = whole.finish().unwrap();
        assert_eq!(&*store.sentence_ends, [2, 3, 4, 5, 6]);
        assert_eq!(&*store.document_ends, [3, 4, 5]);
        assert_eq!((store.ids.len(), store.largest_id), (6, 9));
        assert!(InMemory::default().finish().is_err());
    }
}
