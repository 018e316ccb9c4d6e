//! JSON Lines files, with a JSON object on each line.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::columns::ColumnIndices;
use super::utf8::{Utf8Reader, read_error};
use super::{Cell, Columns, Row};
use crate::{Error, ErrorKind, Result};

/// The names that Python's `json` writes for numbers that JSON cannot express.
const NON_FINITE: &[(&str, f64)] = &[("NaN", f64::NAN), ("Infinity", f64::INFINITY), ("-Infinity", f64::NEG_INFINITY)];

/// An iterator over the rows of a file.
pub(super) struct JsonLines {
    path: PathBuf,
    source: BufReader<Utf8Reader>,
    line: usize,
    columns: Columns,
    /// The names of the text, second text and label columns, once the first objects have been read.
    names: Option<(String, Option<String>, String)>,
    /// The number of objects to read ahead to find the columns.
    ahead: usize,
    pending: VecDeque<(usize, Object)>,
}

type Object = BTreeMap<String, Cell>;

impl JsonLines {
    pub(super) fn new(path: &Path, source: Utf8Reader, columns: &Columns, ahead: usize) -> JsonLines {
        let (path, source, columns) = (path.into(), BufReader::new(source), columns.clone());
        JsonLines { path, source, line: 0, columns, names: None, ahead, pending: VecDeque::new() }
    }

    /// Returns the next object and its line.
    fn object(&mut self) -> Result<Option<(usize, Object)>> {
        let mut text = String::new();
        loop {
            text.clear();
            if self.source.read_line(&mut text).map_err(|error| read_error(&self.path, error))? == 0 {
                return Ok(None);
            }
            self.line += 1;
            if !text.trim().is_empty() {
                let path = || Some(self.path.clone());
                let wrong = |why| ErrorKind::Data { what: "row", why, path: path(), line: Some(self.line) };
                return Ok(Some((self.line, object(text.trim_end_matches(['\r', '\n'])).map_err(wrong)?)));
            }
        }
    }

    /// Reads the first objects and finds the columns among their keys. Returns `None` if there are no objects.
    fn look_ahead(&mut self) -> Result<Option<(String, Option<String>, String)>> {
        let (mut there, mut seen) = (Vec::new(), HashSet::new());
        while self.pending.len() < self.ahead
            && let Some((line, object)) = self.object()?
        {
            for name in object.keys() {
                if !seen.contains(name) {
                    seen.insert(name.clone());
                    there.push(name.clone());
                }
            }
            self.pending.push_back((line, object));
        }
        if self.pending.is_empty() {
            return Ok(None);
        }
        let ColumnIndices { text, second_text, label } =
            self.columns.find(&there).map_err(|why| Error::data_in(&self.path, "columns", why))?;
        let name = |column: usize| there[column].clone();
        Ok(Some((name(text), second_text.map(name), name(label))))
    }

    fn row(&mut self) -> Result<Option<Row>> {
        if self.names.is_none() {
            self.names = self.look_ahead()?;
        }
        let object = match self.pending.pop_front() {
            Some(object) => Some(object),
            None => self.object()?,
        };
        let (Some((line, mut object)), Some((text, second_text, label))) = (object, &self.names) else {
            return Ok(None);
        };
        let mut cell = |name: &String| object.remove(name).unwrap_or(Value::Null.into());
        Ok(Some(Row { line, text: cell(text), second_text: second_text.as_ref().map(&mut cell), label: cell(label) }))
    }
}

impl Iterator for JsonLines {
    type Item = Result<Row>;

    fn next(&mut self) -> Option<Result<Row>> {
        self.row().transpose()
    }
}

fn object(line: &str) -> Result<BTreeMap<String, Cell>, String> {
    let mut named = Vec::new();
    let object = serde_json::from_str(line).or_else(|error| {
        let rewritten;
        (rewritten, named) = without_non_finite(line);
        if rewritten == line { Err(error) } else { serde_json::from_str(&rewritten) }
    });
    match object {
        Ok(Value::Object(object)) => Ok(cells(object, named)),
        Ok(_) => Err("not a JSON object".to_string()),
        Err(error) => {
            let (column, said) = (error.column(), error.to_string());
            let why = said.split_once(" at line ").map_or(said.as_str(), |(why, _)| why);
            Err(format!("invalid JSON: {why} at column {column}"))
        }
    }
}

fn cells(object: Map<String, Value>, named: Vec<(String, f64)>) -> BTreeMap<String, Cell> {
    let mut cells: BTreeMap<String, Cell> = object.into_iter().map(|(name, value)| (name, value.into())).collect();
    cells.extend(named.into_iter().map(|(name, value)| (name, Cell::NonFinite(value))));
    cells
}

/// Replaces the bare NaNs and infinities in a line of JSON by `null`. Also returns key and number of those that are the
/// value of a top-level key.
fn without_non_finite(line: &str) -> (String, Vec<(String, f64)>) {
    let (mut rewritten, mut named) = (String::with_capacity(line.len() + 8), Vec::new());
    let (mut depth, mut key) = (0usize, "");
    let mut rest = line;
    while let Some(first) = rest.chars().next() {
        let length = if let Some((word, value)) = NON_FINITE.iter().find(|(word, _)| rest.starts_with(word)) {
            rewritten.push_str("null");
            if let (1, Ok(key)) = (depth, serde_json::from_str(key)) {
                named.push((key, *value));
            }
            rest = &rest[word.len()..];
            continue;
        } else if first == '"' {
            let length = string_length(rest);
            // The last string before a top-level value is its key.
            key = &rest[..length];
            length
        } else {
            match first {
                '{' | '[' => depth += 1,
                '}' | ']' => depth = depth.saturating_sub(1),
                _ => {}
            }
            first.len_utf8()
        };
        rewritten.push_str(&rest[..length]);
        rest = &rest[length..];
    }
    (rewritten, named)
}

