//! The location of a model's files. Whatever opens a model asks a [`Folder`] for its files by name.

#[cfg(feature = "hub")]
mod hub;
mod name;

use std::io::ErrorKind;
use std::path::{Component, Path, PathBuf};

use cloze_tensor::metadata;

use crate::{Error, Result};

/// The location of a model's files: a folder on disk or, with the feature `hub`, a repository of the Hugging Face hub,
/// whose files are downloaded when they are first needed.
#[derive(Clone)]
pub(crate) struct Folder {
    path: PathBuf,
    /// A note for the error about a missing file.
    note: String,
    #[cfg(feature = "hub")]
    repository: Option<hub::Subfolder>,
}

impl Folder {
    /// Opens the folder `place` or, if it does not exist, the repository of this name.
    ///
    /// # Errors
    /// Returns an error if `place` is neither, or if the network must not be used (`HF_HUB_OFFLINE` or `TRANSFORMERS_OFFLINE`) and the repository
    /// is not in the cache.
    pub(crate) fn at(place: &Path) -> Result<Folder> {
        // The name of a model says nothing about the disk that failed, the path of the folder that was looked for does.
        let absolute = || std::path::absolute(place).unwrap_or_else(|_| place.to_path_buf());
        match metadata(place).map_err(|error| Error::io(absolute(), "cannot read", error))? {
            Some(found) if found.is_dir() => return Ok(Folder::on_disk(place, "")),
            Some(_) => {
                let error = std::io::Error::new(ErrorKind::NotADirectory, "not a folder");
                return Err(Error::io(place, "cannot read", error));
            }
            None => {}
        }
        match name::parse(place) {
            Some((name, revision)) => Folder::named(place, name, revision),
            None => Err(Error::io(place, "cannot read", std::io::Error::new(ErrorKind::NotFound, "no such folder"))),
        }
    }

    fn on_disk(path: &Path, note: impl Into<String>) -> Folder {
        Folder {
            path: path.to_path_buf(),
            note: note.into(),
            #[cfg(feature = "hub")]
            repository: None,
        }
    }

    #[cfg(feature = "hub")]
    fn named(place: &Path, name: &str, revision: &str) -> Result<Folder> {
        hub::open(place, name, revision)
    }

    #[cfg(not(feature = "hub"))]
    fn named(place: &Path, _name: &str, _revision: &str) -> Result<Folder> {
        let reason = "no such folder; enable the cargo feature \"hub\" to download models by name";
        Err(Error::io(place, "cannot read", std::io::Error::new(ErrorKind::NotFound, reason)))
    }

    /// Returns whether this is a folder on disk, so that no file is downloaded.
    pub(crate) fn is_on_disk(&self) -> bool {
        #[cfg(feature = "hub")]
        let on_disk = self.repository.is_none();
        #[cfg(not(feature = "hub"))]
        let on_disk = true;
        on_disk
    }

    /// Returns the path of the file `name`, or `None` if it does not exist.
    ///
    /// # Errors
    /// Returns an error if that cannot be found out, or if the file of a repository is not in the cache and cannot be downloaded.
    pub(crate) fn find(&self, name: &str) -> Result<Option<PathBuf>> {
        #[cfg(feature = "hub")]
        if let Some(repository) = &self.repository {
            return repository.find(name);
        }
        let path = self.path.join(name);
        let found = metadata(&path).map_err(|error| Error::io(&path, "cannot read", error))?;
        Ok(found.is_some_and(|found| found.is_file()).then_some(path))
    }

    /// Returns the path of the file `name`.
    ///
    /// # Errors
    /// Returns an error if the file does not exist, or cannot be downloaded.
    pub(crate) fn get(&self, name: &str) -> Result<PathBuf> {
        let missing = || std::io::Error::new(ErrorKind::NotFound, format!("no such file{}", self.note));
        self.find(name)?.ok_or_else(|| Error::io(self.path.join(name), "cannot read", missing()))
    }

    /// Returns an error about missing files. `lacks` says which files would do.
    pub(crate) fn lacking(&self, lacks: &str) -> Error {
        Error::format(&self.path, format!("{lacks}{}", self.note))
    }

    /// Returns the folder `name` inside this one, or this folder if the name is empty. `name` may come from an
    /// untrusted file.
    ///
    /// # Errors
    /// Returns an error if `name` leads out of this folder.
    pub(crate) fn inside(&self, name: &str) -> Result<Folder> {
        let name = name.trim_end_matches('/');
        let is_inside = Path::new(name).components().all(|component| matches!(component, Component::Normal(_)));
        // On Windows, the two others can lead out as well.
        if !is_inside || name.contains(['\\', ':', '\0']) {
            return Err(Error::format(&self.path, format!("{} is not a folder inside it", name.escape_debug())));
        }
        Ok(Folder {
            path: self.path.join(name),
            #[cfg(feature = "hub")]
            repository: self.repository.as_ref().map(|repository| repository.inside(name)),
            ..self.clone()
        })
    }

    /// Returns the folder's path, for messages.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_do_not_lead_out_of_a_folder() {
        let folder = Folder::on_disk(Path::new("model"), "");
        for (name, path) in [("", "model/"), ("1_Pooling", "model/1_Pooling"), ("a/b/", "model/a/b")] {
            assert_eq!(folder.inside(name).ok().map(|inside| inside.path), Some(PathBuf::from(path)));
        }
        for name in ["..", "../x", "a/../../x", "/etc", "./x", "..\\x", "c:x", "c:\\x", "a\0b"] {
            let said = folder.inside(name).err().map(|error| error.to_string());
            assert_eq!(said, Some(format!("model: {} is not a folder inside it", name.escape_debug())), "{name}");
        }
    }

    #[test]
    fn places_that_are_not_folders_are_errors() {
        let refused = |place: &str| Folder::at(Path::new(place)).err().map(|error| error.to_string());
        assert_eq!(refused("Cargo.toml").unwrap(), "Cargo.toml: cannot read: not a folder");
        assert_eq!(refused("./missing").unwrap(), "./missing: cannot read: no such folder");
        #[cfg(not(feature = "hub"))]
        for name in ["bert-base-uncased", "owner/name@v1"] {
            let reason = "no such folder; enable the cargo feature \"hub\" to download models by name";
            assert_eq!(refused(name).unwrap(), format!("{name}: cannot read: {reason}"));
        }
    }
}
