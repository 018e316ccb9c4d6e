//! CoNLL files, with a word and its tag on each line and blank lines between sentences.

mod columns;
mod comments;

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fmt;
use std::path::Path;

use cloze_bert::tags::{DetectedScheme, SpanPosition, TagScheme};

use crate::files::read_text;
use crate::{BadRows, DropReason, Dropped, Error, ErrorKind, Result, TaggedSentence};
use columns::{Division, has_conllu_width, is_conllu, is_word_id};
use comments::comments;

/// The first word of the lines that separate documents in CoNLL-2003.
const DOCUMENT: &str = "-DOCSTART-";

/// The columns of the words and the parts of speech (UPOS) in CoNLL-U.
const CONLLU_COLUMNS: (usize, usize) = (2, 4);

/// The columns of a CoNLL file. By default, the word is in the first column and the tag in the last; in CoNLL-U, the
/// word is in the second and the tag, its universal part of speech, in the fourth.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConllFormat {
    word: Option<usize>,
    tag: Option<usize>,
    comment: Option<String>,
    drop_bad: bool,
}

impl ConllFormat {
    /// Returns the default format, without comments.
    pub fn new() -> ConllFormat {
        ConllFormat::default()
    }

    /// Sets the number of the word column, counted from 1.
    pub fn word_column(self, number: usize) -> ConllFormat {
        ConllFormat { word: Some(number), ..self }
    }

    /// Sets the number of the tag column, counted from 1.
    pub fn tag_column(self, number: usize) -> ConllFormat {
        ConllFormat { tag: Some(number), ..self }
    }

    /// Skips lines that begin with `start`, such as `"# "`. By default, as `#` may be a word, only those lines at the
    /// beginning of sentences that begin with `#` and have another number of columns than the words are comments, and
    /// those of a lone `#` if all sentences have one and no word has its tag.
    pub fn comment(self, start: impl Into<String>) -> ConllFormat {
        ConllFormat { comment: Some(start.into()), ..self }
    }

    /// Sets what happens to sentences with a line that cannot be read: by default ([`BadRows::Fail`]), the first is an
    /// error; with [`BadRows::Drop`], they are left out and reported.
    pub fn bad_rows(self, bad: BadRows) -> ConllFormat {
        ConllFormat { drop_bad: bad == BadRows::Drop, ..self }
    }
}

/// A summary of what [`read_conll`] read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConllReport {
    /// Number of sentences.
    pub sentences: usize,
    /// Number of words.
    pub words: usize,
    /// Whether the file is CoNLL-U, or has the ids of words as CoNLL-U does.
    pub is_conllu: bool,
    /// Number of lines that begin with `#` and were taken for comments, except in CoNLL-U.
    pub comments: usize,
    /// The scheme of the tags in the file; `None` if they belong to no scheme, like parts of speech.
    pub scheme: Option<TagScheme>,
    /// If the tags belong to no scheme, the line and the first tag for which that is so.
    pub first_of_no_scheme: Option<(usize, String)>,
    /// Number of tags that were changed to convert them to IOB2.
    pub converted: usize,
    /// Number of tags that violate the scheme, such as an `I-PER` after `O` in IOB2. They are read like `conlleval`
    /// does.
    pub irregular: usize,
    /// The line of the first tag that violates the scheme.
    pub first_irregular: Option<usize>,
    /// The sentences that were left out, for [`BadRows::Drop`].
    pub dropped: Dropped,
}

impl fmt::Display for ConllReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} sentences, {} words", self.sentences, self.words)?;
        if self.is_conllu {
            write!(f, ", CoNLL-U")?;
        }
        if self.comments > 0 {
            write!(f, ", {} comment(s)", self.comments)?;
        }
        match self.scheme {
            Some(scheme) => write!(f, ", tags in {scheme}")?,
            None => write!(f, ", tags in no known scheme")?,
        }
        if let Some((line, tag)) = &self.first_of_no_scheme {
            write!(f, " (the first is {tag:?} on line {line})")?;
        }
        match (self.converted, self.scheme) {
            (0, _) => {}
            (count, Some(_)) => write!(f, "; {count} tag(s) converted to IOB2")?,
            (count, None) => write!(f, "; {count} tag(s) rewritten")?,
        }
        if let Some(line) = self.first_irregular {
            write!(f, "; {} tag(s) violate the scheme, the first on line {line}", self.irregular)?;
        }
        if let Some(first) = self.dropped.first.first() {
            let (count, line, why) = (self.dropped.total(), first.line, &first.sample);
            write!(f, "; {count} sentence(s) dropped, the first because of line {line}: {why}")?;
        }
        Ok(())
    }
}

