//! A tokenizer as `tokenizer.json` describes it: text to tokens with their places, and back.
//!
//! A text goes through five stages, as in Hugging Face's `tokenizers`, whose ids and offsets these are: added tokens
//! are cut out, the rest is normalized, normalized added tokens are cut out, the rest is split into words, and each
//! word into pieces of the vocabulary.

use std::collections::HashMap;
use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::added::{Added, AddedToken, id_limit};
use super::normalizer::{Aligned, BertNormalizer, Normalizer, aligned};
use super::pieces::Pieces;
use super::pre_tokenizer::PreTokenizer;
use crate::{Error, Result};

mod json;
mod post_processor;

use post_processor::PostProcessor;

/// The tokens of a text, without special tokens around them.
#[derive(Debug, Default)]
pub(super) struct Encoded {
    pub(super) ids: Vec<u32>,
    pub(super) tokens: Vec<String>,
    /// In characters of the text.
    pub(super) offsets: Vec<(usize, usize)>,
    pub(super) words: Vec<u32>,
    /// The number of further tokens, which truncation drops.
    pub(super) rest: usize,
}

/// Tokens back to text.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "type")]
enum Decoder {
    WordPiece { prefix: String, cleanup: bool },
}

/// The vocabulary, and how words are cut into its pieces.
#[derive(Clone)]
pub(super) struct Model {
    pub(super) unknown: String,
    pub(super) prefix: String,
    max_chars: usize,
    /// By id. An id may have no token: a row of the model that nothing uses.
    tokens: Vec<Option<String>>,
    pub(super) pieces: Pieces,
}

impl Model {
    fn new(vocabulary: HashMap<String, u32>, unknown: String, prefix: String, max_chars: usize) -> Result<Model> {
        if vocabulary.is_empty() {
            return Err(Error::tokenizer("the vocabulary is empty"));
        }
        let Some(&unknown_id) = vocabulary.get(&unknown) else {
            return Err(Error::tokenizer(format!("the vocabulary has no {unknown}, the unk_token")));
        };
        let pieces = vocabulary.iter().map(|(token, &id)| (token.as_str(), id));
        let pieces = Pieces::new(pieces, &prefix, unknown_id, max_chars);
        let mut by_id: Vec<(u32, String)> = vocabulary.into_iter().map(|(token, id)| (id, token)).collect();
        by_id.sort_unstable();
        let (count, limit) = (by_id.len(), id_limit(by_id.len()));
        let mut tokens = Vec::with_capacity(by_id.len());
        for (id, token) in by_id {
            if id >= limit {
                let reason =
                    format!("{token:?} has the id {id}: must be below {limit} in a vocabulary of {count} tokens");
                return Err(Error::tokenizer(reason));
            }
            if let Some(Some(other)) = tokens.get(id as usize) {
                return Err(Error::tokenizer(format!("{other:?} and {token:?} both have the id {id}")));
            }
            tokens.resize(id as usize, None);
            tokens.push(Some(token));
        }
        Ok(Model { unknown, prefix, max_chars, tokens, pieces })
    }

    fn id(&self, token: &str) -> Option<u32> {
        self.pieces.id(token)
    }

    fn token(&self, id: u32) -> Option<&str> {
        self.tokens.get(id as usize)?.as_deref()
    }
}

/// A tokenizer, whole.
#[derive(Clone)]
pub(super) struct Pipeline {
    normalizer: Option<Normalizer>,
    pre_tokenizer: Option<PreTokenizer>,
    post_processor: Option<PostProcessor>,
    decoder: Option<Decoder>,
    model: Model,
    added: Added,
}

impl Pipeline {
    /// BERT's own pipeline with this vocabulary, given by id. A token that is repeated has its last id.
    pub(super) fn bert(
        tokens: Vec<String>,
        [unk, cls, sep]: [&str; 3],
        normalizer: BertNormalizer,
        max_chars: usize,
    ) -> Result<Pipeline> {
        let vocabulary = tokens.into_iter().zip(0..).collect();
        let model = Model::new(vocabulary, unk.to_string(), "##".to_string(), max_chars)?;
        let special = |name: &str| (name.to_string(), model.id(name).unwrap_or(0));
        Ok(Pipeline {
            normalizer: Some(Normalizer::BertNormalizer(normalizer)),
            pre_tokenizer: Some(PreTokenizer::BertPreTokenizer),
            post_processor: Some(PostProcessor::BertProcessing { sep: special(sep), cls: special(cls) }),
            decoder: Some(Decoder::WordPiece { prefix: "##".to_string(), cleanup: true }),
            model,
            added: Added::default(),
        })
    }

