//! The token ids of a corpus, in memory or in memory-mapped shards.

use std::ops::{Deref, Range};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use bytemuck::AnyBitPattern;
use memmap2::Mmap;

use crate::{Error, Result};

/// The number of visits to a mapped corpus between releases of its pages. The system maps about 64 KB per visit.
const VISITS: u32 = 1 << 10;

/// Numbers in memory or in a part of a mapped file.
pub(super) enum Section<T> {
    Memory(Vec<T>),
    /// A byte range of the map, aligned for `T`.
    Mapped(Arc<Mmap>, Range<usize>),
}

impl<T: AnyBitPattern> Deref for Section<T> {
    type Target = [T];

    #[inline]
    fn deref(&self) -> &[T] {
        match self {
            Section::Memory(numbers) => numbers,
            Section::Mapped(map, bytes) => bytemuck::cast_slice(&map[bytes.clone()]),
        }
    }
}

/// Token ids.
pub(super) enum IdSection {
    /// Ids of a vocabulary of up to 2^16 tokens.
    Narrow(Section<u16>),
    Wide(Section<u32>),
}

impl IdSection {
    pub(super) fn len(&self) -> usize {
        match self {
            IdSection::Narrow(ids) => ids.len(),
            IdSection::Wide(ids) => ids.len(),
        }
    }

    pub(super) fn get(&self, index: usize) -> u32 {
        match self {
            IdSection::Narrow(ids) => ids[index].into(),
            IdSection::Wide(ids) => ids[index],
        }
    }

    /// Returns how often an id occurs.
    pub(super) fn count(&self, id: u32) -> usize {
        match self {
            IdSection::Narrow(ids) => ids.iter().filter(|&&other| u32::from(other) == id).count(),
            IdSection::Wide(ids) => ids.iter().filter(|&&other| other == id).count(),
        }
    }

    pub(super) fn append_to(&self, range: Range<usize>, to: &mut Vec<u32>) {
        match self {
            IdSection::Narrow(ids) => to.extend(ids[range].iter().map(|&id| u32::from(id))),
            IdSection::Wide(ids) => to.extend_from_slice(&ids[range]),
        }
    }
}

/// Numbers of documents, sentences and tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) documents: usize,
    pub(super) sentences: usize,
    pub(super) tokens: usize,
}

/// Whole documents: the ids of their sentences, and the ends of sentences and documents, counted within the shard. There is
/// at least one document, every document has a sentence, and every sentence a token.
pub(super) struct Shard {
    pub(super) ids: IdSection,
    /// The end of each sentence in `ids`, which is the start of the next one.
    pub(super) sentence_ends: Section<u64>,
    /// The end of each document, counted in sentences.
    pub(super) document_ends: Section<u64>,
}

impl Shard {
    pub(super) fn counts(&self) -> Counts {
        let (documents, sentences) = (self.document_ends.len(), self.sentence_ends.len());
        Counts { documents, sentences, tokens: self.ids.len() }
    }

    /// Releases the pages of a mapped file, so that the memory of the process does not grow to the size of the file. Reading
    /// a page again loads it from the page cache or the disk.
    pub(super) fn release(&self) {
        #[cfg(unix)]
        if let Section::Mapped(map, _) = &self.sentence_ends {
            // SAFETY: `MADV_DONTNEED` discards private changes to the pages. This read-only map of a file has none, so a page
            // that is read again has the same content. An error leaves the pages mapped, which is harmless.
            #[expect(unsafe_code, reason = "releases pages of a mapped file")]
            let _ = unsafe { map.unchecked_advise(memmap2::UncheckedAdvice::DontNeed) };
        }
    }
}

/// A shard, and the numbers of documents, sentences and tokens before it.
struct Placed {
    before: Counts,
    shard: Shard,
}

/// Shards in order. Documents, sentences and tokens are numbered over all of them.
pub(super) struct Store {
    shards: Vec<Placed>,
    counts: Counts,
    pub(super) largest_id: u32,
    /// A hash of all ids and ends, whatever the shards; see [`ContentPrint`](super::assemble::ContentPrint).
    pub(super) fingerprint: u64,
    /// The number of visits so far.
    visits: AtomicU32,
}

