//! A tokenized corpus as a file that is memory-mapped.
//!
//! ```text
//! header         16 words of 64 bits in the byte order of the machine; see `CacheHeader`
//! ids            16 bits each for vocabularies of up to 2^16 tokens, else 32 bits; zero-padded to a whole word
//! sentence ends  a word each, counted in tokens
//! document ends  a word each, counted in sentences
//! ```
//!
//! The header has an XXH3 checksum of each section and of itself.

use std::fs::File;
use std::hash::Hasher;
use std::io::{self, BufWriter, Seek, SeekFrom, Write};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use bytemuck::Pod;
use cloze_tensor::replace_with;
use memmap2::Mmap;
use twox_hash::XxHash3_64;

use super::assemble::{CorpusCounts, TokenPart};
use super::store::{IdSection, Section, Store};
use crate::{Error, Result};

/// The version of the file format.
const VERSION: u64 = 1;
/// The first eight bytes of the file on every machine.
const MAGIC: u64 = u64::from_ne_bytes(*b"\x93cloze\r\n");
/// A word that reads differently in the other byte order.
const BYTE_ORDER: u64 = 0x0123_4567_89AB_CDEF;
const WORD: usize = size_of::<u64>();
const HEADER: usize = 16 * WORD;

/// The largest vocabulary size with 16-bit ids.
const NARROW: usize = 1 << 16;

struct CacheHeader {
    key: u128,
    id_bytes: u64,
    largest_id: u64,
    /// The numbers of tokens, sentences and documents.
    counts: [u64; 3],
    /// The checksums of the ids, the sentence ends and the document ends.
    checksums: [u64; 3],
}

impl CacheHeader {
    fn words(&self) -> [u64; 16] {
        let [tokens, sentences, documents] = self.counts;
        let [ids, sentence_ends, document_ends] = self.checksums;
        let (key_low, key_high) = (self.key as u64, (self.key >> 64) as u64);
        let mut words = [
            MAGIC,
            BYTE_ORDER,
            VERSION,
            key_low,
            key_high,
            self.id_bytes,
            self.largest_id,
            tokens,
            sentences,
            documents,
            ids,
            sentence_ends,
            document_ends,
            0,
            0,
            0,
        ];
        words[15] = checksum(&words[..15]);
        words
    }

    /// Reads a header, or returns the reason why it is invalid.
    fn read(bytes: &[u8]) -> Result<CacheHeader, String> {
        let Some(bytes) = bytes.get(..HEADER) else {
            return Err(format!("the file is truncated: it has {} bytes, the header {HEADER}", bytes.len()));
        };
        let words: [u64; 16] = bytemuck::pod_read_unaligned(bytes);
        let [magic, byte_order, version, key_low, key_high, id_bytes, largest_id, ..] = words;
        if magic != MAGIC {
            return Err("this is not a file of cached tokens".to_string());
        }
        if byte_order != BYTE_ORDER {
            return Err("the file was written on a machine with the other byte order".to_string());
        }
        if version != VERSION {
            return Err(format!("the file has format version {version}, this library reads version {VERSION}"));
        }
        if words[15] != checksum(&words[..15]) || !matches!(id_bytes, 2 | 4) {
            return Err("the header is damaged".to_string());
        }
        Ok(CacheHeader {
            key: u128::from(key_high) << 64 | u128::from(key_low),
            id_bytes,
            largest_id,
            counts: [words[7], words[8], words[9]],
            checksums: [words[10], words[11], words[12]],
        })
    }

    /// Returns the byte ranges of ids, sentence ends and document ends, or `None` on overflow.
    fn sections(&self) -> Option<[Range<usize>; 3]> {
        let [tokens, sentences, documents] = self.counts.map(|count| usize::try_from(count).ok());
        let ids_end = HEADER.checked_add(tokens?.checked_mul(self.id_bytes as usize)?)?;
        let sentences_start = ids_end.checked_next_multiple_of(WORD)?;
        let sentences_end = sentences_start.checked_add(sentences?.checked_mul(WORD)?)?;
        let documents_end = sentences_end.checked_add(documents?.checked_mul(WORD)?)?;
        Some([HEADER..ids_end, sentences_start..sentences_end, sentences_end..documents_end])
    }
}

