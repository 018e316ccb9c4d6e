//! WordPiece: text to token ids and back.
//!
//! The pipeline is the `tokenizers` crate's, so ids and offsets are those of `transformers`. Ours are the
//! training of vocabularies, which must give the same one twice ([`Tokenizer::train`]), and a way to ids
//! alone that is fast enough for whole corpora ([`Tokenizer::ids`]).

mod encoding;
mod files;
mod options;
mod pieces;
mod special;
mod train;
mod words;

use std::fmt;
use std::sync::Arc;

use tokenizers::PreTokenizerWrapper;
use tokenizers::models::ModelWrapper;
use tokenizers::normalizers::NormalizerWrapper;

pub use encoding::{EncodeOptions, Encoding, Truncation};
pub use options::{TokenizerOptions, TrainOptions};

use crate::{BertConfig, Error, Result};
use encoding::Frame;
use pieces::Pieces;
use special::{Ids, Names};
use words::Words;

/// A BERT tokenizer. Cheap to clone, and any number of threads may use it.
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
    pipeline: tokenizers::Tokenizer,
    names: Names,
    ids: Ids,
    /// By id.
    tokens: Vec<String>,
    /// By id: whether a token is special, whether it continues a word.
    special: Vec<bool>,
    continues: Vec<bool>,
    /// The fast way, where the stored tokenizer is BERT's own pipeline.
    fast: Option<Fast>,
}

struct Fast {
    words: Words,
    pieces: Pieces,
    /// Tokens that are found in the text as it is written, before anything else; and the bytes that they
    /// begin with.
    literals: Vec<String>,
    begins: [bool; 256],
}

impl Fast {
    /// Whether one of the literal tokens may be in the text: then its way is the crate's.
    fn has_literal(&self, text: &str) -> bool {
        text.bytes().any(|byte| self.begins[byte as usize])
            && self.literals.iter().any(|literal| text.contains(literal.as_str()))
    }
}

impl Inner {
    fn new(pipeline: tokenizers::Tokenizer, names: Names) -> Result<Inner> {
        let count = pipeline.get_vocab_size(true);
        let mut tokens = Vec::with_capacity(count);
        for id in 0..count as u32 {
            tokens.push(pipeline.id_to_token(id).ok_or_else(|| {
                Error::tokenizer(format!("the vocabulary has {count} tokens, but none with the id {id}"))
            })?);
        }
        let id = |name: &str| {
            pipeline.token_to_id(name).ok_or_else(|| Error::tokenizer(format!("the vocabulary has no {name}")))
        };
        let ids = Ids {
            pad: id(&names.pad)?,
            unk: id(&names.unk)?,
            cls: id(&names.cls)?,
            sep: id(&names.sep)?,
            mask: id(&names.mask)?,
        };
        let added = pipeline.get_added_vocabulary();
        let special: Vec<bool> = tokens.iter().map(|token| added.is_special_token(token)).collect();
        let ModelWrapper::WordPiece(model) = pipeline.get_model() else {
            return Err(Error::tokenizer("the model is no WordPiece: BERT's is"));
        };
        let prefix = model.continuing_subword_prefix.as_str();
        let continues = tokens
            .iter()
            .zip(&special)
            .map(|(token, &special)| !special && token.strip_prefix(prefix).is_some_and(|piece| !piece.is_empty()))
            .collect();

        let plain = added.get_added_tokens_decoder().values().all(|token| !token.normalized);
        let fast = match (pipeline.get_normalizer(), pipeline.get_pre_tokenizer()) {
            (Some(NormalizerWrapper::BertNormalizer(normalizer)), Some(PreTokenizerWrapper::BertPreTokenizer(_)))
                if plain && normalizer.clean_text =>
            {
                let literals: Vec<String> = added.get_vocab().keys().cloned().collect();
                let mut begins = [false; 256];
                literals.iter().filter_map(|literal| literal.bytes().next()).for_each(|b| begins[b as usize] = true);
                let words = Words::new(*normalizer)?;
                // Tokens that only the added vocabulary has are never found by way of words.
                let vocabulary = tokenizers::Model::get_vocab(model);
                let vocabulary = vocabulary.iter().map(|(token, &id)| (token.as_str(), id));
                let unknown = tokenizers::Model::token_to_id(model, &model.unk_token).unwrap_or(ids.unk);
                let pieces = Pieces::new(vocabulary, prefix, unknown, model.max_input_chars_per_word);
                Some(Fast { words, pieces, literals, begins })
            }
            _ => None,
        };
        Ok(Inner { tokens, special, continues, fast, names, ids, pipeline })
    }
}

impl Tokenizer {
    fn from_inner(inner: Inner, max_length: usize) -> Tokenizer {
        Tokenizer { inner: Arc::new(inner), max_length }
    }

    fn inner(&self) -> &Inner {
        &self.inner
    }

    /// Makes a WordPiece vocabulary of at most `vocab_size` tokens from a corpus, `[PAD]`, `[UNK]`, `[CLS]`,
    /// `[SEP]` and `[MASK]` having the ids 0 to 4. The same corpus and options give the same vocabulary,
    /// whatever the order of the lines.
    ///
    /// It is smaller than `vocab_size` when the corpus has no more pairs of pieces that are frequent enough.
    ///
    /// # Errors
    /// When the corpus has no words, or `vocab_size` has no room for its characters (says how much it needs).
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

    /// The same tokenizer with another maximal length: tokens of an encoding, special tokens included.
    pub fn with_max_length(self, tokens: usize) -> Tokenizer {
        Tokenizer { max_length: tokens, ..self }
    }

