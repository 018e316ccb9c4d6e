//! Cleaning rows: from whatever stands in a file to texts and class labels.
//!
//! What can be read as text is; what cannot is dropped, counted and shown, never silently.

use std::collections::{BTreeMap, HashMap};
use std::fmt;

use serde_json::Value;

use crate::class_labels::integer;
use crate::rows::{Cell, Row};

/// Of so many dropped rows the sample is kept.
const SHOWN: usize = 5;

/// Characters of a text, and of a label, that are shown of a sample.
const SHOWN_CHARACTERS: usize = 80;

/// Keys of an object whose string is its text, the likelier first.
const TEXT_KEYS: &[&str] = &["text", "sentence", "content"];

/// Rows that were fit to use.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Sanitized {
    /// The texts, none of them blank, without white space around them.
    pub texts: Vec<String>,
    /// The second texts, as many; empty where rows are no pairs.
    pub second_texts: Vec<String>,
    /// The classes, as many.
    pub labels: Vec<i64>,
    /// What was not fit.
    pub dropped: Dropped,
}

/// Why a row was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum DropReason {
    /// The text is `null`, or its column was not there.
    Null,
    /// The text is not a number.
    NaN,
    /// The text is a list with no text in it.
    NoText,
    /// The text is white space.
    Blank,
    /// The label is no integer, and no name of a class.
    BadLabel,
    /// The label is an integer that is no class's.
    UnknownClass,
}

impl fmt::Display for DropReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            DropReason::Null => "null",
            DropReason::NaN => "NaN",
            DropReason::NoText => "no text",
            DropReason::Blank => "blank",
            DropReason::BadLabel => "bad label",
            DropReason::UnknownClass => "unknown class",
        })
    }
}

/// A row that was dropped.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DroppedRow {
    /// Its [line](Row::line).
    pub line: usize,
    /// Why.
    pub reason: DropReason,
    /// What was wrong, shortened: the text; or the text and the label, where that is what was wrong.
    pub sample: String,
}

/// What [`sanitize`] dropped.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Dropped {
    /// What the rows are for: `train`.
    pub name: String,
    /// How many were dropped for each reason.
    pub counts: BTreeMap<DropReason, usize>,
    /// The first five.
    pub first: Vec<DroppedRow>,
}

impl Dropped {
    /// How many were dropped.
    pub fn total(&self) -> usize {
        self.counts.values().sum()
    }

    fn push(&mut self, line: usize, reason: DropReason, sample: impl FnOnce() -> String) {
        *self.counts.entry(reason).or_default() += 1;
        if self.first.len() < SHOWN {
            self.first.push(DroppedRow { line, reason, sample: sample() });
        }
    }
}

/// ```text
/// [train] 7 sample(s) dropped as invalid.
///   #1 reason=NaN  sample=nan  line=3
///   ...
///   and 2 more; in all: NaN 4, bad label 3
/// ```
impl fmt::Display for Dropped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{}] {} sample(s) dropped as invalid.", self.name, self.total())?;
        for (number, DroppedRow { line, reason, sample }) in (1..).zip(&self.first) {
            write!(f, "\n  #{number} reason={reason}  sample={sample}  line={line}")?;
        }
        match self.total() - self.first.len() {
            0 => Ok(()),
            more => {
                let counts: Vec<String> = self.counts.iter().map(|(reason, n)| format!("{reason} {n}")).collect();
                write!(f, "\n  and {more} more; in all: {}", counts.join(", "))
            }
        }
    }
}