fn checksum<T: Pod>(numbers: &[T]) -> u64 {
    XxHash3_64::oneshot(bytemuck::cast_slice(numbers))
}

/// A writer of a section that computes its checksum.
struct Checked<W> {
    to: W,
    hash: XxHash3_64,
}

impl<W: Write> Checked<W> {
    fn new(to: W) -> Checked<W> {
        Checked { to, hash: XxHash3_64::new() }
    }

    fn write<T: Pod>(&mut self, numbers: &[T]) -> io::Result<()> {
        let bytes = bytemuck::cast_slice(numbers);
        self.hash.write(bytes);
        self.to.write_all(bytes)
    }
}

/// Writes a corpus part by part. The ends of sentences and documents go to unnamed temporary files until all ids are written.
pub(super) struct Writer<'f> {
    ids: Checked<&'f mut BufWriter<File>>,
    sentence_ends: Checked<BufWriter<File>>,
    document_ends: Checked<BufWriter<File>>,
    narrow: bool,
    counts: CorpusCounts,
    key: u128,
}

impl<'f> Writer<'f> {
    fn new(file: &'f mut BufWriter<File>, folder: &Path, vocab_size: usize, key: u128) -> io::Result<Writer<'f>> {
        file.write_all(&[0; HEADER])?;
        let waiting = || Ok::<_, io::Error>(Checked::new(BufWriter::new(tempfile::tempfile_in(folder)?)));
        let (sentence_ends, document_ends) = (waiting()?, waiting()?);
        let narrow = vocab_size <= NARROW;
        Ok(Writer {
            ids: Checked::new(file),
            sentence_ends,
            document_ends,
            narrow,
            counts: CorpusCounts::default(),
            key,
        })
    }

    pub(super) fn push(&mut self, part: &TokenPart) -> io::Result<()> {
        let (mut sentence_ends, mut document_ends) = (Vec::new(), Vec::new());
        self.counts.place(part, &mut sentence_ends, &mut document_ends);
        if self.narrow {
            // No truncation: ids are below the vocabulary size, at most 2^16.
            let ids: Vec<u16> = part.ids.iter().map(|&id| id as u16).collect();
            self.ids.write(&ids)?;
        } else {
            self.ids.write(&part.ids)?;
        }
        self.sentence_ends.write(&sentence_ends)?;
        self.document_ends.write(&document_ends)
    }

    /// Returns whether no token has been written.
    pub(super) fn is_empty(&self) -> bool {
        self.counts.tokens == 0
    }

    fn finish(mut self) -> Result<(), WriteFailure> {
        let mut last = Vec::new();
        self.counts.end_document(&mut last);
        self.document_ends.write(&last)?;
        self.counts.check()?;
        let header = CacheHeader {
            key: self.key,
            id_bytes: if self.narrow { 2 } else { 4 },
            largest_id: self.counts.largest_id.into(),
            counts: [self.counts.tokens, self.counts.sentences, self.counts.documents],
            checksums: [self.ids.hash.finish(), self.sentence_ends.hash.finish(), self.document_ends.hash.finish()],
        };
        let file = self.ids.to;
        let bytes = self.counts.tokens * header.id_bytes;
        file.write_all(&[0; WORD][..(bytes.next_multiple_of(WORD as u64) - bytes) as usize])?;
        for ends in [self.sentence_ends, self.document_ends] {
            let mut ends = ends.to.into_inner().map_err(io::IntoInnerError::into_error)?;
            ends.seek(SeekFrom::Start(0))?;
            io::copy(&mut ends, file)?;
        }
        file.seek(SeekFrom::Start(0))?;
        file.write_all(bytemuck::cast_slice(&header.words()))?;
        Ok(())
    }
}

/// A failure to write, or to produce what is written.
pub(super) enum WriteFailure {
    Write(io::Error),
    Other(Error),
}

impl From<io::Error> for WriteFailure {
    fn from(error: io::Error) -> WriteFailure {
        WriteFailure::Write(error)
    }
}

impl From<Error> for WriteFailure {
    fn from(error: Error) -> WriteFailure {
        WriteFailure::Other(error)
    }
}

/// Writes a file at `path` atomically, with the parts that `parts` pushes.
///
/// # Errors
/// Returns an error if `parts` fails, no sentence has a token, or the file cannot be written.
pub(super) fn write(
    path: &Path,
    key: u128,
    vocab_size: usize,
    parts: impl FnOnce(&mut Writer<'_>) -> Result<(), WriteFailure>,
) -> Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut other = None;
    let written = replace_with(path, |file| {
        let write = || {
            let mut writer = Writer::new(file, folder, vocab_size, key)?;
            parts(&mut writer)?;
            writer.finish()
        };
        write().map_err(|failure| match failure {
            WriteFailure::Write(error) => error,
            WriteFailure::Other(error) => {
                let why = io::Error::other(error.to_string());
                other = Some(error);
                why
            }
        })
    });
    match (written, other) {
        (Ok(()), _) => Ok(()),
        (Err(_), Some(error)) => Err(error),
        (Err(source), None) => Err(Error::io(path, "cannot write", source)),
    }
}

/// Maps the file at `path` and verifies all of it. Also returns the key that it was written with.
///
/// # Errors
/// Returns an error if the file cannot be read, is not a file of cached tokens, or is damaged.
pub(super) fn open(path: &Path) -> Result<(Store, u128)> {
    let cannot_read = |source| Error::io(path, "cannot read", source);
    let wrong =
        |why: String| Error::data_in(path, "cached tokens", format!("{why}; delete it to tokenize the text again"));
    // Opening a pipe would block until it has a writer.
    if !std::fs::metadata(path).map_err(cannot_read)?.is_file() {
        return Err(wrong("this is not a regular file".to_string()));
    }
    let file = File::open(path).map_err(cannot_read)?;
    // SAFETY: the file must not be modified while it is mapped, which the documentation of `TokenizedCorpus::open` requires.
    // The ids and ends are plain numbers without invalid bit patterns.
    let map = Arc::new(unsafe { Mmap::map(&file) }.map_err(|source| Error::io(path, "cannot map", source))?);
    let header = CacheHeader::read(&map).map_err(wrong)?;
    let length = map.len();
    let sections = header.sections().filter(|[_, _, documents]| documents.end == length);
    let [ids, sentence_ends, document_ends] =
        sections.ok_or_else(|| wrong(format!("the file is truncated: its {length} bytes do not match its header")))?;
    let ids = match header.id_bytes {
        2 => IdSection::Narrow(Section::Mapped(map.clone(), ids)),
        _ => IdSection::Wide(Section::Mapped(map.clone(), ids)),
    };
    let largest_id = u32::try_from(header.largest_id).map_err(|_| wrong("the header is damaged".to_string()))?;
    let sentence_ends = Section::Mapped(map.clone(), sentence_ends);
    let store = Store::new(ids, sentence_ends, Section::Mapped(map, document_ends), largest_id);
    check(&store, &header).map_err(wrong)?;
    Ok((store, header.key))
}

/// Verifies the checksum of every section, and that no index is out of range.
fn check(store: &Store, header: &CacheHeader) -> Result<(), String> {
    let [tokens, sentences, documents] = header.counts;
    let [ids_sum, sentences_sum, documents_sum] = header.checksums;
    let within = match &store.ids {
        IdSection::Narrow(ids) => check_section(store, ids, ids_sum, |&id| u64::from(id) <= header.largest_id),
        IdSection::Wide(ids) => check_section(store, ids, ids_sum, |&id| u64::from(id) <= header.largest_id),
    };
    let ascend = |ends: &Section<u64>, sum, count: u64| {
        let mut before = 0;
        let ascends = |&end: &u64| std::mem::replace(&mut before, end) < end;
        check_section(store, ends, sum, ascends) && ends.last() == Some(&count)
    };
    let sound = within
        && ascend(&store.sentence_ends, sentences_sum, tokens)
        && ascend(&store.document_ends, documents_sum, sentences)
        && u32::try_from(documents).is_ok();
    if sound { Ok(()) } else { Err("the file is damaged: a checksum does not match".to_string()) }
}

/// Returns whether the numbers have this checksum and all of them pass.
fn check_section<T: Pod>(store: &Store, numbers: &[T], sum: u64, mut passes: impl FnMut(&T) -> bool) -> bool {
    const CHUNK: usize = 1 << 22;
    let mut hash = XxHash3_64::new();
    let mut all_pass = true;
    for chunk in numbers.chunks(CHUNK) {
        hash.write(bytemuck::cast_slice(chunk));
        all_pass &= chunk.iter().fold(true, |pass, number| pass & passes(number));
        store.release();
    }
    all_pass && hash.finish() == sum
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(path: &Path, vocab_size: usize) {
        let part = TokenPart { ids: vec![7, 300, 5], sentence_ends: vec![1, 3], document_ends: vec![1] };
        write(path, 99, vocab_size, |writer| Ok(writer.push(&part)?)).unwrap();
    }

    #[test]
    fn narrow_and_wide_files_round_trip() {
        let folder = tempfile::tempdir().unwrap();
        for (vocab_size, length) in [(NARROW, 128 + 8 + 16 + 16), (NARROW + 1, 128 + 16 + 16 + 16)] {
            let path = folder.path().join("tokens");
            written(&path, vocab_size);
            assert_eq!(std::fs::metadata(&path).unwrap().len(), length);
            let (store, key) = open(&path).unwrap();
            assert_eq!((key, store.largest_id), (99, 300));
            assert_eq!((0..store.ids.len()).map(|at| store.ids.get(at)).collect::<Vec<_>>(), [7, 300, 5]);
            assert_eq!((&*store.sentence_ends, &*store.document_ends), (&[1, 3][..], &[1, 2][..]));
            assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "something is left over");
        }
    }

