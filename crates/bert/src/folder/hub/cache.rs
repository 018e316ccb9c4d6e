//! The cache of downloaded repositories. It has the layout of `huggingface_hub`, so both find each other's files:
//!
//! ```text
//! models--owner--name/
//!     refs/main                        the commit of a revision
//!     snapshots/COMMIT/config.json     a link to the blob
//!     blobs/ETAG                       the bytes, named by the entity tag of the hub
//!     .no_exist/COMMIT/vocab.txt       an empty file: the commit does not have this file
//! ```

use std::fs::{self, File};
use std::io::{BufWriter, ErrorKind, Result};
use std::path::{Path, PathBuf};

use cloze_tensor::{create_folders, metadata, remove_all_abandoned, replace_with, retry};

use super::progress;

/// The cached files of one repository.
pub(super) struct Cache {
    /// The folder of the repository.
    pub(super) root: PathBuf,
    locks: PathBuf,
}

impl Cache {
    /// Returns the cache of the repository `name` in the folder `cache`.
    pub(super) fn of(cache: &Path, name: &str) -> Cache {
        let folder = format!("models--{}", name.replace('/', "--"));
        Cache { root: cache.join(&folder), locks: cache.join(".locks").join(&folder) }
    }

    /// Returns the commit of `revision` when the hub was last asked.
    pub(super) fn commit(&self, revision: &str) -> Option<String> {
        if is_commit(revision) {
            return Some(revision.to_string());
        }
        let stored = fs::read_to_string(self.reference(revision)).ok()?;
        Some(stored.trim().to_string()).filter(|commit| is_commit(commit))
    }

    fn reference(&self, revision: &str) -> PathBuf {
        self.root.join("refs").join(revision)
    }

    /// Records the commit of `revision`.
    pub(super) fn set_commit(&self, revision: &str, commit: &str) -> Result<()> {
        if self.commit(revision).as_deref() == Some(commit) {
            return Ok(());
        }
        let path = self.reference(revision);
        make_parent(&path)?;
        cloze_tensor::write_file_atomically(&path, commit.as_bytes())
    }

    /// Returns the folder with the files of a commit.
    pub(super) fn snapshot(&self, commit: &str) -> PathBuf {
        self.root.join("snapshots").join(commit)
    }

    /// Returns the path of a file of a commit, `Some(None)` if the commit is known not to have it, or `None` if the
    /// cache has no record of it.
    ///
    /// # Errors
    /// Returns an error if that cannot be found out.
    pub(super) fn find(&self, commit: &str, file: &str) -> Result<Option<Option<PathBuf>>> {
        let path = self.snapshot(commit).join(file);
        if is_file(&path)? {
            return Ok(Some(Some(path)));
        }
        Ok(is_file(&self.absence(commit, file))?.then_some(None))
    }

    fn absence(&self, commit: &str, file: &str) -> PathBuf {
        self.root.join(".no_exist").join(commit).join(file)
    }

    /// Records that a commit does not have a file.
    pub(super) fn set_missing(&self, commit: &str, file: &str) -> Result<()> {
        let path = self.absence(commit, file);
        make_parent(&path)?;
        File::create(path).map(drop)
    }

    /// Stores the `size` bytes that `write` writes as the blob `etag` and as the file of a commit. Does not call
    /// `write` if another commit has already stored the blob.
    pub(super) fn store(
        &self,
        commit: &str,
        file: &str,
        (etag, size): (&str, u64),
        write: impl FnOnce(&mut BufWriter<File>) -> Result<()>,
    ) -> Result<PathBuf> {
        let blob = self.root.join("blobs").join(etag);
        let pointer = self.snapshot(commit).join(file);
        make_parent(&blob)?;
        make_parent(&pointer)?;
        if metadata(&blob)?.is_none_or(|found| found.len() != size) {
            // Downloads of files that have changed since are never continued.
            blob.parent().map(remove_all_abandoned);
            replace_with(&blob, write)?;
        }
        if !is_file(&pointer)? {
            // A link to a deleted blob must be removed before it can be replaced.
            if pointer.is_symlink() {
                retry(|| fs::remove_file(&pointer))?;
            }
            let target = ["../".repeat(2 + file.matches('/').count()).as_str(), "blobs/", etag].concat();
            match retry(|| link(Path::new(&target), &blob, &pointer)) {
                // On a file system without locks, another process may have created the link.
                Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error),
                _ => {}
            }
        }
        Ok(pointer)
    }

    /// Locks a file until the result is dropped, so that other processes do not download it at the same time. This only
    /// saves work: on a file system without locks they all download it.
    pub(super) fn lock(&self, file: &str) -> Option<File> {
        let path = self.locks.join(format!("{file}.lock"));
        make_parent(&path).ok()?;
        let lock = File::create(path).ok()?;
        if lock.try_lock().is_err() {
            let waiting = progress::waiting(file);
            let locked = lock.lock();
            waiting.finish_and_clear();
            locked.ok()?;
        }
        Some(lock)
    }
}

/// Whether `text` is the full hash of a commit.
pub(super) fn is_commit(text: &str) -> bool {
    text.len() == 40 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

fn is_file(path: &Path) -> Result<bool> {
    Ok(metadata(path)?.is_some_and(|found| found.is_file()))
}

fn make_parent(path: &Path) -> Result<()> {
    path.parent().map_or(Ok(()), create_folders)
}

#[cfg(unix)]
fn link(target: &Path, _blob: &Path, pointer: &Path) -> Result<()> {
    std::os::unix::fs::symlink(target, pointer)
}

/// Moves the file into the snapshot, as `huggingface_hub` does where creating links requires a privilege.
#[cfg(not(unix))]
fn link(_target: &Path, blob: &Path, pointer: &Path) -> Result<()> {
    fs::rename(blob, pointer)
}
