//! The files of a tokenizer: `vocab.txt` or `tokenizer.json`, and the settings beside it.

use std::path::Path;

use serde_json::{Map, Value, json};

use super::added::AddedToken;
use super::class::Class;
use super::normalizer::BertNormalizer;
use super::options::{MAX_CHARS, TokenizerOptions};
use super::pipeline::Pipeline;
use super::settings::{CONFIG, SPECIAL, Settings, TOKENIZER};
use super::special::Names;
use super::{Inner, Tokenizer};
use crate::files::{read_json, read_text, replace};
use crate::folder::Folder;
use crate::{Error, Result};

const VOCAB: &str = "vocab.txt";

impl Tokenizer {
    /// Opens the tokenizer in the folder `place`, or [of this name](crate#models-by-name): `tokenizer.json`, or else
    /// `vocab.txt`, with the settings in `tokenizer_config.json`, `special_tokens_map.json` and `added_tokens.json` if
    /// they exist. Without `tokenizer_config.json`, `vocab.txt` is uncased. Where nothing limits the length, it is
    /// `max_position_embeddings` of `config.json`, or else 512.
    ///
    /// [`conflicts`](Tokenizer::conflicts) lists where two files differ.
    ///
    /// # Errors
    /// Returns an error if a file is missing, cannot be read, is not UTF-8 or not JSON; if the vocabulary is empty or
    /// lacks the unknown token; if a field is unknown or has a value that is not supported; or if the tokenizer is not
    /// a WordPiece.
    pub fn open(place: impl AsRef<Path>) -> Result<Tokenizer> {
        Tokenizer::in_folder(&Folder::at(place.as_ref())?)
    }

    /// Opens the tokenizer in a model folder.
    pub(crate) fn in_folder(folder: &Folder) -> Result<Tokenizer> {
        let mut settings = Settings::read(folder)?;
        if let Some(path) = folder.find(TOKENIZER)? {
            let pipeline = Pipeline::from_json(&read_json(&path)?, |normalizer| settings.adjust(normalizer));
            let tokenizer = pipeline.and_then(|pipeline| {
                settings.source.conflicts.extend(vocabulary_conflict(folder, &pipeline)?);
                Tokenizer::from_settings(pipeline, settings)
            });
            return tokenizer.map_err(|error| error.in_file(&path));
        }
        if settings.source.class == Class::Stored {
            return Err(folder.lacking(&format!("has no {TOKENIZER}, which its tokenizer_class needs")));
        }
        let neither = || folder.lacking(&format!("has neither {TOKENIZER} nor {VOCAB}"));
        let path = folder.find(VOCAB)?.ok_or_else(neither)?;
        let tokenizer = read_vocab(&path).and_then(|tokens| {
            let pipeline = bert_pipeline(tokens, &settings.names, &settings.options())?;
            Tokenizer::from_settings(pipeline, settings)
        });
        tokenizer.map_err(|error| error.in_file(&path))
    }

    /// Opens a `vocab.txt`: one token per line, whose id is the number of the line, from 0. A token that is repeated
    /// has its last id.
    ///
    /// # Errors
    /// Returns an error like [`open`](Tokenizer::open).
    pub fn from_vocab_file(path: impl AsRef<Path>, options: &TokenizerOptions) -> Result<Tokenizer> {
        let path = path.as_ref();
        let tokenizer = read_vocab(path).and_then(|tokens| Tokenizer::from_tokens(tokens, &Names::default(), options));
        tokenizer.map_err(|error| error.in_file(path))
    }

    /// Creates a tokenizer from its tokens, ordered by id.
    pub(super) fn from_tokens(tokens: Vec<String>, names: &Names, options: &TokenizerOptions) -> Result<Tokenizer> {
        let settings = Settings { max_length: Some(options.max_length), ..Settings::of(names.clone()) };
        Tokenizer::from_settings(bert_pipeline(tokens, names, options)?, settings)
    }

