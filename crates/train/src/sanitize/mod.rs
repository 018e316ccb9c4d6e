//! Cleaning of rows: converts the cells of a file to texts and labels.
//!
//! Anything that can be read as text is. The rest is dropped, and reported.

mod dropped;
mod text;

use std::collections::HashMap;

use cloze_bert::Tokenizer;
use serde_json::Value;

pub use dropped::{BadRows, DropReason, Dropped, DroppedRow};

use crate::class_labels::integer;
use crate::rows::{Cell, Row};
use crate::{EncodingReport, LabelledData, Result};
use text::text;

/// Number of characters of a text or a label shown in a sample.
const SHOWN_CHARACTERS: usize = 80;

/// Rows that passed the checks. Labels are classes (`i64`) or numbers (`f32`).
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Sanitized<L = i64> {
    /// The trimmed, non-blank texts.
    pub texts: Vec<String>,
    /// The second text of each pair; empty if rows are single texts.
    pub second_texts: Vec<String>,
    /// The label of each row.
    pub labels: Vec<L>,
    /// The report of dropped rows.
    pub dropped: Dropped,
}

impl<L> Sanitized<L> {
    /// Returns the rows unchanged if some are left and, for [`BadRows::Fail`], none was dropped.
    ///
    /// ```
    /// use cloze_train::{BadRows, Row, sanitize};
    /// let rows = [Row::new(2, "good", 1), Row::new(3, "bad", "?")];
    /// let error = sanitize("train", rows, None).check(BadRows::Fail).unwrap_err();
    /// let expected = "line 3: rows: train: 1 of 2 cannot be used, the first because of: bad label: (\"bad\", \"?\")";
    /// assert_eq!(error.to_string(), expected);
    /// ```
    ///
    /// # Errors
    /// Returns an error if no row is left, or if a row was dropped and `bad` is [`BadRows::Fail`] (names the first).
    pub fn check(self, bad: BadRows) -> Result<Sanitized<L>> {
        self.dropped.check(self.texts.len(), bad)?;
        Ok(self)
    }

    /// Tokenizes the rows as [texts](LabelledData::of_texts) or [pairs](LabelledData::of_pairs) of at most `max_length`
    /// tokens.
    ///
    /// # Errors
    /// Returns an error if there are no rows, only some rows are pairs, or `max_length` has no room for special tokens.
    pub fn encode(self, tokenizer: &Tokenizer, max_length: usize) -> Result<(LabelledData<L>, EncodingReport)> {
        self.dropped.check(self.texts.len(), BadRows::Drop)?;
        match self.second_texts.is_empty() {
            true => LabelledData::of_texts(&self.texts, self.labels, tokenizer, max_length),
            false => LabelledData::of_pairs(&self.texts, &self.second_texts, self.labels, tokenizer, max_length),
        }
    }
}

/// Keeps the rows that have a text (or two, for pairs) and a class, and reports the others. `name` identifies the data
/// in the report.
///
/// Texts are read from
/// - a string;
/// - a number or boolean, as JSON writes it;
/// - an object: its string `text`, `sentence` or `content`, whichever is found first, otherwise the object as JSON;
/// - a list: the texts of its items and of nested lists, joined by blanks. Blank and missing items are skipped.
///
/// Texts are trimmed. Rows whose text is `null`, NaN, blank or a list without text are dropped.
///
/// A label is the name of a class in `label_names`, or an integer by the rules of Python's `int`: `1`, `1.0`, `1.5`,
/// `"1"` and `true` are 1, while `"1.0"`, `"x"`, `null` and NaN are not integers. With `label_names`, an integer must
/// be the index of one of them; without, any integer is accepted.
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
    sanitize_by(name, rows, |label| class(label, by_name.as_ref()))
}

/// Like [`sanitize`], for rows whose labels are numbers, such as the scores of STS-B. Numbers and strings that parse as
/// numbers are accepted. Rows whose label is NaN, infinite or not a number are dropped.
///
/// ```
/// use cloze_train::{Row, sanitize_scores};
/// let rows = [Row::new(1, "a", 4.5), Row::new(2, "b", " 3 "), Row::new(3, "c", "high")];
/// let clean = sanitize_scores("train", rows);
/// assert_eq!((clean.labels, clean.dropped.total()), (vec![4.5, 3.0], 1));
/// ```
pub fn sanitize_scores(name: &str, rows: impl IntoIterator<Item = Row>) -> Sanitized<f32> {
    sanitize_by(name, rows, score)
}

