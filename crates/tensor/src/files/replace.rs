//! Atomic replacement of files.

use std::fs::{self, File};
use std::io::{BufWriter, ErrorKind, Result, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use super::claim::{claim_abandoned, create_claimed};
use super::retry::{entries, retry, sync_directory};

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
    let name = path.file_name().ok_or(ErrorKind::InvalidInput)?.to_string_lossy();
    remove_abandoned(path, &name);
    let (temporary, file) = create_temporary(path, &name)?;
    let written = (|| {
        let mut file = BufWriter::new(file);
        write(&mut file)?;
        // Claimed until it has lost its temporary name.
        let file = file.into_inner()?;
        file.sync_all()?;
        retry(|| fs::rename(&temporary, path))?;
        sync_directory(folder_of(path))
    })();
    if written.is_err() {
        // The first failure is the one to report.
        let _ = retry(|| fs::remove_file(&temporary));
    }
    written
}

/// Creates a temporary file for the new content of `path`, claimed by this process.
fn create_temporary(path: &Path, name: &str) -> Result<(PathBuf, File)> {
    static UNIQUE: AtomicU64 = AtomicU64::new(0);
    loop {
        let unique = UNIQUE.fetch_add(1, Ordering::Relaxed);
        let temporary = path.with_file_name(format!(".{name}.{}.{unique}.tmp", std::process::id()));
        match create_claimed(&temporary) {
            Ok(Some(file)) => return Ok((temporary, file)),
            // In a container, another process can have the same id.
            Ok(None) => {}
            Err(error) => {
                let _ = retry(|| fs::remove_file(&temporary));
                return Err(error);
            }
        }
    }
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Removes temporary files of `path` whose process has ended.
fn remove_abandoned(path: &Path, name: &str) {
    let prefix = format!(".{name}.");
    remove_claimable(folder_of(path), |other| other.starts_with(&prefix));
}

/// Removes the temporary files of [`replace_with`] in `folder`, whatever they were to replace, whose process has ended.
#[doc(hidden)]
pub fn remove_all_abandoned(folder: &Path) {
    let is_number = |part: Option<&str>| part.is_some_and(|part| part.parse::<u64>().is_ok());
    remove_claimable(folder, |name| {
        let mut parts = name.rsplit('.').skip(1);
        name.starts_with('.') && is_number(parts.next()) && is_number(parts.next())
    });
}

/// Removes the temporary files in `folder` with a name that `is_ours`, if no process claims them.
fn remove_claimable(folder: &Path, is_ours: impl Fn(&str) -> bool) {
    for entry in entries(folder).unwrap_or_default() {
        let other = entry.file_name();
        let other = other.to_string_lossy();
        if !other.ends_with(".tmp") || !is_ours(&other) {
            continue;
        }
        if let Some(_claimed) = claim_abandoned(&entry.path()) {
            // A file that cannot be removed does no harm.
            let _ = retry(|| fs::remove_file(entry.path()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn temporary_files_of_killed_processes_are_removed() -> Result<()> {
        let folder = tempfile::tempdir()?;
        let file = |name: &str| File::create_new(folder.path().join(name));
        let written = file(".a.2.0.tmp")?;
        written.lock()?;
        // As a process of this id would have left it.
        let own = format!(".a.{}.0.tmp", std::process::id());
        for name in [".a.1.0.tmp", &own, ".ab.1.0.tmp", "a.4.0.tmp"] {
            file(name)?;
        }
        write_file_atomically(folder.path().join("a"), b"new")?;
        let mut names: Vec<_> = fs::read_dir(folder.path())?.flatten().map(|entry| entry.file_name()).collect();
        names.sort();
        assert_eq!(names, [".a.2.0.tmp", ".ab.1.0.tmp", "a", "a.4.0.tmp"]);
        file(".ab.x.0.tmp")?;
        remove_all_abandoned(folder.path());
        let mut names: Vec<_> = fs::read_dir(folder.path())?.flatten().map(|entry| entry.file_name()).collect();
        names.sort();
        assert_eq!(names, [".a.2.0.tmp", ".ab.x.0.tmp", "a", "a.4.0.tmp"]);
        Ok(())
    }

    /// Many threads replace a file, while others remove what they take for abandoned.
    #[test]
    fn files_in_use_are_not_removed() -> Result<()> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("a");
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let path = &path;
                scope.spawn(move || {
                    for round in 0..200 {
                        write_file_atomically(path, format!("{thread} {round}").as_bytes()).unwrap();
                    }
                });
            }
        });
        assert_eq!(fs::read_dir(folder.path())?.count(), 1);
        Ok(())
    }
}