impl Store {
    /// Joins shards.
    ///
    /// # Errors
    /// Returns an error if there are 2^32 documents or more: random draws are numbered by document.
    pub(super) fn new(shards: Vec<Shard>, largest_id: u32, fingerprint: u64) -> Result<Store> {
        let mut counts = Counts::default();
        let place = |shard: Shard| {
            let (before, own) = (counts, shard.counts());
            counts.documents += own.documents;
            counts.sentences += own.sentences;
            counts.tokens += own.tokens;
            Placed { before, shard }
        };
        let shards: Vec<Placed> = shards.into_iter().map(place).collect();
        if u32::try_from(counts.documents).is_err() {
            return Err(Error::invalid(
                "number of documents",
                counts.documents,
                "below 2^32: take a share of the shards",
            ));
        }
        Ok(Store { shards, counts, largest_id, fingerprint, visits: AtomicU32::new(0) })
    }

    pub(super) fn counts(&self) -> Counts {
        self.counts
    }

    /// Returns the shard of the item with this number, as `number` counts items.
    #[inline]
    fn shard_of(&self, item: usize, number: impl Fn(&Counts) -> usize) -> &Placed {
        let after = self.shards.partition_point(|placed| number(&placed.before) <= item);
        &self.shards[after - 1]
    }

    /// Returns the numbers of the sentences of a document.
    #[inline]
    pub(super) fn sentences_of(&self, document: usize) -> Range<usize> {
        let Placed { before, shard } = self.shard_of(document, |counts| counts.documents);
        let own = span(&shard.document_ends, document - before.documents);
        before.sentences + own.start..before.sentences + own.end
    }

    /// Returns the numbers of the tokens of a sentence.
    #[inline]
    pub(super) fn tokens_of(&self, sentence: usize) -> Range<usize> {
        let Placed { before, shard } = self.shard_of(sentence, |counts| counts.sentences);
        let own = span(&shard.sentence_ends, sentence - before.sentences);
        before.tokens + own.start..before.tokens + own.end
    }

    /// Returns the ids of some tokens of one document.
    pub(super) fn ids_in_document(&self, tokens: Range<usize>) -> impl Iterator<Item = u32> + '_ {
        let Placed { before, shard } = self.shard_of(tokens.start, |counts| counts.tokens);
        (tokens.start - before.tokens..tokens.end - before.tokens).map(|token| shard.ids.get(token))
    }

    /// Appends the ids of some tokens.
    pub(super) fn append_ids(&self, mut tokens: Range<usize>, to: &mut Vec<u32>) {
        while !tokens.is_empty() {
            let Placed { before, shard } = self.shard_of(tokens.start, |counts| counts.tokens);
            // The last shard refuses tokens beyond the corpus.
            let is_last = before.tokens + shard.ids.len() == self.counts.tokens;
            let end = if is_last { tokens.end } else { tokens.end.min(before.tokens + shard.ids.len()) };
            shard.ids.append_to(tokens.start - before.tokens..end - before.tokens, to);
            tokens.start = end;
        }
    }

    /// Returns the first sentence that starts at or after `token`, or else the number of sentences.
    pub(super) fn first_sentence_from(&self, token: usize) -> usize {
        let Some(last) = token.checked_sub(1) else { return 0 };
        let Placed { before, shard } = self.shard_of(last, |counts| counts.tokens);
        let ended = shard.sentence_ends.partition_point(|&end| before.tokens + (end as usize) < token);
        (before.sentences + ended + 1).min(self.counts.sentences)
    }

    /// Counts a random access to the corpus, and [releases](Self::release) the pages now and then.
    pub(super) fn visit(&self) {
        let is_mapped = |placed: &Placed| matches!(placed.shard.sentence_ends, Section::Mapped(..));
        if self.shards.first().is_some_and(is_mapped)
            && self.visits.fetch_add(1, Ordering::Relaxed).is_multiple_of(VISITS)
        {
            self.release();
        }
    }

    /// Releases the mapped pages of all shards.
    pub(super) fn release(&self) {
        self.shards.iter().for_each(|placed| placed.shard.release());
    }
}

/// Returns the range of item `index`, given the ends of adjacent items.
#[inline]
fn span(ends: &[u64], index: usize) -> Range<usize> {
    let start = if index == 0 { 0 } else { ends[index - 1] };
    start as usize..ends[index] as usize
}
