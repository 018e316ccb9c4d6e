//! Text in pieces of bounded size. Cuts fall between lines or paragraphs, so each piece is split into sentences
//! independently of the others.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rayon::prelude::*;

use super::content::ContentHash;
use super::form::TextForm;
use super::part::TextPart;
use super::progress::ReadProgress;
use crate::{Error, ErrorKind, Result};

/// The bytes of a piece: enough to outweigh the cost of a task, few enough to keep all threads busy to the end of a batch.
const PIECE: usize = 256 << 10;

/// The bytes that are read before the threads work on them.
const BATCH: usize = 64 * PIECE;

/// The most pieces of a batch, a limit that small files reach.
const BATCH_PIECES: usize = 1 << 13;

/// The most bytes between two possible cuts.
const LONGEST: usize = 1 << 30;

const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();

/// Whole lines or paragraphs of a text.
struct TextPiece {
    bytes: Vec<u8>,
    form: TextForm,
    path: Arc<Path>,
    /// The offset of the piece in the text.
    offset: u64,
    /// Whether the text ends with this piece.
    is_last: bool,
}

impl TextPiece {
    fn part(self) -> Result<TextPart> {
        let text = std::str::from_utf8(&self.bytes).map_err(|error| ErrorKind::Encoding {
            path: self.path.to_path_buf(),
            offset: self.offset as usize + error.valid_up_to(),
        })?;
        let mut part = match self.form {
            TextForm::Lines => TextPart::of_lines(text),
            TextForm::Prose => TextPart::of_prose(text),
        };
        if self.is_last {
            part.end_document();
        }
        Ok(part)
    }
}

/// A text being read.
struct OpenText<'a> {
    reader: Box<dyn Read + Send + 'a>,
    form: TextForm,
    path: Arc<Path>,
    /// The bytes read beyond the last piece, and their offset in the text.
    rest: Vec<u8>,
    offset: u64,
    is_over: bool,
}

impl OpenText<'_> {
    /// Returns the next piece, or `None` after the last one.
    fn next(&mut self, hash: &mut ContentHash) -> Result<Option<TextPiece>> {
        if self.is_over {
            return Ok(None);
        }
        let mut bytes = std::mem::take(&mut self.rest);
        let mut wanted = PIECE;
        let cut = loop {
            let before = bytes.len();
            let more = wanted.saturating_sub(before).max(1);
            let read = (&mut self.reader).take(more as u64).read_to_end(&mut bytes);
            let read = read.map_err(|source| Error::io(&*self.path, "cannot read", source))?;
            hash.write(&bytes[before..]);
            if read < more {
                self.is_over = true;
                break bytes.len();
            }
            match self.form.cut(&bytes) {
                0 if bytes.len() >= LONGEST => {
                    let unit = self.form.unit();
                    let why = format!("{unit} has more than {LONGEST} bytes: put each sentence on its own line");
                    return Err(Error::data_in(&*self.path, "corpus", why));
                }
                0 => wanted = bytes.len() * 2,
                cut => break cut,
            }
        };
        self.rest = bytes.split_off(cut);
        let mut offset = self.offset;
        self.offset += cut as u64;
        if offset == 0 && bytes.starts_with(BYTE_ORDER_MARK) {
            bytes.drain(..BYTE_ORDER_MARK.len());
            offset = BYTE_ORDER_MARK.len() as u64;
        }
        Ok(Some(TextPiece { bytes, form: self.form, path: self.path.clone(), offset, is_last: self.is_over }))
    }
}

/// The pieces of texts, in order.
pub(super) struct TextPieces<'a> {
    waiting: std::vec::IntoIter<(PathBuf, TextForm)>,
    open: Option<OpenText<'a>>,
    hash: ContentHash,
}

