//! Where the ids of a corpus lie: in memory, or in a mapped file.

use std::ops::{Deref, Range};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use bytemuck::AnyBitPattern;
use memmap2::Mmap;

/// Places of a mapped file that are read before its pages are let go of: the system maps some 64 KB around each.
const PLACES: u32 = 1 << 10;

/// Numbers in memory, or in part of a mapped file.
pub(super) enum Section<T> {
    Memory(Vec<T>),
    /// The bytes of the map, which begin where a `T` may.
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
pub(super) enum Ids {
    /// Of vocabularies of up to 2^16 tokens.
    Narrow(Section<u16>),
    Wide(Section<u32>),
}

impl Ids {
    pub(super) fn len(&self) -> usize {
        match self {
            Ids::Narrow(ids) => ids.len(),
            Ids::Wide(ids) => ids.len(),
        }
    }

    pub(super) fn get(&self, index: usize) -> u32 {
        match self {
            Ids::Narrow(ids) => ids[index].into(),
            Ids::Wide(ids) => ids[index],
        }
    }

    pub(super) fn append_to(&self, range: Range<usize>, to: &mut Vec<u32>) {
        match self {
            Ids::Narrow(ids) => to.extend(ids[range].iter().map(|&id| u32::from(id))),
            Ids::Wide(ids) => to.extend_from_slice(&ids[range]),
        }
    }
}

/// Sentences of ids, one after the other, and where sentences and documents end.
pub(super) struct Store {
    pub(super) ids: Ids,
    /// Where each sentence ends in `ids`; it begins where the one before ends.
    pub(super) sentence_ends: Section<u64>,
    /// Where each document ends, counted in sentences.
    pub(super) document_ends: Section<u64>,
    pub(super) largest_id: u32,
    /// Places read so far.
    places: AtomicU32,
}

impl Store {
    pub(super) fn new(ids: Ids, sentence_ends: Section<u64>, document_ends: Section<u64>, largest_id: u32) -> Store {
        Store { ids, sentence_ends, document_ends, largest_id, places: AtomicU32::new(0) }
    }

    /// A place somewhere in the corpus is being read. After some of those, pages are [let go of](Self::release).
    pub(super) fn visit(&self) {
        if matches!(self.sentence_ends, Section::Mapped(..))
            && self.places.fetch_add(1, Ordering::Relaxed).is_multiple_of(PLACES)
        {
            self.release();
        }
    }

    /// Lets go of the pages of a mapped file that were read: what is read again comes from the system's cache, or from
    /// disk. So the memory of the process does not grow to the size of the file.
    pub(super) fn release(&self) {
        #[cfg(unix)]
        if let Section::Mapped(map, _) = &self.sentence_ends {
            // SAFETY: the map is of a file and never written, so what comes back is what is there now. Where the system
            // refuses, the pages stay.
            let _ = unsafe { map.unchecked_advise(memmap2::UncheckedAdvice::DontNeed) };
        }
    }
}

/// The range of item `index` when each item begins where the one before ends.
#[inline]
pub(super) fn span(ends: &[u64], index: usize) -> Range<usize> {
    let start = if index == 0 { 0 } else { ends[index - 1] };
    start as usize..ends[index] as usize
}
