//! The run directory: checkpoints, the best parameters, and a lock.
//!
//! ```text
//! run/
//!   lock                     held while a run writes here
//!   checkpoint-00000500/     everything that the run depends on after step 500
//!     state.json
//!     state.safetensors
//!   best.safetensors         the parameters of the best evaluation
//! ```
//!
//! A checkpoint is written under another name, synced and renamed, so an existing checkpoint is always complete.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use crate::{Error, Result};

const LOCK: &str = "lock";
const PREFIX: &str = "checkpoint-";
/// The prefix of a checkpoint's name until it is complete.
const UNFINISHED: &str = ".unfinished-";
const BEST: &str = "best.safetensors";

/// A run directory that is locked as long as this value lives.
pub(super) struct RunDirectory {
    path: PathBuf,
    _lock: File,
}

impl RunDirectory {
    /// Creates the directory if it is missing, locks it, and removes the unfinished checkpoint of a killed run.
    ///
    /// # Errors
    /// Returns an error if another run uses the directory or it cannot be written.
    pub(super) fn open(path: &Path) -> Result<RunDirectory> {
        fs::create_dir_all(path).map_err(|error| Error::io(path, "cannot create the directory", error))?;
        let lock_path = path.join(LOCK);
        let cannot = |error| Error::io(&lock_path, "cannot lock", error);
        let lock = File::options().create(true).write(true).truncate(false).open(&lock_path).map_err(cannot)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let why = "another run uses the directory: wait for it to end or choose another directory";
                return Err(Error::data_in(path, "run", why));
            }
            Err(TryLockError::Error(error)) => return Err(cannot(error)),
        }
        let directory = RunDirectory { path: path.to_path_buf(), _lock: lock };
        for entry in directory.entries()? {
            if entry.file_name().is_some_and(|name| name.to_string_lossy().starts_with(UNFINISHED)) {
                remove(&entry)?;
            }
        }
        Ok(directory)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the path of the parameters of the best evaluation.
    pub(super) fn best(&self) -> PathBuf {
        self.path.join(BEST)
    }

    /// Returns the step and the folder of each checkpoint, the earliest first.
    pub(super) fn checkpoints(&self) -> Result<Vec<(u32, PathBuf)>> {
        let step = |path: &PathBuf| path.file_name()?.to_str()?.strip_prefix(PREFIX)?.parse::<u32>().ok();
        let mut checkpoints: Vec<(u32, PathBuf)> =
            self.entries()?.into_iter().filter_map(|path| Some((step(&path)?, path))).collect();
        checkpoints.sort();
        Ok(checkpoints)
    }

    /// Returns the step and the folder of the last checkpoint.
    pub(super) fn last_checkpoint(&self) -> Result<Option<(u32, PathBuf)>> {
        Ok(self.checkpoints()?.pop())
    }

    /// Adds the checkpoint after `step`, with the files that `write` writes, and removes all but the last `keep`.
    ///
    /// # Errors
    /// Returns an error if a file cannot be written; the earlier checkpoints are then unchanged.
    pub(super) fn add(&self, step: u32, keep: usize, write: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
        let name = format!("{PREFIX}{step:08}");
        let (unfinished, finished) = (self.path.join(format!("{UNFINISHED}{name}")), self.path.join(&name));
        let written = (|| {
            fs::create_dir(&unfinished)
                .map_err(|error| Error::io(&unfinished, "cannot create the directory", error))?;
            write(&unfinished)?;
            sync(&unfinished)?;
            if finished.exists() {
                // The same step of the same run, hence the same content.
                remove(&finished)?;
            }
            fs::rename(&unfinished, &finished).map_err(|error| Error::io(&finished, "cannot write", error))?;
            sync(&self.path)
        })();
        if let Err(error) = written {
            // The first error is the one to report.
            let _ = fs::remove_dir_all(&unfinished);
            return Err(error);
        }
        let checkpoints = self.checkpoints()?;
        for (_, old) in &checkpoints[..checkpoints.len().saturating_sub(keep.max(1))] {
            remove(old)?;
        }
        Ok(finished)
    }

    fn entries(&self) -> Result<Vec<PathBuf>> {
        let read = || fs::read_dir(&self.path)?.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>();
        read().map_err(|error| Error::io(&self.path, "cannot read", error))
    }
}

fn remove(path: &Path) -> Result<()> {
    let removed = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    removed.map_err(|error| Error::io(path, "cannot remove", error))
}

/// Syncs the entries of a directory to the disk. Some systems cannot sync a directory and do not need to.
fn sync(directory: &Path) -> Result<()> {
    match File::open(directory).and_then(|opened| opened.sync_all()) {
        Err(error) if cfg!(unix) => Err(Error::io(directory, "cannot sync", error)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(folder: &Path) -> Result<()> {
        fs::write(folder.join("state.json"), "{}").map_err(|error| Error::io(folder, "cannot write", error))
    }

    fn steps(directory: &RunDirectory) -> Vec<u32> {
        directory.checkpoints().unwrap().into_iter().map(|(step, _)| step).collect()
    }

    #[test]
    fn the_last_are_kept() {
        let folder = tempfile::tempdir().unwrap();
        let directory = RunDirectory::open(&folder.path().join("a/b")).unwrap();
        for step in [5, 10, 100, 1_000_000_000] {
            directory.add(step, 2, write).unwrap();
        }
        assert_eq!(steps(&directory), [100, 1_000_000_000]);
        directory.add(1_000_000_000, 0, write).unwrap();
        assert_eq!(steps(&directory), [1_000_000_000]);
    }

    #[test]
    fn one_that_fails_leaves_what_was() {
        let folder = tempfile::tempdir().unwrap();
        let directory = RunDirectory::open(folder.path()).unwrap();
        directory.add(1, 1, write).unwrap();
        let full = |path: &Path| Err(Error::io(path, "cannot write", io::Error::from(io::ErrorKind::StorageFull)));
        let error = directory.add(2, 1, |path| write(path).and_then(|()| full(path))).unwrap_err().to_string();
        assert!(error.contains("cannot write"), "{error}");
        assert_eq!(steps(&directory), [1]);
        let left = fs::read_dir(folder.path()).unwrap().count();
        assert_eq!(left, 2, "the lock and the checkpoint");
    }

    #[test]
    fn one_run_at_a_time_and_no_leftovers() {
        let folder = tempfile::tempdir().unwrap();
        let directory = RunDirectory::open(folder.path()).unwrap();
        let error = RunDirectory::open(folder.path()).err().unwrap().to_string();
        assert!(error.contains("another run uses the directory"), "{error}");
        fs::create_dir(folder.path().join(".unfinished-checkpoint-00000007")).unwrap();
        drop(directory);
        RunDirectory::open(folder.path()).unwrap();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