/// Keeps the rows that have a text (and a second one, where rows are pairs) and a class. `name` says what they are
/// for, in the report.
///
/// A text is
/// - a string;
/// - a number or truth value: as JSON writes it;
/// - an object: its string `text`, else `sentence`, else `content`; else the object as JSON;
/// - a list: the texts of its items, and of the lists in it, with blanks between them. What is blank or missing in a
///   list is left out.
///
/// White space around it goes. `null`, NaN, blank strings and lists without text are dropped.
///
/// A label is the name of a class in `label_names`, or an integer as Python's `int` has it: `1`, `1.0`, `1.5`, `"1"`
/// and `true` are 1; `"1.0"`, `"x"`, `null` and NaN are none. With `label_names` an integer must number one of them;
/// without, any will do.
///
/// ```
/// use cloze_train::{Row, sanitize};
/// use serde_json::json;
/// let rows = [(json!({"text": " good "}), json!(1)), (json!(null), json!(0)), (json!(["so", ["so"]]), json!("0"))];
/// let rows = (1..).zip(rows).map(|(line, (text, label))| Row::new(line, text, label));
/// let clean = sanitize("train", rows, None);
/// assert_eq!((clean.texts, clean.labels), (vec!["good".to_string(), "so so".to_string()], vec![1, 0]));
/// assert_eq!(
///     clean.dropped.to_string(),
///     "[train] 1 sample(s) dropped as invalid.\n  #1 reason=null  sample=null  line=2",
/// );
/// ```
pub fn sanitize(name: &str, rows: impl IntoIterator<Item = Row>, label_names: Option<&[String]>) -> Sanitized {
    let by_name: Option<HashMap<&str, i64>> =
        label_names.map(|names| names.iter().map(String::as_str).zip(0..).collect());
    let mut clean = Sanitized {
        texts: Vec::new(),
        second_texts: Vec::new(),
        labels: Vec::new(),
        dropped: Dropped { name: name.to_string(), ..Dropped::default() },
    };
    for row in rows {
        let texts = [Some(&row.text), row.second_text.as_ref()].map(|cell| cell.map(|cell| (cell, text(cell))));
        if let Some((cell, reason)) = texts.iter().flatten().find_map(|(cell, text)| Some((cell, text.as_ref().err()?)))
        {
            clean.dropped.push(row.line, *reason, || shortened(cell));
            continue;
        }
        match class(&row.label, by_name.as_ref()) {
            Ok(label) => {
                let [first, second] = texts.map(|text| text.and_then(|(_, text)| text.ok()));
                clean.texts.extend(first);
                clean.second_texts.extend(second);
                clean.labels.push(label);
            }
            Err(reason) => {
                let sample = || format!("({}, {})", shortened(&row.text), shortened(&row.label));
                clean.dropped.push(row.line, reason, sample);
            }
        }
    }
    clean
}

