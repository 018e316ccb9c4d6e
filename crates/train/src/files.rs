//! Reading text files.

use std::fs;
use std::path::Path;

use crate::{Error, ErrorKind, Result};

/// Returns the text of a file, without a byte order mark.
///
/// # Errors
/// Returns an error if the file cannot be read or is not UTF-8.
pub(crate) fn read_text(path: &Path) -> Result<String> {
    let bytes = fs::read(path).map_err(|source| Error::io(path, "cannot read", source))?;
    let mut text = String::from_utf8(bytes)
        .map_err(|error| ErrorKind::Encoding { path: path.into(), offset: error.utf8_error().valid_up_to() })?;
    if text.starts_with('\u{feff}') {
        text.drain(..'\u{feff}'.len_utf8());
    }
    Ok(text)
}
