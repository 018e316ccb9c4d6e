//! Extraction of the text of a cell.

use serde_json::Value;

use super::dropped::DropReason;
use crate::rows::Cell;

/// Keys under which an object's text is looked for, in this order.
const TEXT_KEYS: &[&str] = &["text", "sentence", "content"];

pub(super) fn text(cell: &Cell) -> Result<String, DropReason> {
    let value = match cell {
        Cell::NonFinite(number) if number.is_nan() => return Err(DropReason::NaN),
        Cell::Malformed(_) => return Err(DropReason::Malformed),
        Cell::NonFinite(_) => return Ok(cell.to_string()),
        Cell::Json(value) => value,
    };
    let text = parts(value).join(" ");
    match value {
        _ if !text.is_empty() => Ok(text),
        Value::Null => Err(DropReason::Null),
        Value::Array(_) => Err(DropReason::NoText),
        _ => Err(DropReason::Blank),
    }
}

/// Returns the non-blank texts in a value, in order. An explicit stack replaces recursion, which deeply nested lists
/// could make overflow.
fn parts(value: &Value) -> Vec<String> {
    let (mut parts, mut open) = (Vec::new(), vec![value]);
    while let Some(value) = open.pop() {
        let part = match value {
            Value::Null => continue,
            Value::Array(items) => {
                open.extend(items.iter().rev());
                continue;
            }
            Value::String(text) => text.trim().to_string(),
            Value::Object(object) => match TEXT_KEYS.iter().find_map(|key| object.get(*key)?.as_str()) {
                Some(text) => text.trim().to_string(),
                None => value.to_string(),
            },
            Value::Bool(_) | Value::Number(_) => value.to_string(),
        };
        if !part.is_empty() {
            parts.push(part);
        }
    }
    parts
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Expected values from the course's `clean_xy`, section 5.6, which also drops the same ones.
    #[test]
    fn texts_are_the_courses() {
        let kept = [
            (json!(" a b\n"), "a b"),
            (json!(7), "7"),
            (json!(-1.5), "-1.5"),
            (json!({"text": " t ", "sentence": "s"}), "t"),
            (json!({"content": "c", "sentence": "s"}), "s"),
            (json!({"text": 3, "content": "c"}), "c"),
            (json!(["a", [" b ", ["c"]], "", {"content": "d"}, 5, " "]), "a b c d 5"),
        ];
        for (value, expected) in kept {
            assert_eq!(text(&value.clone().into()), Ok(expected.to_string()), "{value}");
        }
        assert_eq!(text(&Cell::NonFinite(f64::NEG_INFINITY)), Ok("-inf".to_string()));
        for (cell, reason) in [
            (json!(null).into(), DropReason::Null),
            (Cell::NonFinite(f64::NAN), DropReason::NaN),
            (json!([]).into(), DropReason::NoText),
            (json!([[], " ", [[""]]]).into(), DropReason::NoText),
            (json!(" \t\u{2003}").into(), DropReason::Blank),
            (json!({"text": " "}).into(), DropReason::Blank),
        ] {
            assert_eq!(text(&cell), Err(reason), "{cell}");
        }
    }

    /// Values for which the course uses Python's formatting. Ours is JSON's.
    #[test]
    fn texts_that_are_ours() {
        assert_eq!(text(&json!({"a": [1, null]}).into()), Ok(r#"{"a":[1,null]}"#.to_string()));
        assert_eq!(text(&json!(true).into()), Ok("true".to_string()));
        assert_eq!(text(&json!(["a", null, "b"]).into()), Ok("a b".to_string()));
    }

    #[test]
    fn lists_may_be_nested_to_any_depth() {
        let mut deep = json!("a");
        for _ in 0..100_000 {
            deep = Value::Array(vec![deep]);
        }
        assert_eq!(parts(&deep), ["a"]);
        // Taken apart level by level, because dropping a `Value` recurses.
        while let Value::Array(mut items) = deep {
            deep = items.pop().unwrap();
        }
    }
}
