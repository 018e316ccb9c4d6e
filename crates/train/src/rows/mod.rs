//! Rows of texts and labels, from the files that people have: one reader for each form of file.
//!
//! A reader takes what a file says as it stands. A line that is not of the file's form is an error; a value that is
//! no text, or no label, is a row all the same, for [`sanitize`](crate::sanitize) to judge.

mod cell;
mod columns;
mod json_lines;
mod separated;

use std::path::Path;

pub use cell::Cell;
pub use columns::Columns;

use crate::files::read_text;
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

/// Reads the rows of a file, whose name says what it is:
///
/// - `.tsv`: a header, and a line a row, tabs between the columns. Quotation marks are characters like any other, as
///   in GLUE's files.
/// - `.csv`: a header, commas between the columns; a column in quotation marks may hold commas, line ends and, written
///   twice, quotation marks (RFC 4180).
/// - `.jsonl`, `.ndjson`, `.json`: a JSON object a line. `NaN`, `Infinity` and `-Infinity` are taken as Python writes
///   them. A key that a line lacks is `null`.
///
/// Blank lines are passed over. In TSV and CSV all columns are strings, but a label that reads as a number is that
/// number.
///
/// # Errors
/// When the file cannot be read, is not UTF-8, has another name, lacks a column (says which it has) or any row; when a
/// line has not as many columns as the header, or is no JSON object (says which line).
pub fn read_rows(path: impl AsRef<Path>, columns: &Columns) -> Result<Vec<Row>> {
    let path = path.as_ref();
    let extension = path.extension().map(|extension| extension.to_string_lossy().to_ascii_lowercase());
    let read: fn(&Path, &str, &Columns) -> Result<Vec<Row>> = match extension.as_deref() {
        Some("tsv") => separated::tsv,
        Some("csv") => separated::csv,
        Some("jsonl" | "ndjson" | "json") => json_lines::read,
        _ => {
            let why = "the name says no form of file: it must end in .tsv, .csv, .jsonl, .ndjson or .json";
            return Err(Error::data_in(path, "rows", why));
        }
    };
    let rows = read(path, &read_text(path)?, columns)?;
    match rows.is_empty() {
        true => Err(Error::data_in(path, "rows", "there is none")),
        false => Ok(rows),
    }
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
            ("a.parquet", "sentence\tlabel\n", "must end in .tsv, .csv, .jsonl"),
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
}
