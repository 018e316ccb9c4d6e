//! Text in pieces of bounded size. Cuts fall between lines, paragraphs or documents, so each piece is split into sentences
//! independently of the others.

use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use rayon::prelude::*;

use super::form::{TextFile, TextForm};
use super::json_text::text_of;
use super::part::{DroppedTexts, TextPart};
use super::progress::ReadProgress;
use super::source::Source;
#[cfg(feature = "parquet")]
use crate::rows::{ParquetText, ParquetTexts};
use crate::{Error, ErrorKind, Result};

/// The bytes of a piece: enough to outweigh the cost of a task, few enough to keep all threads busy to the end of a batch.
const PIECE: usize = 256 << 10;

/// The bytes that are read before the threads work on them.
const BATCH: usize = 64 * PIECE;

/// The most pieces of a batch, a limit that small files reach.
const BATCH_PIECES: usize = 1 << 13;

/// The most bytes between two possible cuts, which are in memory together.
const LONGEST: usize = 1 << 28;

const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();

/// What is wrong with a line of JSON is part of an error line, which should not have pages.
const SHOWN_CHARACTERS: usize = 300;

/// A piece of a text.
enum TextPiece {
    Bytes(TextBytes),
    #[cfg_attr(not(feature = "parquet"), expect(dead_code, reason = "only Parquet files have documents in rows"))]
    Documents(Vec<String>, DroppedTexts),
}

/// Whole lines or paragraphs of a text.
struct TextBytes {
    bytes: Vec<u8>,
    form: TextForm,
    path: Arc<Path>,
    /// The offset of the piece in the text.
    offset: u64,
    /// The line, from 1, on which it begins.
    line: usize,
    /// Whether the text ends with this piece.
    is_last: bool,
}

impl TextPiece {
    fn len(&self) -> usize {
        match self {
            TextPiece::Bytes(piece) => piece.bytes.len(),
            TextPiece::Documents(texts, _) => texts.iter().map(String::len).sum(),
        }
    }

    /// Splits the piece into sentences. In JSON, documents are in the field `field`.
    fn part(self, field: &str) -> Result<TextPart> {
        let read_bytes = self.len() as u64;
        let part = match self {
            TextPiece::Bytes(piece) => piece.part(field)?,
            TextPiece::Documents(texts, dropped) => {
                let mut part = TextPart { dropped, ..TextPart::default() };
                texts.iter().for_each(|text| part.push_document(text));
                part
            }
        };
        Ok(TextPart { read_bytes, ..part })
    }
}

impl TextBytes {
    fn part(self, field: &str) -> Result<TextPart> {
        let text = std::str::from_utf8(&self.bytes).map_err(|error| ErrorKind::Encoding {
            path: self.path.to_path_buf(),
            offset: self.offset as usize + error.valid_up_to(),
        })?;
        let mut part = match self.form {
            TextForm::Lines => TextPart::of_lines(text),
            TextForm::Prose => TextPart::of_prose(text),
            TextForm::JsonLines | TextForm::Parquet => self.json_part(text, field)?,
        };
        if self.is_last {
            let is_whole = self.offset <= BYTE_ORDER_MARK.len() as u64;
            if self.form == TextForm::Prose && is_whole && part.sentence_ends.is_empty() {
                part.dropped.blank += 1;
            }
            part.end_document();
        }
        Ok(part)
    }

    fn json_part(&self, text: &str, field: &str) -> Result<TextPart> {
        let mut part = TextPart::default();
        for (line, number) in text.lines().zip(self.line..) {
            if line.trim().is_empty() {
                continue;
            }
            match text_of(line, field) {
                Ok(Some(text)) => part.push_document(&text),
                Ok(None) => part.dropped.null += 1,
                Err(why) => {
                    let why = why.chars().take(SHOWN_CHARACTERS).collect();
                    let path = Some(self.path.to_path_buf());
                    return Err(ErrorKind::Data { what: "corpus", why, path, line: Some(number) }.into());
                }
            }
        }
        Ok(part)
    }
}

/// A text being read.
struct OpenText {
    source: Source,
    form: TextForm,
    path: Arc<Path>,
    /// The bytes read beyond the last piece, and their offset and line in the text.
    rest: Vec<u8>,
    offset: u64,
    line: usize,
    is_over: bool,
    /// The most bytes between two possible cuts.
    longest: usize,
}

impl OpenText {
    fn new(source: Source, file: &TextFile) -> OpenText {
        let (form, path) = (file.form, file.path.as_path().into());
        OpenText { source, form, path, rest: Vec::new(), offset: 0, line: 1, is_over: false, longest: LONGEST }
    }

