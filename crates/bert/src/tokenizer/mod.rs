//! WordPiece: text to token ids and back.
//!
//! Ids and offsets equal those of `transformers`. `pipeline` encodes with offsets, and [`Tokenizer::ids`] has a faster
//! path without them for whole corpora. Training ([`Tokenizer::train`]) always produces the same vocabulary from the
//! same corpus.

mod added;
mod class;
mod encoding;
mod files;
mod normalizer;
mod options;
mod pieces;
mod pipeline;
mod pre_tokenizer;
mod settings;
mod special;
mod start;
mod token_fields;
mod train;
mod windows;
mod words;

use std::fmt;
use std::sync::Arc;

pub use encoding::{EncodeOptions, Encoding, Truncation};
pub use options::{TokenizerOptions, TrainOptions};
pub use windows::Windows;

use crate::config::CONFIG_FILE;
use crate::{BertConfig, Error, Result};
use encoding::Tokens;
use pipeline::{Encoded, Pipeline};
use settings::Source;
use special::{Ids, Names};
use words::Words;

pub(crate) use encoding::Layout;
pub(crate) use settings::CONFIG;

/// A BERT tokenizer. It is cheap to clone and can be shared between threads.
///
/// ```
/// use cloze_bert::{Tokenizer, TrainOptions};
/// let lines = ["the cat sat on the mat", "the dog sat on the log"];
/// let tokenizer = Tokenizer::train(lines, 100, &TrainOptions::new())?;
/// let encoding = tokenizer.encode("The [MASK] sat.")?;
/// assert_eq!(encoding.ids[2], tokenizer.mask_id());
/// assert_eq!(encoding.offsets[2], (4, 10));
/// # Ok::<(), cloze_bert::Error>(())
/// ```
#[derive(Clone)]
pub struct Tokenizer {
    inner: Arc<Inner>,
    max_length: usize,
}

struct Inner {
    pipeline: Pipeline,
    names: Names,
    ids: Ids,
    /// The tokens by id. An id may have none.
    tokens: Vec<Option<String>>,
    /// The end of the ids that the files have. Special tokens without an id in any file are beyond it: a model need
    /// not know them until a text has them, and they are not written.
    own: u32,
    /// Whether the token with this id is special.
    special: Vec<bool>,
    /// Whether the token with this id continues a word.
    continues: Vec<bool>,
    /// Splits texts into words fast, if the pipeline is BERT's.
    words: Option<Words>,
    source: Source,
}

impl Inner {
    fn new(pipeline: Pipeline, names: Names, own: u32, source: Source) -> Result<Inner> {
        let tokens = pipeline.tokens();
        let id =
            |name: &str| pipeline.id(name).ok_or_else(|| Error::tokenizer(format!("the vocabulary has no {name}")));
        let ids = Ids {
            pad: id(&names.pad)?,
            unk: id(&names.unk)?,
            cls: id(&names.cls)?,
            sep: id(&names.sep)?,
            mask: id(&names.mask)?,
        };
        let texts = || tokens.iter().map(|token| token.as_deref().unwrap_or_default());
        let special: Vec<bool> = texts().map(|token| pipeline.added().is_special(token)).collect();
        let prefix = pipeline.model().prefix.as_str();
        let continues = texts()
            .zip(&special)
            .map(|(token, &special)| !special && token.strip_prefix(prefix).is_some_and(|piece| !piece.is_empty()))
            .collect();
        let words = pipeline.plain_bert().map(Words::new);
        Ok(Inner { tokens, own, special, continues, words, names, ids, pipeline, source })
    }

    /// Returns the pipeline as it is written.
    fn stored(&self) -> Pipeline {
        let mut pipeline = self.pipeline.clone();
        pipeline.truncate(self.own);
        pipeline
    }
}

impl Tokenizer {
    fn from_inner(inner: Inner, max_length: usize) -> Tokenizer {
        Tokenizer { inner: Arc::new(inner), max_length }
    }

    fn inner(&self) -> &Inner {
        &self.inner
    }

    /// Trains a WordPiece vocabulary of at most `vocab_size` tokens on a corpus. `[PAD]`, `[UNK]`, `[CLS]`, `[SEP]` and
    /// `[MASK]` get the ids 0 to 4. The same corpus and options produce the same vocabulary, in any order of the lines.
    ///
    /// The vocabulary is smaller than `vocab_size` if the corpus has too few frequent pairs of pieces.
    ///
    /// # Errors
    /// Returns an error if the corpus has no words, or `vocab_size` is too small for its characters.
    pub fn train<S: AsRef<str>>(
        lines: impl IntoIterator<Item = S>,
        vocab_size: usize,
        options: &TrainOptions,
    ) -> Result<Tokenizer> {
        let names = Names::default();
        let normalizer = files::normalizer(&options.tokenizer);
        let tokens = train::vocabulary(lines.into_iter(), vocab_size, normalizer, &names.all(), options)?;
        Tokenizer::from_tokens(tokens, &names, &options.tokenizer)
    }

