//! A tokenizer as `tokenizer.json` describes it: text to tokens with their places, and back.
//!
//! A text goes through five stages, as in Hugging Face's `tokenizers`, whose ids and offsets these are: added tokens are
//! cut out, the rest is normalized, normalized added tokens are cut out, the rest is split into words, and each word
//! into pieces of the vocabulary.

use std::collections::HashMap;
use std::ops::Range;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::added::{Added, AddedToken};
use super::normalizer::{Aligned, BertNormalizer, Normalizer, aligned};
use super::pieces::Pieces;
use super::pre_tokenizer::PreTokenizer;
use crate::{Error, Result};

mod json;

/// The tokens of a text, without special tokens around them.
#[derive(Debug, Default)]
pub(super) struct Encoded {
    pub(super) ids: Vec<u32>,
    pub(super) tokens: Vec<String>,
    /// In characters of the text.
    pub(super) offsets: Vec<(usize, usize)>,
    pub(super) words: Vec<u32>,
}

/// The layout of special tokens, which [`encoding`](super::encoding) has its own code for. It is read to be saved again.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "type")]
#[allow(clippy::enum_variant_names, reason = "the names of tokenizer.json")]
enum PostProcessor {
    BertProcessing {
        sep: (String, u32),
        cls: (String, u32),
    },
    RobertaProcessing {
        sep: (String, u32),
        cls: (String, u32),
        trim_offsets: bool,
        add_prefix_space: bool,
    },
    TemplateProcessing {
        single: Vec<Value>,
        pair: Vec<Value>,
        special_tokens: Value,
    },
    #[serde(untagged)]
    Other(Value),
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
    /// By id.
    tokens: Vec<String>,
    pub(super) pieces: Pieces,
}

impl Model {
    fn new(vocabulary: HashMap<String, u32>, unknown: String, prefix: String, max_chars: usize) -> Result<Model> {
        if vocabulary.is_empty() {
            return Err(Error::tokenizer("the vocabulary is empty"));
        }
        let Some(&unknown_id) = vocabulary.get(&unknown) else {
            return Err(Error::tokenizer(format!("the vocabulary has no {unknown}")));
        };
        let pieces = vocabulary.iter().map(|(token, &id)| (token.as_str(), id));
        let pieces = Pieces::new(pieces, &prefix, unknown_id, max_chars);
        let count = vocabulary.len();
        let mut tokens: Vec<Option<String>> = vec![None; count];
        for (token, id) in vocabulary {
            if let Some(place) = tokens.get_mut(id as usize) {
                *place = Some(token);
            }
        }
        if let Some(missing) = tokens.iter().position(Option::is_none) {
            return Err(Error::tokenizer(format!(
                "the vocabulary has {count} tokens, but none with the id {missing}: ids must be 0 to {}",
                count - 1
            )));
        }
        Ok(Model { unknown, prefix, max_chars, tokens: tokens.into_iter().flatten().collect(), pieces })
    }

    fn id(&self, token: &str) -> Option<u32> {
        self.pieces.id(token)
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
    /// BERT's own pipeline with this vocabulary, given by id.
    pub(super) fn bert(
        tokens: Vec<String>,
        [unk, cls, sep]: [&str; 3],
        normalizer: BertNormalizer,
        max_chars: usize,
    ) -> Result<Pipeline> {
        let mut vocabulary = HashMap::with_capacity(tokens.len());
        for (id, token) in (0..).zip(tokens) {
            if let Some(first) = vocabulary.get(&token) {
                return Err(Error::tokenizer(format!("lines {} and {} are both {token:?}", first + 1, id + 1)));
            }
            vocabulary.insert(token, id);
        }
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

    /// Adds tokens behind those that are there.
    pub(super) fn add(&mut self, tokens: impl IntoIterator<Item = AddedToken>) {
        let Pipeline { added, model, normalizer, .. } = self;
        added.add(tokens, normalizer.as_ref(), model.tokens.len(), |token| model.id(token));
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

    /// All tokens by id, added ones included.
    pub(super) fn tokens(&self) -> Vec<String> {
        let mut tokens = self.model.tokens.clone();
        for (id, _) in self.added.iter() {
            let token = self.added.token(id).unwrap_or_default().to_string();
            match tokens.get_mut(id as usize) {
                Some(known) => *known = token,
                None => tokens.push(token),
            }
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
                encoded.push(id, self.model.tokens[id as usize].clone(), &letters[at..at + length], *word);
                (start, at) = (end, at + length);
            }
            *word += 1;
        }
    }

    /// The text of these ids. Ids that no token has are left out.
    pub(super) fn decode(&self, ids: &[u32], skip_special: bool) -> String {
        let token = |id: u32| self.added.token(id).or_else(|| self.model.tokens.get(id as usize).map(String::as_str));
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
