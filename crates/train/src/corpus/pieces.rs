//! Text in pieces of bounded size, cut between lines or between paragraphs, each of which is split into sentences by
//! itself.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rayon::prelude::*;

use super::content::ContentHash;
use super::progress::Progress;
use super::sentences;
use crate::{Error, ErrorKind, Result};

/// Bytes of a piece: enough to outweigh a task, few enough that all threads have one to the end of a batch.
const PIECE: usize = 256 << 10;

/// Bytes that are read before they are worked on.
const BATCH: usize = 64 * PIECE;

/// Pieces of a batch, where files are small.
const BATCH_PIECES: usize = 1 << 13;

/// The most bytes that may lie between two places where text can be cut.
const LONGEST: usize = 1 << 30;

const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();

/// How a text is divided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// A sentence a line, a blank line between documents.
    Lines,
    /// A document, with blank lines between paragraphs.
    Prose,
}

impl Form {
    /// The length of the longest beginning of `text` after which no sentence goes on; 0 when there is none.
    fn cut(self, text: &[u8]) -> usize {
        let line_end = |text: &[u8]| text.iter().rposition(|&byte| byte == b'\n');
        match self {
            Form::Lines => line_end(text).map_or(0, |end| end + 1),
            Form::Prose => {
                let mut rest = text;
                while let Some(end) = line_end(rest) {
                    let line = rest[..end].trim_ascii_end();
                    if line.is_empty() || line_end(&rest[line.len()..end]).is_some() {
                        return end + 1;
                    }
                    rest = &rest[..line.len()];
                }
                0
            }
        }
    }

    fn unit(self) -> &'static str {
        match self {
            Form::Lines => "a line",
            Form::Prose => "a paragraph",
        }
    }
}

/// Sentences, and where documents end among them. The last document may go on in the next part.
#[derive(Default)]
pub(super) struct Part {
    pub(super) text: String,
    /// Where each sentence ends in `text`.
    pub(super) sentence_ends: Vec<usize>,
    /// Numbers of sentences after which a document ends, none too where the one before the part does.
    pub(super) document_ends: Vec<usize>,
}

impl Part {
    /// The sentences of prose.
    pub(super) fn of_prose(text: &str) -> Part {
        let mut part = Part::default();
        sentences::of_document(text, |sentence| part.push(sentence));
        part
    }

    fn of_lines(text: &str) -> Part {
        let mut part = Part::default();
        for line in text.lines() {
            match line.trim().is_empty() {
                true => part.end_document(),
                false => part.push(line),
            }
        }
        part
    }

    fn push(&mut self, sentence: &str) {
        let sentence = sentence.trim();
        if !sentence.is_empty() {
            self.text.push_str(sentence);
            self.sentence_ends.push(self.text.len());
        }
    }

    pub(super) fn end_document(&mut self) {
        if self.document_ends.last() != Some(&self.sentence_ends.len()) {
            self.document_ends.push(self.sentence_ends.len());
        }
    }

    pub(super) fn sentences(&self) -> impl Iterator<Item = &str> {
        let mut start = 0;
        self.sentence_ends.iter().map(move |&end| &self.text[std::mem::replace(&mut start, end)..end])
    }
}

/// Whole lines or paragraphs of a text.
struct Piece {
    bytes: Vec<u8>,
    form: Form,
    path: Arc<Path>,
    /// Where in the text it begins.
    offset: u64,
    /// Whether the text ends with it.
    is_last: bool,
}

impl Piece {
    fn part(self) -> Result<Part> {
        let text = std::str::from_utf8(&self.bytes).map_err(|error| ErrorKind::Encoding {
            path: self.path.to_path_buf(),
            offset: self.offset as usize + error.valid_up_to(),
        })?;
        let mut part = match self.form {
            Form::Lines => Part::of_lines(text),
            Form::Prose => Part::of_prose(text),
        };
        if self.is_last {
            part.end_document();
        }
        Ok(part)
    }
}

/// A text that is being read.
struct OpenText<'a> {
    reader: Box<dyn Read + Send + 'a>,
    form: Form,
    path: Arc<Path>,
    /// What was read beyond the last piece, and where it begins.
    rest: Vec<u8>,
    offset: u64,
    is_over: bool,
}

impl OpenText<'_> {
    /// The next piece; none behind the last one.
    fn next(&mut self, hash: &mut ContentHash) -> Result<Option<Piece>> {
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
                    let why = format!("{unit} has more than {LONGEST} bytes: end lines where sentences end");
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
        Ok(Some(Piece { bytes, form: self.form, path: self.path.clone(), offset, is_last: self.is_over }))
    }
}