/// Reads a CoNLL file: a word and its tag on each line, sentences separated by blank lines or by `-DOCSTART-` lines.
/// Columns are separated by tabs, or else by blanks and tabs, whichever gives all lines the same number of columns.
/// Other white space, such as a no-break space, is part of a word. Tabs at the ends of lines are ignored.
///
/// A file of ten columns whose first has the ids of words is read as CoNLL-U, as is any file whose first column has
/// them if [`word_column`](ConllFormat::word_column) names another, and any of at least three columns whose first
/// counts the words of each sentence: lines that begin with `#` are comments, and lines of multi-word tokens (`1-2`) and
/// empty nodes (`1.1`) are skipped.
///
/// Tags of any [scheme](TagScheme) are converted to IOB2, whether the letter is in front (`B-PER`, `b_PER`) or behind
/// (`PER-B`), and `o` and `0` to `O`. Tags without a letter, such as parts of speech, are kept. The report names the
/// scheme and counts the tags that violate it.
///
/// ```
/// use cloze_train::{ConllFormat, TagScheme, read_conll};
/// let dir = tempfile::tempdir()?;
/// let path = dir.path().join("train.conll");
/// std::fs::write(&path, "Ana NNP S-PER\nslept VBD O\n\nRio NNP B-LOC\nBranco NNP E-LOC\n")?;
/// let (sentences, report) = read_conll(&path, &ConllFormat::new())?;
/// assert_eq!(sentences[0].words, ["Ana", "slept"]);
/// assert_eq!(sentences[1].tags, ["B-LOC", "I-LOC"]);
/// assert_eq!(report.scheme, Some(TagScheme::Bioes));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// Returns an error if the file cannot be read, is not UTF-8 or has no sentence. Returns an error that names the line
/// if its number of columns differs from the first line's, or if the word or tag column is missing, unless
/// [`ConllFormat::bad_rows`] drops such sentences.
pub fn read_conll(path: impl AsRef<Path>, format: &ConllFormat) -> Result<(Vec<TaggedSentence>, ConllReport)> {
    let path = path.as_ref();
    parse(path, &read_text(path)?, format)
}

fn parse(path: &Path, text: &str, format: &ConllFormat) -> Result<(Vec<TaggedSentence>, ConllReport)> {
    for (what, number) in [("word column", format.word), ("tag column", format.tag)] {
        if number == Some(0) {
            return Err(Error::invalid(what, 0, "at least 1: columns are counted from 1"));
        }
    }
    // Line ends of old Macs.
    let text = if text.contains('\n') { Cow::Borrowed(text) } else { Cow::Owned(text.replace('\r', "\n")) };
    let is_comment = |line: &str| format.comment.as_ref().is_some_and(|comment| line.starts_with(comment));
    let is_end = |line: &str| line.trim().is_empty() || line.split_whitespace().next() == Some(DOCUMENT);
    let lines = (1..).zip(text.lines()).filter(|(_, line)| !is_comment(line));
    let words = lines.clone().map(|(_, line)| line).filter(|line| !is_end(line));
    let is_conllu = is_conllu(words.clone(), format.word);
    let has_upos = is_conllu && words.clone().any(has_conllu_width);
    let is_found = !is_conllu && format.comment.is_none();
    let all: Vec<_> = lines.clone().map(|(number, line)| (number, line, is_end(line))).collect();
    let comments = if is_found { comments(&all, format.tag) } else { BTreeSet::new() };
    let lines =
        lines.filter(|(number, line)| !comments.contains(number) && (!is_conllu || is_end(line) || is_word_id(line)));
    let mut reader = Columns {
        division: Division::of(lines.clone().map(|(_, line)| line).filter(|line| !is_end(line))),
        word: format.word.unwrap_or(if is_conllu { CONLLU_COLUMNS.0 } else { 1 }),
        tag: format.tag.or(has_upos.then_some(CONLLU_COLUMNS.1)),
        first: None,
    };
    let mut found = Sentences::default();
    for (number, line) in lines {
        if is_end(line) {
            found.state = State::Between;
            continue;
        }
        match reader.word_and_tag(line, number) {
            _ if found.state == State::Skipped => {}
            Ok((word, tag)) => found.push(number, word, tag),
            Err(why) if format.drop_bad => found.drop(number, why),
            Err(why) => {
                return Err(
                    ErrorKind::Data { what: "columns", why, path: Some(path.into()), line: Some(number) }.into()
                );
            }
        }
    }
    if found.sentences.is_empty() {
        return Err(Error::data_in(path, "sentences", "the file has none"));
    }
    let report = ConllReport { is_conllu, comments: comments.len(), ..found.convert() };
    Ok((found.sentences, report))
}

