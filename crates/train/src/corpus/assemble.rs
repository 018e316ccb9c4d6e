//! Tokenizes the sentences of a corpus part by part, and joins the parts to shards.

use std::hash::Hasher;
use std::ops::Range;

use cloze_bert::Tokenizer;
use twox_hash::{XxHash3_64, XxHash3_128};

use super::part::{DroppedTexts, TextPart};
use super::store::{Counts, IdSection, Section, Shard, Store};
use crate::{Error, Result};

/// The largest vocabulary size with 16-bit ids.
const NARROW: usize = 1 << 16;

/// The token ids of a part of a corpus.
#[derive(Default)]
pub(super) struct TokenPart {
    pub(super) ids: Vec<u32>,
    /// The end of each sentence in `ids`. A sentence without a token ends where it starts.
    pub(super) sentence_ends: Vec<usize>,
    /// The number of sentences before each document boundary, ascending; 0 if a document ends before the part.
    pub(super) document_ends: Vec<usize>,
    /// A hash of the text of each sentence, or nothing if documents are not compared.
    pub(super) sentence_hashes: Vec<u128>,
    pub(super) dropped: DroppedTexts,
    /// The number of bytes that the text was read from, after decompression.
    pub(super) text_bytes: u64,
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
        let mut part = TokenPart { document_ends, ..TokenPart::default() };
        for sentence in sentences {
            tokenizer.ids_into(sentence, &mut part.ids)?;
            part.sentence_ends.push(part.ids.len());
        }
        Ok(part)
    }

    /// Tokenizes a part of a text, and hashes its sentences if `hashed`.
    ///
    /// # Errors
    /// Returns the errors of the tokenizer.
    pub(super) fn of_text(text: TextPart, tokenizer: &Tokenizer, hashed: bool) -> Result<TokenPart> {
        let mut part = TokenPart::new(text.sentences(), Vec::new(), tokenizer)?;
        if hashed {
            part.sentence_hashes = text.sentences().map(|sentence| XxHash3_128::oneshot(sentence.as_bytes())).collect();
        }
        Ok(TokenPart { document_ends: text.document_ends, dropped: text.dropped, text_bytes: text.read_bytes, ..part })
    }

    /// Returns the numbers of consecutive sentences of one document, and whether the document ends with them. The ranges
    /// follow each other, and may be empty.
    pub(super) fn runs(&self) -> impl Iterator<Item = (Range<usize>, bool)> {
        let mut start = 0;
        let ends = self.document_ends.iter().map(|&end| (end, true));
        ends.chain([(self.sentence_ends.len(), false)])
            .map(move |(end, ends)| (std::mem::replace(&mut start, end)..end, ends))
    }
}

/// Ids in memory.
enum Ids {
    Narrow(Vec<u16>),
    Wide(Vec<u32>),
}

/// A shard that is being filled in memory. Sentences without a token, and documents without such a sentence, are left out.
pub(super) struct OpenShard {
    ids: Ids,
    sentence_ends: Vec<u64>,
    document_ends: Vec<u64>,
    /// The number of tokens and of sentences where the current document begins.
    begin: (usize, usize),
}

impl OpenShard {
    /// Makes an empty shard for ids below `vocab_size`.
    pub(super) fn new(vocab_size: usize) -> OpenShard {
        let ids = if vocab_size <= NARROW { Ids::Narrow(Vec::new()) } else { Ids::Wide(Vec::new()) };
        OpenShard { ids, sentence_ends: Vec::new(), document_ends: Vec::new(), begin: (0, 0) }
    }

    /// Returns the number of tokens, those of the current document included.
    pub(super) fn token_count(&self) -> usize {
        match &self.ids {
            Ids::Narrow(ids) => ids.len(),
            Ids::Wide(ids) => ids.len(),
        }
    }

    /// Returns whether no document has ended yet.
    pub(super) fn is_empty(&self) -> bool {
        self.document_ends.is_empty()
    }