    #[test]
    fn every_damage_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tokens");
        written(&path, 1_000);
        let whole = std::fs::read(&path).unwrap();
        let check = |bytes: &[u8], what: &str| {
            std::fs::write(&path, bytes).unwrap();
            let error = open(&path).err().unwrap().to_string();
            assert!(error.contains("tokens: cached tokens: th") && error.contains(what), "{error}");
        };
        for byte in 0..whole.len() {
            // The last two bytes of the ids are padding.
            if !(134..136).contains(&byte) {
                let mut torn = whole.clone();
                torn[byte] ^= 1;
                check(&torn, "");
            }
        }
        for length in [0, 1, 127, 128, whole.len() - 1] {
            check(&whole[..length], "truncated");
        }
        check(&[&whole[..], &[0]].concat(), "truncated");
        check(&[&b"PK"[..], &whole[2..]].concat(), "not a file of cached tokens");
        let mut other = whole.clone();
        other[16] = 2;
        check(&other, "version 2, this library reads version 1");
        other = whole.clone();
        other[8..16].reverse();
        check(&other, "byte order");

        // Ends that do not ascend and ids above the largest are refused even if the checksums match.
        let forge = |at: usize, number: u64, sum: usize, section: Range<usize>| {
            let mut forged = whole.clone();
            forged[at..at + 8].copy_from_slice(&number.to_ne_bytes());
            let sum_of = XxHash3_64::oneshot(&forged[section]);
            forged[sum * 8..sum * 8 + 8].copy_from_slice(&sum_of.to_ne_bytes());
            let header = XxHash3_64::oneshot(&forged[..120]);
            forged[120..128].copy_from_slice(&header.to_ne_bytes());
            forged
        };
        check(&forge(136, 4, 11, 136..152), "damaged");
        check(&forge(152, 9, 12, 152..168), "damaged");
        check(&forge(128, 301, 10, 128..134), "damaged");
        assert!(open(folder.path()).err().unwrap().to_string().contains("not a regular file"));
    }

    #[test]
    fn a_failure_leaves_the_old_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tokens");
        written(&path, 1_000);
        let fails = write(&path, 1, 1_000, |_| Err(WriteFailure::Other(Error::data("corpus", "why"))));
        assert_eq!(fails.unwrap_err().to_string(), "corpus: why");
        let fails = write(&path, 1, 1_000, |_| Ok(())).unwrap_err();
        assert_eq!(fails.to_string(), "corpus: no sentence has a token");
        assert_eq!(open(&path).unwrap().1, 99);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
        let nowhere = folder.path().join("none").join("tokens");
        assert!(write(&nowhere, 1, 9, |_| Ok(())).unwrap_err().to_string().contains("cannot write"));
    }
}
