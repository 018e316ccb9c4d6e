//! The value of a row in one column.

use std::fmt;

use serde_json::{Number, Value};

/// The value of a row in one column: any JSON value, or what JSON cannot express.
#[derive(Clone, Debug, PartialEq)]
pub enum Cell {
    /// A JSON value.
    Json(Value),
    /// NaN or an infinity.
    NonFinite(f64),
    /// The text of a row that could not be read, and why: a line with another number of columns, or of invalid JSON.
    Malformed(String),
}

impl<T: Into<Value>> From<T> for Cell {
    fn from(value: T) -> Cell {
        Cell::Json(value.into())
    }
}

impl Cell {
    /// Makes a cell of any number, NaN and infinities included.
    pub fn number(value: f64) -> Cell {
        Number::from_f64(value).map_or(Cell::NonFinite(value), |number| Cell::Json(number.into()))
    }
}

/// Formats the value as JSON. Numbers that JSON cannot express are written like Python does: `nan`, `inf`, `-inf`.
impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Cell::Json(value) => value.fmt(f),
            Cell::NonFinite(value) if value.is_nan() => f.write_str("nan"),
            Cell::NonFinite(value) => value.fmt(f),
            Cell::Malformed(why) => f.write_str(why),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn prints_as_json_and_as_python() {
        let shown = |cell: Cell| cell.to_string();
        assert_eq!(shown(json!({"text": ["a\n", null]}).into()), r#"{"text":["a\n",null]}"#);
        assert_eq!(shown("olá".into()), "\"olá\"");
        assert_eq!([f64::NAN, f64::NEG_INFINITY, 1.5].map(|x| shown(Cell::number(x))), ["nan", "-inf", "1.5"]);
    }
}
