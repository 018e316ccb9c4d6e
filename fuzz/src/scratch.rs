//! A folder for APIs that take paths. `run.sh` puts it into memory.

use std::fs;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

/// A temporary folder.
pub struct Scratch(TempDir);

impl Scratch {
    /// Creates an empty folder.
    pub fn new() -> Scratch {
        Scratch(tempfile::tempdir().expect("a temporary folder can be made"))
    }

    /// Returns the path of the folder.
    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// Writes a file, and returns its path. Folders in its name are created.
    pub fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path().join(name);
        if fs::write(&path, &bytes).is_err() {
            fs::create_dir_all(path.parent().expect("a file is in a folder")).expect("a folder can be made");
            fs::write(&path, &bytes).expect("a temporary file can be written");
        }
        path
    }

    /// Removes a file, if it exists.
    pub fn remove(&self, name: &str) {
        let _ = fs::remove_file(self.path().join(name));
    }
}

impl Default for Scratch {
    fn default() -> Scratch {
        Scratch::new()
    }
}
