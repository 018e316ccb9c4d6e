//! A folder that appears when it is complete.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use cloze_tensor::{retry, sync_directory};

use crate::{Error, Result};

/// The prefixes of the names of a folder until it is complete, and while it is deleted.
const UNFINISHED: &str = ".unfinished-";
const DELETED: &str = ".deleted-";
/// A file that is locked while a folder is written.
const LOCK: &str = "lock";
/// Younger folders are kept even if they are not locked: they may have been created but not locked yet.
const MIN_AGE: Duration = Duration::from_secs(60);

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
    static UNIQUE: AtomicU64 = AtomicU64::new(0);
    let cannot = |error| Error::io(path, "cannot write", error);
    let name = path.file_name().ok_or_else(|| Error::data_in(path, "folder", "name a folder of its own"))?;
    let (name, parent) = (name.to_string_lossy(), parent(path));
    fs::create_dir_all(parent).map_err(cannot)?;
    remove_abandoned(parent, &name);
    let suffix = format!("{name}.{}.{}", std::process::id(), UNIQUE.fetch_add(1, Ordering::Relaxed));
    let unfinished = parent.join(format!("{UNFINISHED}{suffix}"));
    let lock = unfinished.join(LOCK);
    let written = (|| {
        retry(|| fs::create_dir(&unfinished)).map_err(cannot)?;
        let locked = File::create_new(&lock).map_err(cannot)?;
        // Not every file system supports locks, so errors are ignored.
        let _ = locked.try_lock();
        let made = write(&unfinished)?;
        drop(locked);
        fs::remove_file(&lock).map_err(cannot)?;
        sync(&unfinished).map_err(cannot)?;
        rename(&unfinished, path, replace, &parent.join(format!("{DELETED}{suffix}"))).map_err(cannot)?;
        Ok(made)
    })();
    if written.is_err() {
        // The first error is the one to report.
        let _ = fs::remove_dir_all(&unfinished);
    }
    written
}

fn parent(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Syncs all files of a folder.
fn sync(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        File::open(entry?.path())?.sync_all()?;
    }
    sync_directory(folder)
}

/// Gives a complete folder its name.
fn rename(from: &Path, to: &Path, replace: bool, deleted: &Path) -> io::Result<()> {
    if !to.exists() || !replace {
        if to.is_dir() {
            // Fails unless it is empty.
            fs::remove_dir(to)?;
        }
        retry(|| fs::rename(from, to))?;
        return sync_directory(parent(to));
    }
    retry(|| fs::rename(to, deleted))?;
    if let Err(error) = retry(|| fs::rename(from, to)) {
        fs::rename(deleted, to)?;
        return Err(error);
    }
    sync_directory(parent(to))?;
    retry(|| fs::remove_dir_all(deleted))
}

/// Deletes a folder, which is there as a whole or not at all.
pub(in crate::corpus) fn delete_folder(path: &Path) -> io::Result<()> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let deleted = parent(path).join(format!("{DELETED}{name}.{}.deleted", std::process::id()));
    retry(|| fs::rename(path, &deleted))?;
    retry(|| fs::remove_dir_all(&deleted))
}

/// Removes what processes left that were killed while they wrote or deleted a folder of this name, or any if `name` is empty.
pub(in crate::corpus) fn remove_abandoned(parent: &Path, name: &str) {
    let Ok(entries) = fs::read_dir(parent) else { return };
    let end = if name.is_empty() { "" } else { "." };
    let prefixes = [UNFINISHED, DELETED].map(|prefix| format!("{prefix}{name}{end}"));
    for entry in entries.flatten() {
        let (other, path): (_, PathBuf) = (entry.file_name(), entry.path());
        let other = other.to_string_lossy();
        let is_ours = prefixes.iter().any(|prefix| other.starts_with(prefix));
        let age = entry.metadata().and_then(|data| data.modified()).ok().and_then(|time| time.elapsed().ok());
        let is_in_use = File::open(path.join(LOCK)).is_ok_and(|file| file.try_lock().is_err());
        if is_ours && age.is_some_and(|age| age > MIN_AGE) && !is_in_use {
            // A folder that cannot be removed does no harm.
            let _ = fs::remove_dir_all(&path);
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

    #[cfg(unix)]
    #[test]
    fn what_killed_processes_left_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let old = std::time::SystemTime::now() - Duration::from_secs(3600);
        for name in
            [".unfinished-a.1.0", ".deleted-a.1.0", ".unfinished-a.2.0", ".unfinished-b.1.0", ".unfinished-a.3.0"]
        {
            let path = folder.path().join(name);
            fs::create_dir(&path).unwrap();
            File::create(path.join(LOCK)).unwrap();
            if name != ".unfinished-a.3.0" {
                File::open(&path).unwrap().set_modified(old).unwrap();
            }
        }
        let used = File::open(folder.path().join(".unfinished-a.2.0").join(LOCK)).unwrap();
        used.lock().unwrap();
        write_folder(&folder.path().join("a"), false, write("")).unwrap();
        assert_eq!(names(folder.path()), [".unfinished-a.2.0", ".unfinished-a.3.0", ".unfinished-b.1.0", "a"]);
    }
}
