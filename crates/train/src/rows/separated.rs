//! TSV and CSV files.

use std::path::{Path, PathBuf};

use csv::{ReaderBuilder, StringRecord};
use serde_json::{Number, Value};

use super::columns::ColumnIndices;
use super::utf8::{Utf8Reader, read_error};
use super::{Cell, Columns, Row};
use crate::{Error, ErrorKind, Result};

pub(super) fn tsv(path: &Path, source: Utf8Reader, columns: &Columns) -> Result<Separated> {
    Separated::new(path, source, columns, ReaderBuilder::new().delimiter(b'\t').quoting(false))
}

pub(super) fn csv(path: &Path, source: Utf8Reader, columns: &Columns) -> Result<Separated> {
    Separated::new(path, source, columns, &mut ReaderBuilder::new())
}

/// An iterator over the rows of a file.
pub(super) struct Separated {
    path: PathBuf,
    reader: csv::Reader<Utf8Reader>,
    /// The name, in errors, of the line that decides the number of columns: `the header` or `the first row`.
    first: &'static str,
    width: usize,
    found: ColumnIndices,
    record: StringRecord,
    /// Whether `record` already holds the next row: the first row of a file without a header.
    is_read: bool,
}

impl Separated {
    fn new(path: &Path, source: Utf8Reader, columns: &Columns, form: &mut ReaderBuilder) -> Result<Separated> {
        // `flexible`: `row` compares the number of columns itself, to name the line where it differs.
        let mut reader = form.flexible(true).has_headers(false).from_reader(source);
        let mut record = StringRecord::new();
        let is_read = reader.read_record(&mut record).map_err(|error| wrong(path, error))?;
        let (first, names) = match columns.has_header() {
            true => ("the header", record.iter().map(str::to_string).collect::<Vec<_>>()),
            false => ("the first row", (1..=record.len()).map(|number| number.to_string()).collect()),
        };
        let found = columns.find(&names).map_err(|why| Error::data_in(path, "columns", why))?;
        let is_read = is_read && !columns.has_header();
        Ok(Separated { path: path.into(), reader, first, width: names.len(), found, record, is_read })
    }

    fn row(&mut self) -> Result<Option<Row>> {
        if !self.is_read && !self.reader.read_record(&mut self.record).map_err(|error| wrong(&self.path, error))? {
            return Ok(None);
        }
        self.is_read = false;
        // The position of a record includes the blank lines before it.
        let line = self.reader.get_mut().line_of(self.record.position().map_or(0, |position| position.byte()));
        if self.record.len() != self.width {
            let why = format!("found {} columns, but {} has {}", self.record.len(), self.first, self.width);
            return Err(ErrorKind::Data { what: "row", why, path: Some(self.path.clone()), line: Some(line) }.into());
        }
        let cell = |column: usize| self.record.get(column).unwrap_or_default();
        Ok(Some(Row {
            line,
            text: cell(self.found.text).into(),
            second_text: self.found.second_text.map(|column| cell(column).into()),
            label: label(cell(self.found.label)),
        }))
    }
}

impl Iterator for Separated {
    type Item = Result<Row>;

    fn next(&mut self) -> Option<Result<Row>> {
        self.row().transpose()
    }
}

fn wrong(path: &Path, error: csv::Error) -> Error {
    let text = error.to_string();
    match error.into_kind() {
        csv::ErrorKind::Io(error) => read_error(path, error),
        _ => Error::data_in(path, "rows", text),
    }
}

