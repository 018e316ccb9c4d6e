//! The labels of a classifier: `id2label`, `label2id` and `num_labels` of `config.json`.

use serde_json::{Map, Value};

use super::unread_fields::UnreadFields;
use super::{CONFIG_FILE, Labels, MAX_LABELS};
use crate::files::short;
use crate::{Error, Result};

/// Returns the label names by id, from `id2label`, or else `label2id`. As in `transformers`, labels are numbered if
/// `num_labels` differs from the number of names, and there are two if no field says anything.
pub(super) fn read(fields: &mut UnreadFields) -> Result<Labels> {
    let (by_id, by_label) = (fields.take("id2label"), fields.take("label2id"));
    let count = fields.optional_size("num_labels")?;
    let named = match (by_id, by_label) {
        (Some(Value::Object(map)), _) => {
            let pairs = map.into_iter().map(|(id, label)| (Value::from(id), label));
            Some(by_ids("id2label", pairs)?)
        }
        (Some(_), _) => return Err(Error::config("id2label is not an object that maps ids to label names")),
        (None, Some(Value::Object(map))) => {
            let pairs = map.into_iter().map(|(label, id)| (id, Value::from(label)));
            Some(by_ids("label2id", pairs)?)
        }
        (None, Some(_)) => return Err(Error::config("label2id is not an object that maps label names to ids")),
        (None, None) => None,
    };
    match (named, count) {
        (_, Some(count)) if count > MAX_LABELS => {
            Err(Error::config(format!("num_labels is {count}: must be from 1 to {MAX_LABELS}")))
        }
        (Some(named), Some(count)) if named.len() == count => Ok(named.into()),
        (_, Some(count)) => Ok(Labels::numbered(count)),
        (named, None) => Ok(named.map_or_else(|| Labels::numbered(2), Labels::from)),
    }
}

/// Returns a line for each contradiction between the fields of a `config.json` that is valid.
pub(super) fn conflicts(fields: &Map<String, Value>) -> Vec<String> {
    let names = |field: &str| fields.get(field).and_then(Value::as_object);
    let (by_id, by_label) = (names("id2label"), names("label2id"));
    let named = by_id.map(|map| ("id2label", map)).or(by_label.map(|map| ("label2id", map)));
    let mut conflicts = Vec::new();
    if let (Some((field, map)), Some(count)) = (named, fields.get("num_labels").and_then(Value::as_u64))
        && map.len() as u64 != count
    {
        let other = format!("{field} has {} labels", map.len());
        conflicts
            .push(format!("num_labels is {count} in {CONFIG_FILE}, {other}: num_labels counts, and the names do not"));
    }
    let differs = |(label, id): (&String, &Value)| {
        let other = text(by_id?.get(&text(id)?)?)?;
        (other != *label).then(|| {
            format!(
                "label2id gives {label:?} the id {id} in {CONFIG_FILE}, id2label calls it {other:?}: id2label counts"
            )
        })
    };
    // One line, because often all labels of one field are generic.
    conflicts.extend(by_label.into_iter().flatten().find_map(differs));
    conflicts
}

/// Returns a name or an id, which may be a number.
fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(_) | Value::Bool(_) => Some(value.to_string()),
        _ => None,
    }
}

/// Returns labels in the order of their ids, which must be 0, 1, 2, ... Ids and labels may be strings or numbers.
fn by_ids(field: &str, pairs: impl ExactSizeIterator<Item = (Value, Value)>) -> Result<Vec<String>> {
    let count = pairs.len();
    let mut labels = vec![None; count];
    for (id, label) in pairs {
        let Some(name) = text(&label) else {
            return Err(Error::config(format!(
                "{field} gives {} the label {}: must be a name",
                short(&id),
                short(&label)
            )));
        };
        let place = text(&id).and_then(|id| id.trim().parse::<usize>().ok());
        let Some(slot) = place.and_then(|place| labels.get_mut(place)) else {
            let reason = format!("{field} gives {name:?} the id {}: {count} labels have the ids 0 to", short(&id));
            return Err(Error::config(format!("{reason} {}", count - 1)));
        };
        if let Some(other) = slot {
            let reason = format!("{field} gives the id {} to {other:?} and {name:?}: must differ", short(&id));
            return Err(Error::config(reason));
        }
        *slot = Some(name);
    }
    Ok(labels.into_iter().flatten().collect())
}

#[cfg(test)]
mod tests {
    use crate::BertConfig;

    fn labels(text: &str) -> Result<Vec<String>, String> {
        BertConfig::from_json(text).map(|config| config.labels.to_vec()).map_err(|error| error.to_string())
    }

    /// The numbers of labels, and the names in `id2label`, are those of `transformers` 5.23.
    #[test]
    fn labels_from_each_field() {
        let cases: [(&str, &[&str]); 10] = [
            (r#"{}"#, &["LABEL_0", "LABEL_1"]),
            (r#"{"num_labels": 3}"#, &["LABEL_0", "LABEL_1", "LABEL_2"]),
            (r#"{"id2label": {"1": "good", "0": "bad"}}"#, &["bad", "good"]),
            (r#"{"id2label": {"0": 0, "1": 1}, "label2id": {"0": 0, "1": 1}}"#, &["0", "1"]),
            (r#"{"id2label": {"0": 0.5, "1": true}}"#, &["0.5", "true"]),
            (r#"{"label2id": {"b": 0, "a": 1}}"#, &["b", "a"]),
            (r#"{"label2id": {"neg": "0", "pos": "1"}}"#, &["neg", "pos"]),
            (r#"{"label2id": {"neg": "0", "pos": "1"}, "num_labels": 2}"#, &["neg", "pos"]),
            (r#"{"id2label": {"0": "a", "1": "b"}, "num_labels": 3}"#, &["LABEL_0", "LABEL_1", "LABEL_2"]),
            (r#"{"id2label": {"0": "a", "1": "b"}, "num_labels": 1}"#, &["LABEL_0"]),
        ];
        for (text, expected) in cases {
            assert_eq!(labels(text).unwrap(), expected, "{text}");
        }
    }

    #[test]
    fn errors_name_field_id_and_label() {
        let cases = [
            (r#"{"id2label": {"0": "a", "2": "b"}}"#, r#"id2label gives "b" the id "2": 2 labels have the ids 0 to 1"#),
            (r#"{"id2label": {"0": null}}"#, r#"id2label gives "0" the label null: must be a name"#),
            (r#"{"label2id": {"a": 0, "b": 0}}"#, r#"label2id gives the id 0 to "a" and "b": must differ"#),
            (r#"{"label2id": {"a": -1}}"#, r#"label2id gives "a" the id -1: 1 labels have the ids 0 to 0"#),
            (r#"{"num_labels": 1000000000000}"#, "num_labels is 1000000000000: must be from 1 to 1048576"),
            (r#"{"id2label": {}}"#, "num_labels is 0: must be from 1 to 1048576"),
        ];
        for (text, expected) in cases {
            assert_eq!(labels(text).unwrap_err(), expected, "{text}");
        }
    }
}
