//! Reads and writes a [`Pipeline`] as `tokenizer.json`.

use std::collections::HashMap;

use serde::de::IgnoredAny;
use serde::ser::{SerializeMap, SerializeSeq};
use serde::{Deserialize, Serialize, Serializer};

use super::{Added, AddedToken, BertNormalizer, Decoder, Model, Normalizer, Pipeline, PostProcessor, PreTokenizer};
use crate::{Error, Result};

const VERSION: &str = "1.0";

/// The fields of a `tokenizer.json`; another one is an error. Truncation and padding are left to
/// [`EncodeOptions`](crate::EncodeOptions), as `transformers` leaves them to the caller.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    version: Option<String>,
    #[serde(rename = "truncation")]
    _truncation: Option<IgnoredAny>,
    #[serde(rename = "padding")]
    _padding: Option<IgnoredAny>,
    #[serde(default)]
    added_tokens: Vec<WithId>,
    normalizer: Option<Normalizer>,
    pre_tokenizer: Option<PreTokenizer>,
    post_processor: Option<PostProcessor>,
    decoder: Option<Decoder>,
    model: StoredModel,
}

#[derive(Deserialize)]
struct WithId {
    id: Option<u32>,
    #[serde(flatten)]
    token: AddedToken,
}

/// The kind of model alone.
#[derive(Deserialize)]
struct Kind {
    model: ModelKind,
}

#[derive(Deserialize)]
struct ModelKind {
    #[serde(rename = "type")]
    kind: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredModel {
    #[serde(rename = "type")]
    kind: Option<String>,
    unk_token: Option<String>,
    continuing_subword_prefix: Option<String>,
    max_input_chars_per_word: Option<usize>,
    #[serde(default)]
    vocab: HashMap<String, u32>,
}

impl Pipeline {
    /// Reads a `tokenizer.json`. `adjust` may change its BERT normalizer, if it has one.
    ///
    /// # Errors
    /// Returns an error if it is not a WordPiece tokenizer or has a part that is not supported, which the error names.
    pub(in super::super) fn from_json(text: &str, adjust: impl FnOnce(&mut BertNormalizer)) -> Result<Pipeline> {
        let invalid = |reason: String| Error::tokenizer(format!("not a tokenizer of BERT's kind: {reason}"));
        let other = |kind: &str| invalid(format!("its model is {kind:?}, supported is \"WordPiece\""));
        // Another kind of model is named, instead of whatever in it cannot be read.
        let stored: Stored = serde_json::from_str(text).map_err(|error| match serde_json::from_str::<Kind>(text) {
            Ok(Kind { model }) if model.kind != "WordPiece" => other(&model.kind),
            _ => invalid(error.to_string()),
        })?;
        if let Some(version) = stored.version.filter(|version| version != VERSION) {
            return Err(invalid(format!("its version is {version:?}, supported is {VERSION:?}")));
        }
        let model = stored.model;
        if let Some(kind) = model.kind.filter(|kind| kind != "WordPiece") {
            return Err(other(&kind));
        }
        let missing = |field: &str| invalid(format!("its model has no {field:?}"));
        let model = Model::new(
            model.vocab,
            model.unk_token.ok_or_else(|| missing("unk_token"))?,
            model.continuing_subword_prefix.ok_or_else(|| missing("continuing_subword_prefix"))?,
            model.max_input_chars_per_word.ok_or_else(|| missing("max_input_chars_per_word"))?,
        )?;
        let mut normalizer = stored.normalizer;
        if let Some(Normalizer::BertNormalizer(bert)) = &mut normalizer {
            adjust(bert);
        }
        let mut pipeline = Pipeline {
            normalizer,
            pre_tokenizer: stored.pre_tokenizer,
            post_processor: stored.post_processor,
            decoder: stored.decoder,
            model,
            added: Added::default(),
        };
        pipeline.add(stored.added_tokens.into_iter().map(|WithId { id, token }| (id, token)))?;
        Ok(pipeline)
    }

    pub(in super::super) fn to_json(&self, pretty: bool) -> Result<String> {
        let json = if pretty { serde_json::to_string_pretty(self) } else { serde_json::to_string(self) };
        json.map_err(|error| Error::tokenizer(error.to_string()))
    }
}

/// Fields in the order in which Hugging Face's `tokenizers` writes them.
impl Serialize for Pipeline {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(9))?;
        map.serialize_entry("version", VERSION)?;
        map.serialize_entry("truncation", &())?;
        map.serialize_entry("padding", &())?;
        map.serialize_entry("added_tokens", &self.added)?;
        map.serialize_entry("normalizer", &self.normalizer)?;
        map.serialize_entry("pre_tokenizer", &self.pre_tokenizer)?;
        map.serialize_entry("post_processor", &self.post_processor)?;
        map.serialize_entry("decoder", &self.decoder)?;
        map.serialize_entry("model", &self.model)?;
        map.end()
    }
}

impl Serialize for Added {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct WithId<'a> {
            id: u32,
            #[serde(flatten)]
            token: &'a AddedToken,
        }
        let mut tokens = serializer.serialize_seq(None)?;
        for (id, token) in self.iter() {
            tokens.serialize_element(&WithId { id, token })?;
        }
        tokens.end()
    }
}

impl Serialize for Model {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        struct Vocabulary<'a>(&'a [Option<String>]);
        impl Serialize for Vocabulary<'_> {
            fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
                let tokens = self.0.iter().zip(0u32..);
                serializer.collect_map(tokens.filter_map(|(token, id)| Some((token.as_ref()?, id))))
            }
        }
        let mut map = serializer.serialize_map(Some(5))?;
        map.serialize_entry("type", "WordPiece")?;
        map.serialize_entry("unk_token", &self.unknown)?;
        map.serialize_entry("continuing_subword_prefix", &self.prefix)?;
        map.serialize_entry("max_input_chars_per_word", &self.max_chars)?;
        map.serialize_entry("vocab", &Vocabulary(&self.tokens))?;
        map.end()
    }
}
