//! TSV and CSV files.

use std::path::{Path, PathBuf};

use csv::StringRecord;
use serde_json::{Number, Value};

use super::columns::ColumnIndices;
use super::separator::{LOOK_AHEAD, Separator};
use super::utf8::{Utf8Reader, read_error};
use super::{Cell, Columns, Row};
use crate::{Error, Result};

/// An iterator over the rows of a file.
pub(super) struct Separated {
    path: PathBuf,
    reader: csv::Reader<Utf8Reader>,
    separator: char,
    width: Width,
    found: ColumnIndices,
    record: StringRecord,
    /// Whether `record` already holds the next row: the first row of a file without a header.
    is_read: bool,
}

/// The number of columns that a row must have.
enum Width {
    /// As many as the line of this name: `the header` or `the first row`.
    Of(&'static str, usize),
    /// At least so many.
    AtLeast(usize),
}

impl Width {
    /// Returns what is wrong with a row. Empty columns at its end do not matter.
    fn fault(&self, record: &StringRecord) -> Option<String> {
        let count = record.len();
        match *self {
            Width::Of(_, width) if count >= width && record.iter().skip(width).all(str::is_empty) => None,
            Width::Of(first, width) => Some(format!("found {count} columns, but {first} has {width}")),
            Width::AtLeast(width) if count >= width => None,
            Width::AtLeast(width) => Some(format!("found {count} columns, but column {width} is wanted")),
        }
    }
}

impl Separated {
    pub(super) fn new(path: &Path, mut source: Utf8Reader, columns: &Columns, usual: char) -> Result<Separated> {
        let head = source.peek(LOOK_AHEAD).map_err(|error| read_error(path, error))?;
        if let Some(other) = columns.chosen_separator().filter(|separator| !separator.is_ascii()) {
            return Err(Error::invalid("separator", format!("{other:?}"), "an ASCII character"));
        }
        let separator = Separator::of(&String::from_utf8_lossy(&head), columns, usual);
        let mut reader = separator.reader().from_reader(source);
        let mut record = StringRecord::new();
        let mut read = || reader.read_record(&mut record).map_err(|error| wrong(path, error));
        let is_read = (!separator.has_line || read()?) && read()?;
        let names: Vec<String> = match columns.has_header() {
            true => record.iter().map(str::to_string).collect(),
            false => (1..=record.len()).map(|number| number.to_string()).collect(),
        };
        let found = columns.find(&names).map_err(|why| Error::data_in(path, "columns", why))?;
        let width = match (columns.has_header(), columns.width()) {
            (true, _) => Width::Of("the header", names.len()),
            (false, (_, false)) => Width::Of("the first row", names.len()),
            (false, (least, true)) => Width::AtLeast(least),
        };
        let is_read = is_read && !columns.has_header();
        Ok(Separated { path: path.into(), reader, separator: separator.character, width, found, record, is_read })
    }

    pub(super) fn separator(&self) -> char {
        self.separator
    }