/// Reads a label as a number if it parses as one, otherwise as a string. (Other programs write integers as `1.0` if one
/// is missing in the column.)
fn label(text: &str) -> Cell {
    let number = serde_json::from_str::<Number>(text).map(Value::Number);
    number.unwrap_or_else(|_| text.into()).into()
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    type Form = fn(&Path, Utf8Reader, &Columns) -> Result<Separated>;

    fn read(form: Form, name: &str, text: &str, columns: &Columns) -> Result<Vec<Row>> {
        let source = Utf8Reader::new(Cursor::new(text.to_string().into_bytes())).unwrap();
        form(Path::new(name), source, columns)?.collect()
    }

    fn tsv(text: &str, columns: &Columns) -> Result<Vec<Row>> {
        read(super::tsv, "a.tsv", text, columns)
    }

    fn csv(text: &str, columns: &Columns) -> Result<Vec<Row>> {
        read(super::csv, "a.csv", text, columns)
    }

    fn cells(rows: &[Row]) -> Vec<(usize, String, String)> {
        rows.iter().map(|row| (row.line, row.text.to_string(), row.label.to_string())).collect()
    }

    #[test]
    fn tsv_has_no_quoting() {
        let text = "sentence\tlabel\nsay \"no , \"\" it 's \t1\r\n\n\"open\t0\n\t1.0\n x \tgood one\n";
        let rows = tsv(text, &Columns::new()).unwrap();
        let expected = [
            (2, json!("say \"no , \"\" it 's "), json!(1)),
            (4, json!("\"open"), json!(0)),
            (5, json!(""), json!(1.0)),
            (6, json!(" x "), json!("good one")),
        ];
        assert_eq!(cells(&rows), expected.map(|(line, text, label)| (line, text.to_string(), label.to_string())));
    }

    #[test]
    fn commas_and_quoted_columns() {
        let text = "label,a,b\n1,\"one, \"\"two\"\"\nand three\",x\n-2,y,\"\"\nNaN,z,w";
        let columns = Columns::new().text("a").second_text("b");
        let rows = csv(text, &columns).unwrap();
        let expected = [
            (2, json!("one, \"two\"\nand three").to_string(), "1".to_string()),
            (4, json!("y").to_string(), "-2".to_string()),
            (5, json!("z").to_string(), "\"NaN\"".to_string()),
        ];
        assert_eq!(cells(&rows), expected);
        let second: Vec<Option<Cell>> = rows.into_iter().map(|row| row.second_text).collect();
        assert_eq!(second, ["x", "", "w"].map(|text| Some(text.into())));
    }

    #[test]
    fn without_a_header_columns_have_numbers() {
        let text = "\n\"A plane, off.\",A plane.,5.0\nA man.,A dog.,0.25\n";
        let rows = csv(text, &Columns::numbered().second_text("2")).unwrap();
        let expected = [(2, json!("A plane, off."), json!(5.0)), (3, json!("A man."), json!(0.25))];
        assert_eq!(cells(&rows), expected.map(|(line, text, label)| (line, text.to_string(), label.to_string())));
        assert_eq!(rows[1].second_text, Some("A dog.".into()));
        let said = |text: &str| tsv(text, &Columns::numbered().label("3")).unwrap_err().to_string();
        assert_eq!(said("a\tb\n"), "a.tsv: columns: no column 3: the file has 1, 2");
        assert_eq!(said("a\tb\t1\nc\t1\n"), "a.tsv:2: row: found 2 columns, but the first row has 3");
        assert_eq!(said(""), "a.tsv: columns: no column 1: the file has none");
    }

    #[test]
    fn errors_name_the_line_with_a_wrong_number_of_columns() {
        for (text, what) in [
            ("sentence\tlabel\na\t1\nb\n", "a.tsv:3: row: found 1 columns, but the header has 2"),
            ("sentence\tlabel\na\tb\t1\n", "a.tsv:2: row: found 3 columns, but the header has 2"),
        ] {
            assert_eq!(tsv(text, &Columns::new()).unwrap_err().to_string(), what);
        }
        let error = csv("review,stars\na,1\n", &Columns::new()).unwrap_err().to_string();
        assert_eq!(error, "a.csv: columns: no column sentence, text or content: the file has review, stars");
    }

    proptest! {
        /// The reader agrees with `str::lines` and `str::split`.
        #[test]
        fn tsv_is_lines_and_tabs(
            table in prop::collection::vec(("[a\" ,é]{0,4}", "[b\"01]{1,3}", 0usize..3), 1..8),
            end in prop_oneof![Just("\n"), Just("\r\n")],
        ) {
            let mut text = format!("text\tlabel{end}");
            for (sentence, label, blank) in &table {
                text += &format!("{}{sentence}\t{label}{end}", end.repeat(*blank));
            }
            let expected = text.lines().enumerate().skip(1).filter(|(_, line)| !line.is_empty());
            let expected: Vec<(usize, &str)> = expected.map(|(n, line)| (n + 1, line.split('\t').next().unwrap())).collect();
            let rows = tsv(&text, &Columns::new()).unwrap();
            let found: Vec<(usize, String)> = rows.iter().map(|row| (row.line, row.text.to_string())).collect();
            let expected = expected.into_iter().map(|(line, text)| (line, Value::from(text).to_string()));
            prop_assert_eq!(found, expected.collect::<Vec<_>>());
        }

        #[test]
        fn any_text_is_read_or_refused(text in "(text|label|[\t,\n\r\"ab1é ]){0,30}") {
            for read in [tsv, csv] {
                if let Ok(rows) = read(&format!("text\tlabel\n{text}"), &Columns::new()) {
                    let lines = text.lines().count() + 1;
                    prop_assert!(rows.iter().all(|row| row.line <= lines.max(2)));
                }
                let _ = read(&text, &Columns::new());
            }
        }
    }
}
