//! Writing a file so that a reader sees the old one or the new one, never half of one.

use std::fs::{self, File};
use std::io::{BufWriter, ErrorKind, Result, Write};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Replaces the file at `path` by one with these bytes: a reader sees the old one or the new one, never half of
/// one, and a full disk leaves the old one whole. The bytes go to a file beside it, with the permissions that any
/// new file gets, which is synced and takes the name.
///
/// # Errors
/// When the system refuses.
#[doc(hidden)]
pub fn write_file_atomically(path: impl AsRef<Path>, bytes: &[u8]) -> Result<()> {
    replace_with(path.as_ref(), |file| file.write_all(bytes))
}

/// As [`write_file_atomically`], with what `write` writes. What a process that was killed left of an earlier attempt is
/// removed first.
///
/// # Errors
/// When `write` fails or the system refuses.
#[doc(hidden)]
pub fn replace_with(path: &Path, write: impl FnOnce(&mut BufWriter<File>) -> Result<()>) -> Result<()> {
    static UNIQUE: AtomicU64 = AtomicU64::new(0);
    let name = path.file_name().ok_or(ErrorKind::InvalidInput)?.to_string_lossy();
    remove_abandoned(path, &name);
    let unique = UNIQUE.fetch_add(1, Ordering::Relaxed);
    let temporary = path.with_file_name(format!(".{name}.{}.{unique}.tmp", std::process::id()));
    let written = (|| {
        let file = File::create_new(&temporary)?;
        // Says that somebody is at it; not every file system can.
        let _ = file.try_lock();
        let mut file = BufWriter::new(file);
        write(&mut file)?;
        file.into_inner()?.sync_all()?;
        fs::rename(&temporary, path)
    })();
    if written.is_err() {
        // The first failure is the one to report.
        let _ = fs::remove_file(&temporary);
    }
    written
}

/// Locked is what somebody writes; a moment passes between making a file and locking it.
const MOMENT: Duration = Duration::from_secs(60);

/// Removes the temporary files of `path` that nobody writes any more. A lock does not outlive its process.
fn remove_abandoned(path: &Path, name: &str) {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let Ok(entries) = fs::read_dir(folder) else { return };
    let prefix = format!(".{name}.");
    for entry in entries.flatten() {
        let other = entry.file_name();
        let other = other.to_string_lossy();
        let age = entry.metadata().and_then(|data| data.modified()).ok().and_then(|time| time.elapsed().ok());
        let is_old = age.is_some_and(|age| age > MOMENT);
        let is_ours = other.starts_with(&prefix) && other.ends_with(".tmp");
        if is_ours && is_old && File::open(entry.path()).is_ok_and(|file| file.try_lock().is_ok()) {
            // If it stays, it is in nobody's way.
            let _ = fs::remove_file(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_killed_process_left_goes_away() -> Result<()> {
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
        Ok(())
    }
}
