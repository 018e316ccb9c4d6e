//! The cache of downloaded repositories, laid out as `huggingface_hub` has it, which finds what is stored here and the
//! other way round:
//!
//! ```text
//! models--owner--name/
//!     refs/main                        the commit that a revision stood for
//!     snapshots/COMMIT/config.json     a link to the blob
//!     blobs/ETAG                       the bytes, named by what the hub calls them
//!     .no_exist/COMMIT/vocab.txt       an empty file: the commit has no such file
//! ```

use std::fs::{self, File};
use std::io::{BufWriter, ErrorKind, Result};
use std::path::{Path, PathBuf};

use cloze_tensor::replace_with;

use super::progress;

/// What is cached of one repository.
pub(super) struct Cache {
    /// The folder of the repository.
    pub(super) root: PathBuf,
    locks: PathBuf,
}

impl Cache {
    /// That of the repository `name` in the folder `cache`.
    pub(super) fn of(cache: &Path, name: &str) -> Cache {
        let folder = format!("models--{}", name.replace('/', "--"));
        Cache { root: cache.join(&folder), locks: cache.join(".locks").join(&folder) }
    }

    /// The commit that `revision` stood for when last asked about.
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

    /// Notes the commit that `revision` stands for.
    pub(super) fn set_commit(&self, revision: &str, commit: &str) -> Result<()> {
        if self.commit(revision).as_deref() == Some(commit) {
            return Ok(());
        }
        let path = self.reference(revision);
        make_parent(&path)?;
        cloze_tensor::write_file_atomically(&path, commit.as_bytes())
    }

    /// The folder of the files of a commit.
    pub(super) fn snapshot(&self, commit: &str) -> PathBuf {
        self.root.join("snapshots").join(commit)
    }

    /// The file of a commit; `Some(None)` where the commit is known to have no such file, `None` where nothing is known.
    pub(super) fn find(&self, commit: &str, file: &str) -> Option<Option<PathBuf>> {
        let path = self.snapshot(commit).join(file);
        if path.is_file() {
            return Some(Some(path));
        }
        self.absence(commit, file).is_file().then_some(None)
    }

    fn absence(&self, commit: &str, file: &str) -> PathBuf {
        self.root.join(".no_exist").join(commit).join(file)
    }

    /// Notes that a commit has no such file.
    pub(super) fn set_missing(&self, commit: &str, file: &str) -> Result<()> {
        let path = self.absence(commit, file);
        make_parent(&path)?;
        File::create(path).map(drop)
    }

    /// Stores the `size` bytes that `write` writes as the blob `etag` and as the file of a commit. They are not asked
    /// for where they are there already, under another commit.
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
        if fs::metadata(&blob).map_or(true, |found| found.len() != size) {
            replace_with(&blob, write)?;
        }
        if !pointer.is_file() {
            // A link to a blob that is no more would be in the way.
            if pointer.is_symlink() {
                fs::remove_file(&pointer)?;
            }
            let target = ["../".repeat(2 + file.matches('/').count()).as_str(), "blobs/", etag].concat();
            match link(Path::new(&target), &blob, &pointer) {
                // Where there are no locks, another process may have been faster.
                Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error),
                _ => {}
            }
        }
        Ok(pointer)
    }

    /// Keeps other processes from downloading the file at the same time until it is dropped. Only saves work: on a file
    /// system without locks all of them download.
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

/// Whether this is the full hash of a commit.
pub(super) fn is_commit(text: &str) -> bool {
    text.len() == 40 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

fn make_parent(path: &Path) -> Result<()> {
    path.parent().map_or(Ok(()), fs::create_dir_all)
}

#[cfg(unix)]
fn link(target: &Path, _blob: &Path, pointer: &Path) -> Result<()> {
    std::os::unix::fs::symlink(target, pointer)
}

/// As `huggingface_hub` does where links take a privilege: the file moves to its place in the snapshot.
#[cfg(not(unix))]
fn link(_target: &Path, blob: &Path, pointer: &Path) -> Result<()> {
    fs::rename(blob, pointer)
}
