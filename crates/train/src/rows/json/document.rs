//! Division of a JSON document into its parts, without parsing them.

use super::object::string_length;

/// Returns the length of the list or object at the beginning of `text`, or `None` if it is not closed.
pub(super) fn length(text: &str) -> Option<usize> {
    let mut depth = 0usize;
    let mut at = 0;
    while let Some(&byte) = text.as_bytes().get(at) {
        match byte {
            b'"' => {
                let length = string_length(&text[at..]);
                if text[at..at + length].contains('\n') {
                    return None;
                }
                at += length;
                continue;
            }
            b'{' | b'[' => depth += 1,
            b'}' | b']' => {
                depth = depth.checked_sub(1)?;
                if depth == 0 {
                    return Some(at + 1);
                }
            }
            _ => {}
        }
        at += 1;
    }
    None
}

/// Returns offset and text of the parts between the commas of the list or object at the beginning of `text`. If it is
/// not closed, the last part reaches to the end of the text.
pub(super) fn parts<'t>(text: &'t str) -> Vec<(usize, &'t str)> {
    let mut parts = Vec::new();
    let (mut depth, mut at, mut start) = (0usize, 0, 1);
    while let Some(&byte) = text.as_bytes().get(at) {
        match byte {
            b'"' => {
                at += string_length(&text[at..]);
                continue;
            }
            b'{' | b'[' => depth += 1,
            b'}' | b']' if depth <= 1 => break,
            b'}' | b']' => depth -= 1,
            b',' if depth == 1 => {
                parts.push((start, &text[start..at]));
                start = at + 1;
            }
            _ => {}
        }
        at += 1;
    }
    let last = text.get(start..at).unwrap_or_default();
    if !last.trim().is_empty() {
        parts.push((start, last));
    }
    let trimmed = |(start, part): (usize, &'t str)| (start + part.len() - part.trim_start().len(), part.trim());
    parts.into_iter().map(trimmed).collect()
}

/// Returns the keys of the object at the beginning of `text`.
pub(super) fn keys(text: &str) -> Vec<String> {
    parts(text).into_iter().filter_map(|(_, part)| serde_json::from_str(&part[..string_length(part)]).ok()).collect()
}

/// Returns offset and text of the list of objects in the object at the beginning of `text`: `data`, or the only one.
pub(super) fn list_in(text: &str) -> Option<(usize, &str)> {
    let lists = parts(text).into_iter().filter_map(|(start, part)| {
        let key = &part[..string_length(part)];
        let list = part[key.len()..].trim_start().strip_prefix(':')?.trim_start();
        let has_objects = list.strip_prefix('[')?.trim_start().starts_with('{');
        has_objects.then_some((key, start + part.len() - list.len(), list))
    });
    let lists: Vec<(&str, usize, &str)> = lists.collect();
    let data = lists.iter().find(|(key, ..)| *key == "\"data\"");
    let only = if lists.len() == 1 { lists.first() } else { None };
    data.or(only).map(|&(_, start, list)| (start, list))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn parts_and_lists() {
        let text = r#"[{"a": [1, 2], "b": "],\""} ,[3], "x,y"]"#;
        let found: Vec<&str> = parts(text).into_iter().map(|(_, part)| part).collect();
        assert_eq!(found, [r#"{"a": [1, 2], "b": "],\""}"#, "[3]", "\"x,y\""]);
        assert!(parts(text).iter().all(|(start, part)| text[*start..].starts_with(part)));
        assert_eq!((length(text), length(&text[..20]), length("[\"a\n\"]")), (Some(text.len()), None, None));
        assert_eq!((parts("[]"), parts("[1,"), parts("")), (vec![], vec![(1, "1")], vec![]));
        assert_eq!(keys(r#"{"a\"": 1, "b": {"c": 2}, 3}"#), ["a\"", "b"]);
        let list = |text: &'static str| list_in(text).map(|(_, list)| list);
        assert_eq!(list(r#"{"n": [1], "rows" : [ {}]}"#), Some("[ {}]"));
        assert_eq!(list(r#"{"a": [{}], "data": [{"b": 1}], "c": [{}]}"#), Some(r#"[{"b": 1}]"#));
        assert_eq!((list(r#"{"a": [{}], "b": [{}]}"#), list(r#"{"a": 1}"#), list("{")), (None, None, None));
    }

    proptest! {
        /// The parts of a list of any values are the values.
        #[test]
        fn parts_are_values(values in prop::collection::vec(("[\\[\\]{},\\\\\"é ]{0,6}", 0u8..3), 0..6), pretty: bool) {
            let values: Vec<Value> = values.into_iter().map(|(text, nested)| match nested {
                0 => json!(text),
                1 => json!([text, [1, text]]),
                _ => json!({text.clone(): {"k": [text]}}),
            }).collect();
            let list = json!(values);
            let text = if pretty { format!("{list:#}") } else { list.to_string() };
            let found: Vec<Value> = parts(&text).iter().map(|(_, part)| serde_json::from_str(part).unwrap()).collect();
            prop_assert_eq!(found, values);
            prop_assert_eq!(length(&text), Some(text.len()));
        }

        #[test]
        fn any_text_has_parts(text in "[\\[{][\\[\\]{},:\"\\\\aé\n ]{0,30}") {
            let _ = (parts(&text), keys(&text), list_in(&text), length(&text));
        }
    }
}
