//! The arguments of a tokenizer: one that exists, or a vocabulary to train.

use std::path::PathBuf;

use cloze::prelude::*;
use serde::Serialize;

use crate::Result;

/// The size of a trained vocabulary, unless another is given.
const SIZE: usize = 8000;

/// The arguments of a tokenizer that is opened, or trained on the corpus.
#[derive(clap::Args, Serialize)]
pub struct VocabularyArguments {
    /// A vocab.txt, or a folder with a tokenizer, instead of training a vocabulary
    #[arg(long, conflicts_with = "vocab_size")]
    vocab: Option<PathBuf>,
    /// Maximum size of the trained vocabulary [default: 8000]
    #[arg(long)]
    vocab_size: Option<usize>,
    /// Keep upper case and accents
    #[arg(long)]
    cased: bool,
    /// Keep accents, but not upper case
    #[arg(long, conflicts_with = "cased")]
    accents: bool,
}

impl VocabularyArguments {
    /// Opens the tokenizer of `--vocab`, if it is given.
    ///
    /// # Errors
    /// Returns an error if its files cannot be read.
    pub fn open(&self) -> Result<Option<Tokenizer>> {
        Ok(match &self.vocab {
            None => None,
            Some(path) if path.is_dir() => Some(Tokenizer::open(path)?),
            Some(path) => Some(Tokenizer::from_vocab_file(path, &self.options())?),
        })
    }

    /// Returns the maximum size of a trained vocabulary.
    pub fn size(&self) -> usize {
        self.vocab_size.unwrap_or(SIZE)
    }

    /// Returns the options of a new tokenizer.
    pub fn options(&self) -> TokenizerOptions {
        let options = TokenizerOptions::default().lowercase(!self.cased);
        if self.accents { options.strip_accents(false) } else { options }
    }

    /// Returns the name of an argument that is given and describes a new tokenizer.
    pub fn of_a_new_one(&self) -> Option<&'static str> {
        let given = [("--vocab-size", self.vocab_size.is_some()), ("--cased", self.cased), ("--accents", self.accents)];
        given.into_iter().find(|(_, is_given)| *is_given).map(|(name, _)| name)
    }
}
