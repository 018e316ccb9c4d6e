//! Class labels, given as integers or names.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::rows::{Cell, Row};
use crate::sanitize::label_name;
use crate::{Error, Result};

/// The limit of classes. More different integers are taken for a mistake, such as scores or ids as labels.
const MAX_CLASSES: usize = 1 << 16;

/// Returns the class names of `rows`. If most labels are integers, the names are the different integers in ascending
/// order: `"0"`, `"1"`, or `"-1"`, `"0"`, `"1"`. Otherwise they are all string labels in alphabetical order. Missing
/// labels are skipped, and so is what marks rows without a gold label: `-` beside names, as in SNLI and MultiNLI, and -1
/// beside all integers from 0 to at least 2, as in `datasets`. (-1, 0 and 1 are three classes.)
///
/// # Errors
/// Returns an error if no row has a usable label, or if there are more than 65,536 different integers.
pub fn label_names(rows: &[Row]) -> Result<Vec<String>> {
    let (mut names, mut with_name) = (BTreeSet::new(), 0usize);
    let (mut integers, mut with_integer) = (BTreeSet::new(), 0usize);
    for row in rows {
        match (integer(&row.label), &row.label) {
            (Some(class), _) => {
                with_integer += 1;
                integers.insert(class);
            }
            (None, Cell::Json(Value::String(name))) if !name.trim().is_empty() => {
                with_name += usize::from(!is_no_label(name));
                names.insert(name.trim());
            }
            _ => {}
        }
    }
    if with_name > with_integer {
        // Beside `+`, a `-` is a class.
        let have_letters = names.iter().any(|name| name.contains(char::is_alphanumeric));
        names.retain(|name| !have_letters || !is_no_label(name));
        return Ok(names.into_iter().map(str::to_string).collect());
    }
    match integers.len() {
        0 if rows.iter().any(|row| matches!(row.label, Cell::Json(Value::Array(_) | Value::Object(_)))) => {
            let why = "the rows have lists of labels: read them with multi_label_names and sanitize_multi_label";
            Err(Error::data("labels", why))
        }
        0 => Err(Error::data("labels", "no row has a usable label")),
        count if count > MAX_CLASSES => {
            let why =
                format!("there are {count} different integers, more than {MAX_CLASSES} classes: are they scores?");
            Err(Error::data("labels", why))
        }
        count => {
            let are_indices = count > 3 && integers.iter().copied().eq(-1..count as i64 - 1);
            let classes = integers.into_iter().filter(|&class| !(are_indices && class == NO_CLASS));
            Ok(classes.map(|class| class.to_string()).collect())
        }
    }
}

/// Returns the names of the labels of `rows`, of which several may apply to a row, in alphabetical order. The label of
/// a row is a list of names, a name, or an object with a value for each name, as
/// [`Columns::labels`](crate::Columns::labels) reads them.
///
/// # Errors
/// Returns an error if no row has a label.
pub fn multi_label_names(rows: &[Row]) -> Result<Vec<String>> {
    let mut names = BTreeSet::new();
    for row in rows {
        match &row.label {
            Cell::Json(Value::Object(by_name)) => names.extend(by_name.keys().cloned()),
            Cell::Json(Value::Array(given)) => names.extend(given.iter().filter_map(label_name)),
            Cell::Json(name) => names.extend(label_name(name)),
            _ => {}
        }
    }
    match names.is_empty() {
        true => Err(Error::data("labels", "no row has a usable label")),
        false => Ok(names.into_iter().collect()),
    }
}

/// The integer that marks rows without a gold label.
pub(crate) const NO_CLASS: i64 = -1;

/// Returns whether a label is a dash, which says that a row has no gold label.
pub(crate) fn is_no_label(name: &str) -> bool {
    matches!(name.trim(), "-" | "--" | "–" | "—")
}

/// Converts a label to an integer by the rules of Python's `int`: numbers are truncated, booleans become 0 or 1, and
/// strings must be integers with the digits 0 to 9 (`" +1_000 "`, but not `"1.0"`). As in NumPy, a list of one label
/// counts as that label. Returns `None` if Python would raise, or if the integer does not fit in 64 bits.
pub(crate) fn integer(label: &Cell) -> Option<i64> {
    let Cell::Json(value) = label else { return None };
    let mut value = value;
    while let Value::Array(items) = value {
        let [only] = items.as_slice() else { return None };
        value = only;
    }
    match value {
        Value::Bool(value) => Some(i64::from(*value)),
        Value::Number(number) => number.as_i64().or_else(|| number.as_f64().and_then(truncated)),
        Value::String(text) => integer_of_text(text),
        _ => None,
    }
}

fn truncated(value: f64) -> Option<i64> {
    // The upper limit is exclusive: 2^63 is a float, while the largest i64, 2^63 - 1, is not.
    let limit = 2f64.powi(63);
    (-limit..limit).contains(&value).then_some(value as i64)
}