/// The sentences read so far.
#[derive(Default)]
struct Sentences {
    sentences: Vec<TaggedSentence>,
    /// The line number of each word.
    numbers: Vec<Vec<usize>>,
    dropped: Dropped,
    state: State,
}

/// The place of a line.
#[derive(Default, PartialEq)]
enum State {
    #[default]
    Between,
    Inside,
    /// Inside a sentence that is left out.
    Skipped,
}

impl Sentences {
    fn push(&mut self, number: usize, word: &str, tag: &str) {
        if self.state != State::Inside {
            self.sentences.push(TaggedSentence::default());
            self.numbers.push(Vec::new());
            self.state = State::Inside;
        }
        if let (Some(sentence), Some(numbers)) = (self.sentences.last_mut(), self.numbers.last_mut()) {
            sentence.words.push(word.to_string());
            sentence.tags.push(tag.to_string());
            numbers.push(number);
        }
    }

    /// Converts the tags to IOB2, and reports what was found.
    fn convert(&mut self) -> ConllReport {
        let Sentences { sentences, numbers, dropped, .. } = self;
        let found = DetectedScheme::of(&sentences.iter().map(|sentence| &sentence.tags).collect::<Vec<_>>());
        let tags = sentences.iter().zip(&*numbers).flat_map(|(sentence, numbers)| numbers.iter().zip(&sentence.tags));
        let mut of_no_scheme = tags.filter(|(_, tag)| found.notation.parse(tag).position == SpanPosition::Unknown);
        let first_of_no_scheme = of_no_scheme.next().map(|(line, tag)| (*line, tag.clone()));
        let first = found.irregular.first();
        ConllReport {
            sentences: sentences.len(),
            words: numbers.iter().map(Vec::len).sum(),
            scheme: found.scheme,
            first_of_no_scheme,
            converted: sentences.iter_mut().map(|sentence| found.notation.to_iob2(&mut sentence.tags)).sum(),
            irregular: found.irregular.len(),
            first_irregular: first.and_then(|&(sentence, word)| numbers.get(sentence)?.get(word).copied()),
            dropped: std::mem::take(dropped),
            ..ConllReport::default()
        }
    }

    /// Leaves out the sentence of a line.
    fn drop(&mut self, number: usize, why: String) {
        if self.state == State::Inside {
            self.sentences.pop();
            self.numbers.pop();
        }
        self.dropped.push(number, DropReason::Malformed, || why);
        self.state = State::Skipped;
    }
}

/// Finds the word and the tag of each line. The first line decides the number of columns.
struct Columns {
    division: Division,
    word: usize,
    tag: Option<usize>,
    /// The number of the first line and of its columns.
    first: Option<(usize, usize)>,
}

impl Columns {
    fn word_and_tag<'l>(&mut self, line: &'l str, number: usize) -> Result<(&'l str, &'l str), String> {
        let columns = self.division.split(line);
        let (first, count) = *self.first.get_or_insert((number, columns.len()));
        if columns.len() != count {
            return Err(format!("found {}, but line {first} has {count}", columns.len()));
        }
        let column = |wanted: usize| {
            let missing = || format!("column {wanted} is missing: the line has {}", columns.len());
            columns.get(wanted - 1).copied().ok_or_else(missing)
        };
        if self.tag.is_none() && columns.len() == 1 {
            return Err(format!("found only {line:?}, expected a word and a tag"));
        }
        let (word, tag) = (column(self.word)?, column(self.tag.unwrap_or(columns.len()))?);
        match (word.is_empty(), tag.is_empty()) {
            (true, _) => Err("the word is empty".to_string()),
            (false, true) => Err("the tag is empty".to_string()),
            (false, false) => Ok((word, tag)),
        }
    }
}

#[cfg(test)]
mod tests;
