//! Reading text files and replacing files atomically.

use std::collections::HashSet;
use std::fmt;
use std::fs::File;
use std::io::Read;
use std::marker::PhantomData;
use std::path::Path;

use cloze_tensor::retry;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::{Map, Value};

use crate::{Error, Result};

/// The most bytes of a text file of a model. The largest vocabularies in use have 20 MB.
const MAX_BYTES: u64 = 1 << 28;
/// The most values of a JSON file. Each takes up to 64 bytes of memory, for two in the file.
const MAX_VALUES: usize = 1 << 23;

/// Reads a text file, without its byte order mark.
///
/// # Errors
/// Returns an error if the file cannot be read, is too large or is not UTF-8; the last has the offset of the first invalid
/// byte.
pub(crate) fn read_text(path: &Path) -> Result<String> {
    let cannot_read = |error| Error::io(path, "cannot read", error);
    let file = File::open(path).map_err(cannot_read)?;
    let length = retry(|| file.metadata()).map_err(cannot_read)?.len();
    let mut bytes = Vec::with_capacity(length.min(MAX_BYTES) as usize + 1);
    file.take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(cannot_read)?;
    if bytes.len() as u64 > MAX_BYTES {
        let length = length.max(MAX_BYTES + 1);
        let reason =
            format!("has {length} bytes, at most {MAX_BYTES} are read: it is no file of a model or a tokenizer");
        return Err(Error::format(path, reason));
    }
    let mut text = String::from_utf8(bytes).map_err(|error| {
        Error::format(path, format!("not UTF-8: invalid byte at offset {}", error.utf8_error().valid_up_to()))
    })?;
    if text.starts_with('\u{feff}') {
        text.drain(..'\u{feff}'.len_utf8());
    }
    Ok(text)
}

/// Reads the text of a JSON file.
///
/// # Errors
/// Returns an error like [`read_text`], or if there are too many values.
pub(crate) fn read_json(path: &Path) -> Result<String> {
    let text = read_text(path)?;
    // A value is the first one, or follows one of these; strings may have them too.
    let values = 1 + text.bytes().filter(|byte| matches!(byte, b',' | b'[' | b'{')).count();
    match values > MAX_VALUES {
        true => Err(Error::format(path, format!("has up to {values} values, at most {MAX_VALUES} are read"))),
        false => Ok(text),
    }
}

/// Reads a JSON object from a file.
///
/// # Errors
/// Returns an error like [`read_json`], or if it is not a JSON object.
pub(crate) fn read_object(path: &Path) -> Result<Map<String, Value>> {
    parse_object(&read_json(path)?).map_err(|reason| Error::format(path, reason))
}

/// Parses a JSON object.
///
/// # Errors
/// Returns the reason if `text` is not a JSON object.
pub(crate) fn parse_object(text: &str) -> Result<Map<String, Value>, String> {
    match serde_json::from_str(text) {
        Ok(Value::Object(map)) => Ok(map),
        Ok(_) => Err("not a JSON object".to_string()),
        Err(error) => Err(format!("not JSON: {error}")),
    }
}

/// The fields of a JSON object in the order of the file; a field that is repeated has its last value.
pub(crate) struct Ordered<T>(pub(crate) Vec<(String, T)>);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Ordered<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Ordered<T>, D::Error> {
        struct Fields<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Fields<T> {
            type Value = Ordered<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<Ordered<T>, A::Error> {
                let mut fields: Vec<(String, T)> = Vec::new();
                while let Some((name, value)) = map.next_entry()? {
                    fields.push((name, value));
                }
                let mut seen = HashSet::new();
                fields.reverse();
                fields.retain(|(name, _)| seen.insert(name.clone()));
                fields.reverse();
                Ok(Ordered(fields))
            }
        }
        deserializer.deserialize_map(Fields(PhantomData))
    }
}

/// Returns a value, shortened to fit on one line.
pub(crate) fn short(value: &Value) -> String {
    let text = value.to_string();
    if text.chars().count() <= 60 { text } else { format!("{}...", text.chars().take(57).collect::<String>()) }
}

/// Creates the folder `dir` and its parents if they do not exist.
///
/// # Errors
/// Returns an error if the folder cannot be created.
pub(crate) fn create_folder(dir: &Path) -> Result<()> {
    cloze_tensor::create_folders(dir).map_err(|error| Error::io(dir, "cannot create the folder", error))
}

/// Replaces the file `path` atomically: a reader sees the old content or the new, never a part. Writes a temporary
/// file in the same folder, which is created if necessary, and renames it.
///
/// # Errors
/// Returns an error if the file cannot be written; `path` is then unchanged.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> Result<()> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    create_folder(parent)?;
    cloze_tensor::write_file_atomically(path, bytes).map_err(|error| Error::io(path, "cannot write", error))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn replacing_leaves_no_temporary_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("deep/er/file.txt");
        replace(&path, b"one").unwrap();
        replace(&path, b"two").unwrap();
        assert_eq!(read_text(&path).unwrap(), "two");
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
        // A folder cannot be replaced by a file; the temporary file is removed.
        assert!(replace(path.parent().unwrap(), b"x").is_err());
        assert_eq!(fs::read_dir(dir.path().join("deep")).unwrap().count(), 1);
    }

    /// The file has a hole, so it takes no space on the disk.
    #[test]
    fn files_of_many_bytes_or_values_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.json");
        File::create(&path).unwrap().set_len(1 << 40).unwrap();
        let said = read_text(&path).unwrap_err().to_string();
        assert!(said.contains("config.json: has 1099511627776 bytes, at most 268435456 are read: "), "{said}");
        fs::write(&path, format!("{{\"a\": [{}0]}}", "0,".repeat(MAX_VALUES))).unwrap();
        let said = read_object(&path).unwrap_err().to_string();
        assert!(said.ends_with("config.json: has up to 8388611 values, at most 8388608 are read"), "{said}");
    }

    #[test]
    fn not_utf8_errors_have_the_offset() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("vocab.txt");
        fs::write(&path, b"abc\n\xff\xfe").unwrap();
        assert!(read_text(&path).unwrap_err().to_string().ends_with("vocab.txt: not UTF-8: invalid byte at offset 4"));
    }
}