    /// Adds the tokens of the settings to a pipeline.
    fn from_settings(mut pipeline: Pipeline, settings: Settings) -> Result<Tokenizer> {
        let max_length = settings.options().max_length;
        let Settings { mut source, names, added, replaces, .. } = settings;
        let unknown = &pipeline.model().unknown;
        if *unknown != names.unk {
            return Err(Error::tokenizer(format!(
                "the unknown token is {unknown:?} in the model, but {:?} in the configuration",
                names.unk
            )));
        }
        let layout = pipeline.lays_out_like_bert(&names.cls, &names.sep);
        if source.class == Class::Stored && layout != Some(true) {
            let reason = "post_processor is not that of BERT, [CLS] A [SEP] B [SEP], the only one that is supported";
            return Err(Error::tokenizer(reason));
        }
        if layout == Some(false) {
            source
                .conflicts
                .push(format!("post_processor of {TOKENIZER} is not that of a BertTokenizer, which counts"));
        }
        for (given, token) in &added {
            if let (Some(given), Some(id)) = (given, pipeline.id(&token.content))
                && *given != id
            {
                let token = &token.content;
                source
                    .conflicts
                    .push(format!("the added token {token:?} has the id {given}, in the vocabulary {id}: {id} counts"));
            }
        }
        // Stored properties of a token are kept, unless `added_tokens_decoder` gives others.
        let missing = |(id, token): &(Option<u32>, AddedToken)| {
            let stored = pipeline.added().id(&token.content).is_some();
            !stored || (replaces && id.is_some())
        };
        let (mut with_id, mut without_id): (Vec<_>, Vec<_>) =
            added.into_iter().filter(missing).partition(|(id, _)| id.is_some());
        let is_name = |token: &AddedToken| names.all().contains(&token.content.as_str());
        for (_, token) in with_id.iter_mut().chain(&mut without_id).filter(|(_, token)| is_name(token)) {
            token.special = true;
        }
        pipeline.add(with_id)?;
        let own = pipeline.end();
        pipeline.add(without_id)?;
        // Names that `tokenizer.json` has as ordinary tokens.
        let ordinary = names.all().into_iter().filter(|name| !pipeline.added().is_special(name));
        let ordinary: Vec<_> = ordinary.map(|name| (None, AddedToken::new(name, true))).collect();
        pipeline.add(ordinary)?;
        Ok(Tokenizer::from_inner(Inner::new(pipeline, names, own, source)?, max_length))
    }

    /// Returns the tokenizer with additional tokens, which get the next ids and are matched anywhere in a text before
    /// normalization. Existing tokens are unchanged. The model must be
    /// [resized](crate::PreTrainedModel::resize_token_embeddings) accordingly.
    ///
    /// # Errors
    /// Returns an error if a token is blank.
    pub fn add_tokens<S: AsRef<str>>(&self, tokens: impl IntoIterator<Item = S>) -> Result<Tokenizer> {
        let inner = self.inner();
        let mut added = Vec::new();
        for token in tokens {
            let token = token.as_ref();
            if token.trim().is_empty() {
                return Err(Error::tokenizer(format!("cannot add the token {token:?}: it is blank")));
            }
            if inner.pipeline.normalized(token).trim().is_empty() {
                let reason = format!("cannot add the token {token:?}: it is blank after normalization");
                return Err(Error::tokenizer(reason));
            }
            if inner.pipeline.id(token).is_none() {
                added.push((None, AddedToken::new(token, false)));
            }
        }
        let mut pipeline = inner.pipeline.clone();
        pipeline.add(added)?;
        let own = pipeline.end();
        let inner = Inner::new(pipeline, inner.names.clone(), own, inner.source.clone())?;
        Ok(Tokenizer::from_inner(inner, self.max_length()))
    }

    /// Returns the tokenizer of texts in lower case: `do_lower_case` of `sentence-transformers`, which keeps accents.
    pub(crate) fn lowercased(&self) -> Result<Tokenizer> {
        let inner = self.inner();
        let mut pipeline = inner.pipeline.clone();
        pipeline.lowercase();
        let inner = Inner::new(pipeline, inner.names.clone(), inner.own, inner.source.clone())?;
        Ok(Tokenizer::from_inner(inner, self.max_length()))
    }

    /// Returns the text of `tokenizer.json`, which has the vocabulary and all settings that ids depend on.
    ///
    /// # Errors
    /// Returns an error only if serialization fails, which no tokenizer is known to cause.
    pub fn to_json(&self) -> Result<String> {
        self.inner().stored().to_json(false)
    }