    /// The most tokens of an encoding, special tokens included.
    pub fn max_length(&self) -> usize {
        self.max_length
    }

    /// `[CLS] text [SEP]`.
    ///
    /// # Errors
    /// When that has more tokens than the [maximal length](Tokenizer::max_length).
    pub fn encode(&self, text: &str) -> Result<Encoding> {
        self.encode_with(text, None, &EncodeOptions::new())
    }

    /// `[CLS] first [SEP] second [SEP]`, the second text and its `[SEP]` having token type 1.
    ///
    /// # Errors
    /// When that has more tokens than the [maximal length](Tokenizer::max_length).
    pub fn encode_pair(&self, first: &str, second: &str) -> Result<Encoding> {
        self.encode_with(first, Some(second), &EncodeOptions::new())
    }

    /// Encodes a text, or a pair, as `options` say.
    ///
    /// # Errors
    /// When the tokens do not fit and the truncation cannot help; when a stride is not shorter than the
    /// window, or both texts of a pair would have windows.
    pub fn encode_with(&self, text: &str, second: Option<&str>, options: &EncodeOptions) -> Result<Encoding> {
        let encode = |text: &str| {
            let encoded = self.inner.pipeline.encode_char_offsets(text, false);
            encoded.map_err(|error| Error::tokenizer(format!("cannot encode a text: {error}")))
        };
        let texts = [Some(text), second].into_iter().flatten().map(encode).collect::<Result<Vec<_>>>()?;
        let (names, ids) = (&self.inner.names, &self.inner.ids);
        let frame = Frame { cls: (&names.cls, ids.cls), sep: (&names.sep, ids.sep) };
        encoding::lay_out(&frame, &texts, self.max_length, options)
    }

    /// The ids of a text, without special tokens and of any length: for whole corpora.
    ///
    /// # Errors
    /// None that a text could cause.
    pub fn ids(&self, text: &str) -> Result<Vec<u32>> {
        let mut ids = Vec::new();
        self.ids_into(text, &mut ids)?;
        Ok(ids)
    }

    /// Appends the ids of a text, as [`ids`](Tokenizer::ids) gives them.
    ///
    /// # Errors
    /// As for [`ids`](Tokenizer::ids).
    pub fn ids_into(&self, text: &str, ids: &mut Vec<u32>) -> Result<()> {
        if let Some(fast) = self.inner.fast.as_ref().filter(|fast| !fast.has_literal(text)) {
            return fast.words.for_each(text, &mut String::new(), |word| fast.pieces.push(word, ids));
        }
        let encoded = self.inner.pipeline.encode_fast(text, false);
        let encoded = encoded.map_err(|error| Error::tokenizer(format!("cannot encode a text: {error}")))?;
        ids.extend_from_slice(encoded.get_ids());
        Ok(())
    }

    /// The text of these ids: pieces joined, blanks before punctuation removed. What normalization took away
    /// does not come back.
    ///
    /// # Errors
    /// When an id is not in the vocabulary.
    pub fn decode(&self, ids: &[u32], skip_special: bool) -> Result<String> {
        let size = self.vocab_size();
        if let Some((position, id)) = ids.iter().enumerate().find(|(_, id)| **id as usize >= size) {
            let reason = format!("token id {id} at position {position} is out of range: must be below {size}");
            return Err(Error::tokenizer(reason));
        }
        let text = self.inner.pipeline.decode(ids, skip_special);
        text.map_err(|error| Error::tokenizer(format!("cannot decode: {error}")))
    }

    /// Tokens in the vocabulary, added ones included.
    pub fn vocab_size(&self) -> usize {
        self.inner.tokens.len()
    }

    /// The token with this id.
    pub fn token(&self, id: u32) -> Option<&str> {
        self.inner.tokens.get(id as usize).map(String::as_str)
    }

    /// The id of a token, as the vocabulary writes it.
    pub fn id(&self, token: &str) -> Option<u32> {
        self.inner.pipeline.token_to_id(token)
    }

    /// The id of `[CLS]`.
    pub fn cls_id(&self) -> u32 {
        self.inner.ids.cls
    }

    /// The id of `[SEP]`.
    pub fn sep_id(&self) -> u32 {
        self.inner.ids.sep
    }

    /// The id of `[MASK]`.
    pub fn mask_id(&self) -> u32 {
        self.inner.ids.mask
    }

    /// The id of `[PAD]`.
    pub fn pad_id(&self) -> u32 {
        self.inner.ids.pad
    }

    /// The id of `[UNK]`.
    pub fn unk_id(&self) -> u32 {
        self.inner.ids.unk
    }

    /// Whether this is a special token's id. An id that is not in the vocabulary is not.
    #[inline]
    pub fn is_special(&self, id: u32) -> bool {
        self.inner.special.get(id as usize).copied().unwrap_or(false)
    }

    /// Whether this is the id of a piece that continues a word (`##...`). An id that is not in the vocabulary
    /// is not.
    #[inline]
    pub fn continues_word(&self, id: u32) -> bool {
        self.inner.continues.get(id as usize).copied().unwrap_or(false)
    }

    /// Checks that a model of this configuration has an embedding for every token.
    ///
    /// # Errors
    /// When it has fewer: says both sizes. (More are harmless, and common.)
    pub fn check_vocab_size(&self, config: &BertConfig) -> Result<()> {
        let (model, own) = (config.vocab_size, self.vocab_size());
        if own > model {
            return Err(Error::config(format!(
                "vocab_size is {model}: must be at least {own}, the tokenizer's tokens"
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
