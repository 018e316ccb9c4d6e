//! Labels that are classes: integers, or names.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::rows::{Cell, Row};
use crate::{Error, ErrorKind, Result};

/// Integer labels are below this. A larger one is a mistake, and would ask for memory for as many classes.
const MOST_CLASSES: usize = 1 << 16;

/// The names of the classes of some rows. Where most labels that are there are integers, the names are `"0"` to the
/// largest; otherwise they are all the labels that are strings, in alphabetical order.
///
/// # Errors
/// When no row has a label, or an integer is too large (65,536 classes are the most).
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
    let (largest, line) = largest.ok_or_else(|| Error::data("labels", "no row has any"))?;
    if largest >= MOST_CLASSES as i64 {
        let why = format!("{largest} is a class too many: integers must be below {MOST_CLASSES}");
        return Err(ErrorKind::Data { what: "label", why, path: None, line: Some(line) }.into());
    }
    Ok((0..=largest).map(|class| class.to_string()).collect())
}

/// The integer that Python's `int` makes of a label: of a number, without what stands behind the point; of a string,
/// if that is an integer (`" +1_000 "`, but not `"1.0"`; digits are 0 to 9); 0 or 1 of a truth value. A list of one
/// label is that label, as for NumPy. `None` where Python raises, and beyond 64 bits.
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
    // 2^63 is a float, the largest integer of 64 bits is none.
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

    /// What `int(l)`, else `int(numpy.array(l).item())`, gives in Python 3.
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

    /// Python's integers have no end; 64 bits have.
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
            assert_eq!(names(&labels).unwrap_err().to_string(), "labels: no row has any");
        }
        let error = names(&[json!(1), json!(65_536)]).unwrap_err().to_string();
        assert_eq!(error, "line 2: label: 65536 is a class too many: integers must be below 65536");
        assert_eq!(names(&[json!(65_535)]).unwrap().len(), MOST_CLASSES);
    }
}
