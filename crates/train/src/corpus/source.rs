//! Reading of compressed files.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use cloze_tensor::retry;
use flate2::bufread::MultiGzDecoder;

use super::form::{Compression, TextFile};
use super::zstandard::Frames;
use crate::expansion::{Expansion, most};
use crate::guard::without_panic;
use crate::{Error, Result};

/// The bytes that are read from a compressed file at once.
const BUFFER: usize = 1 << 18;

/// A file that is decompressed while it is read. Besides the text, no more than the window of the decoder is in memory: 32 KiB
/// for gzip; for zstd at most 128 MiB, and about what the file may become.
pub(super) struct Source {
    reader: Box<dyn Read + Send>,
    compression: Compression,
    /// The number of bytes read from the disk.
    stored: Arc<AtomicU64>,
    /// The text so far.
    expansion: Expansion,
    /// Why no more text is given, if the file becomes too large.
    refused: Option<String>,
}

impl Source {
    /// # Errors
    /// Returns an error if the file cannot be opened.
    pub(super) fn open(file: &TextFile) -> Result<Source> {
        let opened = File::open(&file.path).map_err(|source| Error::io(&file.path, "cannot read", source))?;
        let length = retry(|| opened.metadata()).map_err(|source| Error::io(&file.path, "cannot read", source))?.len();
        let stored = Arc::new(AtomicU64::new(0));
        let counted = Counted { from: opened, count: stored.clone() };
        let reader: Box<dyn Read + Send> = match file.compression {
            Compression::None => Box::new(counted),
            Compression::Gzip => Box::new(MultiGzDecoder::new(io::BufReader::with_capacity(BUFFER, counted))),
            Compression::Zstd => Box::new(Frames::new(io::BufReader::with_capacity(BUFFER, counted), most(length))),
        };
        Ok(Source { reader, compression: file.compression, stored, expansion: Expansion::of(length), refused: None })
    }

    /// Returns a source that is no file.
    #[cfg(test)]
    pub(super) fn of(reader: impl Read + Send + 'static) -> Source {
        let (reader, stored) = (Box::new(reader), Arc::default());
        Source { reader, compression: Compression::None, stored, expansion: Expansion::of(0), refused: None }
    }

    /// Returns the number of bytes read from the disk so far.
    pub(super) fn stored(&self) -> u64 {
        self.stored.load(Ordering::Relaxed)
    }

    /// Converts an error of reading the file `path`.
    pub(super) fn error(&self, path: &Path, error: io::Error) -> Error {
        if self.compression == Compression::None {
            return Error::io(path, "cannot read", error);
        }
        let given = self.expansion.given();
        let why = match &self.refused {
            Some(why) => format!("after decompression it has {why}"),
            None => format!("cannot decompress after {given} bytes of text: the file is damaged or cut: {error}"),
        };
        Error::data_in(path, "corpus", why)
    }
}

impl Read for Source {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        // On some damaged files the decoder of zstd panics.
        let damaged = || Err(io::Error::new(io::ErrorKind::InvalidData, "the file is damaged"));
        let read = without_panic(|| self.reader.read(to)).unwrap_or_else(damaged);
        if self.compression == Compression::None {
            return read;
        }
        let is_too_large = read.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::FileTooLarge);
        let why = match &read {
            Ok(read) => self.expansion.add(*read as u64).err(),
            Err(_) => is_too_large.then(|| self.expansion.refusal()),
        };
        if why.is_some() {
            self.refused = why;
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        read
    }
}

/// Counts the bytes that are read.
struct Counted<R> {
    from: R,
    count: Arc<AtomicU64>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        // Not every reader repeats a call that a signal interrupts.
        let read = retry(|| self.from.read(to))?;
        self.count.fetch_add(read as u64, Ordering::Relaxed);
        Ok(read)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::io::Write;

    use flate2::write::GzEncoder;
    use ruzstd::encoding::{CompressionLevel, compress_to_vec};

    use super::super::zstandard::{DESCRIPTOR, IS_SINGLE_SEGMENT, MAGIC, narrow};
    use super::*;