impl<'a> TextPieces<'a> {
    /// Returns the pieces of files.
    pub(super) fn of_files(files: Vec<(PathBuf, TextForm)>) -> TextPieces<'static> {
        TextPieces { waiting: files.into_iter(), open: None, hash: ContentHash::default() }
    }

    /// Returns the pieces of a text that is not a file, with a sentence per line. Errors call it `name`.
    pub(super) fn of_reader(reader: impl Read + Send + 'a, name: &Path) -> TextPieces<'a> {
        let open = OpenText {
            reader: Box::new(reader),
            form: TextForm::Lines,
            path: name.into(),
            rest: Vec::new(),
            offset: 0,
            is_over: false,
        };
        TextPieces { waiting: Vec::new().into_iter(), open: Some(open), hash: ContentHash::default() }
    }

    fn next(&mut self) -> Result<Option<TextPiece>> {
        loop {
            if let Some(open) = &mut self.open {
                if let Some(piece) = open.next(&mut self.hash)? {
                    return Ok(Some(piece));
                }
                self.hash.end_text(open.form);
                self.open = None;
            }
            let Some((path, form)) = self.waiting.next() else { return Ok(None) };
            let file = File::open(&path).map_err(|source| Error::io(&path, "cannot read", source))?;
            let (reader, path) = (Box::new(file), path.into());
            self.open = Some(OpenText { reader, form, path, rest: Vec::new(), offset: 0, is_over: false });
        }
    }

    /// Returns the next pieces; the result is empty at the end. An error ends the batch, so that an error in an earlier
    /// piece is reported first.
    fn next_batch(&mut self) -> Vec<Result<TextPiece>> {
        let (mut batch, mut bytes) = (Vec::new(), 0);
        while bytes < BATCH && batch.len() < BATCH_PIECES {
            match self.next() {
                Ok(Some(piece)) => {
                    bytes += piece.bytes.len();
                    batch.push(Ok(piece));
                }
                Ok(None) => break,
                Err(error) => {
                    batch.push(Err(error));
                    break;
                }
            }
        }
        batch
    }

    /// Runs `work` on each part, on all threads of the rayon pool, and passes the results to `take` in order. One batch is in
    /// memory while the next one is read. Returns the hash of the text.
    ///
    /// # Errors
    /// Returns the first error in the order of the text.
    pub(super) fn for_each<T: Send>(
        mut self,
        progress: &mut ReadProgress,
        work: impl Fn(TextPart) -> Result<T> + Sync,
        mut take: impl FnMut(T) -> Result<()>,
    ) -> Result<u128> {
        let mut batch = self.next_batch();
        while !batch.is_empty() {
            let bytes: usize = batch.iter().flatten().map(|piece| piece.bytes.len()).sum();
            let work = |piece: Result<TextPiece>| work(piece?.part()?);
            let work_all = || batch.into_par_iter().map(work).collect::<Vec<Result<T>>>();
            let (next, done) = rayon::join(|| self.next_batch(), work_all);
            done.into_iter().try_for_each(|made| take(made?))?;
            batch = next;
            progress.advance(bytes as u64);
        }
        Ok(self.hash.finish())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A reader that returns a few bytes at a time.
    struct Slow<'a>(&'a [u8], usize);

    impl Read for Slow<'_> {
        fn read(&mut self, to: &mut [u8]) -> std::io::Result<usize> {
            let few = self.1.min(to.len());
            self.0.read(&mut to[..few])
        }
    }

    fn parts(text: &[u8], form: TextForm, few: usize) -> Result<Vec<(Vec<String>, Vec<usize>)>> {
        let mut pieces = TextPieces::of_reader(Slow(text, few), Path::new("text"));
        pieces.open.as_mut().unwrap().form = form;
        let mut parts = Vec::new();
        let take = |part: TextPart| {
            parts.push((part.sentences().map(str::to_string).collect(), part.document_ends));
            Ok(())
        };
        pieces.for_each(&mut ReadProgress::hidden(), Ok, take)?;
        Ok(parts)
    }

    /// Joins parts to documents of sentences.
    fn joined(parts: Vec<(Vec<String>, Vec<usize>)>) -> Vec<Vec<String>> {
        let mut documents = vec![Vec::new()];
        for (sentences, ends) in parts {
            for at in 0..=sentences.len() {
                if ends.contains(&at) {
                    documents.push(Vec::new());
                }
                documents.last_mut().unwrap().extend(sentences.get(at).cloned());
            }
        }
        documents.retain(|document| !document.is_empty());
        documents
    }

    #[test]
    fn pieces_join_to_the_whole() {
        let mut lines = String::from("\u{feff}");
        for number in 0..60_000 {
            lines += &format!("This is sentence {number}, ação.\n");
            if number % 97 == 0 {
                lines += if number % 2 == 0 { "\r\n" } else { " \n\n" };
            }
        }
        let bare = lines.trim_start_matches('\u{feff}');
        for form in [TextForm::Lines, TextForm::Prose] {
            let whole = match form {
                TextForm::Lines => TextPart::of_lines(bare),
                TextForm::Prose => TextPart::of_prose(bare),
            };
            let expected = joined(vec![(whole.sentences().map(str::to_string).collect(), whole.document_ends.clone())]);
            let read = parts(lines.as_bytes(), form, 10_007).unwrap();
            assert!(read.len() > 5, "one piece shows nothing");
            assert!(joined(read) == expected);
        }
    }

    #[test]
    fn a_long_line_is_one_sentence() {
        let long = "word ".repeat(300_000);
        let read = parts(format!("a\n{long}\nb").as_bytes(), TextForm::Lines, usize::MAX).unwrap();
        assert_eq!(joined(read), [["a", long.trim_end(), "b"]]);
    }

    #[test]
    fn wrong_bytes_have_their_offset_in_the_text() {
        let mut text = String::from("\u{feff}a line\n").into_bytes();
        text.extend("another line\n".repeat(50_000).bytes());
        let wrong = text.len() + 2;
        text.extend(b"ol\xc3\xff");
        for few in [7, usize::MAX] {
            let error = parts(&text, TextForm::Lines, few).unwrap_err();
            assert!(matches!(error.kind(), ErrorKind::Encoding { offset, .. } if *offset == wrong), "{error}");
        }
    }
}