    /// Returns the next piece, or `None` after the last one.
    fn next(&mut self) -> Result<Option<TextPiece>> {
        if self.is_over {
            return Ok(None);
        }
        let mut bytes = std::mem::take(&mut self.rest);
        let mut wanted = PIECE;
        let cut = loop {
            let more = wanted.saturating_sub(bytes.len()).max(1);
            let read = self.source.by_ref().take(more as u64).read_to_end(&mut bytes);
            if read.map_err(|error| self.source.error(&self.path, error))? < more {
                self.is_over = true;
                break bytes.len();
            }
            match self.form.cut(&bytes) {
                0 if bytes.len() >= self.longest => {
                    let (unit, longest) = (self.form.unit(), self.longest);
                    let why = format!("{unit} has more than {longest} bytes: put each sentence on its own line");
                    return Err(Error::data_in(&*self.path, "corpus", why));
                }
                0 => wanted = bytes.len() * 2,
                cut => break cut,
            }
        };
        self.rest = bytes.split_off(cut);
        let (mut offset, line) = (self.offset, self.line);
        self.offset += cut as u64;
        if self.form == TextForm::JsonLines {
            self.line += bytes.iter().filter(|&&byte| byte == b'\n').count();
        }
        if offset == 0 && bytes.starts_with(BYTE_ORDER_MARK) {
            bytes.drain(..BYTE_ORDER_MARK.len());
            offset = BYTE_ORDER_MARK.len() as u64;
        }
        let (form, path, is_last) = (self.form, self.path.clone(), self.is_over);
        Ok(Some(TextPiece::Bytes(TextBytes { bytes, form, path, offset, line, is_last })))
    }
}

/// Returns the next rows of a Parquet file, or `None` after the last one.
#[cfg(feature = "parquet")]
fn next_rows(rows: &mut ParquetTexts) -> Result<Option<TextPiece>> {
    let (mut texts, mut dropped, mut bytes) = (Vec::new(), DroppedTexts::default(), 0);
    while bytes < PIECE && texts.len() < BATCH_PIECES {
        match rows.next() {
            None => break,
            Some(text) => match text? {
                ParquetText::Text(text) => {
                    bytes += text.len();
                    texts.push(text);
                }
                ParquetText::Null => dropped.null += 1,
                ParquetText::NotUtf8 => dropped.not_utf8 += 1,
            },
        }
    }
    let is_over = texts.is_empty() && dropped == DroppedTexts::default();
    Ok((!is_over).then_some(TextPiece::Documents(texts, dropped)))
}

/// A file being read.
enum OpenFile {
    Text(OpenText),
    #[cfg(feature = "parquet")]
    Rows(Box<ParquetTexts>, u64),
}

impl OpenFile {
    #[cfg_attr(not(feature = "parquet"), expect(unused_variables, reason = "only Parquet files have columns"))]
    fn new(file: &TextFile, field: &str) -> Result<OpenFile> {
        match file.form {
            #[cfg(feature = "parquet")]
            TextForm::Parquet => Ok(OpenFile::Rows(Box::new(ParquetTexts::open(&file.path, field)?), file.bytes)),
            #[cfg(not(feature = "parquet"))]
            TextForm::Parquet => Err(Error::data_in(&file.path, "corpus", crate::rows::NO_PARQUET)),
            _ => Ok(OpenFile::Text(OpenText::new(Source::open(file)?, file))),
        }
    }

    fn next(&mut self) -> Result<Option<TextPiece>> {
        match self {
            OpenFile::Text(text) => text.next(),
            #[cfg(feature = "parquet")]
            OpenFile::Rows(rows, _) => next_rows(rows),
        }
    }

    /// Returns the number of bytes of the file that have been read. Parquet files are read out of order, and count at
    /// the end.
    fn stored(&self) -> u64 {
        match self {
            OpenFile::Text(text) => text.source.stored(),
            #[cfg(feature = "parquet")]
            OpenFile::Rows(_, bytes) => *bytes,
        }
    }
}

/// The pieces of files, in order.
pub(super) struct TextPieces {
    waiting: std::vec::IntoIter<TextFile>,
    field: String,
    open: Option<OpenFile>,
    /// The number of bytes of the files before the open one.
    stored: u64,
}

/// Pieces that are worked on together.
struct PieceBatch {
    pieces: Vec<Result<TextPiece>>,
    /// The number of bytes of the files read so far, as they are stored.
    stored: u64,
}

impl TextPieces {
    /// Returns the pieces of files. In JSON and Parquet, documents are in the field or column `field`.
    pub(super) fn new(files: Vec<TextFile>, field: &str) -> TextPieces {
        TextPieces { waiting: files.into_iter(), field: field.into(), open: None, stored: 0 }
    }

    fn next(&mut self) -> Result<Option<TextPiece>> {
        loop {
            if let Some(open) = &mut self.open {
                if let Some(piece) = open.next()? {
                    return Ok(Some(piece));
                }
                self.stored += open.stored();
                self.open = None;
            }
            let Some(file) = self.waiting.next() else { return Ok(None) };
            self.open = Some(OpenFile::new(&file, &self.field)?);
        }
    }

