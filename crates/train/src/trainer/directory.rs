//! The run directory: checkpoints, the best parameters, and a lock.
//!
//! ```text
//! run/
//!   lock                     held while a run writes here
//!   checkpoint-00000500/     everything that the run depends on after step 500
//!     state.json
//!     state.safetensors
//!     optimizer-00001-of-00004.safetensors, ..   the optimizer's running means, if ranks share them
//!     best.safetensors       the best parameters until then, as a link to the file below where links are possible
//!     checksums.xxh128
//!   best.safetensors         the parameters of the best evaluation
//! ```
//!
//! A checkpoint is written under another name, synced and renamed, and renamed away before it is deleted, so one that exists is
//! complete. Checksums show damage by the disk.

use std::collections::BTreeMap;
use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use cloze_tensor::{create_folders, entries, exists, metadata, retry, sync_directory, try_lock};

use super::checksums;
use crate::{Error, Result};

const LOCK: &str = "lock";
const PREFIX: &str = "checkpoint-";
/// The prefixes of a checkpoint's name until it is complete, and while it is deleted.
const UNFINISHED: &str = ".unfinished-";
const DELETED: &str = ".deleted-";
const BEST: &str = "best.safetensors";

/// A checkpoint whose files are whole.
#[derive(Debug)]
pub(super) struct WholeCheckpoint {
    pub(super) step: u32,
    pub(super) folder: PathBuf,
    /// What is wrong with later checkpoints.
    pub(super) damages: Vec<Error>,
}

/// A run directory that is locked as long as this value lives.
pub(super) struct RunDirectory {
    path: PathBuf,
    _lock: File,
}

