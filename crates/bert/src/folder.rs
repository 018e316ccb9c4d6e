//! Where the files of a model are. Everything that opens a model asks a [`Folder`] for its files by name.

use std::io::ErrorKind;
use std::path::{Component, Path, PathBuf};

use crate::{Error, Result};

/// The place of a model's files: a folder as `transformers` writes it.
#[derive(Clone, Debug)]
pub(crate) struct Folder(PathBuf);

impl Folder {
    /// The folder `place`.
    ///
    /// # Errors
    /// When it is not there.
    pub(crate) fn at(place: &Path) -> Result<Folder> {
        if place.is_dir() {
            return Ok(Folder(place.to_path_buf()));
        }
        let reason = if place.exists() { "not a folder" } else { "no such folder" };
        let kind = if place.exists() { ErrorKind::NotADirectory } else { ErrorKind::NotFound };
        Err(Error::io(place, "cannot read", std::io::Error::new(kind, reason)))
    }

    /// The file `name`, if there is one.
    ///
    /// # Errors
    /// None for a folder on disk.
    pub(crate) fn find(&self, name: &str) -> Result<Option<PathBuf>> {
        let path = self.0.join(name);
        Ok(path.is_file().then_some(path))
    }

    /// The file `name`, which must be there.
    ///
    /// # Errors
    /// When it is not.
    pub(crate) fn get(&self, name: &str) -> Result<PathBuf> {
        let missing = || std::io::Error::new(ErrorKind::NotFound, "no such file");
        self.find(name)?.ok_or_else(|| Error::io(self.0.join(name), "cannot read", missing()))
    }

    /// The folder `name` inside this one; itself for an empty name. `name` may come from a file.
    ///
    /// # Errors
    /// When `name` leads out of this folder.
    pub(crate) fn inside(&self, name: &str) -> Result<Folder> {
        let name = Path::new(name.trim_end_matches('/'));
        match name.components().all(|component| matches!(component, Component::Normal(_))) {
            true => Ok(Folder(self.0.join(name))),
            false => Err(Error::format(&self.0, format!("{} is no folder inside it", name.display()))),
        }
    }

    /// The folder, for messages.
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}
