//! The small JSON files beside a model's weights and its vocabulary. Every field of theirs is read, known to change no
//! answer, or refused by name, so that a setting that is not supported never goes unnoticed.

mod kind;

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Map, Value};

use crate::files::{Ordered, parse_object, read_json, short};
use crate::folder::Folder;
use crate::{Error, Result};

pub(crate) use kind::Kind;

/// A JSON object of which fields are taken one by one.
pub(crate) struct SideFile {
    path: PathBuf,
    kind: Kind,
    fields: Map<String, Value>,
    /// The places of fields in the file. The names in a field that is an object follow it.
    places: HashMap<String, usize>,
}

impl SideFile {
    /// Opens the file `name` of a folder. If there is none, it has no fields.
    ///
    /// # Errors
    /// Returns an error like [`open`](SideFile::open).
    pub(crate) fn find(folder: &Folder, name: &str, kind: Kind) -> Result<SideFile> {
        match folder.find(name)? {
            Some(path) => SideFile::open(&path, kind),
            None => Ok(SideFile::new(Path::new(name), kind, Map::new())),
        }
    }

    /// Opens a file.
    ///
    /// # Errors
    /// Returns an error if it cannot be read or is not a JSON object.
    pub(crate) fn open(path: &Path, kind: Kind) -> Result<SideFile> {
        let text = read_json(path)?;
        let fields = parse_object(&text).map_err(|reason| Error::format(path, reason))?;
        Ok(SideFile { places: places(&text), ..SideFile::new(path, kind, fields) })
    }

    /// Creates a reader of an object that is a part of the file `path`.
    pub(crate) fn new(path: &Path, kind: Kind, fields: Map<String, Value>) -> SideFile {
        SideFile { path: path.to_path_buf(), kind, fields, places: HashMap::new() }
    }

    /// Returns whether there are no fields.
    pub(crate) fn is_empty(&self) -> bool {
        self.fields.is_empty()
    }

    /// Returns whether a field exists, even if it is `null`.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.fields.contains_key(name)
    }

    /// Removes and returns all fields whose names end in `suffix`, except for those that are `null`, in the order of
    /// the file.
    pub(crate) fn take_all(&mut self, suffix: &str) -> Vec<(String, Value)> {
        let fields = std::mem::take(&mut self.fields).into_iter();
        let (taken, left): (Map<_, _>, Map<_, _>) = fields.partition(|(name, _)| name.ends_with(suffix));
        self.fields = left;
        self.in_order(taken.into_iter().filter(|(_, value)| !value.is_null()).collect())
    }

    /// Returns fields of the file, or of an object in it, in the order of the file.
    pub(crate) fn in_order(&self, fields: Map<String, Value>) -> Vec<(String, Value)> {
        let mut fields: Vec<_> = fields.into_iter().collect();
        fields.sort_by_key(|(name, _)| self.places.get(name));
        fields
    }

    /// Removes and returns a field. `null` counts as missing.
    pub(crate) fn take(&mut self, name: &str) -> Option<Value> {
        self.fields.remove(name).filter(|value| !value.is_null())
    }

    /// Removes and returns a field that `read` understands; `must` says what it would understand.
    ///
    /// # Errors
    /// Returns an error with the field, its value and `must` if `read` returns `None`.
    pub(crate) fn read<T>(
        &mut self,
        name: &str,
        must: &str,
        read: impl FnOnce(&Value) -> Option<T>,
    ) -> Result<Option<T>> {
        let Some(value) = self.take(name) else { return Ok(None) };
        read(&value).map(Some).ok_or_else(|| self.refuse(name, &value, must))
    }

    /// Removes and returns a field that is true or false.
    pub(crate) fn flag(&mut self, name: &str) -> Result<Option<bool>> {
        self.read(name, "must be true, false or absent", Value::as_bool)
    }

    /// Removes and returns a field that is a text.
    pub(crate) fn text(&mut self, name: &str) -> Result<Option<String>> {
        self.read(name, "must be a text", |value| value.as_str().map(str::to_string))
    }

    /// Removes and returns a field that is an integer above 0.
    pub(crate) fn size(&mut self, name: &str) -> Result<Option<usize>> {
        let size = |value: &Value| value.as_u64().filter(|&size| size > 0).and_then(|size| usize::try_from(size).ok());
        self.read(name, "must be an integer above 0", size)
    }

    /// Removes a field that may only have the value `expected`.
    pub(crate) fn only(&mut self, name: &str, expected: &Value) -> Result<()> {
        self.read(name, &format!("must be {expected} or absent"), |value| (value == expected).then_some(()))?;
        Ok(())
    }

    /// Removes an object whose fields, except for `harmless`, must be absent or null.
    pub(crate) fn only_harmless(&mut self, name: &str, harmless: &[&str]) -> Result<()> {
        let Some(value) = self.take(name) else { return Ok(()) };
        let empty = |map: &Map<String, Value>| {
            map.iter().all(|(name, value)| value.is_null() || harmless.contains(&name.as_str()))
        };
        match value.as_object().is_some_and(empty) {
            true => Ok(()),
            false => Err(self.refuse(name, &value, "must be {} or absent")),
        }
    }

    /// Returns an error about a field.
    pub(crate) fn refuse(&self, name: &str, value: &Value, must: &str) -> Error {
        self.wrong(format!("{name} is {}: {must}", short(value)))
    }

    /// Returns an error about the file.
    pub(crate) fn wrong(&self, reason: impl Into<String>) -> Error {
        Error::format(&self.path, reason)
    }

    /// Ends the reading.
    ///
    /// # Errors
    /// Returns an error with the first field that was not taken and is not harmless.
    pub(crate) fn finish(mut self) -> Result<()> {
        let fields = std::mem::take(&mut self.fields);
        let unknown = |(name, value): &(&String, &Value)| !value.is_null() && !self.kind.is_harmless(name);
        match fields.iter().find(unknown) {
            Some((name, value)) => Err(self.refuse(name, value, "this field is not supported: must be absent")),
            None => Ok(()),
        }
    }
}

