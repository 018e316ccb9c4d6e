//! Tests of the reader of JSON files.

use serde_json::{Value, json};

use super::*;
use crate::Cell;

fn rows(text: &str, columns: &Columns) -> Result<Vec<Row>> {
    rows_ahead(text, columns, usize::MAX)
}

fn rows_ahead(text: &str, columns: &Columns, ahead: usize) -> Result<Vec<Row>> {
    let source = Utf8Reader::new(std::io::Cursor::new(text.to_string().into_bytes())).unwrap();
    JsonRows::new(Path::new("a.jsonl"), source, columns, ahead).collect()
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
    let shown: Vec<(String, String)> = read.iter().map(|row| (row.text.to_string(), row.label.to_string())).collect();
    assert_eq!(shown[0], ("nan".into(), "-inf".into()));
    assert_eq!(shown[1], (r#"["a",null,{"text":null}]"#.into(), "inf".into()));
    assert_eq!(shown[2], (r#""NaN \" NaN, \\""#.into(), "nan".into()));
    assert_eq!(rows(text, &Columns::new().label("a\"b")).unwrap()[3].label.to_string(), "nan");
}

/// Expected values from `datasets.load_dataset("json", ..)`, with `field=` for the lists in objects.
#[test]
fn lists_of_objects_are_rows() {
    let lines = |text: &str| -> Vec<(usize, String, String)> {
        let rows = rows(text, &Columns::new()).unwrap().into_iter();
        rows.map(|row| (row.line, row.text.to_string(), row.label.to_string())).collect()
    };
    let row = |line, text: &str, label: i32| (line, format!("{text:?}"), label.to_string());
    let list = r#"[{"text": "a, [b]", "label": 1}, {"label": 0, "text": "c"}]"#;
    let both = [row(1, "a, [b]", 1), row(1, "c", 0)];
    assert_eq!(lines(list), both);
    assert_eq!(lines(&format!("{{\"version\": 1, \"data\": {list}, \"ids\": [1, 2]}}\n")), both);
    assert_eq!(lines(&format!("{{\"train\": {list}}}")), both);
    assert_eq!(
        lines("\n[\n  {\n    \"text\": \"a\",\n    \"label\": 1\n  },\n {\"text\": NaN, \"label\": 0}\n]\n"),
        [row(3, "a", 1), (7, "nan".into(), "0".into()),]
    );
    assert_eq!(lines("{\"n\": 2,\n\"rows\": [\n{\"text\": \"a\", \"label\": 1}]}"), [row(3, "a", 1)]);
    // Objects one after the other, a single one, and one whose text is a list of objects.
    assert_eq!(
        lines("{\n\"text\": \"a\",\n\"label\": 1}\n{\n\"text\": \"b\", \"label\": 2\n}\n"),
        [row(1, "a", 1), row(4, "b", 2)]
    );
    assert_eq!(lines("{\"text\": \"a\", \"label\": 1}"), [row(1, "a", 1)]);
    assert_eq!(lines("{\"text\": [{\"text\": \"a\"}], \"label\": 1}").len(), 1);
}

/// As `json.dump(dataset.to_dict(), ..)` and `DataFrame.to_json(..)` write a table.
#[test]
fn commas_may_follow_objects() {
    let text = "{\"text\": \"a\", \"label\": 1},\n{\"text\": \"b\", \"label\": 0},\n";
    assert_eq!(rows(text, &Columns::new()).unwrap(), [Row::new(1, "a", 1), Row::new(2, "b", 0)]);
    // Other text makes its own line malformed, and no other.
    let text = "{\"text\": \"a\", \"label\": 1} x\n{\"text\": \"b\", \"label\": 0}\n";
    let read = rows(text, &Columns::new()).unwrap();
    assert!(matches!(read[0].text, Cell::Malformed(_)), "{read:?}");
    assert_eq!(read[1..], [Row::new(2, "b", 0)]);
}

#[test]
fn columns_are_rows() {
    let expected = [Row::new(1, "a", 1), Row::new(2, "b", 0)];
    let text = r#"{"text": ["a", "b"], "label": [1, 0], "id": ["x", "y"]}"#;
    assert_eq!(rows(text, &Columns::new()).unwrap(), expected);
    let text = r#"{"text": {"9": "a", "10": "b"}, "label": {"9": 1, "10": 0}}"#;
    assert_eq!(rows(text, &Columns::new()).unwrap(), expected);
    for row in [r#"{"text": ["a", "b"], "label": 1}"#, r#"{"text": ["a", "b"], "label": ["x"]}"#] {
        assert_eq!(rows(row, &Columns::new()).unwrap().len(), 1);
    }
}

#[test]
fn several_labels_are_an_object() {
    let text = "{\"text\": \"a\", \"toxic\": 1, \"rude\": 0}\n{\"text\": \"b\", \"rude\": true}\n";
    let read = rows(text, &Columns::new().labels(["toxic", "rude"])).unwrap();
    let labels: Vec<String> = read.iter().map(|row| row.label.to_string()).collect();
    assert_eq!(labels, [r#"{"rude":0,"toxic":1}"#, r#"{"rude":true,"toxic":null}"#]);
}

#[test]
fn malformed_lines_are_rows() {
    for (line, what) in [
        ("[1]", "not a JSON object"),
        ("{\"text\": nan}", "invalid JSON: expected ident at column 11"),
        ("{\"text\": NaN", "invalid JSON: EOF while parsing an object at column 13"),
        ("{\"text\": \"NaN", "invalid JSON: EOF while parsing a string at column 13"),
    ] {
        let text = format!("{{\"text\": \"a\", \"label\": 1}}\n{line}\n{{\"text\": \"b\"}}\n");
        let read = rows(&text, &Columns::new()).unwrap();
        assert_eq!((read.len(), &read[1]), (3, &Row::malformed(2, what)));
        let first = format!("{line}\n{{\"text\": \"b\", \"label\": 1}}\n");
        assert_eq!(rows(&first, &Columns::new()).unwrap()[0], Row::malformed(1, what), "{first}");
    }
    let cut = rows("[{\"text\": \"a\", \"label\": 1},\n{\"text\": \"b\"", &Columns::new()).unwrap();
    let more = rows("[\n{\"text\": \"a\", \"label\": 1}]\n]", &Columns::new()).unwrap();
    assert_eq!(more[1..], [Row::malformed(2, "invalid JSON: text after the list")]);
    let ends = "invalid JSON: the file ends inside a list";
    assert_eq!((cut.len(), cut[1].line, &cut[2]), (3, 2, &Row::malformed(2, ends)));
}

#[test]
fn errors_name_the_file() {
    let said = |text: &str| rows(text, &Columns::new()).unwrap_err().to_string();
    assert_eq!(said("good\nbad\n"), "a.jsonl:1: row: invalid JSON: expected value at column 1");
    assert_eq!(said("[1, 2]"), "a.jsonl:1: row: not a JSON object");
    let deep = format!("{{\"text\": {}", "[".repeat(100_000));
    assert!(said(&deep).contains("recursion limit exceeded"));
    let missing = said("{\"label\": 1, \"a\": 2}\n{\"b\": 1}");
    assert!(missing.ends_with("the file has a, label, b"), "{missing}");
}