/// Returns the length in bytes, quotation marks included, of the JSON string at the beginning of `text`.
fn string_length(text: &str) -> usize {
    let mut escaped = false;
    let end = text.bytes().skip(1).position(|byte| {
        let ends = byte == b'"' && !escaped;
        escaped = byte == b'\\' && !escaped;
        ends
    });
    end.map_or(text.len(), |end| end + 2)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn rows(text: &str, columns: &Columns) -> Result<Vec<Row>> {
        rows_ahead(text, columns, usize::MAX)
    }

    fn rows_ahead(text: &str, columns: &Columns, ahead: usize) -> Result<Vec<Row>> {
        let source = Utf8Reader::new(std::io::Cursor::new(text.to_string().into_bytes())).unwrap();
        JsonLines::new(Path::new("a.jsonl"), source, columns, ahead).collect()
    }

    #[test]
    fn columns_are_looked_for_in_the_first_rows() {
        let text = "{\"text\": \"a\", \"label\": 1}\n\n{\"label\": 2}\n{\"sentence\": \"b\", \"label\": 3}\n";
        let texts = |ahead| rows_ahead(text, &Columns::new(), ahead).unwrap().into_iter().map(|row| row.text).collect();
        let null = || Cell::from(Value::Null);
        let (near, far): (Vec<Cell>, Vec<Cell>) = (texts(2), texts(3));
        assert_eq!((near, far), (vec!["a".into(), null(), null()], vec![null(), null(), "b".into()]));
    }

    #[test]
    fn any_value_is_a_row() {
        let text = r#"{"label": 1, "text": "a"}

{"text": {"content": ["b"]}, "label": "x", "other": 3}
{"label": null}
"#;
        let expected =
            [Row::new(1, "a", 1), Row::new(3, json!({"content": ["b"]}), "x"), Row::new(4, Value::Null, Value::Null)];
        assert_eq!(rows(text, &Columns::new()).unwrap(), expected);
        let pairs = rows(text, &Columns::new().second_text("other")).unwrap();
        assert_eq!(pairs[1].second_text, Some(3.into()));
        assert_eq!(pairs[0].second_text, Some(Value::Null.into()));
    }

    /// Python's `json.dumps` writes these.
    #[test]
    fn bare_nan_and_infinity() {
        let text = r#"{"text": NaN, "label": -Infinity}
{"label":Infinity,"text":["a", NaN, {"text": NaN}]}
{"text": "NaN \" NaN, \\", "label": NaN}
{"a\"b": NaN, "text": "x", "label": 0}"#;
        let read = rows(text, &Columns::new()).unwrap();
        let shown: Vec<(String, String)> =
            read.iter().map(|row| (row.text.to_string(), row.label.to_string())).collect();
        assert_eq!(shown[0], ("nan".into(), "-inf".into()));
        assert_eq!(shown[1], (r#"["a",null,{"text":null}]"#.into(), "inf".into()));
        assert_eq!(shown[2], (r#""NaN \" NaN, \\""#.into(), "nan".into()));
        assert_eq!(rows(text, &Columns::new().label("a\"b")).unwrap()[3].label.to_string(), "nan");
    }

    #[test]
    fn errors_name_the_line() {
        for (line, what) in [
            ("[1]", "a.jsonl:2: row: not a JSON object"),
            ("{\"text\": nan}", "a.jsonl:2: row: invalid JSON: expected ident at column 11"),
            ("{\"text\": NaN", "a.jsonl:2: row: invalid JSON: EOF while parsing an object at column 13"),
            ("{\"text\": \"NaN", "a.jsonl:2: row: invalid JSON: EOF while parsing a string at column 13"),
        ] {
            let text = format!("{{\"text\": \"a\", \"label\": 1}}\n{line}\n");
            assert_eq!(rows(&text, &Columns::new()).unwrap_err().to_string(), what);
        }
        let deep = format!("{{\"text\": {}", "[".repeat(100_000));
        assert!(rows(&deep, &Columns::new()).unwrap_err().to_string().contains("recursion limit exceeded"));
        let missing = rows("{\"label\": 1, \"a\": 2}\n{\"b\": 1}", &Columns::new()).unwrap_err().to_string();
        assert!(missing.ends_with("the file has a, label, b"), "{missing}");
    }

    proptest! {
        #[test]
        fn any_line_is_read_or_refused(line in r#"[{}\[\]":,NaInfty\-\\é 0]{0,40}"#) {
            let (rewritten, _) = without_non_finite(&line);
            prop_assert_eq!(rewritten == line, !rewritten.contains("null") || line.contains("null"));
            let _ = rows(&line, &Columns::new());
        }

        /// Valid JSON is not changed, whatever its strings contain.
        #[test]
        fn strings_stay(text in "(NaN|Infinity|[\"\\\\{}:é-]){0,12}") {
            let line = json!({"text": [text.clone()], "label": 1, text: 2}).to_string();
            prop_assert_eq!(without_non_finite(&line), (line, vec![]));
        }
    }
}