    fn row(&mut self) -> Result<Option<Row>> {
        if !self.is_read && !self.reader.read_record(&mut self.record).map_err(|error| wrong(&self.path, error))? {
            return Ok(None);
        }
        self.is_read = false;
        // The position of a record includes the blank lines before it.
        let line = self.reader.get_mut().line_of(self.record.position().map_or(0, |position| position.byte()));
        if let Some(mut why) = self.width.fault(&self.record) {
            let start = self.record.position().map_or(0, |position| position.line());
            let lines = self.reader.position().line().saturating_sub(start);
            if lines > 1 {
                why.push_str(&format!(" (the row spans {lines} lines: a quotation mark may not be closed)"));
            }
            return Ok(Some(Row::malformed(line, why)));
        }
        let cell = |column: usize| self.record.get(column).unwrap_or_default();
        Ok(Some(self.found.row(line, |column| cell(column).into(), |column| label(cell(column)))))
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

    fn read(text: &str, columns: &Columns, usual: char) -> Result<Vec<Row>> {
        let source = Utf8Reader::new(Cursor::new(text.to_string().into_bytes())).unwrap();
        let name = if usual == ',' { "a.csv" } else { "a.tsv" };
        Separated::new(Path::new(name), source, columns, usual)?.collect()
    }

    fn tsv(text: &str, columns: &Columns) -> Result<Vec<Row>> {
        read(text, columns, '\t')
    }

    fn csv(text: &str, columns: &Columns) -> Result<Vec<Row>> {
        read(text, columns, ',')
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
        assert_eq!(said(""), "a.tsv: columns: no column 1: the file has none");
    }

    #[test]
    fn rows_with_another_number_of_columns_are_malformed() {
        let header = Columns::new();
        let text = "id\tsentence\tlabel\n1\ta\t1\n\"\tb\t\n2\tc\n3\td\te\t1\n4\tf\t0\t\t\n";
        let malformed = |line, why: &str| Row::malformed(line, why);
        let expected = [
            Row::new(2, "a", 1),
            Row::new(3, "b", ""),
            malformed(4, "found 2 columns, but the header has 3"),
            malformed(5, "found 4 columns, but the header has 3"),
            Row::new(6, "f", 0),
        ];
        assert_eq!(tsv(text, &header).unwrap(), expected);
        let uneven = "a\tb\t1\nc\t1\nd\te\t0\tsource\n";
        let last = tsv(uneven, &Columns::numbered()).unwrap();
        assert_eq!(last[1], malformed(2, "found 2 columns, but the first row has 3"));
        assert_eq!(last[2], malformed(3, "found 4 columns, but the first row has 3"));
        let third = tsv(uneven, &Columns::numbered().label("3")).unwrap();
        assert_eq!(third[1..], [malformed(2, "found 2 columns, but column 3 is wanted"), Row::new(3, "d", 0)]);
        let error = csv("review,stars\na,1\n", &header).unwrap_err().to_string();
        assert_eq!(error, "a.csv: columns: no column sentence, text or content: the file has review, stars");
    }

    #[test]
    fn any_separator_is_found() {
        let rows = [Row::new(2, "no, yes; \"so\"", 1), Row::new(3, "b", 0)];
        let text = "text;label\n\"no, yes; \"\"so\"\"\";1\nb;0\n";
        assert_eq!(csv(text, &Columns::new()).unwrap(), rows);
        assert_eq!(tsv(text, &Columns::new()).unwrap(), rows);
        assert_eq!(csv("text\tlabel\nno, yes; \"so\"\t1\nb\t0\n", &Columns::new()).unwrap(), rows);
        let chosen = csv(text, &Columns::new().separator('；')).unwrap_err().to_string();
        assert_eq!(chosen, "separator is '；', must be an ASCII character");
        let named = csv(&format!("sep=;\n{text}"), &Columns::new()).unwrap();
        assert_eq!(named.iter().map(|row| row.line).collect::<Vec<_>>(), [3, 4]);
        // STS benchmark: tabs, no header, quotation marks that are not closed, 7 to 9 columns.
        let text = "m\tf\t12\t01\t5.0\tA \"b.\tC, d.\nm\tf\t12\t02\t0.5\tE, f, g, h, i, j.\t\"K\tsource\tother\n";
        let read = csv(text, &Columns::numbered().text("6").second_text("7").label("5")).unwrap();
        let shown: Vec<String> = read.iter().map(|row| format!("{} {}", row.text, row.label)).collect();
        assert_eq!(shown, ["\"A \\\"b.\" 5.0", "\"E, f, g, h, i, j.\" 0.5"]);
    }

    #[test]
    fn a_quotation_mark_that_is_not_closed_is_said() {
        let rows = csv("text,label\na,1\n\"b,0\nc,1\nd,0\n", &Columns::new()).unwrap();
        let why = "found 1 columns, but the header has 2 (the row spans 3 lines: a quotation mark may not be closed)";
        assert_eq!(rows, [Row::new(2, "a", 1), Row::malformed(3, why)]);
    }

    #[test]
    fn a_column_for_each_label() {
        let columns = Columns::new().labels(["toxic", "rude"]);
        let rows = csv("text,toxic,rude\na,1,0\nb,x,1\n", &columns).unwrap();
        let labels: Vec<String> = rows.iter().map(|row| row.label.to_string()).collect();
        assert_eq!(labels, [r#"{"rude":0,"toxic":1}"#, r#"{"rude":1,"toxic":"x"}"#]);
        let missing = csv("text,toxic\na,1\n", &columns).unwrap_err().to_string();
        assert_eq!(missing, "a.csv: columns: no column rude: the file has text, toxic");
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
