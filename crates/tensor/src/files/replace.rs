//! Writing a file so that a reader sees the old one or the new one, never half of one.

use std::fs::{self, File};
use std::io::{BufWriter, ErrorKind, Result, Write};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

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

/// As [`write_file_atomically`], with what `write` writes.
///
/// # Errors
/// When `write` fails or the system refuses.
#[doc(hidden)]
pub fn replace_with(path: &Path, write: impl FnOnce(&mut BufWriter<File>) -> Result<()>) -> Result<()> {
    static UNIQUE: AtomicU64 = AtomicU64::new(0);
    let name = path.file_name().ok_or(ErrorKind::InvalidInput)?.to_string_lossy();
    let unique = UNIQUE.fetch_add(1, Ordering::Relaxed);
    let temporary = path.with_file_name(format!(".{name}.{}.{unique}.tmp", std::process::id()));
    let written = (|| {
        let mut file = BufWriter::new(File::create_new(&temporary)?);
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
