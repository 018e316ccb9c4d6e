//! Where the files of a model are. Everything that opens a model asks a [`Folder`] for its files by name.

#[cfg(feature = "hub")]
mod hub;
mod name;

use std::io::ErrorKind;
use std::path::{Component, Path, PathBuf};

use crate::{Error, Result};

/// The place of a model's files: a folder as `transformers` writes it or, with the feature `hub`, a repository of the
/// Hugging Face hub, whose files are downloaded when they are asked for.
#[derive(Clone)]
pub(crate) struct Folder {
    path: PathBuf,
    /// What else is said where a file is not there.
    note: String,
    #[cfg(feature = "hub")]
    repository: Option<hub::Subfolder>,
}

impl Folder {
    /// The folder `place` or, where there is none, the repository of this name.
    ///
    /// # Errors
    /// When it is neither; when the hub is not to be asked (`HF_HUB_OFFLINE`) and nothing of the repository is in the
    /// cache.
    pub(crate) fn at(place: &Path) -> Result<Folder> {
        if place.is_dir() {
            return Ok(Folder::on_disk(place, ""));
        }
        if place.exists() {
            let error = std::io::Error::new(ErrorKind::NotADirectory, "not a folder");
            return Err(Error::io(place, "cannot read", error));
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
        let reason = "no such folder; with the cargo feature \"hub\" cloze downloads models by name";
        Err(Error::io(place, "cannot read", std::io::Error::new(ErrorKind::NotFound, reason)))
    }

    /// The file `name`, if there is one.
    ///
    /// # Errors
    /// None for a folder on disk. For a repository, when the file can be neither found in the cache nor downloaded.
    pub(crate) fn find(&self, name: &str) -> Result<Option<PathBuf>> {
        #[cfg(feature = "hub")]
        if let Some(repository) = &self.repository {
            return repository.find(name);
        }
        let path = self.path.join(name);
        Ok(path.is_file().then_some(path))
    }

    /// The file `name`, which must be there.
    ///
    /// # Errors
    /// When it is not.
    pub(crate) fn get(&self, name: &str) -> Result<PathBuf> {
        let missing = || std::io::Error::new(ErrorKind::NotFound, format!("no such file{}", self.note));
        self.find(name)?.ok_or_else(|| Error::io(self.path.join(name), "cannot read", missing()))
    }

    /// That it `lacks` files, each of which would do.
    pub(crate) fn lacking(&self, lacks: &str) -> Error {
        Error::format(&self.path, format!("{lacks}{}", self.note))
    }

    /// The folder `name` inside this one; itself for an empty name. `name` may come from a file.
    ///
    /// # Errors
    /// When `name` leads out of this folder.
    pub(crate) fn inside(&self, name: &str) -> Result<Folder> {
        let name = name.trim_end_matches('/');
        if !Path::new(name).components().all(|component| matches!(component, Component::Normal(_))) {
            return Err(Error::format(&self.path, format!("{name} is no folder inside it")));
        }
        Ok(Folder {
            path: self.path.join(name),
            #[cfg(feature = "hub")]
            repository: self.repository.as_ref().map(|repository| repository.inside(name)),
            ..self.clone()
        })
    }

    /// The folder, for messages.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_folder() {
        let refused = |place: &str| Folder::at(Path::new(place)).err().map(|error| error.to_string());
        assert_eq!(refused("Cargo.toml").unwrap(), "Cargo.toml: cannot read: not a folder");
        assert_eq!(refused("./missing").unwrap(), "./missing: cannot read: no such folder");
        #[cfg(not(feature = "hub"))]
        for name in ["bert-base-uncased", "owner/name@v1"] {
            let reason = "no such folder; with the cargo feature \"hub\" cloze downloads models by name";
            assert_eq!(refused(name).unwrap(), format!("{name}: cannot read: {reason}"));
        }
    }
}
