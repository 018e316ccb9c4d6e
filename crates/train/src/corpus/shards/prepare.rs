//! Prepares the shards of a corpus.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use cloze_bert::Tokenizer;
use cloze_tensor::{entries, metadata, retry};
use serde::{Deserialize, Serialize};

use super::super::assemble::TokenPart;
use super::super::files::CorpusFiles;
use super::super::part::TextPart;
use super::folder::write_folder;
use super::writer::ShardWriter;
use super::{CorpusStatistics, is_in};
use crate::{Error, Result};

/// How a corpus is written into shards.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShardOptions {
    pub(super) deduplicate: bool,
    pub(super) shard_tokens: usize,
    #[serde(skip)]
    replace: bool,
}

impl Default for ShardOptions {
    fn default() -> ShardOptions {
        ShardOptions::new()
    }
}

impl ShardOptions {
    /// Returns the default options.
    pub fn new() -> ShardOptions {
        ShardOptions { deduplicate: true, shard_tokens: 1 << 25, replace: false }
    }

    /// Sets whether documents that equal an earlier one are left out, as they are by default. Documents are equal if they
    /// have the same sentences, byte for byte and in the same order; white space around sentences does not matter. They are
    /// compared by hashes of 128 bits, which take 18 to 36 bytes of memory a document.
    pub fn deduplicate(self, deduplicate: bool) -> ShardOptions {
        ShardOptions { deduplicate, ..self }
    }

    /// Sets the number of tokens at which a shard ends, with the document that reaches it: 2^25 by default, 64 MiB for
    /// vocabularies of up to 65,536 tokens.
    pub fn shard_tokens(self, shard_tokens: usize) -> ShardOptions {
        ShardOptions { shard_tokens, ..self }
    }

    /// Sets whether shards that are in the folder already are replaced. By default, they are an error.
    pub fn replace(self, replace: bool) -> ShardOptions {
        ShardOptions { replace, ..self }
    }
}

/// What a cache is found by.
#[derive(Clone)]
pub(in crate::corpus) struct CacheKey {
    /// A hash of text and tokenizer, in hexadecimal.
    pub(in crate::corpus) key: String,
    /// The paths of the text, by which it is seen that it has changed.
    pub(in crate::corpus) source: Vec<String>,
}

impl CorpusFiles {
    /// Tokenizes these files into a folder of [`Shards`](super::Shards), on all threads of the rayon pool. The tokenizer is
    /// saved there, too. The bytes of the folder depend on the text, the tokenizer and the options, not on the number of
    /// threads or the time.
    ///
    /// Memory does not grow with the corpus: three batches of 16 MB of text, the shard that is being filled and, with
    /// [`deduplicate`](ShardOptions::deduplicate), a hash of each document are in memory. A document is never divided between
    /// shards, so a longer one needs the memory of its ids.
    ///
    /// The folder appears when it is complete: a failure, a full disk or a killed process leave nothing there.
    ///
    /// # Errors
    /// Returns an error if a file cannot be read, is damaged, is not UTF-8 or changes meanwhile; if no sentence has a token;
    /// if the folder is not empty, contains one of the files or lies in one of their folders; or if it cannot be written.
    pub fn prepare(
        &self,
        tokenizer: &Tokenizer,
        folder: impl AsRef<Path>,
        options: &ShardOptions,
    ) -> Result<CorpusStatistics> {
        let folder = folder.as_ref();
        self.check_output(folder, options)?;
        let stamps = self.stamps()?;
        write_folder(folder, options.replace, |unfinished| {
            let statistics = self.write_shards(tokenizer, (unfinished, folder), options, None)?;
            self.check_stamps(&stamps)?;
            Ok(statistics)
        })
    }

    /// Writes shards into the folder `unfinished`, which errors call `shown`.
    pub(in crate::corpus) fn write_shards(
        &self,
        tokenizer: &Tokenizer,
        (unfinished, shown): (&Path, &Path),
        options: &ShardOptions,
        key: Option<CacheKey>,
    ) -> Result<CorpusStatistics> {
        let mut writer = ShardWriter::new(unfinished, shown, tokenizer, options)?;
        let work = |text: TextPart| TokenPart::of_text(text, tokenizer, options.deduplicate);
        let take = |part: TokenPart| writer.push(&part);
        self.pieces().for_each(&mut self.bar("tokenizing"), work, take)?;
        let mut index = writer.finish()?.ok_or_else(|| self.without_sentence())?;
        index.statistics.files = self.files.len() as u64;
        index.statistics.stored_bytes = self.byte_count();
        if let Some(CacheKey { key, source }) = key {
            (index.key, index.source) = (Some(key), source);
        }
        let statistics = index.statistics.clone();
        index.write(unfinished)?;
        tokenizer.save(unfinished)?;
        Ok(statistics)
    }

    /// Checks that shards can be written to `folder`. [`prepare`](CorpusFiles::prepare) does this, too; a program that first
    /// trains a tokenizer learns it in time here.
    ///
    /// # Errors
    /// Returns an error if the folder is not empty, contains one of the files or lies in one of their folders.
    pub fn check_output(&self, folder: impl AsRef<Path>, options: &ShardOptions) -> Result<()> {
        let folder = folder.as_ref();
        if options.shard_tokens == 0 {
            return Err(Error::invalid("shard_tokens", 0, "at least 1"));
        }
        let refuse = |why: &str| Err(Error::data_in(folder, "shards", why));
        let cannot_read = |source| Error::io(folder, "cannot read", source);
        match metadata(folder).map_err(cannot_read)? {
            None => {}
            Some(found) if !found.is_dir() => return refuse("is not a folder"),
            Some(_) => match is_in(folder).map_err(cannot_read)? {
                true if !options.replace => {
                    return refuse("has shards already: choose another folder, or replace them");
                }
                false if !entries(folder).map_err(cannot_read)?.is_empty() => {
                    return refuse("is neither empty nor a folder of shards: choose another one");
                }
                _ => {}
            },
        }
        let place = absolute(folder);
        for given in &self.given {
            let given = absolute(given);
            if place.starts_with(&given) {
                return refuse(
                    "lies in a folder of the corpus, which would read it the next time: choose another folder",
                );
            }
            if given.starts_with(&place) {
                return refuse("contains a file or folder of the corpus: choose another folder");
            }
        }
        Ok(())
    }

    /// Returns the length and time of each file.
    pub(in crate::corpus) fn stamps(&self) -> Result<Vec<(u64, Option<SystemTime>)>> {
        let stamp = |path: &PathBuf| {
            let metadata = retry(|| fs::metadata(path)).map_err(|source| Error::io(path, "cannot read", source))?;
            Ok((metadata.len(), metadata.modified().ok()))
        };
        self.files.iter().map(|file| stamp(&file.path)).collect()
    }

    /// Checks that no file has changed since.
    pub(in crate::corpus) fn check_stamps(&self, before: &[(u64, Option<SystemTime>)]) -> Result<()> {
        let now = self.stamps()?;
        match now.iter().zip(before).position(|(now, before)| now != before) {
            None => Ok(()),
            Some(changed) => Err(Error::data_in(&self.files[changed].path, "corpus", "changed while it was read")),
        }
    }
}

/// Returns the path without links, as far as it exists.
fn absolute(path: &Path) -> PathBuf {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.into());
    for existing in path.ancestors() {
        if let (Ok(resolved), Ok(rest)) = (existing.canonicalize(), path.strip_prefix(existing)) {
            return resolved.join(rest);
        }
    }
    path
}
