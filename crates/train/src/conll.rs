//! CoNLL files, with a word and its tag on each line and blank lines between sentences.

use std::fmt;
use std::path::Path;

use crate::files::read_text;
use crate::tag_scheme::{self, TagScheme};
use crate::{Error, ErrorKind, Result, TaggedSentence};

/// The first word of the lines that separate documents in CoNLL-2003.
const DOCUMENT: &str = "-DOCSTART-";

/// The columns of a CoNLL file. By default, the word is in the first column and the tag in the last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConllFormat {
    word: usize,
    tag: Option<usize>,
    comment: Option<String>,
}

impl Default for ConllFormat {
    fn default() -> ConllFormat {
        ConllFormat { word: 1, tag: None, comment: None }
    }
}

impl ConllFormat {
    /// Returns the default format: the word in the first column, the tag in the last, no comments.
    pub fn new() -> ConllFormat {
        ConllFormat::default()
    }

    /// Sets the number of the word column, counted from 1.
    pub fn word_column(self, number: usize) -> ConllFormat {
        ConllFormat { word: number, ..self }
    }

    /// Sets the number of the tag column, counted from 1.
    pub fn tag_column(self, number: usize) -> ConllFormat {
        ConllFormat { tag: Some(number), ..self }
    }

    /// Skips lines that begin with `start`, such as `"# "`. By default no line is a comment, as `#` may be a word.
    pub fn comment(self, start: impl Into<String>) -> ConllFormat {
        ConllFormat { comment: Some(start.into()), ..self }
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
    /// The scheme of the tags in the file; `None` if they belong to no scheme, like parts of speech.
    pub scheme: Option<TagScheme>,
    /// Number of tags that were changed to convert them to IOB2.
    pub converted: usize,
    /// Number of tags that violate the scheme, such as an `I-PER` after `O` in IOB2. They are read like `conlleval`
    /// does.
    pub irregular: usize,
    /// The line of the first tag that violates the scheme.
    pub first_irregular: Option<usize>,
}

impl fmt::Display for ConllReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} sentences, {} words", self.sentences, self.words)?;
        match self.scheme {
            Some(scheme) => write!(f, ", tags in {scheme}")?,
            None => write!(f, ", tags in no known scheme")?,
        }
        if self.converted > 0 {
            write!(f, "; {} tag(s) converted to IOB2", self.converted)?;
        }
        if let Some(line) = self.first_irregular {
            write!(f, "; {} tag(s) violate the scheme, the first on line {line}", self.irregular)?;
        }
        Ok(())
    }
}

/// Reads the sentences of a CoNLL file.
///
/// Each line has a word, and its tag in another column. Sentences are separated by blank lines or by `-DOCSTART-`
/// lines. Columns are separated by tabs if the first word's line contains one, otherwise by white space. All lines must
/// have the same number of columns.
///
/// Tags of any [scheme](TagScheme) are converted to IOB2. Tags that belong to no scheme, such as parts of speech, are
/// kept. The report names the scheme and counts the tags that violate it.
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
/// if its number of columns differs from the first line's, or if the word or tag column is missing.
pub fn read_conll(path: impl AsRef<Path>, format: &ConllFormat) -> Result<(Vec<TaggedSentence>, ConllReport)> {
    let path = path.as_ref();
    parse(path, &read_text(path)?, format)
}