    /// Appends some sentences of a part to the current document. Returns the number of those without a token.
    pub(super) fn append(&mut self, part: &TokenPart, sentences: Range<usize>) -> usize {
        let start = if sentences.start == 0 { 0 } else { part.sentence_ends[sentences.start - 1] };
        let base = self.token_count() as u64;
        let (mut last, before) = (start, self.sentence_ends.len());
        for &end in &part.sentence_ends[sentences.clone()] {
            if end > last {
                self.sentence_ends.push(base + (end - start) as u64);
                last = end;
            }
        }
        let ids = &part.ids[start..last];
        match &mut self.ids {
            // No truncation: ids are below the vocabulary size, at most 2^16.
            Ids::Narrow(own) => own.extend(ids.iter().map(|&id| id as u16)),
            Ids::Wide(own) => own.extend_from_slice(ids),
        }
        sentences.len() - (self.sentence_ends.len() - before)
    }

    /// Returns whether the current document has no token yet.
    pub(super) fn document_is_empty(&self) -> bool {
        self.sentence_ends.len() == self.begin.1
    }

    /// Ends the current document, if it has a token.
    pub(super) fn end_document(&mut self) {
        if !self.document_is_empty() {
            self.begin = (self.token_count(), self.sentence_ends.len());
            self.document_ends.push(self.begin.1 as u64);
        }
    }

    /// Takes out the current document.
    pub(super) fn drop_document(&mut self) {
        let (tokens, sentences) = self.begin;
        match &mut self.ids {
            Ids::Narrow(ids) => ids.truncate(tokens),
            Ids::Wide(ids) => ids.truncate(tokens),
        }
        self.sentence_ends.truncate(sentences);
    }

    /// Returns the shard. The current document has ended.
    pub(super) fn close(self) -> Shard {
        let ids = match self.ids {
            Ids::Narrow(ids) => IdSection::Narrow(Section::Memory(ids)),
            Ids::Wide(ids) => IdSection::Wide(Section::Memory(ids)),
        };
        let (sentence_ends, document_ends) = (Section::Memory(self.sentence_ends), Section::Memory(self.document_ends));
        Shard { ids, sentence_ends, document_ends }
    }
}

/// A hash of all ids and of where sentences and documents end. It does not depend on the width of the ids, nor on how a
/// corpus is divided into shards.
#[derive(Default)]
pub(super) struct ContentPrint {
    ids: XxHash3_64,
    sentence_ends: XxHash3_64,
    document_ends: XxHash3_64,
    before: Counts,
    pub(super) largest_id: u32,
}

impl ContentPrint {
    /// Adds the next shard.
    pub(super) fn add(&mut self, shard: &Shard) {
        const CHUNK: usize = 1 << 14;
        let mut wide = Vec::with_capacity(CHUNK);
        for start in (0..shard.ids.len()).step_by(CHUNK) {
            wide.clear();
            shard.ids.append_to(start..shard.ids.len().min(start + CHUNK), &mut wide);
            self.largest_id = wide.iter().fold(self.largest_id, |largest, &id| largest.max(id));
            self.ids.write(bytemuck::cast_slice(&wide));
        }
        let add = |hash: &mut XxHash3_64, ends: &[u64], before: usize| {
            for ends in ends.chunks(CHUNK) {
                let ends: Vec<u64> = ends.iter().map(|end| end + before as u64).collect();
                hash.write(bytemuck::cast_slice(&ends));
            }
        };
        add(&mut self.sentence_ends, &shard.sentence_ends, self.before.tokens);
        add(&mut self.document_ends, &shard.document_ends, self.before.sentences);
        let own = shard.counts();
        self.before.tokens += own.tokens;
        self.before.sentences += own.sentences;
    }

    pub(super) fn finish(&self) -> u64 {
        let hashes = [self.ids.finish(), self.sentence_ends.finish(), self.document_ends.finish()];
        XxHash3_64::oneshot(bytemuck::cast_slice(&hashes))
    }
}

/// A corpus that is assembled in memory, as a single shard.
pub(super) struct InMemory(OpenShard);

