//! Writes a corpus into shards, part by part.

use std::path::Path;

use cloze_bert::Tokenizer;
use twox_hash::XxHash3_128;

use super::super::assemble::{ContentPrint, OpenShard, TokenPart};
use super::duplicates::Duplicates;
use super::file;
use super::index::{Index, ShardEntry, TokenizerPrint};
use super::prepare::ShardOptions;
use super::shard_name;
use super::statistics::Counting;
use crate::{Error, Result};

/// Writes shards. The shard that is being filled is in memory; a document is never divided between two.
pub(super) struct ShardWriter<'a> {
    folder: &'a Path,
    /// The folder by which errors name the files.
    shown: &'a Path,
    options: ShardOptions,
    tokenizer: TokenizerPrint,
    unk_id: u32,
    duplicates: Option<Duplicates>,
    shard: OpenShard,
    /// A hash of the hashes of the sentences of the current document.
    document: XxHash3_128,
    /// Whether the current document has a sentence.
    has_text: bool,
    print: ContentPrint,
    counting: Counting,
    entries: Vec<ShardEntry>,
}

impl<'a> ShardWriter<'a> {
    pub(super) fn new(
        folder: &'a Path,
        shown: &'a Path,
        tokenizer: &Tokenizer,
        options: &ShardOptions,
    ) -> Result<ShardWriter<'a>> {
        Ok(ShardWriter {
            folder,
            shown,
            options: options.clone(),
            tokenizer: TokenizerPrint::of(tokenizer)?,
            unk_id: tokenizer.unk_id(),
            duplicates: options.deduplicate.then(Duplicates::default),
            shard: OpenShard::new(tokenizer.vocab_size()),
            document: XxHash3_128::new(),
            has_text: false,
            print: ContentPrint::default(),
            counting: Counting::default(),
            entries: Vec::new(),
        })
    }

    /// Appends a part of the corpus.
    pub(super) fn push(&mut self, part: &TokenPart) -> Result<()> {
        self.counting.add_part(part);
        for (sentences, ends) in part.runs() {
            self.has_text |= !sentences.is_empty();
            if self.duplicates.is_some() {
                for hash in &part.sentence_hashes[sentences.clone()] {
                    self.document.write(&hash.to_le_bytes());
                }
            }
            self.counting.statistics.sentences_without_token += self.shard.append(part, sentences) as u64;
            if ends {
                self.end_document()?;
            }
        }
        Ok(())
    }

    fn end_document(&mut self) -> Result<()> {
        let hash = std::mem::take(&mut self.document).finish_128();
        if !std::mem::take(&mut self.has_text) {
            return Ok(());
        }
        if self.shard.document_is_empty() {
            self.counting.statistics.documents_without_token += 1;
        } else if self.duplicates.as_mut().is_some_and(|duplicates| duplicates.seen(hash)) {
            self.counting.statistics.duplicates += 1;
            self.shard.drop_document();
        } else {
            self.shard.end_document();
            if self.shard.token_count() >= self.options.shard_tokens {
                self.close_shard()?;
            }
        }
        Ok(())
    }

    fn close_shard(&mut self) -> Result<()> {
        let open = std::mem::replace(&mut self.shard, OpenShard::new(self.tokenizer.vocab_size));
        let (shard, name) = (open.close(), shard_name(self.entries.len()));
        self.print.add(&shard);
        self.counting.add_shard(&shard, self.unk_id);
        let written = file::write(&self.folder.join(&name), &shard, &self.tokenizer.xxh128);
        let (bytes, hash) = written.map_err(|source| Error::io(self.shown.join(&name), "cannot write", source))?;
        let counts = shard.counts();
        self.entries.push(ShardEntry {
            name,
            bytes,
            xxh128: format!("{hash:032x}"),
            documents: counts.documents as u64,
            sentences: counts.sentences as u64,
            tokens: counts.tokens as u64,
        });
        Ok(())
    }

    /// Returns the index of all shards, or `None` if no sentence has a token.
    pub(super) fn finish(mut self) -> Result<Option<Index>> {
        self.end_document()?;
        if !self.shard.is_empty() {
            self.close_shard()?;
        }
        let print = (self.print.finish(), self.print.largest_id);
        let index = Index::new(self.tokenizer, self.options, print, self.counting.finish(), self.entries);
        Ok((!index.shards.is_empty()).then_some(index))
    }
}
