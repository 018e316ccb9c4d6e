//! Reading text and replacing files whole.

use std::fs;
use std::path::Path;

use serde_json::{Map, Value};

use crate::{Error, Result};

/// The text of a file, without a byte order mark.
///
/// # Errors
/// When it cannot be read; when it is not UTF-8, with the offset of the first byte that is not.
pub(crate) fn read_text(path: &Path) -> Result<String> {
    let bytes = fs::read(path).map_err(|error| Error::io(path, "cannot read", error))?;
    let mut text = String::from_utf8(bytes).map_err(|error| {
        Error::format(path, format!("not UTF-8: invalid byte at offset {}", error.utf8_error().valid_up_to()))
    })?;
    if text.starts_with('\u{feff}') {
        text.drain(..'\u{feff}'.len_utf8());
    }
    Ok(text)
}

/// The JSON object in a file.
///
/// # Errors
/// When it cannot be read, or is no JSON object.
pub(crate) fn read_object(path: &Path) -> Result<Map<String, Value>> {
    match serde_json::from_str(&read_text(path)?) {
        Ok(Value::Object(map)) => Ok(map),
        Ok(_) => Err(Error::format(path, "not a JSON object")),
        Err(error) => Err(Error::format(path, format!("not JSON: {error}"))),
    }
}

/// Replaces `path` by a file with these bytes: a reader sees the old file or the new one, never half of
/// one. The bytes go to a file beside it, which then takes its name. Makes missing folders.
///
/// # Errors
/// When the system refuses; then `path` is as it was.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> Result<()> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::create_dir_all(parent).map_err(|error| Error::io(parent, "cannot make the folder", error))?;
    cloze_tensor::write_file_atomically(path, bytes).map_err(|error| Error::io(path, "cannot write", error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replaces_whole_and_leaves_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("deep/er/file.txt");
        replace(&path, b"one").unwrap();
        replace(&path, b"two").unwrap();
        assert_eq!(read_text(&path).unwrap(), "two");
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
        // A folder cannot be replaced by a file; the temporary one goes away.
        assert!(replace(path.parent().unwrap(), b"x").is_err());
        assert_eq!(fs::read_dir(dir.path().join("deep")).unwrap().count(), 1);
    }

    #[test]
    fn not_utf8_names_the_byte() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("vocab.txt");
        fs::write(&path, b"abc\n\xff\xfe").unwrap();
        assert!(read_text(&path).unwrap_err().to_string().ends_with("vocab.txt: not UTF-8: invalid byte at offset 4"));
    }
}