fn text(cell: &Cell) -> Result<String, DropReason> {
    let value = match cell {
        Cell::NonFinite(number) if number.is_nan() => return Err(DropReason::NaN),
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

/// The texts in a value, in order, none of them blank. A list of open lists stands for recursion, which a list in a
/// list in a list could make too deep.
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

fn class(label: &Cell, names: Option<&HashMap<&str, i64>>) -> Result<i64, DropReason> {
    let Some(names) = names else { return integer(label).ok_or(DropReason::BadLabel) };
    let named = match label {
        Cell::Json(Value::String(name)) => names.get(name.trim()),
        Cell::Json(Value::Number(number)) => names.get(number.to_string().as_str()),
        _ => None,
    };
    if let Some(class) = named {
        return Ok(*class);
    }
    let class = integer(label).ok_or(DropReason::BadLabel)?;
    match usize::try_from(class).is_ok_and(|class| class < names.len()) {
        true => Ok(class),
        false => Err(DropReason::UnknownClass),
    }
}

/// The beginning of a cell, as it prints.
fn shortened(cell: &Cell) -> String {
    let whole = cell.to_string();
    match whole.char_indices().nth(SHOWN_CHARACTERS) {
        Some((end, _)) => format!("{}...", &whole[..end]),
        None => whole,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn rows<T: Into<Cell>, L: Into<Cell>>(rows: impl IntoIterator<Item = (T, L)>) -> Vec<Row> {
        (1..).zip(rows).map(|(line, (text, label))| Row::new(line, text, label)).collect()
    }

    /// The texts are those of the course's `clean_xy`, section 5.6, run on the same values; it drops the same ones.
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

    /// What the course leaves to Python's way of printing.
    #[test]
    fn texts_that_are_ours() {
        assert_eq!(text(&json!({"a": [1, null]}).into()), Ok(r#"{"a":[1,null]}"#.to_string()));
        assert_eq!(text(&json!(true).into()), Ok("true".to_string()));
        assert_eq!(text(&json!(["a", null, "b"]).into()), Ok("a b".to_string()));
    }

    #[test]
    fn a_list_may_be_as_deep_as_it_likes() {
        let mut deep = json!("a");
        for _ in 0..100_000 {
            deep = Value::Array(vec![deep]);
        }
        assert_eq!(parts(&deep), ["a"]);
        // Dropped inside out: the crate drops by recursion.
        while let Value::Array(mut items) = deep {
            deep = items.pop().unwrap();
        }
    }

    #[test]
    fn labels_without_names_and_with_them() {
        let labels = [json!(1), json!("good"), json!(" bad "), json!(2), json!(-1), json!("1.0"), json!(null)];
        let plain = sanitize("a", rows(labels.clone().map(|label| ("a", label))), None);
        assert_eq!(plain.labels, [1, 2, -1]);
        assert_eq!(plain.dropped.counts, BTreeMap::from([(DropReason::BadLabel, 4)]));

        let names = ["bad", "good"].map(String::from);
        let named = sanitize("a", rows(labels.map(|label| ("a", label))), Some(&names));
        assert_eq!(named.labels, [1, 1, 0]);
        assert_eq!(named.dropped.counts, BTreeMap::from([(DropReason::BadLabel, 2), (DropReason::UnknownClass, 2)]));

        // A name comes before a number.
        let numbers = ["2", "1"].map(String::from);
        assert_eq!(sanitize("a", rows([("a", 1), ("a", 0), ("a", 2)]), Some(&numbers)).labels, [1, 0, 0]);
    }

    #[test]
    fn a_pair_needs_both_texts() {
        let pair = |line, second: Value| Row { second_text: Some(second.into()), ..Row::new(line, "a", 0) };
        let clean = sanitize("a", [pair(1, json!(["b"])), pair(2, json!(" ")), pair(3, json!(3))], None);
        assert_eq!(clean.texts, ["a", "a"]);
        assert_eq!(clean.second_texts, ["b", "3"]);
        let dropped = DroppedRow { line: 2, reason: DropReason::Blank, sample: "\" \"".into() };
        assert_eq!(clean.dropped.first, [dropped]);
    }

    #[test]
    fn the_report_is_readable() {
        let nothing = sanitize("val", rows([("a", 1)]), None).dropped;
        assert_eq!((nothing.total(), nothing.to_string()), (0, "[val] 0 sample(s) dropped as invalid.".to_string()));

        let long = "é".repeat(100);
        let given = [
            Row::new(3, Cell::NonFinite(f64::NAN), 1),
            Row::new(5, "two\nlines\u{7}", "x"),
            Row::new(8, long, Value::Null),
            Row::new(9, " ", 1),
            Row::new(11, json!([null, []]), 1),
            Row::new(12, Value::Null, 1),
            Row::new(13, Cell::NonFinite(f64::NAN), 1),
        ];
        let expected = format!(
            "[train] 7 sample(s) dropped as invalid.
  #1 reason=NaN  sample=nan  line=3
  #2 reason=bad label  sample=(\"two\\nlines\\u0007\", \"x\")  line=5
  #3 reason=bad label  sample=(\"{}..., null)  line=8
  #4 reason=blank  sample=\" \"  line=9
  #5 reason=no text  sample=[null,[]]  line=11
  and 2 more; in all: null 1, NaN 2, no text 1, blank 1, bad label 2",
            "é".repeat(79)
        );
        assert_eq!(sanitize("train", given, None).dropped.to_string(), expected);
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            "[ a-cé1_+-]{0,5}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 24, 4, |inner| {
            let key = prop_oneof![Just("text"), Just("sentence"), Just("content"), Just("k")].prop_map(String::from);
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map(key, inner, 0..4).prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn any_value_is_taken_or_dropped(given in prop::collection::vec((any_json(), any_json(), any_json()), 0..8)) {
            let count = given.len();
            let names = ["a", "b"].map(String::from);
            for names in [None, Some(&names[..])] {
                let rows = (1..).zip(given.clone()).map(|(line, (text, second, label))| Row {
                    second_text: Some(second.into()),
                    ..Row::new(line, text, label)
                });
                let clean = sanitize("any", rows, names);
                prop_assert_eq!(clean.texts.len() + clean.dropped.total(), count);
                prop_assert_eq!(clean.texts.len(), clean.labels.len());
                prop_assert_eq!(clean.texts.len(), clean.second_texts.len());
                let texts = clean.texts.iter().chain(&clean.second_texts);
                prop_assert!(texts.into_iter().all(|text| !text.is_empty() && text.trim() == text));
                if let Some(names) = names {
                    prop_assert!(clean.labels.iter().all(|&label| (0..names.len() as i64).contains(&label)));
                }
                prop_assert_eq!(clean.dropped.first.len(), clean.dropped.total().min(SHOWN));
                prop_assert_eq!(clean.dropped.to_string().lines().count(),
                    1 + clean.dropped.first.len() + usize::from(clean.dropped.total() > SHOWN));
            }
        }
    }
}
