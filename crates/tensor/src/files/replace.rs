//! Atomic replacement of files.

use std::fs::{self, File};
use std::io::{BufWriter, ErrorKind, Result, Write};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Replaces the file at `path` by one with the given bytes. Readers see either the old file or the complete new one,
/// and if the disk is full, the old file stays. The bytes are written to a temporary file in the same directory, with
/// default permissions, which is synced and then renamed.
///
/// # Errors
/// Returns an error if the file cannot be written.
#[doc(hidden)]
pub fn write_file_atomically(path: impl AsRef<Path>, bytes: &[u8]) -> Result<()> {
    replace_with(path.as_ref(), |file| file.write_all(bytes))
}

/// Replaces the file at `path` like [`write_file_atomically`], with the content that `write` produces. Temporary files
/// left by killed processes are removed first. The new file survives a power failure once this returns.
///
/// # Errors
/// Returns an error if `write` fails or the file cannot be written.
#[doc(hidden)]
pub fn replace_with(path: &Path, write: impl FnOnce(&mut BufWriter<File>) -> Result<()>) -> Result<()> {
    static UNIQUE: AtomicU64 = AtomicU64::new(0);
    let name = path.file_name().ok_or(ErrorKind::InvalidInput)?.to_string_lossy();
    remove_abandoned(path, &name);
    let unique = UNIQUE.fetch_add(1, Ordering::Relaxed);
    let temporary = path.with_file_name(format!(".{name}.{}.{unique}.tmp", std::process::id()));
    let written = (|| {
        let file = File::create_new(&temporary)?;
        // The lock marks the file as in use. Not every file system supports locks, so errors are ignored.
        let _ = file.try_lock();
        let mut file = BufWriter::new(file);
        write(&mut file)?;
        file.into_inner()?.sync_all()?;
        retry(|| fs::rename(&temporary, path))?;
        sync_directory(folder_of(path))
    })();
    if written.is_err() {
        // The first failure is the one to report.
        let _ = fs::remove_file(&temporary);
    }
    written
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

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Younger temporary files are kept even if they are not locked: they may have been created but not locked yet.
const MIN_AGE: Duration = Duration::from_secs(60);

/// Removes temporary files of `path` whose process has ended, which released their lock.
fn remove_abandoned(path: &Path, name: &str) {
    let prefix = format!(".{name}.");
    remove_unlocked(folder_of(path), |other| other.starts_with(&prefix));
}

/// Removes the temporary files of [`replace_with`] in `folder`, whatever they were to replace, whose process has ended.
#[doc(hidden)]
pub fn remove_all_abandoned(folder: &Path) {
    let is_number = |part: Option<&str>| part.is_some_and(|part| part.parse::<u64>().is_ok());
    remove_unlocked(folder, |name| {
        let mut parts = name.rsplit('.').skip(1);
        name.starts_with('.') && is_number(parts.next()) && is_number(parts.next())
    });
}

/// Removes the temporary files in `folder` with a name that `is_ours`, if no process has locked them.
fn remove_unlocked(folder: &Path, is_ours: impl Fn(&str) -> bool) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let other = entry.file_name();
        let other = other.to_string_lossy();
        let age = entry.metadata().and_then(|data| data.modified()).ok().and_then(|time| time.elapsed().ok());
        let is_old = age.is_some_and(|age| age > MIN_AGE);
        let is_ours = other.ends_with(".tmp") && is_ours(&other);
        if is_ours && is_old && File::open(entry.path()).is_ok_and(|file| file.try_lock().is_ok()) {
            // A file that cannot be removed does no harm.
            let _ = fs::remove_file(entry.path());
        }
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
    fn temporary_files_of_killed_processes_are_removed() -> Result<()> {
        let folder = tempfile::tempdir()?;
        let file = |name: &str, seconds: u64| -> Result<File> {
            let file = File::create_new(folder.path().join(name))?;
            file.set_modified(std::time::SystemTime::now() - Duration::from_secs(seconds))?;
            Ok(file)
        };
        let written = file(".a.2.0.tmp", 3600)?;
        written.lock()?;
        for (name, seconds) in [(".a.1.0.tmp", 3600), (".a.3.0.tmp", 5), (".ab.1.0.tmp", 3600), ("a.4.0.tmp", 3600)] {
            file(name, seconds)?;
        }
        write_file_atomically(folder.path().join("a"), b"new")?;
        let mut names: Vec<_> = fs::read_dir(folder.path())?.flatten().map(|entry| entry.file_name()).collect();
        names.sort();
        assert_eq!(names, [".a.2.0.tmp", ".a.3.0.tmp", ".ab.1.0.tmp", "a", "a.4.0.tmp"]);
        file(".ab.x.0.tmp", 3600)?;
        remove_all_abandoned(folder.path());
        let mut names: Vec<_> = fs::read_dir(folder.path())?.flatten().map(|entry| entry.file_name()).collect();
        names.sort();
        assert_eq!(names, [".a.2.0.tmp", ".a.3.0.tmp", ".ab.x.0.tmp", "a", "a.4.0.tmp"]);
        Ok(())
    }
}