    /// Returns the next pieces; there are none at the end. An error ends the batch, so that an error in an earlier
    /// piece is reported first.
    fn next_batch(&mut self) -> PieceBatch {
        let (mut pieces, mut bytes) = (Vec::new(), 0);
        while bytes < BATCH && pieces.len() < BATCH_PIECES {
            match self.next() {
                Ok(Some(piece)) => {
                    bytes += piece.len();
                    pieces.push(Ok(piece));
                }
                Ok(None) => break,
                Err(error) => {
                    pieces.push(Err(error));
                    // Nothing is read after an error.
                    (self.waiting, self.open) = (Vec::new().into_iter(), None);
                    break;
                }
            }
        }
        let open = match &self.open {
            Some(OpenFile::Text(text)) => text.source.stored(),
            _ => 0,
        };
        PieceBatch { pieces, stored: self.stored + open }
    }

    /// Runs `work` on each part, on all threads of the rayon pool, and passes the results to `take` in order. While the
    /// threads work on a batch, one of them takes the results of the batch before and reads the next one. These three
    /// batches are all that is in memory.
    ///
    /// # Errors
    /// Returns the first error in the order of the text.
    pub(super) fn for_each<T: Send>(
        mut self,
        progress: &mut ReadProgress,
        work: impl Fn(TextPart) -> Result<T> + Sync,
        mut take: impl FnMut(T) -> Result<()> + Send,
    ) -> Result<()> {
        let field = self.field.clone();
        let (mut batch, mut done) = (self.next_batch(), Vec::new());
        while !batch.pieces.is_empty() || !done.is_empty() {
            let stored = batch.stored;
            let work = |piece: Result<TextPiece>| work(piece?.part(&field)?);
            let work_all = || batch.pieces.into_par_iter().map(work).collect::<Vec<Result<T>>>();
            let before = std::mem::take(&mut done);
            let take_and_read = || {
                before.into_iter().try_for_each(|made| take(made?))?;
                Ok::<_, Error>(self.next_batch())
            };
            let next;
            (next, done) = rayon::join(take_and_read, work_all);
            batch = next?;
            progress.advance_to(stored);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::corpus::form::Compression;

    /// A reader of bytes from a place on that returns a few at a time.
    struct Slow(Vec<u8>, usize, usize);

    impl Read for Slow {
        fn read(&mut self, to: &mut [u8]) -> std::io::Result<usize> {
            let few = self.2.min(to.len());
            let read = (&self.0[self.1..]).read(&mut to[..few])?;
            self.1 += read;
            Ok(read)
        }
    }

    fn parts(text: &[u8], form: TextForm, few: usize) -> Result<Vec<(Vec<String>, Vec<usize>)>> {
        let file = TextFile { path: "text".into(), form, compression: Compression::None, bytes: 0 };
        let mut pieces = TextPieces::new(Vec::new(), "text");
        pieces.open = Some(OpenFile::Text(OpenText::new(Source::of(Slow(text.to_vec(), 0, few)), &file)));
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
    fn a_line_or_paragraph_has_a_limit() {
        for (form, unit) in
            [(TextForm::Lines, "a line"), (TextForm::JsonLines, "a line"), (TextForm::Prose, "a paragraph")]
        {
            let of = |text: Vec<u8>| {
                let file = TextFile { path: "text".into(), form, compression: Compression::None, bytes: 0 };
                let source = Source::of(std::io::Cursor::new(text));
                OpenText { longest: 2 * PIECE, ..OpenText::new(source, &file) }.next()
            };
            assert!(of(vec![b'a'; 2 * PIECE - 1]).is_ok());
            let said = of(vec![b'a'; 4 * PIECE]).err().unwrap().to_string();
            assert_eq!(
                said,
                format!("text: corpus: {unit} has more than 524288 bytes: put each sentence on its own line")
            );
        }
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
                _ => TextPart::of_prose(bare),
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

    #[test]
    fn lines_of_json_have_their_number() {
        let mut text = String::from("\u{feff}\n");
        for number in 0..20_000 {
            text += &format!("{{\"text\": \"Document {number}. It ends.\"}}\r\n");
        }
        let read = parts(text.as_bytes(), TextForm::JsonLines, 9_999).unwrap();
        assert!(read.len() > 2, "one piece shows nothing");
        let documents = joined(read);
        assert_eq!(documents.len(), 20_000);
        assert_eq!(documents[19_999], ["Document 19999.", "It ends."]);
        text += "\n{\"text\" 1}";
        let error = parts(text.as_bytes(), TextForm::JsonLines, 9_999).unwrap_err().to_string();
        assert_eq!(error, "text:20003: corpus: invalid JSON: expected `:` at column 9");
    }
}
