//! The token ids of a corpus, in memory or in a memory-mapped file.

use std::ops::{Deref, Range};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use bytemuck::AnyBitPattern;
use memmap2::Mmap;

/// The number of visits to a mapped file between releases of its pages. The system maps about 64 KB per visit.
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

    pub(super) fn append_to(&self, range: Range<usize>, to: &mut Vec<u32>) {
        match self {
            IdSection::Narrow(ids) => to.extend(ids[range].iter().map(|&id| u32::from(id))),
            IdSection::Wide(ids) => to.extend_from_slice(&ids[range]),
        }
    }
}

/// The ids of all sentences, and the ends of sentences and documents.
pub(super) struct Store {
    pub(super) ids: IdSection,
    /// The end of each sentence in `ids`, which is the start of the next one.
    pub(super) sentence_ends: Section<u64>,
    /// The end of each document, counted in sentences.
    pub(super) document_ends: Section<u64>,
    pub(super) largest_id: u32,
    /// The number of visits so far.
    visits: AtomicU32,
}

impl Store {
    pub(super) fn new(
        ids: IdSection,
        sentence_ends: Section<u64>,
        document_ends: Section<u64>,
        largest_id: u32,
    ) -> Store {
        Store { ids, sentence_ends, document_ends, largest_id, visits: AtomicU32::new(0) }
    }

    /// Counts a random access to the corpus, and [releases](Self::release) the pages now and then.
    pub(super) fn visit(&self) {
        if matches!(self.sentence_ends, Section::Mapped(..))
            && self.visits.fetch_add(1, Ordering::Relaxed).is_multiple_of(VISITS)
        {
            self.release();
        }
    }

    /// Releases the pages of a mapped file, so that the memory of the process does not grow to the size of the file. Reading
    /// a page again loads it from the page cache or the disk.
    pub(super) fn release(&self) {
        #[cfg(unix)]
        if let Section::Mapped(map, _) = &self.sentence_ends {
            // SAFETY: `MADV_DONTNEED` discards private changes to the pages. This read-only map of a file has none, so a page
            // that is read again has the same content. An error leaves the pages mapped, which is harmless.
            let _ = unsafe { map.unchecked_advise(memmap2::UncheckedAdvice::DontNeed) };
        }
    }
}

/// Returns the range of item `index`, given the ends of adjacent items.
#[inline]
pub(super) fn span(ends: &[u64], index: usize) -> Range<usize> {
    let start = if index == 0 { 0 } else { ends[index - 1] };
    start as usize..ends[index] as usize
}
