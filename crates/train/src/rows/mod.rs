//! Rows of texts and labels, with one reader for each file format.
//!
//! Readers return cells as the file has them, also those that are not a text or a label, and a row for each malformed
//! line: [`sanitize`](crate::sanitize) decides what to do with them.

mod cell;
mod columns;
mod json;
#[cfg(feature = "parquet")]
mod parquet;
mod separated;
mod separator;
mod utf8;

use std::path::Path;

pub use cell::Cell;
pub use columns::Columns;
pub(crate) use json::object as json_object;
#[cfg(all(test, feature = "parquet"))]
pub(crate) use parquet::write_texts;
#[cfg(feature = "parquet")]
pub(crate) use parquet::{ParquetText, ParquetTexts};

use utf8::Utf8Reader;

use crate::{Error, Result};

/// A row of a data file: a text or a pair of texts, and a label, each as the file has it.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// The line of the file on which the row begins, from 1; the row's number if it does not come from a text file.
    pub line: usize,
    /// The text.
    pub text: Cell,
    /// The second text of a pair.
    pub second_text: Option<Cell>,
    /// The label.
    pub label: Cell,
}

impl Row {
    /// Makes a row with a single text.
    pub fn new(line: usize, text: impl Into<Cell>, label: impl Into<Cell>) -> Row {
        Row { line, text: text.into(), second_text: None, label: label.into() }
    }
}

impl Row {
    /// Makes the row of a line that could not be read. [`sanitize`](crate::sanitize) drops it, and says why.
    pub fn malformed(line: usize, why: impl Into<String>) -> Row {
        Row::new(line, Cell::Malformed(why.into()), serde_json::Value::Null)
    }
}

/// An iterator over the rows of a file, returned by [`stream_rows`]. It ends after the first error.
pub struct RowStream {
    rows: Box<dyn Iterator<Item = Result<Row>> + Send>,
    separator: Option<char>,
    ended: bool,
}

