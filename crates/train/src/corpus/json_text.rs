//! The text of a document in a line of JSON.

use std::fmt;

use serde::de::{DeserializeSeed, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use crate::rows::{Cell, json_object};

/// The number of fields listed in the error for a missing one.
const LISTED: usize = 20;

/// Returns the string in the field `field` of a JSON object, or `None` if it is `null`. Of the other fields, nothing is
/// kept.
///
/// # Errors
/// Returns why there is no text: the line is not a JSON object, lacks the field, or has something else than a string in
/// it.
pub(super) fn text_of(line: &str, field: &str) -> Result<Option<String>, String> {
    let mut json = serde_json::Deserializer::from_str(line);
    let fast = Field(field).deserialize(&mut json).and_then(|found| json.end().map(|()| found));
    if let Ok(Some(Value::String(text))) = fast {
        return Ok(Some(text));
    }
    // Slow, but reads the numbers of Python that JSON lacks, and knows what is wrong.
    let object = json_object(line)?;
    match object.get(field) {
        Some(Cell::Json(Value::String(text))) => Ok(Some(text.clone())),
        Some(Cell::Json(Value::Null)) => Ok(None),
        Some(other) => Err(format!("field {field} is not a string: {other}")),
        None => {
            let names: Vec<&str> = object.keys().take(LISTED).map(String::as_str).collect();
            let has = if names.is_empty() { "none".to_string() } else { names.join(", ") };
            Err(format!("no field {field}: the object has {has}"))
        }
    }
}

/// Reads one field of an object.
struct Field<'a>(&'a str);

impl<'de> DeserializeSeed<'de> for Field<'_> {
    type Value = Option<Value>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Option<Value>, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Field<'_> {
    type Value = Option<Value>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Option<Value>, A::Error> {
        let mut found = None;
        while let Some(is_wanted) = map.next_key_seed(Is(self.0))? {
            if is_wanted {
                found = Some(map.next_value::<Value>()?);
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(found)
    }
}

/// Compares a key without keeping it.
struct Is<'a>(&'a str);

impl<'de> DeserializeSeed<'de> for Is<'_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
        Ok(std::borrow::Cow::<str>::deserialize(deserializer)? == self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_field_or_what_is_wrong() {
        let text = |line| text_of(line, "text").map(|text| text.unwrap_or("null".to_string()));
        for (line, expected) in [
            (r#"{"id": [1, {"text": "no"}], "text": "a\u00e9\n\"b\"", "x": 1e5}"#, Ok("aé\n\"b\"")),
            (r#" {"t\u0065xt":"a"} "#, Ok("a")),
            (r#"{"score": NaN, "text": "a"}"#, Ok("a")),
            (r#"{"text": null}"#, Ok("null")),
            (r#"{"text": ["a"]}"#, Err("field text is not a string: [\"a\"]")),
            (r#"{"body": "a", "at": 1}"#, Err("no field text: the object has at, body")),
            ("{}", Err("no field text: the object has none")),
            ("[]", Err("not a JSON object")),
            (r#"{"text": "a""#, Err("invalid JSON: EOF while parsing an object at column 12")),
            (r#"{"text": "a"} {"#, Err("invalid JSON: trailing characters at column 15")),
            ("{\"text\": \"a\tb\"}", Err("control character")),
        ] {
            match (text(line), expected) {
                (Ok(found), Ok(expected)) => assert_eq!(found, expected),
                (Err(found), Err(expected)) => assert!(found.contains(expected), "{found}"),
                (found, _) => panic!("{line}: {found:?}"),
            }
        }
    }
}
