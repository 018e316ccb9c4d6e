//! Calls of the file system that a signal may interrupt.

use std::fs::{self, File};
use std::io::{ErrorKind, Result};
use std::path::Path;

/// Repeats a call that a signal interrupts, which the standard library only does for reading, writing and opening. Network
/// file systems can interrupt any call.
///
/// # Errors
/// Returns any other error of the call.
#[doc(hidden)]
pub fn retry<T>(mut call: impl FnMut() -> Result<T>) -> Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

/// Returns whether there is a file or folder at `path`. Unlike [`Path::exists`], it does not take a file that the disk cannot
/// show for one that is missing.
///
/// # Errors
/// Returns an error if that cannot be found out.
#[doc(hidden)]
pub fn exists(path: &Path) -> Result<bool> {
    Ok(metadata(path)?.is_some())
}

/// Returns what is at `path`, or `None` if nothing is. Links are followed.
///
/// # Errors
/// Returns an error if that cannot be found out.
#[doc(hidden)]
pub fn metadata(path: &Path) -> Result<Option<fs::Metadata>> {
    match retry(|| fs::metadata(path)) {
        // A file in place of a folder of the path.
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(None),
        found => found.map(Some),
    }
}

/// Returns what is in a folder.
///
/// # Errors
/// Returns an error if it cannot be read to its end.
#[doc(hidden)]
pub fn entries(folder: &Path) -> Result<Vec<fs::DirEntry>> {
    retry(|| fs::read_dir(folder)?.collect())
}

/// Creates a folder and those above it, as far as they are missing.
///
/// # Errors
/// Returns an error if a folder cannot be created.
#[doc(hidden)]
pub fn create_folders(path: &Path) -> Result<()> {
    match metadata(path)? {
        Some(found) if found.is_dir() => Ok(()),
        _ => retry(|| fs::create_dir_all(path)),
    }
}

/// Syncs the entries of a directory to the disk. Some systems cannot sync a directory and do not need to.
///
/// # Errors
/// Returns an error if the directory cannot be synced, on Unix.
#[doc(hidden)]
pub fn sync_directory(directory: &Path) -> Result<()> {
    match File::open(directory).and_then(|opened| opened.sync_all()) {
        Err(error) if cfg!(unix) => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interrupted_calls_are_repeated() {
        let mut results = [Err(ErrorKind::Interrupted), Err(ErrorKind::Interrupted), Ok(7), Ok(8)].into_iter();
        assert_eq!(retry(|| results.next().unwrap().map_err(Into::into)).unwrap(), 7);
        let mut results = [Err(ErrorKind::Interrupted), Err(ErrorKind::NotFound), Ok(())].into_iter();
        assert_eq!(retry(|| results.next().unwrap().map_err(Into::into)).unwrap_err().kind(), ErrorKind::NotFound);
    }

    #[test]
    fn only_what_is_missing_does_not_exist() -> Result<()> {
        let folder = tempfile::tempdir()?;
        let file = folder.path().join("file");
        assert!(!exists(&file)?);
        fs::write(&file, "")?;
        assert!(exists(&file)? && exists(folder.path())? && !exists(&file.join("inside"))?);
        assert!(exists(&folder.path().join("a".repeat(1000))).is_err());
        Ok(())
    }
}