    /// Adds tokens: with the id that is given with one, or else behind those that are there.
    ///
    /// # Errors
    /// Returns an error if such an id belongs to another token.
    pub(super) fn add(&mut self, tokens: impl IntoIterator<Item = (Option<u32>, AddedToken)>) -> Result<()> {
        let Pipeline { added, model, normalizer, .. } = self;
        added.add(tokens, normalizer.as_ref(), &model.tokens, |token| model.id(token)).map_err(Error::tokenizer)
    }

    /// Removes the added tokens with the id `end` or a greater one.
    pub(super) fn truncate(&mut self, end: u32) {
        self.added.truncate(end);
    }

    /// The id behind the last one in use.
    pub(super) fn end(&self) -> u32 {
        self.added.end().max(self.model.tokens.len() as u32)
    }

    /// Whether special tokens stand around a text and a pair of texts as BERT has them. `None` if nothing is said.
    pub(super) fn lays_out_like_bert(&self, cls: &str, sep: &str) -> Option<bool> {
        self.post_processor.as_ref().map(|layout| layout.is_bert(cls, sep))
    }

    pub(super) fn added(&self) -> &Added {
        &self.added
    }

    pub(super) fn model(&self) -> &Model {
        &self.model
    }

    pub(super) fn bert_normalizer(&self) -> Option<&BertNormalizer> {
        match &self.normalizer {
            Some(Normalizer::BertNormalizer(bert)) => Some(bert),
            _ => None,
        }
    }

    /// Lowers the case of texts before everything else. Unlike an uncased BERT, this keeps accents.
    pub(super) fn lowercase(&mut self) {
        self.normalizer = Some(match self.normalizer.take() {
            Some(Normalizer::BertNormalizer(bert)) => Normalizer::BertNormalizer(BertNormalizer {
                strip_accents: Some(bert.strip_accents.unwrap_or(bert.lowercase)),
                lowercase: true,
                ..bert
            }),
            Some(other) => Normalizer::Sequence { normalizers: vec![Normalizer::Lowercase, other] },
            None => Normalizer::Lowercase,
        });
    }

    /// The normalizer, if a text without added tokens is split into words as BERT's own pipeline does it.
    pub(super) fn plain_bert(&self) -> Option<BertNormalizer> {
        let normalizer = self.bert_normalizer().filter(|normalizer| normalizer.clean_text)?;
        let splits = matches!(self.pre_tokenizer, Some(PreTokenizer::BertPreTokenizer));
        let plain = splits && self.added.iter().all(|(_, token)| !token.normalized);
        plain.then_some(*normalizer)
    }

    /// All tokens by id, added ones included. An id may have none.
    pub(super) fn tokens(&self) -> Vec<Option<String>> {
        let mut tokens = self.model.tokens.clone();
        for (id, token) in self.added.iter() {
            tokens.resize(tokens.len().max(id as usize + 1), None);
            tokens[id as usize] = Some(token.content.clone());
        }
        tokens
    }

    pub(super) fn id(&self, token: &str) -> Option<u32> {
        self.added.id(token).or_else(|| self.model.id(token))
    }

    /// Returns a text in its normalized form.
    pub(super) fn normalized(&self, text: &str) -> String {
        let mut letters = aligned(text);
        if let Some(normalizer) = &self.normalizer {
            normalizer.normalize(&mut letters);
        }
        letters.iter().map(|letter| letter.c).collect()
    }

    pub(super) fn encode(&self, text: &str) -> Encoded {
        let (mut encoded, letters) = (Encoded::default(), aligned(text));
        let mut word = 0;
        self.each_part(text, &letters, false, &mut encoded, &mut word, &mut |letters, encoded, word| {
            let mut letters = letters.to_vec();
            if let Some(normalizer) = &self.normalizer {
                normalizer.normalize(&mut letters);
            }
            let normalized: String = letters.iter().map(|letter| letter.c).collect();
            self.each_part(&normalized, &letters, true, encoded, word, &mut |letters, encoded, word| {
                self.encode_words(letters, encoded, word);
            });
        });
        encoded
    }

    /// Cuts added tokens out of a text and calls `rest` with what is between them.
    fn each_part(
        &self,
        text: &str,
        letters: &[Aligned],
        normalized: bool,
        encoded: &mut Encoded,
        word: &mut u32,
        rest: &mut dyn FnMut(&[Aligned], &mut Encoded, &mut u32),
    ) {
        let (mut byte, mut at) = (0, 0);
        for (token, bytes) in self.added.cut(text, normalized) {
            // A token may begin in the blanks that the token before it includes.
            at = if bytes.start < byte {
                at - text[bytes.start..byte].chars().count()
            } else {
                at + text[byte..bytes.start].chars().count()
            };
            byte = bytes.end;
            let part = &text[bytes];
            let letters = &letters[at..at + part.chars().count()];
            at += letters.len();
            match token {
                Some(id) => {
                    encoded.push(id, part.to_string(), letters, *word);
                    *word += 1;
                }
                None => rest(letters, encoded, word),
            }
        }
    }