impl RunDirectory {
    /// Creates the directory if it is missing, locks it, and removes what a killed run left unfinished or half deleted.
    ///
    /// # Errors
    /// Returns an error if another run uses the directory or it cannot be written.
    pub(super) fn open(path: &Path) -> Result<RunDirectory> {
        create_folders(path).map_err(|error| Error::io(path, "cannot create the directory", error))?;
        let lock_path = path.join(LOCK);
        let cannot = |error| Error::io(&lock_path, "cannot lock", error);
        let lock = File::options().create(true).write(true).truncate(false).open(&lock_path).map_err(cannot)?;
        match try_lock(&lock) {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let why = "another run uses the directory: wait for it to end or choose another directory";
                return Err(Error::data_in(path, "run", why));
            }
            Err(TryLockError::Error(error)) => return Err(cannot(error)),
        }
        let directory = RunDirectory { path: path.to_path_buf(), _lock: lock };
        for entry in directory.entries()? {
            let name = entry.file_name().unwrap_or_default().to_string_lossy();
            if name.starts_with(UNFINISHED) || name.starts_with(DELETED) {
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

    /// Returns this path if there is a file.
    pub(super) fn existing_best(&self) -> Result<Option<PathBuf>> {
        let best = self.best();
        match exists(&best) {
            Ok(exists) => Ok(exists.then_some(best)),
            Err(error) => Err(Error::io(best, "cannot read", error)),
        }
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

    /// Returns the last checkpoint whose files are whole, if there are checkpoints.
    ///
    /// # Errors
    /// Returns an error if there are checkpoints and all of them are damaged.
    pub(super) fn last_whole_checkpoint(&self) -> Result<Option<WholeCheckpoint>> {
        let mut damages = Vec::new();
        for (step, folder) in self.checkpoints()?.into_iter().rev() {
            match checksums::check(&folder) {
                Ok(()) => return Ok(Some(WholeCheckpoint { step, folder, damages })),
                Err(damage) => damages.push(damage),
            }
        }
        match damages.into_iter().next() {
            Some(damage) => Err(damage.with_note("no earlier checkpoint is whole: start the run in another directory")),
            None => Ok(None),
        }
    }

    /// Returns the folder of the checkpoint after `step` in the run directory `path`, until it is complete.
    pub(super) fn unfinished(path: &Path, step: u32) -> PathBuf {
        path.join(format!("{UNFINISHED}{PREFIX}{step:08}"))
    }

    /// Adds the checkpoint after `step`, with the files that `write` writes and their checksums, and removes all but the last
    /// `keep`. `write` returns the checksums that it knows.
    ///
    /// # Errors
    /// Returns an error if a file cannot be written; the earlier checkpoints are then unchanged.
    pub(super) fn add(
        &self,
        step: u32,
        keep: usize,
        write: impl FnOnce(&Path) -> Result<BTreeMap<String, String>>,
    ) -> Result<PathBuf> {
        let unfinished = RunDirectory::unfinished(&self.path, step);
        let finished = self.path.join(format!("{PREFIX}{step:08}"));
        let written = (|| {
            retry(|| fs::create_dir(&unfinished))
                .map_err(|error| Error::io(&unfinished, "cannot create the directory", error))?;
            let sums = write(&unfinished)?;
            checksums::write(&unfinished, sums)?;
            sync(&unfinished)?;
            if exists(&finished).map_err(|error| Error::io(&finished, "cannot read", error))? {
                // The same step of the same run: the same content, or damaged.
                self.delete(&finished)?;
            }
            retry(|| fs::rename(&unfinished, &finished))
                .map_err(|error| Error::io(&finished, "cannot write", error))?;
            sync(&self.path)
        })();
        if let Err(error) = written {
            // The first error is the one to report.
            let _ = retry(|| fs::remove_dir_all(&unfinished));
            return Err(error);
        }
        self.keep_last(step, keep)?;
        Ok(finished)
    }

    /// Deletes the checkpoints until `step`, except the last `keep`, at least one. A run that resumes needs this, because the
    /// one before may have been killed between adding a checkpoint and deleting an old one.
    pub(super) fn keep_last(&self, step: u32, keep: usize) -> Result<()> {
        let mut checkpoints = self.checkpoints()?;
        checkpoints.retain(|(other, _)| *other <= step);
        for (_, old) in &checkpoints[..checkpoints.len().saturating_sub(keep.max(1))] {
            self.delete(old)?;
        }
        Ok(())
    }

    /// Deletes a checkpoint. It loses its name first, so that no part of it is taken for a checkpoint.
    fn delete(&self, checkpoint: &Path) -> Result<()> {
        let name = checkpoint.file_name().unwrap_or_default().to_string_lossy();
        let deleted = self.path.join(format!("{DELETED}{name}"));
        retry(|| fs::rename(checkpoint, &deleted)).map_err(|error| Error::io(checkpoint, "cannot rename", error))?;
        remove(&deleted)
    }

    /// Makes the best parameters of a checkpoint those of the run, or removes those of the run if the checkpoint has none.
    pub(super) fn restore_best(&self, checkpoint: &Path) -> Result<()> {
        let (stored, best) = (checkpoint.join(BEST), self.best());
        let temporary = self.path.join(format!("{UNFINISHED}{BEST}"));
        let restore = || {
            if !exists(&stored)? {
                return if exists(&best)? { retry(|| fs::remove_file(&best)) } else { Ok(()) };
            }
            link(&stored, &temporary)?;
            retry(|| fs::rename(&temporary, &best))?;
            // Renaming one link of a file to another leaves both.
            if exists(&temporary)? { retry(|| fs::remove_file(&temporary)) } else { Ok(()) }
        };
        restore().map_err(|error| {
            let _ = retry(|| fs::remove_file(&temporary));
            Error::io(&best, "cannot restore", error)
        })
    }

    /// Adds the best parameters of the run to the files of a checkpoint, if there are any.
    pub(super) fn add_best(&self, checkpoint: &Path) -> Result<()> {
        let Some(best) = self.existing_best()? else { return Ok(()) };
        let to = checkpoint.join(BEST);
        link(&best, &to).map_err(|error| Error::io(to, "cannot write", error))
    }

    fn entries(&self) -> Result<Vec<PathBuf>> {
        let entries = entries(&self.path).map_err(|error| Error::io(&self.path, "cannot read", error))?;
        Ok(entries.iter().map(fs::DirEntry::path).collect())
    }
}

fn remove(path: &Path) -> Result<()> {
    let removed = retry(|| match metadata(path)? {
        Some(found) if found.is_dir() => fs::remove_dir_all(path),
        Some(_) => fs::remove_file(path),
        None => Ok(()),
    });
    removed.map_err(|error| Error::io(path, "cannot remove", error))
}

fn sync(directory: &Path) -> Result<()> {
    sync_directory(directory).map_err(|error| Error::io(directory, "cannot sync", error))
}

/// Links a file to a second name, which takes no space. Where links are not possible, the file is copied.
fn link(from: &Path, to: &Path) -> io::Result<()> {
    retry(|| fs::hard_link(from, to)).or_else(|_| {
        retry(|| fs::copy(from, to))?;
        File::open(to)?.sync_all()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(folder: &Path) -> Result<BTreeMap<String, String>> {
        fs::write(folder.join("state.json"), "{}").map_err(|error| Error::io(folder, "cannot write", error))?;
        Ok(BTreeMap::new())
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
    fn what_a_killed_run_had_yet_to_delete_is_deleted() {
        let folder = tempfile::tempdir().unwrap();
        let directory = RunDirectory::open(folder.path()).unwrap();
        for step in [1, 2, 3, 4] {
            directory.add(step, 9, write).unwrap();
        }
        // A later checkpoint than the one to resume from is damaged, and does not count.
        directory.keep_last(3, 2).unwrap();
        assert_eq!(steps(&directory), [2, 3, 4]);
    }

    #[test]
    fn any_flipped_bit_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let directory = RunDirectory::open(folder.path()).unwrap();
        fs::write(directory.best(), [3; 500]).unwrap();
        for step in [1, 2] {
            directory.add(step, 2, |path| directory.add_best(path).and_then(|()| write(path))).unwrap();
        }
        let folder = folder.path().join("checkpoint-00000002");
        let mut flips = 0;
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let whole = fs::read(&path).unwrap();
            // Not the linked file itself, which the other checkpoint has too.
            fs::remove_file(&path).unwrap();
            for bit in 0..8 * whole.len() {
                let mut bytes = whole.clone();
                bytes[bit / 8] ^= 1 << (bit % 8);
                fs::write(&path, &bytes).unwrap();
                let WholeCheckpoint { step, damages, .. } = directory.last_whole_checkpoint().unwrap().unwrap();
                assert_eq!((step, damages.len()), (1, 1), "bit {bit} of {}", path.display());
                assert!(damages[0].to_string().contains("checkpoint-00000002"), "{}", damages[0]);
                flips += 1;
            }
            fs::write(&path, &whole[1..]).unwrap();
            assert_eq!(directory.last_whole_checkpoint().unwrap().unwrap().step, 1);
            fs::remove_file(&path).unwrap();
            assert_eq!(directory.last_whole_checkpoint().unwrap().unwrap().step, 1);
            fs::write(&path, &whole).unwrap();
            assert_eq!(directory.last_whole_checkpoint().unwrap().unwrap().step, 2);
        }
        assert!(flips > 4000, "{flips}");
    }

    #[test]
    fn without_a_whole_checkpoint_there_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let directory = RunDirectory::open(folder.path()).unwrap();
        assert!(directory.last_whole_checkpoint().unwrap().is_none());
        directory.add(1, 2, write).unwrap();
        fs::write(folder.path().join("checkpoint-00000001/state.json"), "{ }").unwrap();
        let error = directory.last_whole_checkpoint().unwrap_err().to_string();
        assert!(error.contains("state.json: checkpoint: is damaged: its checksum is "), "{error}");
        assert!(error.ends_with("no earlier checkpoint is whole: start the run in another directory"), "{error}");
    }

    #[test]
    fn the_best_parameters_return_with_a_checkpoint() {
        let folder = tempfile::tempdir().unwrap();
        let directory = RunDirectory::open(folder.path()).unwrap();
        let checkpoint = |step| directory.add(step, 3, |path| directory.add_best(path).and_then(|()| write(path)));
        let first = checkpoint(1).unwrap();
        cloze_tensor::write_file_atomically(directory.best(), b"better").unwrap();
        let second = checkpoint(2).unwrap();
        cloze_tensor::write_file_atomically(directory.best(), b"best").unwrap();
        for _ in 0..2 {
            directory.restore_best(&second).unwrap();
            assert_eq!(fs::read(directory.best()).unwrap(), b"better");
        }
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 4, "the lock, two checkpoints and the best");
        directory.restore_best(&first).unwrap();
        assert!(!directory.best().exists());
    }

    #[test]
    fn one_that_fails_leaves_what_was() {
        let folder = tempfile::tempdir().unwrap();
        let directory = RunDirectory::open(folder.path()).unwrap();
        directory.add(1, 1, write).unwrap();
        let full = |path: &Path| Err(Error::io(path, "cannot write", io::Error::from(io::ErrorKind::StorageFull)));
        let error = directory.add(2, 1, |path| write(path).and_then(|_| full(path))).unwrap_err().to_string();
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
        fs::create_dir(folder.path().join(".deleted-checkpoint-00000005")).unwrap();
        drop(directory);
        RunDirectory::open(folder.path()).unwrap();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
