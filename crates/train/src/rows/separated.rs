//! Columns with a separator between them: TSV and CSV.

use std::path::Path;

use csv::{ReaderBuilder, StringRecord};
use serde_json::{Number, Value};

use super::{Cell, Columns, Row};
use crate::{Error, ErrorKind, Result};

pub(super) fn tsv(path: &Path, text: &str, columns: &Columns) -> Result<Vec<Row>> {
    read(path, text, columns, ReaderBuilder::new().delimiter(b'\t').quoting(false))
}

pub(super) fn csv(path: &Path, text: &str, columns: &Columns) -> Result<Vec<Row>> {
    read(path, text, columns, &mut ReaderBuilder::new())
}

fn read(path: &Path, text: &str, columns: &Columns, form: &mut ReaderBuilder) -> Result<Vec<Row>> {
    // The number of columns is compared here, where it can be said on which line it differs.
    let mut reader = form.flexible(true).from_reader(text.as_bytes());
    let wrong = |error: csv::Error| Error::data_in(path, "rows", error.to_string());
    let header: Vec<String> = reader.headers().map_err(wrong)?.iter().map(str::to_string).collect();
    let found = columns.find(&header).map_err(|why| Error::data_in(path, "columns", why))?;

    let (mut rows, mut record) = (Vec::new(), StringRecord::new());
    let mut lines = Lines { bytes: text.as_bytes(), at: 0, line: 1 };
    while reader.read_record(&mut record).map_err(wrong)? {
        let line = lines.of(record.position().map_or(0, |position| position.byte() as usize));
        if record.len() != header.len() {
            let why = format!("{} columns, but the header has {}", record.len(), header.len());
            return Err(ErrorKind::Data { what: "row", why, path: Some(path.into()), line: Some(line) }.into());
        }
        let cell = |column: usize| record.get(column).unwrap_or_default();
        rows.push(Row {
            line,
            text: cell(found.text).into(),
            second_text: found.second_text.map(|column| cell(column).into()),
            label: label(cell(found.label)),
        });
    }
    Ok(rows)
}

/// Lines of a text, counted as one goes along.
struct Lines<'t> {
    bytes: &'t [u8],
    at: usize,
    line: usize,
}

impl Lines<'_> {
    /// The line of the first character from `byte` on that ends no line: what comes before it, blank lines among it,
    /// the reader counts to the row that follows.
    fn of(&mut self, byte: usize) -> usize {
        while let Some(next) = self.bytes.get(self.at)
            && (self.at < byte || matches!(next, b'\r' | b'\n'))
        {
            self.line += usize::from(*next == b'\n');
            self.at += 1;
        }
        self.line
    }
}

/// A label that reads as a number is that number: `1.0` is what other programs write of a column of integers with
/// one missing.
fn label(text: &str) -> Cell {
    let number = serde_json::from_str::<Number>(text).map(Value::Number);
    number.unwrap_or_else(|_| text.into()).into()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn cells(rows: &[Row]) -> Vec<(usize, String, String)> {
        rows.iter().map(|row| (row.line, row.text.to_string(), row.label.to_string())).collect()
    }

    #[test]
    fn tabs_and_quotation_marks_as_they_are() {
        let text = "sentence\tlabel\nsay \"no , \"\" it 's \t1\r\n\n\"open\t0\n\t1.0\n x \tgood one\n";
        let rows = tsv(Path::new("a.tsv"), text, &Columns::new()).unwrap();
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
        let rows = csv(Path::new("a.csv"), text, &columns).unwrap();
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
    fn a_line_with_other_columns_is_named() {
        for (text, what) in [
            ("sentence\tlabel\na\t1\nb\n", "a.tsv:3: row: 1 columns, but the header has 2"),
            ("sentence\tlabel\na\tb\t1\n", "a.tsv:2: row: 3 columns, but the header has 2"),
        ] {
            assert_eq!(tsv(Path::new("a.tsv"), text, &Columns::new()).unwrap_err().to_string(), what);
        }
        let error = csv(Path::new("a.csv"), "review,stars\na,1\n", &Columns::new()).unwrap_err().to_string();
        assert_eq!(error, "a.csv: columns: there is no column sentence, text or content: the file has review, stars");
    }

    proptest! {
        /// Lines as Rust counts them, columns as it splits them.
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
            let rows = tsv(Path::new("a.tsv"), &text, &Columns::new()).unwrap();
            let found: Vec<(usize, String)> = rows.iter().map(|row| (row.line, row.text.to_string())).collect();
            let expected = expected.into_iter().map(|(line, text)| (line, Value::from(text).to_string()));
            prop_assert_eq!(found, expected.collect::<Vec<_>>());
        }

        #[test]
        fn any_text_is_taken_or_refused(text in "(text|label|[\t,\n\r\"ab1é ]){0,30}") {
            for read in [tsv, csv] {
                if let Ok(rows) = read(Path::new("a"), &format!("text\tlabel\n{text}"), &Columns::new()) {
                    let lines = text.lines().count() + 1;
                    prop_assert!(rows.iter().all(|row| row.line <= lines.max(2)));
                }
                let _ = read(Path::new("a"), &text, &Columns::new());
            }
        }
    }
}
