//! Class labels, given as integers or names.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::rows::{Cell, Row};
use crate::{Error, ErrorKind, Result};

/// The limit of integer labels. A larger one is taken for a mistake: every class up to it would need memory.
const MAX_CLASSES: usize = 1 << 16;

/// Returns the class names of `rows`. If most labels are integers, the names run from `"0"` to the largest integer.
/// Otherwise they are all string labels in alphabetical order. Missing labels are skipped.
///
/// # Errors
/// Returns an error if no row has a label, or if an integer label is 65,536 or more.
pub fn label_names(rows: &[Row]) -> Result<Vec<String>> {
    let (mut names, mut with_name) = (BTreeSet::new(), 0usize);
    let (mut largest, mut with_integer): (Option<(i64, usize)>, usize) = (None, 0);
    for row in rows {
        match (integer(&row.label), &row.label) {
            (Some(class), _) => {
                with_integer += 1;
                if class >= 0 && largest.is_none_or(|(largest, _)| class > largest) {
                    largest = Some((class, row.line));
                }
            }
            (None, Cell::Json(Value::String(name))) if !name.trim().is_empty() => {
                with_name += 1;
                names.insert(name.trim());
            }
            _ => {}
        }
    }
    if with_name > with_integer {
        return Ok(names.into_iter().map(str::to_string).collect());
    }
    let (largest, line) = largest.ok_or_else(|| Error::data("labels", "no row has a usable label"))?;
    if largest >= MAX_CLASSES as i64 {
        let why = format!("{largest} is too large: integer labels must be below {MAX_CLASSES}");
        return Err(ErrorKind::Data { what: "label", why, path: None, line: Some(line) }.into());
    }
    Ok((0..=largest).map(|class| class.to_string()).collect())
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
    fn names_are_sorted_and_integers_counted() {
        let given = [json!("good"), json!(" bad"), json!(null), json!("good "), json!(3), json!("")];
        assert_eq!(names(&given).unwrap(), ["bad", "good"]);
        let given = [json!("2"), json!(0), json!(-1), json!("x"), json!(1.5), json!(null)];
        assert_eq!(names(&given).unwrap(), ["0", "1", "2"]);
    }

    #[test]
    fn errors() {
        for labels in [vec![], vec![json!(null), json!({})], vec![json!(-1)]] {
            assert_eq!(names(&labels).unwrap_err().to_string(), "labels: no row has a usable label");
        }
        let error = names(&[json!(1), json!(65_536)]).unwrap_err().to_string();
        assert_eq!(error, "line 2: label: 65536 is too large: integer labels must be below 65536");
        assert_eq!(names(&[json!(65_535)]).unwrap().len(), MAX_CLASSES);
    }
}