    /// Returns a file of two members or frames.
    pub(in crate::corpus) fn compressed(text: &[u8], compression: Compression) -> Vec<u8> {
        let (first, second) = text.split_at(text.len() / 3);
        match compression {
            Compression::None => text.to_vec(),
            Compression::Gzip => {
                let member = |text: &[u8]| {
                    let mut encoder = GzEncoder::new(Vec::new(), flate2::Compression::fast());
                    encoder.write_all(text).unwrap();
                    encoder.finish().unwrap()
                };
                [member(first), member(second)].concat()
            }
            Compression::Zstd => {
                let skipped = [&[0x50, 0x2a, 0x4d, 0x18, 3, 0, 0, 0][..], b"abc"].concat();
                let frame = |text: &[u8]| compress_to_vec(text, CompressionLevel::Fastest);
                [frame(first), skipped, frame(second)].concat()
            }
        }
    }

    fn read(bytes: &[u8], compression: Compression) -> Result<Vec<u8>> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("text");
        std::fs::write(&path, bytes).unwrap();
        let file = TextFile { path, form: super::super::form::TextForm::Lines, compression, bytes: 0 };
        let (mut source, mut text) = (Source::open(&file)?, Vec::new());
        match source.read_to_end(&mut text) {
            Ok(_) => {
                assert_eq!(source.stored(), bytes.len() as u64);
                Ok(text)
            }
            Err(error) => Err(source.error(&file.path, error)),
        }
    }

    fn text() -> Vec<u8> {
        (0..40_000).flat_map(|number| format!("line {number}, {}\n", number * 7_919 % 1_013).into_bytes()).collect()
    }

    #[test]
    fn all_members_and_frames_are_read() {
        for compression in [Compression::None, Compression::Gzip, Compression::Zstd] {
            let stored = compressed(&text(), compression);
            assert!(read(&stored, compression).unwrap() == text(), "{compression:?}");
            assert!(compression == Compression::None || stored.len() * 2 < text().len());
        }
    }

    /// A few kilobytes that become more than any memory has.
    #[test]
    fn what_becomes_too_large_is_refused() {
        let zeros = vec![0; 1 << 20];
        let mut encoder = GzEncoder::new(Vec::new(), flate2::Compression::best());
        (0..80).for_each(|_| encoder.write_all(&zeros).unwrap());
        let gzip = encoder.finish().unwrap();
        // A frame of blocks of one repeated byte: a window of 128 KiB, and as much from every four bytes.
        let block = |is_last: u32| (is_last | 1 << 1 | (128 << 10) << 3).to_le_bytes()[..3].to_vec();
        let frame = vec![0x28, 0xb5, 0x2f, 0xfd, 0, 7 << 3];
        let blocks: Vec<u8> = (0..1_000).flat_map(|_| [block(0), vec![b'a']].concat()).collect();
        let zstd = [frame, blocks, block(1), vec![b'a']].concat();
        for (stored, compression) in [(gzip, Compression::Gzip), (zstd, Compression::Zstd)] {
            assert!(stored.len() < 100_000, "{compression:?}");
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("bomb");
            std::fs::write(&path, &stored).unwrap();
            let file =
                TextFile { path: path.clone(), form: super::super::form::TextForm::Lines, compression, bytes: 0 };
            let (mut source, mut part, mut given) = (Source::open(&file).unwrap(), vec![0; 1 << 16], 0);
            let error = loop {
                match source.read(&mut part) {
                    Ok(0) => panic!("{compression:?}: all of it is read"),
                    Ok(read) => given += read,
                    Err(error) => break source.error(&path, error).to_string(),
                }
            };
            let bytes = stored.len();
            let why =
                format!("bomb: corpus: after decompression it has more than 200 times the {bytes} bytes of the file");
            assert!(error.contains(&why), "{error}");
            assert!(given < (1 << 20) + 201 * bytes, "{given}");
        }
    }

    /// Returns what the program `zstd` makes of a text that it reads from a pipe, so that it does not know its size. `None` if
    /// there is no such program.
    fn by_zstd(text: &[u8], arguments: &[&str]) -> Option<Vec<u8>> {
        use std::process::{Command, Stdio};
        let mut command = Command::new("zstd");
        command.args(["-q", "-c"]).args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut program = command.spawn().ok()?;
        let mut to = program.stdin.take().unwrap();
        let stored = std::thread::scope(|scope| {
            scope.spawn(move || to.write_all(text).unwrap());
            program.wait_with_output().unwrap()
        });
        assert!(stored.status.success());
        Some(stored.stdout)
    }

    /// Files of the reference implementation with windows of 1 KiB to 128 MiB, whose texts repeat what is almost as far behind,
    /// in frames between others that are skipped.
    #[test]
    fn files_with_windows_of_every_size_are_read() {
        let numbers: Vec<u8> = text().into_iter().take(30_000).collect();
        let text = |log: u32| {
            let blank = vec![b' '; (1usize << log.min(20)).saturating_sub(numbers.len() / 2)];
            [&numbers[..], &blank, &numbers[..], &blank[..blank.len() / 3], &numbers[..]].concat()
        };
        let skipped = [&[0x5f, 0x2a, 0x4d, 0x18, 5, 0, 0, 0][..], b"other"].concat();
        let mut narrowed = 0;
        for log in 10..=27 {
            let (text, window) = (text(log), format!("--zstd=wlog={log}"));
            for arguments in [&["-3", &window, "--check"][..], &["-19", &window, "--no-check"]] {
                let Some(frame) = by_zstd(&text, arguments) else {
                    println!("SKIPPED: there is no program zstd");
                    return;
                };
                let stored = [&frame[..], &skipped, &skipped, &frame].concat();
                narrowed += usize::from(narrow(&mut frame.clone(), most(stored.len() as u64)));
                let found = read(&stored, Compression::Zstd).unwrap();
                assert!(found == [&text[..], &text].concat(), "{arguments:?}");
            }
        }
        assert!(narrowed > 5, "{narrowed}");
        // A frame that states the size of its text.
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("text");
        std::fs::write(&path, text(19)).unwrap();
        let stored = by_zstd(&[], &["--single-thread", path.to_str().unwrap()]).unwrap();
        assert!(stored[DESCRIPTOR] & IS_SINGLE_SEGMENT != 0 && read(&stored, Compression::Zstd).unwrap() == text(19));
    }

    /// Two frames that ask for 17 MB, and one that states as many bytes of text, in files of a few bytes.
    #[test]
    fn a_few_bytes_get_no_large_window() {
        let block = |blocks: u32| [&(1 | 1 << 1 | blocks << 3).to_le_bytes()[..3], b"a"].concat();
        let asks = [&MAGIC[..], &[0, 14 << 3], &block(5)].concat();
        assert_eq!(read(&[&asks[..], &asks].concat(), Compression::Zstd).unwrap(), b"aaaaaaaaaa");
        let states = [&MAGIC[..], &[IS_SINGLE_SEGMENT | 2 << 6], &(17u32 << 20).to_le_bytes(), &block(5)].concat();
        let error = read(&states, Compression::Zstd).unwrap_err().to_string();
        assert!(error.contains("after decompression it has more than 200 times the 13 bytes of the file"), "{error}");
    }

    #[test]
    fn damage_is_an_error() {
        for compression in [Compression::Gzip, Compression::Zstd] {
            let whole = compressed(&text(), compression);
            let refuses = |bytes: &[u8]| {
                let error = read(bytes, compression).unwrap_err().to_string();
                assert!(error.contains("text: corpus: cannot decompress after "), "{error}");
                assert!(!error.contains('\n'), "{error}");
            };
            for length in [0, 3, whole.len() / 4, whole.len() / 2, whole.len() - 1] {
                refuses(&whole[..length]);
            }
            refuses(&[&whole[..], b"something else"].concat());
            for byte in [0, 2, whole.len() / 5, whole.len() / 2, whole.len() - 3] {
                let mut torn = whole.clone();
                torn[byte] ^= 0x10;
                refuses(&torn);
            }
        }
    }
}
