//! A corpus that was tokenized before training, in shards: files that are memory-mapped.
//!
//! ```text
//! shards/
//!   index.json                what the shards are, their sizes and hashes, the statistics of the corpus
//!   shard-00000.safetensors   whole documents; see `file`
//!   shard-00001.safetensors
//!   tokenizer.json, ..        the tokenizer, in the files of `transformers`
//! ```

mod cache;
mod duplicates;
mod file;
mod folder;
mod index;
mod prepare;
mod statistics;
#[cfg(test)]
mod tests;
mod writer;

use std::hash::Hasher;
use std::ops::Range;
use std::path::{Path, PathBuf};

use cloze_bert::Tokenizer;
use rayon::prelude::*;
use twox_hash::XxHash3_64;

pub(super) use cache::note_use;
pub use cache::{CacheTrim, trim_cache};
pub(super) use folder::{remove_all_abandoned, write_folder};
pub(super) use index::is_in;
use index::{INDEX, Index, TokenizerPrint};
pub(super) use prepare::CacheKey;
pub use prepare::ShardOptions;
pub use statistics::{CorpusStatistics, LengthStatistics};

use super::store::{Shard, Store};
use super::tokenized::TokenizedCorpus;
use crate::{Error, Result};

/// The version of the format and of the path from text to ids, for cache keys.
pub(super) use index::VERSION;

/// A folder of shards, which [`CorpusFiles::prepare`](crate::CorpusFiles::prepare) writes: a corpus of any size as token ids.
///
/// Opening it reads its index only. The corpus, or a range of its documents, is mapped into memory: processes of one machine
/// share the pages, and nothing is read before it is used, except that each shard in the range is read once to compare its hash
/// with the index. Several threads do this at the speed of the disk or, if the files are in the page cache, of memory.
///
/// The shards must not be modified while a corpus of them or a clone of it exists; replacing or deleting the folder is fine.
///
/// ```no_run
/// use cloze_train::{CorpusFiles, ShardOptions, Shards};
/// # fn f(tokenizer: cloze_bert::Tokenizer) -> cloze_train::Result<()> {
/// CorpusFiles::at(["wikipedia.jsonl.zst", "books"])?.prepare(&tokenizer, "shards", &ShardOptions::new())?;
/// let shards = Shards::open("shards")?;
/// println!("{} documents", shards.document_count());
/// let corpus = shards.corpus()?; // everything
/// let own = shards.share(17, 1000)?; // what worker 17 of 1,000 reads
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct Shards {
    folder: PathBuf,
    index: Index,
}

impl Shards {
    /// Opens a folder of shards, and reads its index.
    ///
    /// # Errors
    /// Returns an error if the folder has no index, or a damaged one.
    pub fn open(folder: impl AsRef<Path>) -> Result<Shards> {
        let folder = folder.as_ref();
        Ok(Shards { folder: folder.into(), index: Index::read(folder)? })
    }

    /// Returns whether `path` is a folder of shards, even if it is damaged.
    pub fn is_at(path: impl AsRef<Path>) -> bool {
        is_in(path.as_ref()).unwrap_or(false)
    }

    /// Returns the number of shards.
    pub fn shard_count(&self) -> usize {
        self.index.shards.len()
    }

    /// Returns the number of documents in all shards.
    pub fn document_count(&self) -> usize {
        self.index.statistics.documents as usize
    }

    /// Returns what was read, what was left out, and what is in the shards.
    pub fn statistics(&self) -> &CorpusStatistics {
        &self.index.statistics
    }

    /// Returns the key with which a cache was written.
    pub(super) fn key(&self) -> Option<&str> {
        self.index.key.as_deref()
    }

    /// Opens the tokenizer that the shards were made with, which is in their folder.
    ///
    /// # Errors
    /// Returns an error if its files are damaged, or are those of another tokenizer.
    pub fn tokenizer(&self) -> Result<Tokenizer> {
        let tokenizer = Tokenizer::open(&self.folder)?;
        self.check_tokenizer(&tokenizer)?;
        Ok(tokenizer)
    }

