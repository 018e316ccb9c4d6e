//! Conversion of the label of a row.

use std::collections::HashMap;

use serde_json::Value;

use super::dropped::DropReason;
use crate::class_labels::{NO_CLASS, integer, is_no_label};
use crate::rows::Cell;

/// The names of the classes.
pub(super) struct Classes<'n> {
    by_name: HashMap<&'n str, i64>,
    /// Whether a class can also be given by its index: not if the names are integers.
    have_indices: bool,
}

impl<'n> Classes<'n> {
    pub(super) fn new(names: &'n [String]) -> Classes<'n> {
        let by_name = names.iter().map(String::as_str).zip(0..).collect();
        Classes { by_name, have_indices: names.iter().any(|name| name.parse::<i64>().is_err()) }
    }

    fn named(&self, name: &str) -> Option<i64> {
        self.by_name.get(name).copied()
    }

    fn index(&self, class: i64) -> Option<i64> {
        (self.have_indices && (0..self.by_name.len() as i64).contains(&class)).then_some(class)
    }
}

/// Reads a label as a class.
pub(super) fn class(label: &Cell, classes: Option<&Classes>) -> Result<i64, DropReason> {
    let Some(classes) = classes else { return integer(label).ok_or(DropReason::BadLabel) };
    let name = match label {
        Cell::Json(Value::String(name)) => name.trim().to_string(),
        Cell::Json(Value::Number(number)) => number.to_string(),
        _ => String::new(),
    };
    let integer = integer(label);
    let known = classes.named(&name).or_else(|| {
        let integer = integer?;
        classes.named(&integer.to_string()).or_else(|| classes.index(integer))
    });
    known.ok_or(match integer {
        Some(NO_CLASS) => DropReason::NoLabel,
        Some(_) => DropReason::UnknownClass,
        None if is_no_label(&name) => DropReason::NoLabel,
        None if matches!(label, Cell::Json(Value::String(_))) && !name.is_empty() => DropReason::UnknownClass,
        None => DropReason::BadLabel,
    })
}

/// Reads a label as a finite number, and says whether it has a decimal comma.
pub(super) fn score(label: &Cell) -> Result<(f32, bool), DropReason> {
    let (number, has_comma) = match label {
        Cell::Json(Value::Number(number)) => (number.as_f64(), false),
        Cell::Json(Value::String(text)) => match decimal_comma(text.trim()) {
            Some(text) => (text.parse().ok(), true),
            None => (text.trim().parse().ok(), false),
        },
        _ => (None, false),
    };
    let number = number.map(|number| number as f32).filter(|number| number.is_finite());
    number.map(|number| (number, has_comma)).ok_or(DropReason::BadLabel)
}

/// Returns a number such as `-0,85` with a point, as spreadsheets write it in most of Europe and South America.
fn decimal_comma(text: &str) -> Option<String> {
    let (whole, part) = text.strip_prefix(['+', '-']).unwrap_or(text).split_once(',')?;
    let are_digits = |digits: &str| !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    (are_digits(whole) && are_digits(part)).then(|| text.replace(',', "."))
}

/// Reads a label as those of `names` that apply.
pub(super) fn applying(label: &Cell, names: &[String]) -> Result<Vec<bool>, DropReason> {
    let Cell::Json(label) = label else { return Err(DropReason::BadLabel) };
    if let Value::Object(by_name) = label {
        let flag = |name: &String| match by_name.get(name) {
            Some(value) => flag(value).ok_or(DropReason::BadLabel),
            None => Err(DropReason::BadLabel),
        };
        return names.iter().map(flag).collect();
    }
    let mut applying = vec![false; names.len()];
    let one = std::slice::from_ref(label);
    for given in label.as_array().map_or(one, Vec::as_slice) {
        let given = label_name(given).ok_or(DropReason::BadLabel)?;
        let known = names.iter().position(|name| *name == given).ok_or(DropReason::UnknownClass)?;
        applying[known] = true;
    }
    Ok(applying)
}

/// Returns the name of a label in a list: a string, or an integer.
pub(crate) fn label_name(value: &Value) -> Option<String> {
    match value {
        Value::String(name) if !name.trim().is_empty() => Some(name.trim().to_string()),
        Value::Number(number) if !number.is_f64() => Some(number.to_string()),
        _ => None,
    }
}

/// Returns whether a label applies: 0 or 1, as a number, a string or a boolean.
fn flag(value: &Value) -> Option<bool> {
    let number = match value {
        Value::Bool(value) => return Some(*value),
        Value::Number(number) => number.as_f64()?,
        Value::String(text) => match text.trim() {
            "true" | "True" | "TRUE" => 1.0,
            "false" | "False" | "FALSE" => 0.0,
            text => text.parse().ok()?,
        },
        _ => return None,
    };
    (number == 0.0 || number == 1.0).then_some(number == 1.0)
}