fn parse(path: &Path, text: &str, format: &ConllFormat) -> Result<(Vec<TaggedSentence>, ConllReport)> {
    for (what, number) in [("word column", Some(format.word)), ("tag column", format.tag)] {
        if number == Some(0) {
            return Err(Error::invalid(what, 0, "at least 1: columns are counted from 1"));
        }
    }
    let mut sentences: Vec<TaggedSentence> = Vec::new();
    // The line number of each word.
    let mut lines: Vec<Vec<usize>> = Vec::new();
    let mut splitter = ColumnSplitter::default();
    let mut in_sentence = false;
    for (number, line) in (1..).zip(text.lines()) {
        if format.comment.as_ref().is_some_and(|comment| line.starts_with(comment)) {
            continue;
        }
        if line.trim().is_empty() || line.split_whitespace().next() == Some(DOCUMENT) {
            in_sentence = false;
            continue;
        }
        let wrong = |why| ErrorKind::Data { what: "columns", why, path: Some(path.into()), line: Some(number) };
        let (word, tag) = splitter.word_and_tag(line, number, format).map_err(wrong)?;
        if !in_sentence {
            sentences.push(TaggedSentence::default());
            lines.push(Vec::new());
            in_sentence = true;
        }
        if let (Some(sentence), Some(lines)) = (sentences.last_mut(), lines.last_mut()) {
            sentence.words.push(word.to_string());
            sentence.tags.push(tag.to_string());
            lines.push(number);
        }
    }
    if sentences.is_empty() {
        return Err(Error::data_in(path, "sentences", "the file has none"));
    }
    let found = tag_scheme::detect(&sentences.iter().map(|sentence| &sentence.tags).collect::<Vec<_>>());
    let converted = sentences.iter_mut().map(|sentence| tag_scheme::to_iob2(&mut sentence.tags)).sum();
    let first = found.irregular.first();
    let report = ConllReport {
        sentences: sentences.len(),
        words: lines.iter().map(Vec::len).sum(),
        scheme: found.scheme,
        converted,
        irregular: found.irregular.len(),
        first_irregular: first.and_then(|&(sentence, word)| lines.get(sentence)?.get(word).copied()),
    };
    Ok((sentences, report))
}

/// Splits lines into columns. The first line decides the separator and the number of columns.
#[derive(Default)]
struct ColumnSplitter {
    first: Option<FirstLine>,
}

struct FirstLine {
    number: usize,
    columns: usize,
    tabs: bool,
}