    /// Sets the maximum number of tokens of an encoding, special tokens included.
    pub fn with_max_length(self, tokens: usize) -> Tokenizer {
        Tokenizer { max_length: tokens, ..self }
    }

    /// Returns the maximum number of tokens of an encoding, special tokens included.
    pub fn max_length(&self) -> usize {
        self.max_length
    }

    /// Encodes a text as `[CLS] text [SEP]`.
    ///
    /// # Errors
    /// Returns an error if the encoding is longer than the [maximum length](Tokenizer::max_length).
    pub fn encode(&self, text: &str) -> Result<Encoding> {
        self.encode_with(text, None, &EncodeOptions::new())
    }

    /// Encodes a pair of texts as `[CLS] first [SEP] second [SEP]`. The second text and its `[SEP]` have token type 1,
    /// except for a `DistilBertTokenizer`, a `PreTrainedTokenizerFast` and others whose `model_input_names` has no
    /// `token_type_ids`.
    ///
    /// # Errors
    /// Returns an error if the encoding is longer than the [maximum length](Tokenizer::max_length).
    pub fn encode_pair(&self, first: &str, second: &str) -> Result<Encoding> {
        self.encode_with(first, Some(second), &EncodeOptions::new())
    }

    /// Encodes a text or a pair of texts with options.
    ///
    /// # Errors
    /// Returns an error if the tokens do not fit even after truncation, the stride is not below the length of a window,
    /// or both texts of a pair would need windows.
    pub fn encode_with(&self, text: &str, second: Option<&str>, options: &EncodeOptions) -> Result<Encoding> {
        let texts = [Some(text), second].into_iter().flatten();
        let most = options.most(self.max_length);
        let texts: Vec<_> = texts.map(|text| start::encode(&self.inner, text, most, start::BYTES)).collect();
        let lengths: Vec<usize> = texts.iter().map(Encoded::length).collect();
        let layout = Layout::new(&lengths, self.max_length, options)?;
        let tokens = |(at, text)| Tokens::all(text, options, at);
        let mut texts: Vec<Tokens> = texts.into_iter().enumerate().map(tokens).collect();
        let mut windows = (0..layout.count()).map(|window| layout.encoding(&self.frame(), &mut texts, window));
        let mut first = windows.next().unwrap_or_default();
        first.overflowing = windows.collect();
        Ok(first)
    }

    /// Encodes texts with options, as [`encode_with`](Tokenizer::encode_with) encodes one.
    ///
    /// ```
    /// use cloze_bert::{EncodeOptions, Tokenizer, TrainOptions};
    /// let tokenizer = Tokenizer::train(["the cat sat on the mat"], 60, &TrainOptions::new())?;
    /// let options = EncodeOptions::new().max_length(6);
    /// let refused = tokenizer.encode_batch(&["the cat", "the cat sat on the mat"], &options).unwrap_err();
    /// assert!(refused.to_string().starts_with("text 1 has 8 tokens"));
    /// # Ok::<(), cloze_bert::Error>(())
    /// ```
    ///
    /// # Errors
    /// Returns an error like [`encode_with`](Tokenizer::encode_with), with the index of the text.
    pub fn encode_batch(&self, texts: &[impl AsRef<str>], options: &EncodeOptions) -> Result<Vec<Encoding>> {
        let encode = |(index, text): (usize, &_)| {
            let text: &str = AsRef::<str>::as_ref(text);
            self.encode_with(text, None, options).map_err(|error| error.in_text(index))
        };
        texts.iter().enumerate().map(encode).collect()
    }

    /// Returns the ids of a text of any length, without special tokens. This is much faster than
    /// [`encode`](Tokenizer::encode) and meant for whole corpora.
    ///
    /// # Errors
    /// Never returns an error.
    pub fn ids(&self, text: &str) -> Result<Vec<u32>> {
        let mut ids = Vec::new();
        self.ids_into(text, &mut ids)?;
        Ok(ids)
    }

    /// Appends the [`ids`](Tokenizer::ids) of a text to a vector.
    ///
    /// # Errors
    /// Returns an error like [`ids`](Tokenizer::ids).
    pub fn ids_into(&self, text: &str, ids: &mut Vec<u32>) -> Result<()> {
        self.inner.ids_into(text, ids);
        Ok(())
    }

