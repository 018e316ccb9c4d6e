//! The fields of a `config.json`, each removed when it is read: those that remain are not known.

use serde_json::{Map, Value};

use crate::files::short;
use crate::{Error, Result};

/// Fields that have not been read yet.
pub(super) struct UnreadFields(pub(super) Map<String, Value>);

impl UnreadFields {
    /// Removes and returns a field. `null` counts as missing.
    pub(super) fn take(&mut self, name: &str) -> Option<Value> {
        self.0.remove(name).filter(|value| !value.is_null())
    }

    pub(super) fn size(&mut self, name: &str, default: usize) -> Result<usize> {
        Ok(self.optional_size(name)?.unwrap_or(default))
    }

    pub(super) fn optional_size(&mut self, name: &str) -> Result<Option<usize>> {
        let Some(value) = self.take(name) else { return Ok(None) };
        let size = value.as_u64().and_then(|size| usize::try_from(size).ok());
        size.map(Some)
            .ok_or_else(|| Error::config(format!("{name} is {}: must be an integer, 0 or more", short(&value))))
    }

    pub(super) fn number(&mut self, name: &str) -> Result<Option<f64>> {
        let Some(value) = self.take(name) else { return Ok(None) };
        let number = value.as_f64();
        number.map(Some).ok_or_else(|| Error::config(format!("{name} is {}: must be a number", short(&value))))
    }
}
