//! A tokenized corpus as a file that is mapped instead of read.
//!
//! ```text
//! header         16 words of 64 bits, in the byte order of the machine; `Header` says which
//! ids            16 bits each where the vocabulary has at most 2^16 tokens, else 32; then zeros up to a whole word
//! sentence ends  a word each, in tokens
//! document ends  a word each, in sentences
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

use super::assemble::{Counts, TokenPart};
use super::store::{Ids, Section, Store};
use crate::{Error, Result};

/// Of the format of the file.
const VERSION: u64 = 1;
/// The same bytes on every machine.
const MAGIC: u64 = u64::from_ne_bytes(*b"\x93cloze\r\n");
/// Reads otherwise on a machine of the other byte order.
const BYTE_ORDER: u64 = 0x0123_4567_89AB_CDEF;
const WORD: usize = size_of::<u64>();
const HEADER: usize = 16 * WORD;

/// The number of ids below which 16 bits have room for them.
const NARROW: usize = 1 << 16;

struct Header {
    key: u128,
    id_bytes: u64,
    largest_id: u64,
    /// Tokens, sentences, documents.
    counts: [u64; 3],
    /// Of the ids, the sentence ends, the document ends.
    checksums: [u64; 3],
}

impl Header {
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

    /// What is wrong, in words, where it cannot be read.
    fn read(bytes: &[u8]) -> Result<Header, String> {
        let Some(bytes) = bytes.get(..HEADER) else {
            return Err(format!("it has {} bytes, its header alone has {HEADER}: it is cut off", bytes.len()));
        };
        let words: [u64; 16] = bytemuck::pod_read_unaligned(bytes);
        let [magic, byte_order, version, key_low, key_high, id_bytes, largest_id, ..] = words;
        if magic != MAGIC {
            return Err("it is no file of cached tokens".to_string());
        }
        if byte_order != BYTE_ORDER {
            return Err("it was written on a machine of the other byte order".to_string());
        }
        if version != VERSION {
            return Err(format!("its format is version {version}, this program reads version {VERSION}"));
        }
        if words[15] != checksum(&words[..15]) || !matches!(id_bytes, 2 | 4) {
            return Err("its header is damaged".to_string());
        }
        Ok(Header {
            key: u128::from(key_high) << 64 | u128::from(key_low),
            id_bytes,
            largest_id,
            counts: [words[7], words[8], words[9]],
            checksums: [words[10], words[11], words[12]],
        })
    }

    /// The bytes of ids, sentence ends and document ends; none when they cannot be counted.
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

/// A section that is written, and its checksum.
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

/// Writes a corpus, part by part. Ends of sentences and documents wait in files without a name until the ids are there.
pub(super) struct Writer<'f> {
    ids: Checked<&'f mut BufWriter<File>>,
    sentence_ends: Checked<BufWriter<File>>,
    document_ends: Checked<BufWriter<File>>,
    narrow: bool,
    counts: Counts,
    key: u128,
}