fn sanitize_by<L>(
    name: &str,
    rows: impl IntoIterator<Item = Row>,
    label: impl Fn(&Cell) -> Result<L, DropReason>,
) -> Sanitized<L> {
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
        match label(&row.label) {
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
    let is_name = matches!(label, Cell::Json(Value::String(name)) if !name.trim().is_empty());
    let Some(class) = integer(label) else {
        return Err(if is_name { DropReason::UnknownClass } else { DropReason::BadLabel });
    };
    match usize::try_from(class).is_ok_and(|class| class < names.len()) {
        true => Ok(class),
        false => Err(DropReason::UnknownClass),
    }
}

/// Reads a label as a finite number.
fn score(label: &Cell) -> Result<f32, DropReason> {
    let number = match label {
        Cell::Json(Value::Number(number)) => number.as_f64(),
        Cell::Json(Value::String(text)) => text.trim().parse().ok(),
        _ => None,
    };
    let number = number.map(|number| number as f32);
    number.filter(|number| number.is_finite()).ok_or(DropReason::BadLabel)
}

/// Formats a cell, cut after [`SHOWN_CHARACTERS`] characters.
fn shortened(cell: &Cell) -> String {
    let whole = cell.to_string();
    match whole.char_indices().nth(SHOWN_CHARACTERS) {
        Some((end, _)) => format!("{}...", &whole[..end]),
        None => whole,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn rows<T: Into<Cell>, L: Into<Cell>>(rows: impl IntoIterator<Item = (T, L)>) -> Vec<Row> {
        (1..).zip(rows).map(|(line, (text, label))| Row::new(line, text, label)).collect()
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
        assert_eq!(named.dropped.counts, BTreeMap::from([(DropReason::BadLabel, 1), (DropReason::UnknownClass, 3)]));

        // Names take precedence over indices.
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
    fn numbers_of_pairs() {
        let pair = |line, label: Cell| Row { second_text: Some("b".into()), ..Row::new(line, "a", label) };
        let labels =
            [json!(4.5).into(), json!("-1e1").into(), json!(true).into(), json!(1e39).into(), json!("nan").into()];
        let labels = labels.into_iter().chain([Cell::NonFinite(f64::NAN), json!(null).into()]);
        let clean = sanitize_scores("train", (1..).zip(labels).map(|(line, label)| pair(line, label)));
        assert_eq!((clean.labels.as_slice(), clean.second_texts.len()), (&[4.5, -10.0][..], 2));
        assert_eq!(clean.dropped.counts, BTreeMap::from([(DropReason::BadLabel, 5)]));

        let tokenizer = Tokenizer::train(["a b"], 30, &cloze_bert::TrainOptions::new()).unwrap();
        let (data, _) = clean.encode(&tokenizer, 9).unwrap();
        assert_eq!((data.labels(), data.sequences()[0].token_types.last()), (&[4.5, -10.0][..], Some(&1)));
        let (data, _) = sanitize("train", rows([("a", 1)]), None).encode(&tokenizer, 9).unwrap();
        assert_eq!((data.labels(), data.sequences()[0].token_types.last()), (&[1][..], Some(&0)));
    }

    #[test]
    fn what_is_left_must_do() {
        let names = ["bad", "good"].map(String::from);
        let said = |rows: Vec<Row>, bad| match sanitize("validation", rows, Some(&names)).check(bad) {
            Ok(clean) => format!("{} left", clean.texts.len()),
            Err(error) => error.to_string(),
        };
        let some = rows([("a", "good"), ("b", "mixed")]);
        assert_eq!(said(some.clone(), BadRows::Drop), "1 left");
        let why = "1 of 2 cannot be used, the first because of: unknown class: (\"b\", \"mixed\")";
        assert_eq!(said(some, BadRows::Fail), format!("line 2: rows: validation: {why}"));
        assert_eq!(said(vec![], BadRows::Drop), "rows: validation: no rows");
        let none = said(rows([("b", "mixed"), (" ", "bad")]), BadRows::Drop);
        assert_eq!(none, "rows: validation: all 2 were dropped: blank 1, unknown class 1");
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
  and 2 more; in total: null 1, NaN 2, no text 1, blank 1, bad label 2",
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
        fn any_value_is_kept_or_dropped(given in prop::collection::vec((any_json(), any_json(), any_json()), 0..8)) {
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
                prop_assert_eq!(clean.dropped.first.len(), clean.dropped.total().min(dropped::SHOWN));
                prop_assert_eq!(clean.dropped.to_string().lines().count(),
                    1 + clean.dropped.first.len() + usize::from(clean.dropped.total() > dropped::SHOWN));
            }
        }
    }
}
