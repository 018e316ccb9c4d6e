//! Parsing of a JSON object, with the numbers of Python that JSON does not have.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::rows::Cell;

/// The names that Python's `json` writes for numbers that JSON cannot express.
const NON_FINITE: &[(&str, f64)] = &[("NaN", f64::NAN), ("Infinity", f64::INFINITY), ("-Infinity", f64::NEG_INFINITY)];

/// The cells of a JSON object, by key.
pub(crate) type Object = BTreeMap<String, Cell>;

/// Parses a JSON object. The error says what is wrong.
pub(crate) fn object(text: &str) -> Result<Object, String> {
    let mut named = Vec::new();
    let object = serde_json::from_str(text).or_else(|error| {
        let rewritten;
        (rewritten, named) = without_non_finite(text);
        if rewritten == text { Err(error) } else { serde_json::from_str(&rewritten) }
    });
    match object {
        Ok(Value::Object(object)) => Ok(cells(object, named)),
        Ok(_) => Err("not a JSON object".to_string()),
        Err(error) => {
            let (column, said) = (error.column(), error.to_string());
            let why = said.split_once(" at line ").map_or(said.as_str(), |(why, _)| why);
            let place = if text.contains('\n') { String::new() } else { format!(" at column {column}") };
            Err(format!("invalid JSON: {why}{place}"))
        }
    }
}

fn cells(object: Map<String, Value>, named: Vec<(String, f64)>) -> Object {
    let mut cells: Object = object.into_iter().map(|(name, value)| (name, value.into())).collect();
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
pub(super) fn string_length(text: &str) -> usize {
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

    proptest! {
        #[test]
        fn any_line_is_read_or_refused(line in r#"[{}\[\]":,NaInfty\-\\é 0]{0,40}"#) {
            let (rewritten, _) = without_non_finite(&line);
            prop_assert_eq!(rewritten == line, !rewritten.contains("null") || line.contains("null"));
            let _ = object(&line);
        }

        /// Valid JSON is not changed, whatever its strings contain.
        #[test]
        fn strings_stay(text in "(NaN|Infinity|[\"\\\\{}:é-]){0,12}") {
            let line = json!({"text": [text.clone()], "label": 1, text: 2}).to_string();
            prop_assert_eq!(without_non_finite(&line), (line, vec![]));
        }
    }
}