/// The pieces of texts, in order.
pub(super) struct Pieces<'a> {
    waiting: std::vec::IntoIter<(PathBuf, Form)>,
    open: Option<OpenText<'a>>,
    hash: ContentHash,
}

impl<'a> Pieces<'a> {
    /// Of files.
    pub(super) fn of_files(files: Vec<(PathBuf, Form)>) -> Pieces<'static> {
        Pieces { waiting: files.into_iter(), open: None, hash: ContentHash::default() }
    }

    /// Of a text that has no file, a sentence a line; errors call it `name`.
    pub(super) fn of_reader(reader: impl Read + Send + 'a, name: &Path) -> Pieces<'a> {
        let open = OpenText {
            reader: Box::new(reader),
            form: Form::Lines,
            path: name.into(),
            rest: Vec::new(),
            offset: 0,
            is_over: false,
        };
        Pieces { waiting: Vec::new().into_iter(), open: Some(open), hash: ContentHash::default() }
    }

    fn next(&mut self) -> Result<Option<Piece>> {
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

    /// The next pieces, none at the end. A failure is the last of them, so that what is wrong with those before is
    /// found first.
    fn next_batch(&mut self) -> Vec<Result<Piece>> {
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

    /// Gives what `work` makes of each part to `take`, in order: on all threads of the rayon pool, with a batch at a time
    /// in memory and another one being read. The hash of what was read is the result.
    ///
    /// # Errors
    /// The first failure, in the order of the text.
    pub(super) fn for_each<T: Send>(
        mut self,
        progress: &mut Progress,
        work: impl Fn(Part) -> Result<T> + Sync,
        mut take: impl FnMut(T) -> Result<()>,
    ) -> Result<u128> {
        let mut batch = self.next_batch();
        while !batch.is_empty() {
            let bytes: usize = batch.iter().flatten().map(|piece| piece.bytes.len()).sum();
            let work = |piece: Result<Piece>| work(piece?.part()?);
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

    /// Gives a few bytes at a time.
    struct Slow<'a>(&'a [u8], usize);

    impl Read for Slow<'_> {
        fn read(&mut self, to: &mut [u8]) -> std::io::Result<usize> {
            let few = self.1.min(to.len());
            self.0.read(&mut to[..few])
        }
    }

    fn parts(text: &[u8], form: Form, few: usize) -> Result<Vec<(Vec<String>, Vec<usize>)>> {
        let mut pieces = Pieces::of_reader(Slow(text, few), Path::new("text"));
        pieces.open.as_mut().unwrap().form = form;
        let mut parts = Vec::new();
        let take = |part: Part| {
            parts.push((part.sentences().map(str::to_string).collect(), part.document_ends));
            Ok(())
        };
        pieces.for_each(&mut Progress::hidden(), Ok, take)?;
        Ok(parts)
    }

    /// Documents of sentences.
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
    fn cuts_are_behind_the_last_line_or_blank_line() {
        for (text, lines, prose) in [
            ("", 0, 0),
            ("abc", 0, 0),
            ("a\nb", 2, 0),
            ("a\n\nb\nc", 5, 3),
            ("a\n \t\r\nb\n", 8, 6),
            ("\nabc", 1, 1),
            ("a\n\n\n", 4, 4),
            ("a \nb", 3, 0),
        ] {
            assert_eq!(
                (Form::Lines.cut(text.as_bytes()), Form::Prose.cut(text.as_bytes())),
                (lines, prose),
                "{text:?}"
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
        for form in [Form::Lines, Form::Prose] {
            let whole = match form {
                Form::Lines => Part::of_lines(bare),
                Form::Prose => Part::of_prose(bare),
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
        let read = parts(format!("a\n{long}\nb").as_bytes(), Form::Lines, usize::MAX).unwrap();
        assert_eq!(joined(read), [["a", long.trim_end(), "b"]]);
    }

    #[test]
    fn wrong_bytes_have_their_offset_in_the_text() {
        let mut text = String::from("\u{feff}a line\n").into_bytes();
        text.extend("another line\n".repeat(50_000).bytes());
        let wrong = text.len() + 2;
        text.extend(b"ol\xc3\xff");
        for few in [7, usize::MAX] {
            let error = parts(&text, Form::Lines, few).unwrap_err();
            assert!(matches!(error.kind(), ErrorKind::Encoding { offset, .. } if *offset == wrong), "{error}");
        }
    }
}
