//! From sentences to ids, part by part, and the parts to one corpus.

use cloze_bert::Tokenizer;

use super::store::{Ids, Section, Store};
use crate::{Error, Result};

/// The ids of some sentences of a corpus.
#[derive(Default)]
pub(super) struct TokenPart {
    pub(super) ids: Vec<u32>,
    /// Where each sentence ends in `ids`. One without a token ends where it begins.
    pub(super) sentence_ends: Vec<usize>,
    /// Numbers of sentences after which a document ends, none too where the one before the part does. Ascending.
    pub(super) document_ends: Vec<usize>,
}

impl TokenPart {
    /// Tokenizes sentences.
    ///
    /// # Errors
    /// When the tokenizer fails.
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

/// Where parts come to stand in the whole: sentences without a token, and documents without a sentence that has one, are
/// left out.
#[derive(Default)]
pub(super) struct Counts {
    pub(super) tokens: u64,
    pub(super) sentences: u64,
    pub(super) documents: u64,
    /// Sentences of documents that have ended.
    ended: u64,
    pub(super) largest_id: u32,
}

impl Counts {
    /// Appends the ends of the next part, counted in the whole.
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

    /// Ends the document of the last sentence, if it has not ended.
    pub(super) fn end_document(&mut self, document_ends: &mut Vec<u64>) {
        if self.ended < self.sentences {
            self.ended = self.sentences;
            self.documents += 1;
            document_ends.push(self.sentences);
        }
    }

    /// # Errors
    /// When there is no token, or there are 2^32 documents: draws are numbered by them.
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

/// A corpus that is put together in memory.
#[derive(Default)]
pub(super) struct InMemory {
    counts: Counts,
    ids: Vec<u32>,
    sentence_ends: Vec<u64>,
    document_ends: Vec<u64>,
}

impl InMemory {
    pub(super) fn push(&mut self, part: &TokenPart) {
        self.counts.place(part, &mut self.sentence_ends, &mut self.document_ends);
        self.ids.extend_from_slice(&part.ids);
    }

    /// # Errors
    /// As [`Counts::check`].
    pub(super) fn finish(mut self) -> Result<Store> {
        self.counts.end_document(&mut self.document_ends);
        self.counts.check()?;
        let ids = Ids::Wide(Section::Memory(self.ids));
        let (sentence_ends, document_ends) = (Section::Memory(self.sentence_ends), Section::Memory(self.document_ends));
        Ok(Store::new(ids, sentence_ends, document_ends, self.counts.largest_id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_joined_and_what_is_empty_is_left_out() {
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