    /// Checks that a tokenizer gives the ids that are in the shards.
    ///
    /// # Errors
    /// Returns an error that names both tokenizers by the size of their vocabulary and a hash.
    pub fn check_tokenizer(&self, tokenizer: &Tokenizer) -> Result<()> {
        let (given, own) = (TokenizerPrint::of(tokenizer)?, &self.index.tokenizer);
        if given == *own {
            return Ok(());
        }
        let print = |print: &TokenizerPrint| format!("{} tokens, hash {}", print.vocab_size, print.xxh128);
        let why = format!(
            "the shards were made with another tokenizer ({}) than this one ({}): use the tokenizer in the folder of the \
             shards, or prepare the corpus again",
            print(own),
            print(&given)
        );
        Err(Error::data_in(self.folder.join(INDEX), "tokenizer", why))
    }

    /// Maps all shards.
    ///
    /// # Errors
    /// Returns an error that names the first shard that is missing, cut or changed.
    pub fn corpus(&self) -> Result<TokenizedCorpus> {
        self.range(0..self.document_count())
    }

    /// Maps the shards that have these documents. No other shard is opened.
    ///
    /// # Errors
    /// Returns an error if the range is empty or out of bounds, has 2^32 documents or more, or if one of its shards is
    /// missing, cut or changed.
    pub fn range(&self, documents: Range<usize>) -> Result<TokenizedCorpus> {
        if documents.is_empty() || documents.end > self.document_count() {
            let limit = format!("not empty, and within the {} documents of the shards", self.document_count());
            return Err(Error::invalid("range of documents", format!("{documents:?}"), limit));
        }
        let mut end = 0;
        let ends: Vec<usize> = self
            .index
            .shards
            .iter()
            .map(|shard| {
                end += shard.documents as usize;
                end
            })
            .collect();
        let first = ends.partition_point(|&end| end <= documents.start);
        let last = ends.partition_point(|&end| end < documents.end);
        let begin = if first == 0 { 0 } else { ends[first - 1] };

        let open = |entry| file::open(&self.folder, entry, &self.index);
        let shards: Vec<Result<Shard>> = self.index.shards[first..=last].par_iter().map(open).collect();
        let shards = shards.into_iter().collect::<Result<Vec<Shard>>>()?;
        let mut fingerprint = self.index.print().unwrap_or_default();
        if (first, last + 1) != (0, self.shard_count()) {
            let mut hash = XxHash3_64::with_seed(fingerprint);
            [first, last].iter().for_each(|number| hash.write(&(*number as u64).to_le_bytes()));
            fingerprint = hash.finish();
        }
        let corpus = TokenizedCorpus::of_store(Store::new(shards, self.index.largest_id, fingerprint)?);
        if corpus.document_count() == documents.len() {
            return Ok(corpus);
        }
        // A store has fewer than 2^32 documents.
        let mut own: Vec<u32> = (documents.start - begin..documents.end - begin).map(|own| own as u32).collect();
        Ok(corpus.select(&mut own))
    }

    /// Maps the documents of worker `worker` of `workers`: consecutive ones, as many as for every other worker, or one more.
    /// The shares of all workers are all documents.
    ///
    /// # Errors
    /// Returns an error if there is no such worker or no document for it, and the errors of [`range`](Self::range).
    pub fn share(&self, worker: usize, workers: usize) -> Result<TokenizedCorpus> {
        if worker >= workers {
            return Err(Error::invalid("worker", worker, format!("below the number of workers, {workers}")));
        }
        let count = self.document_count();
        let at = |worker: usize| (worker as u128 * count as u128 / workers as u128) as usize;
        match at(worker)..at(worker + 1) {
            own if own.is_empty() => {
                let limit = format!("at most {count}, the number of documents, so that each has one");
                Err(Error::invalid("number of workers", workers, limit))
            }
            own => self.range(own),
        }
    }
}

/// Returns the name of the file of a shard.
fn shard_name(number: usize) -> String {
    format!("shard-{number:05}.safetensors")
}