impl ColumnSplitter {
    fn word_and_tag<'l>(
        &mut self,
        line: &'l str,
        number: usize,
        format: &ConllFormat,
    ) -> Result<(&'l str, &'l str), String> {
        let tabs = self.first.as_ref().map_or(line.contains('\t'), |first| first.tabs);
        let columns: Vec<&str> = match tabs {
            true => line.split('\t').collect(),
            false => line.split_whitespace().collect(),
        };
        let first = self.first.get_or_insert(FirstLine { number, columns: columns.len(), tabs });
        if columns.len() != first.columns {
            return Err(format!("found {}, but line {} has {}", columns.len(), first.number, first.columns));
        }
        let column = |wanted: usize| {
            let missing = || format!("column {wanted} is missing: the line has {}", columns.len());
            columns.get(wanted - 1).map(|column| column.trim()).ok_or_else(missing)
        };
        if format.tag.is_none() && columns.len() == 1 {
            return Err(format!("found only {line:?}, expected a word and a tag"));
        }
        let tag = column(format.tag.unwrap_or(columns.len()))?;
        match tag.is_empty() {
            true => Err("the tag is empty".to_string()),
            false => Ok((column(format.word)?, tag)),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &str, format: &ConllFormat) -> Result<(Vec<TaggedSentence>, ConllReport)> {
        parse(Path::new("a.conll"), text, format)
    }

    fn shown(sentences: &[TaggedSentence]) -> Vec<String> {
        let word = |(word, tag): (&String, &String)| format!("{word}/{tag}");
        let sentence = |s: &TaggedSentence| s.words.iter().zip(&s.tags).map(word).collect::<Vec<_>>().join(" ");
        sentences.iter().map(sentence).collect()
    }

    #[test]
    fn reads_every_form() {
        // Tabs; sentences end with blank lines, or lines that hold only a tab; words with blanks, and the word `#`.
        let text = "#\tO\nNew York\tB-LOC\r\n\t\n\n\nis\tO\n \u{a0}\tO";
        let (sentences, report) = read(text, &ConllFormat::new()).unwrap();
        assert_eq!(shown(&sentences), ["#/O New York/B-LOC", "is/O /O"]);
        assert_eq!(report.to_string(), "2 sentences, 4 words, tags in IOB2");

        // CoNLL-2003.
        let text =
            "-DOCSTART- -X- -X- O\n\nU.N. NNP I-NP I-ORG\nhere RB  I-NP O\n-DOCSTART- -X- -X- O\nRio NNP I-NP I-LOC\n";
        let (sentences, report) = read(text, &ConllFormat::new()).unwrap();
        assert_eq!(shown(&sentences), ["U.N./B-ORG here/O", "Rio/B-LOC"]);
        let said = "2 sentences, 3 words, tags in IOB1; 2 tag(s) converted to IOB2";
        assert_eq!((report.to_string().as_str(), report.scheme), (said, Some(TagScheme::Iob1)));
        let (sentences, report) = read(text, &ConllFormat::new().tag_column(2)).unwrap();
        assert_eq!(shown(&sentences), ["U.N./NNP here/RB", "Rio/NNP"]);
        assert_eq!(report.to_string(), "2 sentences, 3 words, tags in no known scheme");

        // The tag in the first column; comments.
        let text = "# id 1\tx=2\nB-X a\nI-X b\n# id 2\nO c\n\n# id 3\nI-X d\n";
        let format = ConllFormat::new().word_column(2).tag_column(1).comment("# id");
        let (sentences, report) = read(text, &format).unwrap();
        assert_eq!(shown(&sentences), ["a/B-X b/I-X c/O", "d/B-X"]);
        assert_eq!((report.irregular, report.first_irregular, report.converted), (1, Some(8), 1));
        assert!(report.to_string().ends_with("1 tag(s) violate the scheme, the first on line 8"), "{report}");
    }

    #[test]
    fn errors_name_the_line() {
        let said = |text: &str, format: ConllFormat| read(text, &format).unwrap_err().to_string();
        let format = ConllFormat::new;
        for (text, format, what) in [
            ("", format(), "a.conll: sentences: the file has none"),
            (" \n\t\n-DOCSTART- O\n", format(), "a.conll: sentences: the file has none"),
            ("a\tO\nb\n", format(), "a.conll:2: columns: found 1, but line 1 has 2"),
            ("\na O\nb c O\n", format(), "a.conll:3: columns: found 3, but line 2 has 2"),
            ("a\n", format(), "a.conll:1: columns: found only \"a\", expected a word and a tag"),
            ("a\tO\nb\t\n", format(), "a.conll:2: columns: the tag is empty"),
            ("a O\n", format().tag_column(3), "a.conll:1: columns: column 3 is missing: the line has 2"),
            ("a O\n", format().word_column(9), "a.conll:1: columns: column 9 is missing: the line has 2"),
            ("a O\n", format().word_column(0), "word column is 0, must be at least 1: columns are counted from 1"),
        ] {
            assert_eq!(said(text, format), what);
        }
        let missing = read_conll("no/such.conll", &format()).unwrap_err().to_string();
        assert!(missing.starts_with("no/such.conll: cannot read"), "{missing}");
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "([ab] (O|B-X|I-X|E-X)\n|\n|\t|O|-DOCSTART-| ){0,12}") {
            if let Ok((sentences, report)) = read(&text, &ConllFormat::new()) {
                prop_assert_eq!(report.sentences, sentences.len());
                prop_assert_eq!(report.words, sentences.iter().map(|s| s.words.len()).sum::<usize>());
                prop_assert!(sentences.iter().all(|s| !s.words.is_empty() && s.words.len() == s.tags.len()));
                let again = tag_scheme::detect(&sentences.iter().map(|s| &s.tags).collect::<Vec<_>>());
                prop_assert!(again.scheme.is_none() || again.irregular.is_empty());
            }
        }
    }
}
