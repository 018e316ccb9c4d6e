//! Repositories of the Hugging Face hub, downloaded file by file into the cache that `huggingface_hub` uses.

mod cache;
mod client;
mod environment;
mod progress;

use std::io::ErrorKind;
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, OnceLock};

use cache::Cache;
use client::{Answer, Client, without_credentials};
use environment::Environment;

use super::Folder;
use crate::{Error, Result};

/// A folder in a repository.
#[derive(Clone)]
pub(super) struct Subfolder {
    repository: Arc<Repository>,
    /// The prefix of the names of its files.
    prefix: String,
}

impl Subfolder {
    /// Returns the path of a file, downloading it if it is not in the cache, or `None` if the repository does not have
    /// it.
    ///
    /// # Errors
    /// Returns an error if the file cannot be downloaded or stored.
    pub(super) fn find(&self, file: &str) -> Result<Option<PathBuf>> {
        self.repository.find(&format!("{}{file}", self.prefix))
    }

    /// Returns the folder `name` inside this one.
    pub(super) fn inside(&self, name: &str) -> Subfolder {
        let slash = if name.is_empty() { "" } else { "/" };
        Subfolder { repository: self.repository.clone(), prefix: format!("{}{name}{slash}", self.prefix) }
    }
}

/// A repository at one commit. Files in the cache are not requested again.
struct Repository {
    /// The name that the user gave, for messages.
    place: PathBuf,
    name: String,
    revision: String,
    /// The commit of the revision, from the cache or from the first answer of the hub. All files come from this commit,
    /// even if the repository changes meanwhile.
    commit: OnceLock<String>,
    cache: Cache,
    client: Client,
}

/// Opens the repository `name` at `revision`. `place` is the name that the user gave.
///
/// # Errors
/// Returns an error if the network must not be used and the repository is not in the cache.
pub(super) fn open(place: &Path, name: &str, revision: &str) -> Result<Folder> {
    let environment = Environment::read();
    let cache = Cache::of(&environment.cache, name);
    if let Some(variable) = environment.offline {
        let snapshot = cache.commit(revision).map(|commit| cache.snapshot(&commit)).filter(|folder| folder.is_dir());
        return match snapshot {
            Some(folder) => Ok(Folder::on_disk(&folder, format!("; {variable} is set, so nothing is downloaded"))),
            None => {
                let cache = environment.cache.display();
                let reason = format!("no such folder; {variable} is set, and {name} is not in the cache ({cache})");
                Err(Error::io(place, "cannot download", std::io::Error::new(ErrorKind::NotFound, reason)))
            }
        };
    }
    let client = Client::new(&environment.endpoint, environment.token, environment.patience);
    let mut folder =
        Folder::on_disk(place, format!(" at {}: check the name", without_credentials(&environment.endpoint)));
    let repository = Repository {
        place: place.to_path_buf(),
        name: name.to_string(),
        revision: revision.to_string(),
        commit: OnceLock::new(),
        cache,
        client,
    };
    folder.repository = Some(Subfolder { repository: Arc::new(repository), prefix: String::new() });
    Ok(folder)
}

impl Repository {
    fn find(&self, file: &str) -> Result<Option<PathBuf>> {
        if !Path::new(file).components().all(|part| matches!(part, Component::Normal(_))) {
            let reason = format!("{file:?} is not a file within a repository");
            return Err(self.error(std::io::Error::new(ErrorKind::InvalidInput, reason)));
        }
        if let Some(known) = self.known(file)? {
            return Ok(known);
        }
        let _lock = self.cache.lock(file);
        if let Some(known) = self.known(file)? {
            return Ok(known);
        }
        self.download(file).map_err(|error| self.error(error))
    }

    fn known(&self, file: &str) -> Result<Option<Option<PathBuf>>> {
        let Some(commit) = self.commit() else { return Ok(None) };
        self.cache.find(commit, file).map_err(|error| Error::io(&self.cache.root, "cannot read", error))
    }

    fn commit(&self) -> Option<&str> {
        if let Some(commit) = self.commit.get() {
            return Some(commit);
        }
        let commit = self.cache.commit(&self.revision)?;
        Some(self.commit.get_or_init(|| commit))
    }

    fn download(&self, file: &str) -> std::io::Result<Option<PathBuf>> {
        // Fixed before the request, because another process may change the cache during it.
        let pinned = self.commit();
        let answer = self.client.get(&self.name, pinned.unwrap_or(&self.revision), file)?;
        let said = match &answer {
            Answer::File(download) => Some(download.commit.clone()),
            Answer::Missing(commit) => commit.clone(),
        };
        let Some(commit) = pinned.map(str::to_string).or(said) else { return Ok(None) };
        if pinned.is_none() {
            self.cache.set_commit(&self.revision, &commit)?;
            self.commit.get_or_init(|| commit.clone());
        }
        match answer {
            Answer::File(download) => {
                let (etag, size) = (download.etag.clone(), download.size);
                self.cache.store(&commit, file, (&etag, size), |to| download.receive(file, to)).map(Some)
            }
            Answer::Missing(_) => {
                // Recording it only saves a request, so an error does not matter.
                let _ = self.cache.set_missing(&commit, file);
                Ok(None)
            }
        }
    }

    /// Returns an error about the cache if the operating system reported it, and otherwise about the repository.
    fn error(&self, error: std::io::Error) -> Error {
        match error.raw_os_error() {
            Some(_) => Error::io(&self.cache.root, "cannot write", error),
            None => Error::io(&self.place, "cannot download", error),
        }
    }
}
