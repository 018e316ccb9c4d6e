//! The folders of a cache: which can never be used again, and which have not been used for long.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use cloze_tensor::{entries, metadata, retry};

use super::folder::{delete_folder, remove_all_abandoned};
use super::index::{INDEX, Index};
use crate::{Error, Result};

/// What [`trim_cache`] found in the folder of a cache.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CacheTrim {
    /// The number of corpora that were removed.
    pub removed: usize,
    /// The number of corpora that are left.
    pub kept: usize,
    /// The number of bytes of their files.
    pub kept_bytes: u64,
}

/// A corpus in a cache.
struct Entry {
    path: PathBuf,
    bytes: u64,
    used: SystemTime,
}

/// Removes the corpora of the folder `cache`, those first that were not used for longest, until the others have at most `bytes`
/// bytes. The one that was used last is kept, however large it is. Nothing but corpora that
/// [`CorpusFiles::tokenize`](crate::CorpusFiles::tokenize) wrote is removed. On Unix, a program that is reading one goes on.
///
/// # Errors
/// Returns an error if the folder cannot be read, or a corpus cannot be removed.
pub fn trim_cache(cache: impl AsRef<Path>, bytes: u64) -> Result<CacheTrim> {
    let cache = cache.as_ref();
    remove_all_abandoned(cache);
    let mut corpora = corpora(cache).map_err(|source| Error::io(cache, "cannot read", source))?;
    corpora.sort_by_key(|entry| std::cmp::Reverse(entry.used));
    let mut trim = CacheTrim::default();
    for entry in corpora {
        if trim.kept > 0 && trim.kept_bytes.saturating_add(entry.bytes) > bytes {
            delete_folder(&entry.path).map_err(|source| Error::io(&entry.path, "cannot delete", source))?;
            trim.removed += 1;
        } else {
            trim.kept += 1;
            trim.kept_bytes += entry.bytes;
        }
    }
    Ok(trim)
}

/// Returns the corpora of a cache.
fn corpora(cache: &Path) -> std::io::Result<Vec<Entry>> {
    let mut corpora = Vec::new();
    for entry in entries(cache)? {
        let path = entry.path();
        if !is_named_by_key(&path) {
            continue;
        }
        let Some(used) = metadata(&path.join(INDEX))?.and_then(|index| index.modified().ok()) else { continue };
        let files = entries(&path)?.into_iter().filter_map(|file| retry(|| file.metadata()).ok());
        corpora.push(Entry { bytes: files.map(|file| file.len()).sum(), path, used });
    }
    Ok(corpora)
}

fn is_named_by_key(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    name.len() == 32 && name.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Notes that the corpus in `folder` is used, and removes what was tokenized for the same paths with the same tokenizer before
/// their text changed.
pub(in crate::corpus) fn note_use(folder: &Path) {
    let now = || File::options().append(true).open(folder.join(INDEX))?.set_modified(SystemTime::now());
    // A cache that cannot be written can be read.
    let _ = now();
    let (Ok(own), Some(cache)) = (Index::read(folder), folder.parent()) else { return };
    for entry in corpora(cache).unwrap_or_default().into_iter().filter(|entry| entry.path != folder) {
        let is_stale = |other: &Index| {
            let is_same = other.source == own.source && other.tokenizer == own.tokenizer && other.key != own.key;
            is_same && !own.source.is_empty()
        };
        if Index::read(&entry.path).is_ok_and(|other| is_stale(&other)) {
            // A folder that cannot be removed does no harm.
            let _ = delete_folder(&entry.path);
        }
    }
}
