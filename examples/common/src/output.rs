//! Files that an example writes. Whether they can be written is checked before training, not after hours of it.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use cloze::prelude::*;
use cloze::tensor::replace_with;

use crate::Result;

/// Checks that a model can be saved to `folder`, which need not exist.
///
/// # Errors
/// Returns an error that names the folder if it cannot be written.
pub fn check_folder(folder: &Path) -> Result {
    let existing = folder.ancestors().find(|ancestor| ancestor.exists() || ancestor.as_os_str().is_empty());
    let existing = existing.filter(|path| !path.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // A file without a name, so that nothing is left if the process is killed.
    let writable = tempfile::tempfile_in(existing);
    writable.map_err(|error| format!("{}: cannot write: {}", folder.display(), reason(&error)))?;
    Ok(())
}

/// Checks that a file can be created in the folder of `path`.
///
/// # Errors
/// Returns an error that names the file if its folder is missing or cannot be written.
pub(crate) fn check_file(path: &Path) -> Result {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let writable = tempfile::tempfile_in(folder);
    writable.map_err(|error| format!("{}: cannot write: {}", path.display(), reason(&error)))?;
    Ok(())
}

/// Returns an error without the path that `tempfile` adds to it.
fn reason(error: &std::io::Error) -> String {
    let source = error.get_ref().and_then(|inner| inner.source());
    source.map_or_else(|| error.to_string(), ToString::to_string)
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
    writable.map_err(|error| format!("{}: cannot write: {error}", path.display()))?;
    Ok(())
}

/// Returns what a pipeline computed, and prints on standard error which texts were too long for it.
pub fn print_report<T>(answer: Reported<T>) -> T {
    if !answer.report.all_fit() {
        eprintln!("{}", answer.report);
    }
    answer.value
}

/// Prints on standard error what the files of a model say that is not read, or that contradicts itself.
pub fn print_remarks(place: &Path, report: &LoadReport) {
    if !report.unknown_fields.is_empty() {
        eprintln!("{}: fields of config.json that are not read: {}", place.display(), report.unknown_fields.join(", "));
    }
    for conflict in &report.conflicts {
        eprintln!("{}: {conflict}", place.display());
    }
}

/// Writes a file, which appears when it is complete. A link or what is no file, such as `/dev/stdout`, is written to directly.
///
/// # Errors
/// Returns an error that names the file if it cannot be written.
pub fn write_file(path: &Path, write: impl FnOnce(&mut dyn Write) -> std::io::Result<()>) -> Result {
    let is_special = path.symlink_metadata().is_ok_and(|found| !found.is_file());
    let written = match is_special {
        true => File::create(path).and_then(|file| {
            let mut file = BufWriter::new(file);
            write(&mut file)?;
            file.flush()
        }),
        false => replace_with(path, |file| write(file)),
    };
    written.map_err(|error| format!("{}: cannot write: {error}", path.display()).into())
}

/// Writes a value to a file as JSON, if one is given.
///
/// # Errors
/// Returns an error that names the file if it cannot be written.
pub fn write_json(path: Option<&Path>, value: &impl serde::Serialize) -> Result {
    let Some(path) = path else { return Ok(()) };
    let text = serde_json::to_string_pretty(value)? + "\n";
    write_file(path, |file| file.write_all(text.as_bytes()))
}