    fn encode_words(&self, letters: &[Aligned], encoded: &mut Encoded, word: &mut u32) {
        let whole: Vec<Range<usize>> = Some(0..letters.len()).filter(|all| !all.is_empty()).into_iter().collect();
        let words = match &self.pre_tokenizer {
            Some(pre_tokenizer) => pre_tokenizer.split(letters, whole),
            None => whole,
        };
        let (mut text, mut pieces) = (String::new(), Vec::new());
        for letters in words.into_iter().map(|range| &letters[range]) {
            text.clear();
            text.extend(letters.iter().map(|letter| letter.c));
            pieces.clear();
            self.model.pieces.cut(&text, &mut pieces);
            let (mut start, mut at) = (0, 0);
            for &(id, end) in &pieces {
                let length = text[start..end].chars().count();
                encoded.push(
                    id,
                    self.model.token(id).unwrap_or_default().to_string(),
                    &letters[at..at + length],
                    *word,
                );
                (start, at) = (end, at + length);
            }
            *word += 1;
        }
    }

    /// The text of these ids. Ids that no token has are left out.
    pub(super) fn decode(&self, ids: &[u32], skip_special: bool) -> String {
        let token = |id: u32| self.added.token(id).or_else(|| self.model.token(id));
        let tokens = ids.iter().filter_map(|&id| token(id));
        let tokens = tokens.filter(|token| !skip_special || !self.added.is_special(token));
        let Some(Decoder::WordPiece { prefix, cleanup }) = &self.decoder else {
            return tokens.collect::<Vec<_>>().join(" ");
        };
        let pieces = tokens.enumerate().map(|(at, token)| {
            let piece = match token.strip_prefix(prefix.as_str()) {
                _ if at == 0 => token.to_string(),
                Some(rest) => rest.to_string(),
                None => format!(" {token}"),
            };
            if *cleanup { clean_up(&piece) } else { piece }
        });
        pieces.collect()
    }
}

impl Encoded {
    /// A text of one token.
    pub(super) fn single(id: u32, token: String, offset: (usize, usize)) -> Encoded {
        Encoded { ids: vec![id], tokens: vec![token], offsets: vec![offset], words: vec![0], rest: 0 }
    }

    /// The number of tokens of the text.
    pub(super) fn length(&self) -> usize {
        self.ids.len() + self.rest
    }

    /// Moves the tokens behind this many characters and words.
    pub(super) fn shift(&mut self, characters: usize, words: u32) {
        self.offsets.iter_mut().for_each(|(start, end)| (*start, *end) = (*start + characters, *end + characters));
        self.words.iter_mut().for_each(|word| *word += words);
    }

    /// Appends the tokens of the next part of the text.
    pub(super) fn append(&mut self, part: Encoded) {
        self.ids.extend(part.ids);
        self.tokens.extend(part.tokens);
        self.offsets.extend(part.offsets);
        self.words.extend(part.words);
    }

    /// Removes tokens.
    pub(super) fn remove(&mut self, tokens: Range<usize>) {
        self.ids.drain(tokens.clone());
        self.tokens.drain(tokens.clone());
        self.offsets.drain(tokens.clone());
        self.words.drain(tokens);
    }

    fn push(&mut self, id: u32, token: String, letters: &[Aligned], word: u32) {
        let (start, end) = (letters.first().map_or(0, |first| first.start), letters.last().map_or(0, |last| last.end));
        self.ids.push(id);
        self.tokens.push(token);
        self.offsets.push((start, end));
        self.words.push(word);
    }
}

/// Removes blanks that tokenization put before punctuation and inside English contractions.
fn clean_up(piece: &str) -> String {
    const REPLACEMENTS: [(&str, &str); 11] = [
        (" .", "."),
        (" ?", "?"),
        (" !", "!"),
        (" ,", ","),
        (" ' ", "'"),
        (" n't", "n't"),
        (" 'm", "'m"),
        (" do not", " don't"),
        (" 's", "'s"),
        (" 've", "'ve"),
        (" 're", "'re"),
    ];
    let mut piece = piece.to_string();
    for (from, to) in REPLACEMENTS {
        if piece.contains(from) {
            piece = piece.replace(from, to);
        }
    }
    piece
}
