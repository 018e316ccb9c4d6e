//! A folder that appears when it is complete.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use cloze_tensor::{claim_abandoned, create_claimed, create_folders, entries, exists, metadata, retry, sync_directory};

use crate::{Error, Result};

/// The prefixes of the names of a folder until it is complete, and while it is deleted.
const UNFINISHED: &str = ".unfinished-";
const DELETED: &str = ".deleted-";
/// The ending of the name of a file beside them, which exists before and after they do, and is claimed meanwhile.
const CLAIM: &str = ".lock";

/// Makes the folder `path` with the files that `write` writes. It has another name until all are complete and synced, so that
/// a failure, a full disk or a killed process leave nothing at `path`. What killed processes left is removed first. A folder
/// that is there already must be empty, unless it is to be replaced.
///
/// # Errors
/// Returns an error if `write` fails or the folder cannot be written. Nothing is left behind, and a folder that was there
/// already stays.
pub(in crate::corpus) fn write_folder<T>(
    path: &Path,
    replace: bool,
    write: impl FnOnce(&Path) -> Result<T>,
) -> Result<T> {
    let cannot = |error| Error::io(path, "cannot write", error);
    if path.file_name().is_none() {
        return Err(Error::data_in(path, "folder", "name a folder of its own"));
    }
    create_folders(parent(path)).map_err(cannot)?;
    remove_abandoned(path);
    let claimed = Claimed::new(path).map_err(cannot)?;
    let written = (|| {
        retry(|| fs::create_dir(&claimed.unfinished)).map_err(cannot)?;
        let made = write(&claimed.unfinished)?;
        sync(&claimed.unfinished).map_err(cannot)?;
        claimed.rename(path, replace).map_err(cannot)?;
        Ok(made)
    })();
    match written {
        Ok(made) => claimed.finish().map_err(cannot).map(|()| made),
        Err(error) => {
            // The first error is the one to report.
            let _ = claimed.clean(path);
            Err(error)
        }
    }
}

