//! JSON files: JSON Lines, with an object on each line, or a list of objects.

mod document;
mod object;
mod objects;
mod table;

use std::collections::{HashSet, VecDeque};
use std::path::{Path, PathBuf};

use super::columns::ColumnIndices;
use super::utf8::Utf8Reader;
use super::{Columns, Row};
use crate::{Error, ErrorKind, Result};
use object::Object;
pub(crate) use object::object;
use objects::Objects;

/// An object or what is wrong with it, and the line on which it begins.
type Numbered = (usize, Result<Object, String>);

/// An iterator over the rows of a file.
pub(super) struct JsonRows {
    path: PathBuf,
    objects: Objects,
    columns: Columns,
    /// The names of the wanted columns, once the first objects have been read.
    names: Option<Names>,
    /// The number of objects to read ahead to find the columns.
    ahead: usize,
    pending: VecDeque<Numbered>,
}

struct Names {
    all: Vec<String>,
    wanted: ColumnIndices,
}

impl JsonRows {
    pub(super) fn new(path: &Path, source: Utf8Reader, columns: &Columns, ahead: usize) -> JsonRows {
        let objects = Objects::new(path, source, columns);
        JsonRows { path: path.into(), objects, columns: columns.clone(), names: None, ahead, pending: VecDeque::new() }
    }

    /// Reads the first objects and finds the columns among their keys. Returns `None` if there are no objects.
    fn look_ahead(&mut self) -> Result<Option<Names>> {
        let (mut all, mut seen) = (Vec::new(), HashSet::new());
        while self.pending.len() < self.ahead
            && let Some((line, object)) = self.objects.next()?
        {
            for name in object.iter().flat_map(Object::keys) {
                if !seen.contains(name) {
                    seen.insert(name.clone());
                    all.push(name.clone());
                }
            }
            self.pending.push_back((line, object));
        }
        let Some((line, first)) = self.pending.front() else { return Ok(None) };
        if let (true, Err(why)) = (all.is_empty(), first) {
            let (why, path) = (why.clone(), Some(self.path.clone()));
            return Err(ErrorKind::Data { what: "row", why, path, line: Some(*line) }.into());
        }
        let wanted = self.columns.find(&all).map_err(|why| Error::data_in(&self.path, "columns", why))?;
        Ok(Some(Names { all, wanted }))
    }

    fn row(&mut self) -> Result<Option<Row>> {
        if self.names.is_none() {
            self.names = self.look_ahead()?;
        }
        let object = match self.pending.pop_front() {
            Some(object) => Some(object),
            None => self.objects.next()?,
        };
        let (Some((line, object)), Some(Names { all, wanted })) = (object, &self.names) else { return Ok(None) };
        let object = match object {
            Ok(object) => object,
            Err(why) => return Ok(Some(Row::malformed(line, why))),
        };
        let cell = |column: usize| object.get(&all[column]).cloned().unwrap_or(serde_json::Value::Null.into());
        Ok(Some(wanted.row(line, cell, cell)))
    }
}

impl Iterator for JsonRows {
    type Item = Result<Row>;

    fn next(&mut self) -> Option<Result<Row>> {
        self.row().transpose()
    }
}

#[cfg(test)]
mod tests;