fn integer_of_text(text: &str) -> Option<i64> {
    let text = text.trim();
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    let groups_of_digits =
        digits.split('_').all(|group| !group.is_empty() && group.bytes().all(|byte| byte.is_ascii_digit()));
    groups_of_digits.then(|| text.replace('_', "").parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Expected values from Python 3: `int(l)`, or `int(numpy.array(l).item())` where that raises.
    #[test]
    fn integers_are_pythons() {
        let some = [
            (json!(0), 0),
            (json!(-3), -3),
            (json!(1.0), 1),
            (json!(1.5), 1),
            (json!(-1.5), -1),
            (json!(1e18), 1_000_000_000_000_000_000),
            (json!(true), 1),
            (json!(false), 0),
            (json!("1"), 1),
            (json!(" 7\n"), 7),
            (json!("+2"), 2),
            (json!("-0"), 0),
            (json!("007"), 7),
            (json!("1_000"), 1000),
            (json!("\u{a0}5"), 5),
            (json!([1]), 1),
            (json!([[2]]), 2),
            (json!(["3"]), 3),
            (json!([1.5]), 1),
            (json!([true]), 1),
        ];
        for (label, expected) in some {
            assert_eq!(integer(&label.clone().into()), Some(expected), "{label}");
        }
        let mut none = vec![json!(null), json!([]), json!([1, 2]), json!([null]), json!({}), json!({"a": 1})];
        none.extend(["", "x", "_1", "1_", "1__0", "1.0", "1.5", "--1", "+ 1", "0x1", "1e3"].map(Value::from));
        for label in none {
            assert_eq!(integer(&label.clone().into()), None, "{label}");
        }
        assert_eq!([f64::NAN, f64::INFINITY].map(|label| integer(&Cell::number(label))), [None, None]);
    }

    /// Python's integers are unbounded, those of labels have 64 bits.
    #[test]
    fn beyond_64_bits_there_is_no_integer() {
        for label in [json!(u64::MAX), json!(1e30), json!(-1e30), json!("99999999999999999999")] {
            assert_eq!(integer(&label.into()), None);
        }
        assert_eq!(integer(&json!(i64::MAX).into()), Some(i64::MAX));
        assert_eq!(integer(&json!(-(2f64.powi(63))).into()), Some(i64::MIN));
        assert_eq!(integer(&json!(2f64.powi(63)).into()), None);
    }

    fn names(labels: &[Value]) -> Result<Vec<String>> {
        let rows: Vec<Row> = (1..).zip(labels).map(|(line, label)| Row::new(line, "a", label.clone())).collect();
        label_names(&rows)
    }

    #[test]
    fn names_are_sorted() {
        let given = [json!("good"), json!(" bad"), json!(null), json!("good "), json!(3), json!("")];
        assert_eq!(names(&given).unwrap(), ["bad", "good"]);
        let given = [json!("2"), json!(0), json!("x"), json!(1.5), json!(null)];
        assert_eq!(names(&given).unwrap(), ["0", "1", "2"]);
    }

    /// Expected values from `Dataset.class_encode_column` of `datasets` 5.2, except that it sorts integers as strings.
    #[test]
    fn integers_are_names() {
        assert_eq!(names(&[json!(1), json!(-1), json!(0), json!(1)]).unwrap(), ["-1", "0", "1"]);
        assert_eq!(names(&[json!(3550308), json!("3304557")]).unwrap(), ["3304557", "3550308"]);
        assert_eq!(names(&[json!(4), json!(0), json!(10)]).unwrap(), ["0", "4", "10"]);
    }

    /// `datasets` marks the unlabelled pairs of SNLI so.
    #[test]
    fn minus_one_beside_indices_is_no_class() {
        let given = [json!(2), json!(-1), json!(0), json!("-1"), json!(1)];
        assert_eq!(names(&given).unwrap(), ["0", "1", "2"]);
        for other in [vec![-1, 0, 1], vec![-1, 0, 1, 3], vec![-2, -1, 0, 1, 2], vec![-1, 1, 2, 3], vec![-1, 0]] {
            let given: Vec<Value> = other.iter().copied().map(Value::from).collect();
            let expected: Vec<String> = other.iter().map(i64::to_string).collect();
            assert_eq!(names(&given).unwrap(), expected);
        }
    }

    #[test]
    fn a_dash_beside_names_is_no_class() {
        assert_eq!(
            names(&["neutral", "-", "entailment", "-", "-"].map(Value::from)).unwrap(),
            ["entailment", "neutral"]
        );
        assert_eq!(names(&["+", "-"].map(Value::from)).unwrap(), ["+", "-"]);
        assert_eq!(names(&[json!("-"), json!(0), json!("-"), json!(1)]).unwrap(), ["0", "1"]);
    }

    #[test]
    fn lists_have_names_too() {
        let rows = |labels: &[Value]| -> Vec<Row> {
            (1..).zip(labels).map(|(line, label)| Row::new(line, "a", label.clone())).collect()
        };
        let lists = rows(&[json!(["x", "y"]), json!([]), json!("z"), json!([3, null]), json!(null)]);
        assert_eq!(multi_label_names(&lists).unwrap(), ["3", "x", "y", "z"]);
        assert_eq!(multi_label_names(&rows(&[json!({"b": 0, "a": 1})])).unwrap(), ["a", "b"]);
        let none = multi_label_names(&rows(&[json!(null), json!([])])).unwrap_err().to_string();
        assert_eq!(none, "labels: no row has a usable label");
    }

    #[test]
    fn errors() {
        for labels in [vec![], vec![json!(null), json!("-")]] {
            assert_eq!(names(&labels).unwrap_err().to_string(), "labels: no row has a usable label");
        }
        let lists = names(&[json!(["a", "b"]), json!([])]).unwrap_err().to_string();
        assert!(lists.ends_with("read them with multi_label_names and sanitize_multi_label"), "{lists}");
        let many: Vec<Value> = (0..=MAX_CLASSES).map(Value::from).collect();
        let error = names(&many).unwrap_err().to_string();
        assert_eq!(error, "labels: there are 65537 different integers, more than 65536 classes: are they scores?");
        assert_eq!(names(&many[1..]).unwrap().len(), MAX_CLASSES);
    }
}
