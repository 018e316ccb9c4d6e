//! Rows of texts and labels, from the files that people have: one reader for each form of file.
//!
//! A reader takes what a file says as it stands. A line that is not of the file's form is an error; a value that is
//! no text, or no label, is a row all the same, for [`sanitize`](crate::sanitize) to judge.

mod cell;
mod columns;
mod json_lines;
#[cfg(feature = "parquet")]
mod parquet;
mod separated;
mod utf8;

use std::path::Path;

pub use cell::Cell;
pub use columns::Columns;

use utf8::Utf8Reader;

use crate::{Error, Result};

/// A row: a text or a pair of texts, and a label, each as it was found.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// The line of the file on which it begins, from 1; of rows that come from no file, their number.
    pub line: usize,
    /// The text.
    pub text: Cell,
    /// The second text of a pair.
    pub second_text: Option<Cell>,
    /// The label.
    pub label: Cell,
}

impl Row {
    /// A row of a single text.
    pub fn new(line: usize, text: impl Into<Cell>, label: impl Into<Cell>) -> Row {
        Row { line, text: text.into(), second_text: None, label: label.into() }
    }
}

/// The rows of a file, read one after the other; made by [`stream_rows`]. After an error there is no further one.
pub struct RowStream {
    rows: Box<dyn Iterator<Item = Result<Row>> + Send>,
    ended: bool,
}

impl Iterator for RowStream {
    type Item = Result<Row>;

    fn next(&mut self) -> Option<Result<Row>> {
        if self.ended {
            return None;
        }
        let row = self.rows.next();
        self.ended = !matches!(row, Some(Ok(_)));
        row
    }
}

/// So many objects of JSON Lines are looked at to find the columns of a stream.
const LOOKED_AT: usize = 1000;

/// Reads the rows of a file, whose name says what it is:
///
/// - `.tsv`: a header, and a line a row, tabs between the columns. Quotation marks are characters like any other, as
///   in GLUE's files.
/// - `.csv`: a header, commas between the columns; a column in quotation marks may hold commas, line ends and, written
///   twice, quotation marks (RFC 4180).
/// - `.jsonl`, `.ndjson`, `.json`: a JSON object a line. `NaN`, `Infinity` and `-Infinity` are taken as Python writes
///   them. A key that a line lacks is `null`.
/// - `.parquet`, with the cargo feature `parquet`: lists, structures and maps are JSON values.
///
/// Blank lines are passed over. In TSV and CSV all columns are strings, but a label that reads as a number is that
/// number; without a header, columns are [numbered](Columns::numbered).
///
/// # Errors
/// When the file cannot be read, is not UTF-8, has another name, lacks a column (says which it has) or any row; when a
/// line has not as many columns as the header, or is no JSON object (says which line).
pub fn read_rows(path: impl AsRef<Path>, columns: &Columns) -> Result<Vec<Row>> {
    let path = path.as_ref();
    let rows = stream(path, columns, usize::MAX)?.collect::<Result<Vec<Row>>>()?;
    match rows.is_empty() {
        true => Err(Error::data_in(path, "rows", "there is none")),
        false => Ok(rows),
    }
}

/// Reads the rows of a file, as [`read_rows`] does, but one after the other: for files that are larger than memory. Of
/// JSON Lines, the columns are looked for in the first 1,000 rows.
///
/// ```
/// use cloze_train::{Columns, stream_rows};
/// let dir = tempfile::tempdir()?;
/// let path = dir.path().join("train.tsv");
/// std::fs::write(&path, "sentence\tlabel\ngood\t1\nbad\t0\n")?;
/// for row in stream_rows(&path, &Columns::new())? {
///     println!("{}", row?.text);
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// When the file cannot be opened, has another name, or lacks a column; the others of [`read_rows`] come where the rows
/// are. A file without rows is no error.
pub fn stream_rows(path: impl AsRef<Path>, columns: &Columns) -> Result<RowStream> {
    stream(path.as_ref(), columns, LOOKED_AT)
}

fn stream(path: &Path, columns: &Columns, ahead: usize) -> Result<RowStream> {
    let extension = path.extension().map(|extension| extension.to_string_lossy().to_ascii_lowercase());
    let rows: Box<dyn Iterator<Item = Result<Row>> + Send> = match extension.as_deref() {
        Some("tsv") => Box::new(separated::tsv(path, Utf8Reader::open(path)?, columns)?),
        Some("csv") => Box::new(separated::csv(path, Utf8Reader::open(path)?, columns)?),
        Some("jsonl" | "ndjson" | "json") => {
            Box::new(json_lines::JsonLines::new(path, Utf8Reader::open(path)?, columns, ahead))
        }
        #[cfg(feature = "parquet")]
        Some("parquet") => Box::new(parquet::rows(path, columns)?),
        #[cfg(not(feature = "parquet"))]
        Some("parquet") => {
            let why = "this program cannot read Parquet: build it with `--features parquet`";
            return Err(Error::data_in(path, "rows", why));
        }
        _ => {
            let why = "the name says no form of file: it must end in .tsv, .csv, .jsonl, .ndjson, .json or .parquet";
            return Err(Error::data_in(path, "rows", why));
        }
    };
    Ok(RowStream { rows, ended: false })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::ErrorKind;

    fn said(name: &str, bytes: &[u8], columns: &Columns) -> Error {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(name), bytes).unwrap();
        read_rows(folder.path().join(name), columns).unwrap_err()
    }

    #[test]
    fn errors_name_the_file() {
        let columns = Columns::new();
        for (name, bytes, what) in [
            ("a.txt", "sentence\tlabel\n", "must end in .tsv, .csv, .jsonl"),
            ("a", "", "must end in .tsv"),
            ("a.tsv", "sentence\tlabel\n", "a.tsv: rows: there is none"),
            ("a.tsv", "", "there is no column sentence, text or content: the file has none"),
            ("a.jsonl", "\n \n", "a.jsonl: rows: there is none"),
        ] {
            let error = said(name, bytes.as_bytes(), &columns).to_string();
            assert!(error.contains(what), "{error}");
        }
        let error = said("a.jsonl", b"{\"text\": \"ol\xe1\", \"label\": 1}", &columns);
        assert!(matches!(error.kind(), ErrorKind::Encoding { offset: 12, .. }), "{error}");
        let missing = read_rows("no/such.tsv", &columns).unwrap_err().to_string();
        assert!(missing.starts_with("no/such.tsv: cannot read"), "{missing}");
    }

    #[cfg(not(feature = "parquet"))]
    #[test]
    fn parquet_is_a_feature() {
        let error = said("a.parquet", b"PAR1", &Columns::new()).to_string();
        assert!(
            error.ends_with("a.parquet: rows: this program cannot read Parquet: build it with `--features parquet`")
        );
    }

    #[test]
    fn a_stream_ends_with_its_first_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.tsv");
        fs::write(&path, "text\tlabel\na\t1\nb\nc\t2\n").unwrap();
        let rows: Vec<Result<Row>> = stream_rows(&path, &Columns::new()).unwrap().collect();
        assert_eq!((rows.len(), rows[0].is_ok(), rows[1].is_ok()), (2, true, false));
        fs::write(&path, "text\tlabel\n").unwrap();
        assert_eq!(stream_rows(&path, &Columns::new()).unwrap().count(), 0);
    }
}