    /// Writes `vocab.txt`, `tokenizer.json`, `tokenizer_config.json` and `special_tokens_map.json` in the format of
    /// `transformers` into the folder `dir`, creating it if necessary. Each existing file is replaced atomically.
    ///
    /// # Errors
    /// Returns an error if a file cannot be written.
    pub fn save(&self, dir: impl AsRef<Path>) -> Result<()> {
        let (dir, inner) = (dir.as_ref(), self.inner());
        let (own, implied) = inner.tokens.split_at(inner.own as usize);
        let vocab: String = own.iter().flat_map(|token| [token.as_deref().unwrap_or_default(), "\n"]).collect();
        let stored = inner.stored().to_json(true)?;
        let value = |token: &str| {
            let id = inner.pipeline.added().id(token);
            id.and_then(|id| inner.pipeline.added().get(id)).map_or_else(|| json!(token), AddedToken::to_value)
        };
        let special: Map<String, Value> =
            inner.names.fields().into_iter().map(|(field, name)| (field.to_string(), value(name))).collect();
        let mut config = special.clone();
        let others = implied.iter().flatten().filter(|token| !inner.names.all().contains(&token.as_str()));
        let others: Vec<Value> = others.map(|token| value(token)).collect();
        if !others.is_empty() {
            config.insert("additional_special_tokens".to_string(), json!(others));
        }
        config.extend([
            ("tokenizer_class".to_string(), json!(inner.source.class.name())),
            ("model_max_length".to_string(), json!(self.max_length())),
        ]);
        if let Some(typed) = inner.source.token_types {
            let names = if typed {
                &["input_ids", "token_type_ids", "attention_mask"][..]
            } else {
                &["input_ids", "attention_mask"]
            };
            config.insert("model_input_names".to_string(), json!(names));
        }
        if let Some(normalizer) = inner.pipeline.bert_normalizer() {
            config.extend([
                ("do_lower_case".to_string(), json!(normalizer.lowercase)),
                ("strip_accents".to_string(), json!(normalizer.strip_accents)),
                ("tokenize_chinese_chars".to_string(), json!(normalizer.handle_chinese_chars)),
            ]);
        }
        replace(&dir.join(VOCAB), vocab.as_bytes())?;
        replace(&dir.join(TOKENIZER), stored.as_bytes())?;
        replace(&dir.join(CONFIG), format!("{:#}\n", Value::Object(config)).as_bytes())?;
        replace(&dir.join(SPECIAL), format!("{:#}\n", Value::Object(special)).as_bytes())
    }
}

/// Returns the normalizer for these options.
pub(super) fn normalizer(options: &TokenizerOptions) -> BertNormalizer {
    BertNormalizer {
        clean_text: true,
        handle_chinese_chars: options.chinese_chars,
        strip_accents: options.strip_accents,
        lowercase: options.lowercase,
    }
}

/// Creates BERT's pipeline with these tokens, ordered by id.
fn bert_pipeline(tokens: Vec<String>, names: &Names, options: &TokenizerOptions) -> Result<Pipeline> {
    let special = [&names.unk, &names.cls, &names.sep].map(String::as_str);
    Pipeline::bert(tokens, special, normalizer(options), MAX_CHARS)
}

/// Returns a line about the first token whose id in a `vocab.txt` is not that in the `tokenizer.json` beside it.
/// Nothing is downloaded for it.
fn vocabulary_conflict(folder: &Folder, pipeline: &Pipeline) -> Result<Option<String>> {
    if !folder.is_on_disk() {
        return Ok(None);
    }
    let Some(path) = folder.find(VOCAB)? else { return Ok(None) };
    let Ok(tokens) = read_vocab(&path) else { return Ok(None) };
    // If a token is repeated, its last line gives the id.
    let differs = |(id, token): &(usize, &String)| {
        pipeline.id(token).is_none_or(|other| other as usize != *id)
            && !token.trim().is_empty()
            && !tokens[id + 1..].contains(token)
    };
    Ok(tokens.iter().enumerate().find(differs).map(|(id, token)| {
        let other = pipeline.id(token).map_or("none".to_string(), |id| id.to_string());
        format!("{token:?} has the id {id} in {VOCAB}, {other} in {TOKENIZER}: {TOKENIZER} counts")
    }))
}

/// Reads a `vocab.txt`. Every line is a token, even one that no text has because it is blank; as in `transformers`,
/// blanks at the end of another token do not belong to it.
fn read_vocab(path: &Path) -> Result<Vec<String>> {
    let text = read_text(path)?;
    let token = |line: &str| {
        let token = line.trim_end();
        if token.is_empty() { line.to_string() } else { token.to_string() }
    };
    Ok(text.lines().map(token).collect())
}