impl InMemory {
    pub(super) fn new() -> InMemory {
        InMemory(OpenShard::new(usize::MAX))
    }

    pub(super) fn push(&mut self, part: &TokenPart) {
        for (sentences, ends) in part.runs() {
            self.0.append(part, sentences);
            if ends {
                self.0.end_document();
            }
        }
    }

    /// Returns the assembled corpus.
    ///
    /// # Errors
    /// Returns an error if no sentence has a token, or if there are too many documents.
    pub(super) fn finish(mut self) -> Result<Store> {
        self.0.end_document();
        if self.0.is_empty() {
            return Err(Error::data("corpus", "no sentence has a token"));
        }
        let (shard, mut print) = (self.0.close(), ContentPrint::default());
        print.add(&shard);
        Store::new(vec![shard], print.largest_id, print.finish())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(ids: &[u32], sentence_ends: &[usize], document_ends: &[usize]) -> TokenPart {
        let (sentence_ends, document_ends) = (sentence_ends.to_vec(), document_ends.to_vec());
        TokenPart { ids: ids.to_vec(), sentence_ends, document_ends, ..TokenPart::default() }
    }

    fn parts() -> [TokenPart; 5] {
        [
            part(&[], &[], &[0]),
            part(&[1, 2, 3], &[0, 2, 2, 3], &[1]),
            part(&[4], &[1], &[]),
            part(&[], &[0, 0], &[0, 1, 2]),
            part(&[5, 9], &[1, 2], &[0, 1]),
        ]
    }

    #[test]
    fn parts_are_joined_without_empty_sentences() {
        let mut whole = InMemory::new();
        parts().iter().for_each(|part| whole.push(part));
        let store = whole.finish().unwrap();
        assert_eq!(store.counts(), Counts { documents: 3, sentences: 5, tokens: 6 });
        let sentences: Vec<_> = (0..3).map(|document| store.sentences_of(document)).collect();
        let tokens: Vec<_> = (0..5).map(|sentence| store.tokens_of(sentence)).collect();
        assert_eq!((sentences, tokens), (vec![0..3, 3..4, 4..5], vec![0..2, 2..3, 3..4, 4..5, 5..6]));
        assert_eq!(store.largest_id, 9);
        assert!(InMemory::new().finish().is_err());
    }

    #[test]
    fn a_document_can_be_taken_out() {
        let mut shard = OpenShard::new(100);
        let sentences = part(&[1, 2, 3], &[2, 2, 3], &[]);
        assert_eq!(shard.append(&sentences, 0..3), 1);
        shard.end_document();
        shard.append(&sentences, 0..1);
        shard.drop_document();
        shard.end_document();
        assert_eq!(shard.append(&sentences, 2..3), 0);
        shard.end_document();
        let shard = shard.close();
        assert_eq!((&*shard.sentence_ends, &*shard.document_ends), (&[2, 3, 4][..], &[2, 3][..]));
        assert_eq!((0..4).map(|token| shard.ids.get(token)).collect::<Vec<_>>(), [1, 2, 3, 3]);
    }

    /// The shards of the same documents, cut after each document or never, of narrow or wide ids.
    #[test]
    fn the_print_does_not_depend_on_shards() {
        let print = |vocab_size: usize, cut: bool, last: u32| {
            let (mut print, mut shard) = (ContentPrint::default(), OpenShard::new(vocab_size));
            let sentences = part(&[1, 2, 3, last], &[2, 3, 4], &[1, 3]);
            for (run, ends) in sentences.runs() {
                shard.append(&sentences, run);
                if ends {
                    shard.end_document();
                    if cut {
                        print.add(&std::mem::replace(&mut shard, OpenShard::new(vocab_size)).close());
                    }
                }
            }
            if !shard.is_empty() {
                print.add(&shard.close());
            }
            print.finish()
        };
        let prints = [print(100, true, 7), print(100, false, 7), print(1 << 20, true, 7), print(1 << 20, false, 7)];
        assert!(prints.iter().all(|&other| other == prints[0]));
        assert_ne!(prints[0], print(100, true, 8));
    }
}