impl<'f> Writer<'f> {
    fn new(file: &'f mut BufWriter<File>, folder: &Path, vocab_size: usize, key: u128) -> io::Result<Writer<'f>> {
        file.write_all(&[0; HEADER])?;
        let waiting = || Ok::<_, io::Error>(Checked::new(BufWriter::new(tempfile::tempfile_in(folder)?)));
        let (sentence_ends, document_ends) = (waiting()?, waiting()?);
        let narrow = vocab_size <= NARROW;
        Ok(Writer { ids: Checked::new(file), sentence_ends, document_ends, narrow, counts: Counts::default(), key })
    }

    pub(super) fn push(&mut self, part: &TokenPart) -> io::Result<()> {
        let (mut sentence_ends, mut document_ends) = (Vec::new(), Vec::new());
        self.counts.place(part, &mut sentence_ends, &mut document_ends);
        if self.narrow {
            // Ids are below the size of the vocabulary.
            let ids: Vec<u16> = part.ids.iter().map(|&id| id as u16).collect();
            self.ids.write(&ids)?;
        } else {
            self.ids.write(&part.ids)?;
        }
        self.sentence_ends.write(&sentence_ends)?;
        self.document_ends.write(&document_ends)
    }

    /// Whether no sentence had a token yet.
    pub(super) fn is_empty(&self) -> bool {
        self.counts.tokens == 0
    }

    fn finish(mut self) -> Result<(), Failure> {
        let mut last = Vec::new();
        self.counts.end_document(&mut last);
        self.document_ends.write(&last)?;
        self.counts.check()?;
        let header = Header {
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

/// Writing failed, or what was to be written cannot be had.
pub(super) enum Failure {
    Write(io::Error),
    Other(Error),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Failure {
        Failure::Write(error)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        Failure::Other(error)
    }
}

/// Writes the file at `path`, made by `parts`, which is there whole or not at all.
///
/// # Errors
/// When `parts` fails, no sentence has a token, or the system refuses.
pub(super) fn write(
    path: &Path,
    key: u128,
    vocab_size: usize,
    parts: impl FnOnce(&mut Writer<'_>) -> Result<(), Failure>,
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
            Failure::Write(error) => error,
            Failure::Other(error) => {
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

/// Maps the file at `path`, and gives the key that it was written with. All of it is read once and checked.
///
/// # Errors
/// When it cannot be read, is no such file, is cut off or damaged.
pub(super) fn open(path: &Path) -> Result<(Store, u128)> {
    let cannot_read = |source| Error::io(path, "cannot read", source);
    let wrong = |why: String| Error::data_in(path, "cached tokens", format!("{why}; delete it and it is made again"));
    // A pipe has no end to map, and opening one waits for a writer.
    if !std::fs::metadata(path).map_err(cannot_read)?.is_file() {
        return Err(wrong("it is not a file".to_string()));
    }
    let file = File::open(path).map_err(cannot_read)?;
    // SAFETY: mapped files can change under us; the documentation of `TokenizedCorpus::open` asks callers not to do that.
    let map = Arc::new(unsafe { Mmap::map(&file) }.map_err(|source| Error::io(path, "cannot map", source))?);
    let header = Header::read(&map).map_err(wrong)?;
    let length = map.len();
    let sections = header.sections().filter(|[_, _, documents]| documents.end == length);
    let [ids, sentence_ends, document_ends] = sections
        .ok_or_else(|| wrong(format!("its length, {length} bytes, is not what its header says: it is cut off")))?;
    let ids = match header.id_bytes {
        2 => Ids::Narrow(Section::Mapped(map.clone(), ids)),
        _ => Ids::Wide(Section::Mapped(map.clone(), ids)),
    };
    let largest_id = u32::try_from(header.largest_id).map_err(|_| wrong("its header is damaged".to_string()))?;
    let sentence_ends = Section::Mapped(map.clone(), sentence_ends);
    let store = Store::new(ids, sentence_ends, Section::Mapped(map, document_ends), largest_id);
    check(&store, &header).map_err(wrong)?;
    Ok((store, header.key))
}

/// Checks every section against its checksum, and that no index goes beyond what it points into.
fn check(store: &Store, header: &Header) -> Result<(), String> {
    let [tokens, sentences, documents] = header.counts;
    let [ids_sum, sentences_sum, documents_sum] = header.checksums;
    let within = match &store.ids {
        Ids::Narrow(ids) => check_section(store, ids, ids_sum, |&id| u64::from(id) <= header.largest_id),
        Ids::Wide(ids) => check_section(store, ids, ids_sum, |&id| u64::from(id) <= header.largest_id),
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
    if sound { Ok(()) } else { Err("its checksums say that it is damaged".to_string()) }
}

/// Whether the numbers have this checksum and all of them pass.
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
    fn what_is_written_is_read_narrow_and_wide() {
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
        let says = |bytes: &[u8], what: &str| {
            std::fs::write(&path, bytes).unwrap();
            let error = open(&path).err().unwrap().to_string();
            assert!(error.contains("tokens: cached tokens: it") && error.contains(what), "{error}");
        };
        for byte in 0..whole.len() {
            // The last two bytes of the ids are there to fill the word.
            if !(134..136).contains(&byte) {
                let mut torn = whole.clone();
                torn[byte] ^= 1;
                says(&torn, "");
            }
        }
        for length in [0, 1, 127, 128, whole.len() - 1] {
            says(&whole[..length], "cut off");
        }
        says(&[&whole[..], &[0]].concat(), "cut off");
        says(&[&b"PK"[..], &whole[2..]].concat(), "no file of cached tokens");
        let mut other = whole.clone();
        other[16] = 2;
        says(&other, "version 2, this program reads version 1");
        other = whole.clone();
        other[8..16].reverse();
        says(&other, "byte order");

        // With checksums that fit, ends that do not ascend and ids beyond the largest are refused all the same.
        let forge = |at: usize, number: u64, sum: usize, section: Range<usize>| {
            let mut forged = whole.clone();
            forged[at..at + 8].copy_from_slice(&number.to_ne_bytes());
            let sum_of = XxHash3_64::oneshot(&forged[section]);
            forged[sum * 8..sum * 8 + 8].copy_from_slice(&sum_of.to_ne_bytes());
            let header = XxHash3_64::oneshot(&forged[..120]);
            forged[120..128].copy_from_slice(&header.to_ne_bytes());
            forged
        };
        says(&forge(136, 4, 11, 136..152), "damaged");
        says(&forge(152, 9, 12, 152..168), "damaged");
        says(&forge(128, 301, 10, 128..134), "damaged");
        assert!(open(folder.path()).err().unwrap().to_string().contains("not a file"));
    }

    #[test]
    fn a_failure_leaves_the_old_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tokens");
        written(&path, 1_000);
        let fails = write(&path, 1, 1_000, |_| Err(Failure::Other(Error::data("corpus", "why"))));
        assert_eq!(fails.unwrap_err().to_string(), "corpus: why");
        let fails = write(&path, 1, 1_000, |_| Ok(())).unwrap_err();
        assert_eq!(fails.to_string(), "corpus: no sentence has a token");
        assert_eq!(open(&path).unwrap().1, 99);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
        let nowhere = folder.path().join("none").join("tokens");
        assert!(write(&nowhere, 1, 9, |_| Ok(())).unwrap_err().to_string().contains("cannot write"));
    }
}
