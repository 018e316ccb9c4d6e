//! Files that an example writes. Whether they can be written is checked before training, not after hours of it.

use std::path::Path;

use cloze::prelude::*;

use crate::Result;

/// Checks that a model can be saved to `folder`, which need not exist.
///
/// # Errors
/// Returns an error that names the folder if it cannot be written.
pub fn check_folder(folder: &Path) -> Result {
    let existing = folder.ancestors().find(|ancestor| ancestor.exists() || ancestor.as_os_str().is_empty());
    let existing = existing.filter(|path| !path.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let writable = tempfile::NamedTempFile::new_in(existing);
    writable.map_err(|error| format!("{}: cannot write: {error}", folder.display()))?;
    Ok(())
}

/// Checks that a file can be created in the folder of `path`.
///
/// # Errors
/// Returns an error that names the file if its folder is missing or cannot be written.
pub(crate) fn check_file(path: &Path) -> Result {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let writable = tempfile::NamedTempFile::new_in(folder);
    writable.map_err(|error| format!("{}: cannot write: {}", path.display(), error.kind()))?;
    Ok(())
}

/// Checks that [`write_json`] can write its file, if one is given.
///
/// # Errors
/// Returns an error that names the file if it cannot be written.
pub fn check_json(path: Option<&Path>) -> Result {
    let Some(path) = path else { return Ok(()) };
    if !path.exists() {
        return check_file(path);
    }
    let writable = std::fs::OpenOptions::new().append(true).open(path);
    writable.map_err(|error| format!("{}: cannot write: {}", path.display(), error.kind()))?;
    Ok(())
}

/// Returns what a pipeline computed, and prints on standard error which texts were too long for it.
pub fn print_report<T>(answer: Reported<T>) -> T {
    if !answer.report.all_fit() {
        eprintln!("{}", answer.report);
    }
    answer.value
}

/// Writes a value to a file as JSON, if one is given.
///
/// # Errors
/// Returns an error that names the file if it cannot be written.
pub fn write_json(path: Option<&Path>, value: &impl serde::Serialize) -> Result {
    let Some(path) = path else { return Ok(()) };
    let text = serde_json::to_string_pretty(value)? + "\n";
    std::fs::write(path, text).map_err(|error| format!("{}: cannot write: {error}", path.display()).into())
}
