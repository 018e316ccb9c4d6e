//! Streaming reader of UTF-8 text files.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Cursor, Read};
use std::path::Path;

use cloze_tensor::retry;

use crate::{Error, ErrorKind, Result};

const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();

/// A reader that checks that its source is UTF-8, removes a byte order mark, and maps offsets to line numbers.
pub(super) struct Utf8Reader {
    source: Box<dyn Read + Send>,
    /// Length of the byte order mark, which is not part of the output.
    mark: usize,
    /// Number of bytes read out so far.
    given: u64,
    /// The first bytes of a character whose rest has not been read.
    incomplete: Vec<u8>,
    /// Offset and line of the first byte of each non-empty line, without those that [`line_of`](Utf8Reader::line_of)
    /// has passed.
    starts: VecDeque<(u64, usize)>,
    line: usize,
    after_line_end: bool,
}

/// The offset of the first byte of the file that is not valid UTF-8.
#[derive(Debug, thiserror::Error)]
#[error("not UTF-8")]
struct NotUtf8(usize);

impl Utf8Reader {
    pub(super) fn open(path: &Path) -> Result<Utf8Reader> {
        let file = File::open(path).and_then(Utf8Reader::new);
        file.map_err(|error| read_error(path, error))
    }

    pub(super) fn new(mut source: impl Read + Send + 'static) -> io::Result<Utf8Reader> {
        let mut first = Vec::new();
        source.by_ref().take(BYTE_ORDER_MARK.len() as u64).read_to_end(&mut first)?;
        let mark = if first == BYTE_ORDER_MARK { first.len() } else { 0 };
        first.drain(..mark);
        Ok(Utf8Reader {
            source: Box::new(Cursor::new(first).chain(source)),
            mark,
            given: 0,
            incomplete: Vec::new(),
            starts: VecDeque::new(),
            line: 1,
            after_line_end: true,
        })
    }

    /// Returns the first bytes, at most `length`, which are still to be read. Must be called before anything is read.
    pub(super) fn peek(&mut self, length: u64) -> io::Result<Vec<u8>> {
        let mut first = Vec::new();
        self.source.by_ref().take(length).read_to_end(&mut first)?;
        let rest = std::mem::replace(&mut self.source, Box::new(io::empty()));
        self.source = Box::new(Cursor::new(first.clone()).chain(rest));
        Ok(first)
    }

    /// Returns the line, from 1, of the first byte at or after `offset` that is not a line end. Offsets must not
    /// decrease from call to call.
    pub(super) fn line_of(&mut self, offset: u64) -> usize {
        while self.starts.front().is_some_and(|(start, _)| *start < offset) {
            self.starts.pop_front();
        }
        self.starts.front().map_or(self.line, |(_, line)| *line)
    }

    fn check(&mut self, read: &[u8]) -> io::Result<()> {
        let begins = self.mark + self.given as usize - self.incomplete.len();
        let mut text = std::mem::take(&mut self.incomplete);
        text.extend_from_slice(read);
        if let Err(error) = std::str::from_utf8(&text) {
            let valid = error.valid_up_to();
            // `error_len` is `None` for a character that may continue, which the end of the file rules out.
            if error.error_len().is_some() || read.is_empty() {
                return Err(io::Error::new(io::ErrorKind::InvalidData, NotUtf8(begins + valid)));
            }
            self.incomplete = text.split_off(valid);
        }
        Ok(())
    }

    fn count(&mut self, read: &[u8]) {
        for (byte, offset) in read.iter().zip(self.given..) {
            let ends_line = matches!(byte, b'\r' | b'\n');
            if self.after_line_end && !ends_line {
                self.starts.push_back((offset, self.line));
            }
            self.after_line_end = ends_line;
            self.line += usize::from(*byte == b'\n');
        }
        self.given += read.len() as u64;
    }
}

impl Read for Utf8Reader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        // The reader of columns does not repeat a call that a signal interrupts.
        let length = retry(|| self.source.read(buffer))?;
        if !buffer.is_empty() {
            self.check(&buffer[..length])?;
        }
        self.count(&buffer[..length]);
        Ok(length)
    }
}

/// Converts an error of a [`Utf8Reader`] of the file `path`.
pub(super) fn read_error(path: &Path, error: io::Error) -> Error {
    match error.get_ref().and_then(|inner| inner.downcast_ref()) {
        Some(NotUtf8(offset)) => ErrorKind::Encoding { path: path.into(), offset: *offset }.into(),
        None => Error::io(path, "cannot read", error),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A source that returns at most a few bytes at a time.
    struct Slow(Vec<u8>, usize);

    impl Read for Slow {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let length = self.1.min(buffer.len()).min(self.0.len());
            buffer[..length].copy_from_slice(&self.0[..length]);
            self.0.drain(..length);
            Ok(length)
        }
    }

    fn read(bytes: &[u8], at_once: usize) -> io::Result<String> {
        let mut text = String::new();
        Utf8Reader::new(Slow(bytes.to_vec(), at_once))?.read_to_string(&mut text)?;
        Ok(text)
    }

    proptest! {
        #[test]
        fn text_is_checked_whatever_the_pieces(
            mut bytes in "[aé€😀\n\u{feff}]{0,9}".prop_map(String::into_bytes),
            wrong in prop::option::of((any::<prop::sample::Index>(), any::<u8>())),
            at_once in 1usize..7,
        ) {
            if let (Some((at, byte)), false) = (wrong, bytes.is_empty()) {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            let found = read(&bytes, at_once).map_err(|error| read_error(Path::new("a"), error).to_string());
            match std::str::from_utf8(&bytes) {
                Ok(text) => prop_assert_eq!(found, Ok(text.strip_prefix('\u{feff}').unwrap_or(text).to_string())),
                Err(error) => {
                    let offset = format!("offset {}:", error.valid_up_to());
                    prop_assert!(found.as_ref().is_err_and(|said| said.contains(&offset)), "{:?}", found);
                }
            }
        }

        #[test]
        fn lines_are_counted(text in "[ab\r\n]{0,12}", at_once in 1usize..5) {
            let mut reader = Utf8Reader::new(Slow(text.clone().into_bytes(), at_once)).unwrap();
            reader.read_to_string(&mut String::new()).unwrap();
            for (offset, _) in text.char_indices() {
                let skipped = text[offset..].find(['a', 'b']).unwrap_or(text.len() - offset);
                // Only offsets at which a record can begin: after a line end.
                if text[..offset].ends_with(['\r', '\n']) || offset == 0 {
                    let expected = text[..offset + skipped].matches('\n').count() + 1;
                    prop_assert_eq!(reader.line_of(offset as u64), expected);
                }
            }
        }
    }
}