impl RowStream {
    /// Returns the character between the columns of a TSV or CSV file.
    pub fn separator(&self) -> Option<char> {
        self.separator
    }
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

/// What to do to read Parquet files.
#[cfg(not(feature = "parquet"))]
pub(crate) const NO_PARQUET: &str =
    "this program was built without Parquet support: build it with `--features parquet`";

/// Number of objects of a JSON Lines stream in which columns are looked for.
const LOOK_AHEAD: usize = 1000;

/// Reads all rows of a file. The extension of its name decides the format:
///
/// - `.tsv`, `.csv`: a header, then rows of columns. The separator is a tab in `.tsv` files and a comma in `.csv` files
///   if it gives the file the wanted columns, otherwise a comma, semicolon, tab or vertical bar that does;
///   [`Columns::separator`] chooses one, and [`RowStream::separator`] returns it. Between tabs, quotation marks have no
///   special meaning, as in GLUE's files, unless all names in the header are quoted. Otherwise, quoted columns may
///   contain separators, line ends and doubled quotation marks (RFC 4180). White space around names does not matter.
/// - `.jsonl`, `.ndjson`, `.json`: one JSON object per line, a list of objects, an object with a list of objects in
///   `data` or in a single other field, or an object with a list of values for each column. Python's `NaN`, `Infinity`
///   and `-Infinity` are accepted. Missing keys are read as `null`.
/// - `.parquet`, with the cargo feature `parquet`: lists, structures and maps become JSON values.
///
/// Blank lines are skipped. In TSV and CSV all columns are strings, except that labels that parse as numbers become
/// numbers. For files without a header, see [`Columns::numbered`].
///
/// A line whose number of columns differs from the header's, or that is not a JSON object, becomes a
/// [malformed](Row::malformed) row, so that [`BadRows`](crate::BadRows) decides about it. Without a header, rows may
/// have different numbers of columns if the label column is chosen.
///
/// # Errors
/// Returns an error if the file cannot be read, is not UTF-8, has another extension, lacks a column (lists those it
/// has) or has no rows.
pub fn read_rows(path: impl AsRef<Path>, columns: &Columns) -> Result<Vec<Row>> {
    let path = path.as_ref();
    let rows = stream(path, columns, usize::MAX)?.collect::<Result<Vec<Row>>>()?;
    match rows.is_empty() {
        true => Err(Error::data_in(path, "rows", "the file has none")),
        false => Ok(rows),
    }
}

/// Reads the rows of a file one by one, for files that are larger than memory. The formats are those of [`read_rows`].
/// In JSON Lines, columns are looked for in the first 1,000 rows only. JSON in other forms is read as a whole.
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
/// Returns an error if the file cannot be opened, has an unknown extension, or lacks a column. The stream returns the
/// other errors of [`read_rows`] when it reaches them. A file without rows is not an error.
pub fn stream_rows(path: impl AsRef<Path>, columns: &Columns) -> Result<RowStream> {
    stream(path.as_ref(), columns, LOOK_AHEAD)
}

/// Returns the names of the classes that a file declares for its label column, or `None` if it declares none. Only
/// Parquet files of `datasets` do: those whose label is a `ClassLabel`. Their labels are indices of the names, and -1
/// is no label, which is what [`sanitize`](crate::sanitize) takes with these names.
///
/// # Errors
/// Returns an error if a Parquet file cannot be read, also for want of the cargo feature, or lacks a column.
pub fn declared_label_names(path: impl AsRef<Path>, columns: &Columns) -> Result<Option<Vec<String>>> {
    let path = path.as_ref();
    match extension(path).as_deref() {
        #[cfg(feature = "parquet")]
        Some("parquet") => parquet::declared_label_names(path, columns),
        #[cfg(not(feature = "parquet"))]
        Some("parquet") => stream(path, columns, 0).map(|_| None),
        _ => Ok(None),
    }
}

fn extension(path: &Path) -> Option<String> {
    path.extension().map(|extension| extension.to_string_lossy().to_ascii_lowercase())
}

fn stream(path: &Path, columns: &Columns, ahead: usize) -> Result<RowStream> {
    let mut separator = None;
    let rows: Box<dyn Iterator<Item = Result<Row>> + Send> = match extension(path).as_deref() {
        Some(extension @ ("tsv" | "csv")) => {
            let usual = if extension == "tsv" { '\t' } else { ',' };
            let rows = separated::Separated::new(path, Utf8Reader::open(path)?, columns, usual)?;
            separator = Some(rows.separator());
            Box::new(rows)
        }
        Some("jsonl" | "ndjson" | "json") => {
            Box::new(json::JsonRows::new(path, Utf8Reader::open(path)?, columns, ahead))
        }
        #[cfg(feature = "parquet")]
        Some("parquet") => Box::new(parquet::rows(path, columns)?),
        #[cfg(not(feature = "parquet"))]
        Some("parquet") => {
            return Err(Error::data_in(path, "rows", NO_PARQUET));
        }
        _ => {
            let why = "unknown format: the file name must end in .tsv, .csv, .jsonl, .ndjson, .json or .parquet; a text file \
                       with columns can be renamed to .tsv or .csv";
            return Err(Error::data_in(path, "rows", why));
        }
    };
    Ok(RowStream { rows, separator, ended: false })
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
            ("a.txt", "sentence\tlabel\n", "a text file with columns can be renamed to .tsv or .csv"),
            ("a", "", "must end in .tsv"),
            ("a.tsv", "sentence\tlabel\n", "a.tsv: rows: the file has none"),
            ("a.tsv", "", "no column sentence, text or content: the file has none"),
            ("a.jsonl", "\n \n", "a.jsonl: rows: the file has none"),
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
        assert!(error.ends_with(&format!("a.parquet: rows: {NO_PARQUET}")), "{error}");
    }

    #[test]
    fn a_stream_ends_with_its_first_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.tsv");
        let lines = "a;1\n".repeat(1 << 15);
        fs::write(&path, [b"text;label\n", lines.as_bytes(), b"\xff;1\nb;1\n"].concat()).unwrap();
        let stream = stream_rows(&path, &Columns::new()).unwrap();
        assert_eq!(stream.separator(), Some(';'));
        let rows: Vec<Result<Row>> = stream.collect();
        assert_eq!((rows.iter().filter(|row| row.is_err()).count(), rows.last().unwrap().is_err()), (1, true));
        fs::write(&path, "text\tlabel\n").unwrap();
        assert_eq!(stream_rows(&path, &Columns::new()).unwrap().count(), 0);
    }
}
