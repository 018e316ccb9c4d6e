//! Objects that hold a table by its columns.

use std::collections::BTreeMap;

use serde_json::Value;

use super::object::Object;
use crate::rows::Cell;

/// Returns the rows of a table whose columns are lists of equal length, as `Dataset.to_dict` of `datasets` writes it,
/// or objects with the same keys, as `DataFrame.to_json` of pandas does. Returns `None` if the object is no such table.
pub(super) fn rows(object: &Object) -> Option<Vec<Object>> {
    let columns: BTreeMap<&String, Vec<(String, &Value)>> =
        object.iter().map(|(name, cell)| Some((name, column(cell)?))).collect::<Option<_>>()?;
    let first = columns.values().next()?;
    let keys = |column: &[(String, &Value)]| column.iter().map(|(key, _)| key.clone()).collect::<Vec<_>>();
    let is_table = first.len() > 1 && columns.values().all(|column| keys(column) == keys(first));
    let row = |at: usize| columns.iter().map(|(name, column)| ((*name).clone(), column[at].1.clone().into())).collect();
    is_table.then(|| (0..first.len()).map(row).collect())
}

/// Returns the values of a column with their keys, in order: by number if all keys are numbers.
fn column(cell: &Cell) -> Option<Vec<(String, &Value)>> {
    match cell {
        Cell::Json(Value::Array(values)) => {
            Some(values.iter().enumerate().map(|(at, value)| (at.to_string(), value)).collect())
        }
        Cell::Json(Value::Object(values)) => {
            let mut values: Vec<(String, &Value)> = values.iter().map(|(key, value)| (key.clone(), value)).collect();
            if values.iter().all(|(key, _)| key.parse::<u64>().is_ok()) {
                values.sort_by_key(|(key, _)| key.parse::<u64>().unwrap_or_default());
            }
            Some(values)
        }
        _ => None,
    }
}
