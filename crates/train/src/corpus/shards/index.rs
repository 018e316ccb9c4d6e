//! The index of a folder of shards.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Read};
use std::path::{Component, Path};

use cloze_bert::Tokenizer;
use cloze_tensor::{exists, write_file_atomically};
use serde::{Deserialize, Serialize};
use twox_hash::XxHash3_128;

use super::CorpusStatistics;
use super::prepare::ShardOptions;
use crate::{Error, Result};

/// The file of the index.
pub(super) const INDEX: &str = "index.json";
const FORMAT: &str = "cloze shards";
/// The version of the format, and of the path from text to ids: it must change when the same text and tokenizer give other
/// sentences or ids.
pub(in crate::corpus) const VERSION: u32 = 1;

/// What is in a folder of shards.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Index {
    format: String,
    version: u32,
    pub(super) tokenizer: TokenizerPrint,
    pub(super) options: ShardOptions,
    /// The cache key, if the shards are a cache: a hash of text and tokenizer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) key: Option<String>,
    /// The paths of the text, if the shards are a cache.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) source: Vec<String>,
    /// The [`ContentPrint`](super::super::assemble::ContentPrint) of all shards, in hexadecimal.
    pub(super) fingerprint: String,
    pub(super) largest_id: u32,
    pub(super) statistics: CorpusStatistics,
    pub(super) shards: Vec<ShardEntry>,
    /// XXH3 with 128 bits of the index in which this field is empty, in hexadecimal.
    checksum: String,
}

/// A shard in the index.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ShardEntry {
    pub(super) name: String,
    pub(super) bytes: u64,
    /// XXH3 with 128 bits of all bytes, in hexadecimal, as `xxh128sum` prints it.
    pub(super) xxh128: String,
    pub(super) documents: u64,
    pub(super) sentences: u64,
    pub(super) tokens: u64,
}

/// What tells a tokenizer from others.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct TokenizerPrint {
    /// A hash of `tokenizer.json` without line ends, in which everything is that ids depend on.
    pub(super) xxh128: String,
    pub(super) vocab_size: usize,
}

impl TokenizerPrint {
    pub(super) fn of(tokenizer: &Tokenizer) -> Result<TokenizerPrint> {
        let xxh128 = format!("{:032x}", XxHash3_128::oneshot(tokenizer.to_json()?.as_bytes()));
        Ok(TokenizerPrint { xxh128, vocab_size: tokenizer.vocab_size() })
    }
}

impl Index {
    pub(super) fn new(
        tokenizer: TokenizerPrint,
        options: ShardOptions,
        (fingerprint, largest_id): (u64, u32),
        statistics: CorpusStatistics,
        shards: Vec<ShardEntry>,
    ) -> Index {
        let (format, fingerprint) = (FORMAT.to_string(), format!("{fingerprint:016x}"));
        Index {
            format,
            version: VERSION,
            tokenizer,
            options,
            key: None,
            source: Vec::new(),
            fingerprint,
            largest_id,
            statistics,
            shards,
            checksum: String::new(),
        }
    }

    pub(super) fn write(mut self, folder: &Path) -> Result<()> {
        self.checksum = self.sum()?;
        let path = folder.join(INDEX);
        write_file_atomically(&path, self.json()?.as_bytes()).map_err(|error| Error::io(path, "cannot write", error))
    }

    fn json(&self) -> Result<String> {
        let json = serde_json::to_string_pretty(self).map_err(|error| Error::data("index", error.to_string()))?;
        Ok(json + "\n")
    }

    fn sum(&self) -> Result<String> {
        let json = Index { checksum: String::new(), ..self.clone() }.json()?;
        Ok(format!("{:032x}", XxHash3_128::oneshot(json.as_bytes())))
    }

    /// Reads the index of a folder, and checks that it agrees with itself.
    pub(super) fn read(folder: &Path) -> Result<Index> {
        let path = folder.join(INDEX);
        let text = fs::read(&path).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => {
                let why = "has no index.json: it is not a folder of prepared shards, or not a complete one";
                Error::data_in(folder, "shards", why)
            }
            _ => Error::io(&path, "cannot read", error),
        })?;
        let wrong = |why: String| Error::data_in(&path, "shards", why);
        /// The fields that every version has.
        #[derive(Deserialize)]
        struct Head {
            format: String,
            version: u32,
        }
        let head: Head =
            serde_json::from_slice(&text).map_err(|error| wrong(format!("this is not an index of shards: {error}")))?;
        if head.format != FORMAT {
            return Err(wrong(format!("this is not an index of shards: its format is {:?}", head.format)));
        }
        if head.version != VERSION {
            let found = head.version;
            return Err(wrong(format!(
                "the shards have version {found}, this program reads version {VERSION}: prepare the corpus again"
            )));
        }
        let index: Index = serde_json::from_slice(&text).map_err(|error| wrong(format!("is damaged: {error}")))?;
        index.check().map_err(|why| wrong(format!("is damaged: {why}")))?;
        Ok(index)
    }

    /// Returns the fingerprint as a number.
    pub(super) fn print(&self) -> Option<u64> {
        u64::from_str_radix(&self.fingerprint, 16).ok()
    }

    fn check(&self) -> Result<(), String> {
        if self.sum().ok().as_ref() != Some(&self.checksum) {
            return Err("its checksum does not match".to_string());
        }
        let is_name = |name: &str| {
            let mut parts = Path::new(name).components();
            matches!((parts.next(), parts.next()), (Some(Component::Normal(_)), None))
        };
        if let Some(shard) = self.shards.iter().find(|shard| !is_name(&shard.name)) {
            return Err(format!("{:?} is not the name of a file", shard.name));
        }
        let sum = |count: fn(&ShardEntry) -> u64| {
            self.shards.iter().try_fold(0u64, |sum, shard| sum.checked_add(count(shard)))
        };
        let sums = [sum(|shard| shard.documents), sum(|shard| shard.sentences), sum(|shard| shard.tokens)];
        let CorpusStatistics { documents, sentences, tokens, .. } = self.statistics;
        if sums != [documents, sentences, tokens].map(Some) || tokens == 0 {
            return Err("the counts of the shards do not add up to those of the corpus".to_string());
        }
        match self.print() {
            Some(_) => Ok(()),
            None => Err(format!("{:?} is not a fingerprint", self.fingerprint)),
        }
    }
}

/// Returns whether a folder has shards, or what is left of them.
///
/// # Errors
/// Returns an error if that cannot be found out.
pub(in crate::corpus) fn is_in(folder: &Path) -> io::Result<bool> {
    if exists(&folder.join(super::shard_name(0)))? {
        return Ok(true);
    }
    // The format is the first field.
    let mut start = Vec::new();
    match File::open(folder.join(INDEX)).and_then(|file| file.take(1 << 10).read_to_end(&mut start)) {
        Ok(_) => Ok(String::from_utf8_lossy(&start).contains(FORMAT)),
        // It may be the index of something else, or no file.
        Err(error) if error.raw_os_error().is_none() => Ok(false),
        Err(error)
            if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory | ErrorKind::IsADirectory) =>
        {
            Ok(false)
        }
        Err(error) => Err(error),
    }
}