/// Returns the places of the names in the text of a JSON object and in the objects that are its fields.
fn places(text: &str) -> HashMap<String, usize> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Field {
        Object(Ordered<IgnoredAny>),
        Other(IgnoredAny),
    }
    let Ok(Ordered(fields)) = serde_json::from_str::<Ordered<Field>>(text) else { return HashMap::new() };
    let mut places = HashMap::new();
    for (name, field) in fields {
        let inner = match field {
            Field::Object(Ordered(inner)) => inner,
            Field::Other(_) => Vec::new(),
        };
        for name in std::iter::once(name).chain(inner.into_iter().map(|(name, _)| name)) {
            let next = places.len();
            places.entry(name).or_insert(next);
        }
    }
    places
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_read_harmless_or_refused() {
        let file = |text: &str| match serde_json::from_str(text) {
            Ok(Value::Object(fields)) => SideFile::new(Path::new("f.json"), Kind::Sentence, fields),
            _ => panic!("not an object"),
        };
        let mut good = file(r#"{"a": true, "b": 3, "c": {"x": 1, "y": null}, "d": null, "__version__": {}}"#);
        assert_eq!(
            (good.flag("a").unwrap(), good.size("b").unwrap(), good.size("z").unwrap()),
            (Some(true), Some(3), None)
        );
        good.only_harmless("c", &["x"]).unwrap();
        good.finish().unwrap();
        let said = |result: Result<()>| result.unwrap_err().to_string();
        assert_eq!(
            said(file(r#"{"new": [1]}"#).finish()),
            "f.json: new is [1]: this field is not supported: must be absent"
        );
        assert_eq!(said(file(r#"{"b": 0}"#).size("b").map(|_| ())), "f.json: b is 0: must be an integer above 0");
        assert_eq!(said(file(r#"{"b": 2}"#).only("b", &1.into())), "f.json: b is 2: must be 1 or absent");
        let nested = said(file(r#"{"c": {"z": 1}}"#).only_harmless("c", &["x"]));
        assert_eq!(nested, "f.json: c is {\"z\":1}: must be {} or absent");
    }
}