    /// Returns the text of these ids: joins pieces and removes blanks before punctuation. Case and accents that
    /// normalization removed are not restored.
    ///
    /// # Errors
    /// Returns an error if an id is out of range.
    pub fn decode(&self, ids: &[u32], skip_special: bool) -> Result<String> {
        let size = self.vocab_size();
        if let Some((position, id)) = ids.iter().enumerate().find(|(_, id)| **id as usize >= size) {
            let reason = format!("token id {id} at position {position} is out of range: must be below {size}");
            return Err(Error::tokenizer(reason));
        }
        Ok(self.inner.pipeline.decode(ids, skip_special))
    }

    /// Returns a line for each contradiction between two files of the tokenizer, with the file that takes precedence.
    pub fn conflicts(&self) -> &[String] {
        &self.inner.source.conflicts
    }

    /// Returns a line for each contradiction between the tokenizer and the `config.json` of a model.
    pub(crate) fn conflicts_with(&self, config: &BertConfig) -> Vec<String> {
        let (pad, padding) = (config.pad_token_id, self.pad_id());
        let (length, positions) = (self.max_length, config.max_position_embeddings);
        let conflicts = [
            (pad != padding).then(|| format!("pad_token_id is {pad} in {CONFIG_FILE}, the tokenizer has {padding}: the tokenizer counts")),
            (length > positions && length != usize::MAX).then(|| {
                format!("the maximum length of the tokenizer is {length}, max_position_embeddings in {CONFIG_FILE} {positions}: {positions} counts")
            }),
            self.check_vocab_size(config).err().map(|error| format!("{CONFIG_FILE} and the tokenizer differ: {error}")),
        ];
        conflicts.into_iter().flatten().collect()
    }

    /// Returns the number of ids in the vocabulary, those of added tokens and those without a token included.
    pub fn vocab_size(&self) -> usize {
        self.inner.tokens.len()
    }

    /// Returns the token with this id, or `None` if the id is out of range or has no token.
    pub fn token(&self, id: u32) -> Option<&str> {
        self.inner.tokens.get(id as usize)?.as_deref()
    }

    /// Returns the id of a token, spelled as in the vocabulary.
    pub fn id(&self, token: &str) -> Option<u32> {
        self.inner.pipeline.id(token)
    }

    /// Returns the id of `[CLS]`.
    pub fn cls_id(&self) -> u32 {
        self.inner.ids.cls
    }

    /// Returns the id of `[SEP]`.
    pub fn sep_id(&self) -> u32 {
        self.inner.ids.sep
    }

    /// Returns whether the vocabulary has `[MASK]`. Otherwise [`mask_id`](Tokenizer::mask_id) is an id behind all
    /// others, which a model has no embedding for.
    pub fn has_mask(&self) -> bool {
        self.inner.ids.mask < self.inner.own
    }

    /// Returns the id of `[MASK]`.
    pub fn mask_id(&self) -> u32 {
        self.inner.ids.mask
    }

    /// Returns the id of `[PAD]`.
    pub fn pad_id(&self) -> u32 {
        self.inner.ids.pad
    }

    /// Returns the id of `[UNK]`.
    pub fn unk_id(&self) -> u32 {
        self.inner.ids.unk
    }

    /// Returns whether `id` belongs to a special token; false if it is out of range.
    #[inline]
    pub fn is_special(&self, id: u32) -> bool {
        self.inner.special.get(id as usize).copied().unwrap_or(false)
    }

    /// Returns whether `id` belongs to a piece that continues a word (`##...`); false if it is out of range.
    #[inline]
    pub fn continues_word(&self, id: u32) -> bool {
        self.inner.continues.get(id as usize).copied().unwrap_or(false)
    }

    /// Checks that a model with this configuration has an embedding for every token of the files, `[CLS]` and `[SEP]`.
    /// More embeddings than tokens are common and allowed.
    ///
    /// # Errors
    /// Returns an error with both numbers if the model has fewer embeddings.
    pub fn check_vocab_size(&self, config: &BertConfig) -> Result<()> {
        let Inner { tokens, own, ids, .. } = &*self.inner;
        // Blank lines at the end of a `vocab.txt` are no tokens of any text.
        let blank = |token: &&Option<String>| token.as_ref().is_none_or(|token| token.trim().is_empty());
        let own = *own as usize - tokens[..*own as usize].iter().rev().take_while(blank).count();
        let (model, own) = (config.vocab_size, own.max(ids.cls.max(ids.sep) as usize + 1));
        if own > model {
            return Err(Error::config(format!(
                "vocab_size is {model}: must be at least {own}, the number of tokens of the tokenizer"
            )));
        }
        Ok(())
    }
}

impl fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tokenizer {{ vocab_size: {}, max_length: {} }}", self.vocab_size(), self.max_length)
    }
}