fn parent(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Syncs all files of a folder.
fn sync(folder: &Path) -> io::Result<()> {
    for entry in entries(folder)? {
        File::open(entry.path())?.sync_all()?;
    }
    sync_directory(folder)
}

/// The names of a folder before it is complete and while it is deleted, which belong to this process.
struct Claimed {
    unfinished: PathBuf,
    deleted: PathBuf,
    claim: PathBuf,
    _file: File,
}

impl Claimed {
    fn new(path: &Path) -> io::Result<Claimed> {
        static UNIQUE: AtomicU64 = AtomicU64::new(0);
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        loop {
            let number = UNIQUE.fetch_add(1, Ordering::Relaxed);
            let suffix = format!("{name}.{}.{number}", std::process::id());
            let claim = parent(path).join(format!("{UNFINISHED}{suffix}{CLAIM}"));
            match create_claimed(&claim) {
                Ok(Some(file)) => return Ok(Claimed::of(path, &suffix, file)),
                // In a container, another process can have the same id.
                Ok(None) => {}
                Err(error) => {
                    let _ = retry(|| fs::remove_file(&claim));
                    return Err(error);
                }
            }
        }
    }

    /// Returns the names that end in `suffix`, if their process has ended.
    fn abandoned(path: &Path, suffix: &str) -> Option<Claimed> {
        let claim = parent(path).join(format!("{UNFINISHED}{suffix}{CLAIM}"));
        let file = claim_abandoned(&claim).or_else(|| create_claimed(&claim).ok().flatten())?;
        Some(Claimed::of(path, suffix, file))
    }

    fn of(path: &Path, suffix: &str, file: File) -> Claimed {
        let [unfinished, deleted] = [UNFINISHED, DELETED].map(|prefix| parent(path).join(format!("{prefix}{suffix}")));
        let claim = unfinished.with_file_name(format!("{UNFINISHED}{suffix}{CLAIM}"));
        Claimed { unfinished, deleted, claim, _file: file }
    }

    /// Gives the complete folder its name.
    fn rename(&self, to: &Path, replace: bool) -> io::Result<()> {
        let there = metadata(to)?;
        if there.is_none() || !replace {
            if there.is_some_and(|there| there.is_dir()) {
                // Fails unless it is empty.
                retry(|| fs::remove_dir(to))?;
            }
            retry(|| fs::rename(&self.unfinished, to))?;
            return sync_directory(parent(to));
        }
        retry(|| fs::rename(to, &self.deleted))?;
        retry(|| fs::rename(&self.unfinished, to))?;
        sync_directory(parent(to))
    }

    /// Removes what has these names. If the folder `path` lost its name to one that never came, it gets it back.
    fn clean(self, path: &Path) -> io::Result<()> {
        remove_folder(&self.unfinished)?;
        if !exists(path)? && exists(&self.deleted)? {
            retry(|| fs::rename(&self.deleted, path))?;
        }
        self.finish()
    }

    /// Deletes what the complete folder has replaced.
    fn finish(self) -> io::Result<()> {
        remove_folder(&self.deleted)?;
        retry(|| fs::remove_file(&self.claim))
    }
}

/// Removes a folder, if it is there.
fn remove_folder(path: &Path) -> io::Result<()> {
    match retry(|| fs::remove_dir_all(path)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

/// Deletes a folder. Nobody sees a part of it under its name.
pub(in crate::corpus) fn delete_folder(path: &Path) -> io::Result<()> {
    let claimed = Claimed::new(path)?;
    // Under this name it is removed, and not restored, if this process is killed.
    retry(|| fs::rename(path, &claimed.unfinished))?;
    remove_folder(&claimed.unfinished)?;
    claimed.finish()
}

/// Removes what processes left that were killed while they wrote or deleted the folder `path`.
fn remove_abandoned(path: &Path) {
    let name = path.file_name().unwrap_or_default();
    remove_claimable(parent(path), |other| name == other);
}

/// Removes what processes left that were killed while they wrote or deleted a folder in `parent`.
pub(in crate::corpus) fn remove_all_abandoned(parent: &Path) {
    remove_claimable(parent, |_| true);
}

/// Removes what ended processes left of folders in `parent` whose names `are_ours`.
fn remove_claimable(parent: &Path, are_ours: impl Fn(&str) -> bool) {
    let is_number = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    for entry in entries(parent).unwrap_or_default() {
        let other = entry.file_name();
        let other = other.to_string_lossy();
        let Some(rest) = other.strip_prefix(UNFINISHED).or_else(|| other.strip_prefix(DELETED)) else { continue };
        let suffix = rest.strip_suffix(CLAIM).unwrap_or(rest);
        let mut parts = suffix.rsplitn(3, '.');
        let (Some(number), Some(process), Some(name)) = (parts.next(), parts.next(), parts.next()) else { continue };
        if !is_number(number) || !is_number(process) || !are_ours(name) {
            continue;
        }
        let path = parent.join(name);
        if let Some(claimed) = Claimed::abandoned(&path, suffix) {
            // What cannot be removed does no harm.
            let _ = claimed.clean(&path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let name = |entry: io::Result<fs::DirEntry>| entry.unwrap().file_name().to_string_lossy().into_owned();
        let mut names: Vec<String> = fs::read_dir(folder).unwrap().map(name).collect();
        names.sort();
        names
    }

    fn write(content: &'static str) -> impl FnOnce(&Path) -> Result<()> {
        move |folder| fs::write(folder.join("a"), content).map_err(|error| Error::io(folder, "cannot write", error))
    }

    #[test]
    fn a_folder_appears_whole_or_not_at_all() {
        let folder = tempfile::tempdir().unwrap();
        let made = folder.path().join("x/made");
        let fails = |folder: &Path| write("half")(folder).and_then(|()| Err::<(), _>(Error::data("corpus", "why")));
        assert_eq!(write_folder(&made, false, fails).unwrap_err().to_string(), "corpus: why");
        assert!(names(&folder.path().join("x")).is_empty());
        fs::create_dir(&made).unwrap();
        write_folder(&made, false, write("first")).unwrap();
        assert_eq!(names(&made), ["a"]);
        assert!(write_folder(&made, false, write("second")).unwrap_err().to_string().contains("made: cannot write"));
        assert!(write_folder(&made, true, fails).is_err());
        assert_eq!(fs::read_to_string(made.join("a")).unwrap(), "first");
        write_folder(&made, true, write("third")).unwrap();
        assert_eq!(fs::read_to_string(made.join("a")).unwrap(), "third");
        assert_eq!(names(&folder.path().join("x")), ["made"]);
        assert!(write_folder(Path::new(".."), false, write("")).unwrap_err().to_string().contains("of its own"));
    }

    #[test]
    fn what_killed_processes_left_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let make = |name: &str| fs::create_dir(folder.path().join(name)).unwrap();
        let claim = |name: &str| File::create(folder.path().join(name)).unwrap();
        // As a process of this id would have left it.
        let own = format!(".unfinished-a.{}.0", std::process::id());
        for name in [
            ".unfinished-a.1.0",
            ".deleted-a.1.0",
            ".unfinished-a.2.0",
            ".unfinished-b.1.0",
            ".unfinished-a.b.1.0",
            &own,
        ] {
            make(name);
        }
        for name in [".unfinished-a.1.0.lock", ".unfinished-a.3.0.lock", &format!("{own}.lock")] {
            claim(name);
        }
        let used = claim(".unfinished-a.2.0.lock");
        used.lock().unwrap();
        write_folder(&folder.path().join("a"), false, write("")).unwrap();
        let left = [".unfinished-a.2.0", ".unfinished-a.2.0.lock", ".unfinished-a.b.1.0", ".unfinished-b.1.0", "a"];
        assert_eq!(names(folder.path()), left);
    }

    #[test]
    fn what_is_left_of_any_folder_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        for name in [".unfinished-a.1.0", ".unfinished-a.b.1.0", ".deleted-c.1.0", ".unfinished-d"] {
            fs::create_dir(folder.path().join(name)).unwrap();
        }
        write_folder(&folder.path().join("c"), false, write("")).unwrap();
        remove_all_abandoned(folder.path());
        assert_eq!(names(folder.path()), [".unfinished-d", "c"]);
        delete_folder(&folder.path().join("c")).unwrap();
        assert_eq!(names(folder.path()), [".unfinished-d"]);
    }

    #[test]
    fn a_folder_that_lost_its_name_gets_it_back() {
        let folder = tempfile::tempdir().unwrap();
        let (made, deleted) = (folder.path().join("a"), folder.path().join(".deleted-a.1.0"));
        write_folder(&made, false, write("old")).unwrap();
        fs::rename(&made, &deleted).unwrap();
        let fails = |_: &Path| Err::<(), _>(Error::data("corpus", "why"));
        assert!(write_folder(&made, true, fails).is_err());
        assert_eq!(fs::read_to_string(made.join("a")).unwrap(), "old");
        assert_eq!(names(folder.path()), ["a"]);
    }
}
