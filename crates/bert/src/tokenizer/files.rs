//! The files of a tokenizer: `vocab.txt`, `tokenizer.json`, `tokenizer_config.json`, `special_tokens_map.json`.

use std::path::Path;

use serde_json::{Map, Value, json};

use super::added::AddedToken;
use super::normalizer::BertNormalizer;
use super::options::{MAX_CHARS, TokenizerOptions};
use super::pipeline::Pipeline;
use super::special::Names;
use super::{Inner, Tokenizer};
use crate::files::{read_object, read_text, replace};
use crate::folder::Folder;
use crate::{Error, Result};

const VOCAB: &str = "vocab.txt";
const TOKENIZER: &str = "tokenizer.json";
const CONFIG: &str = "tokenizer_config.json";
const SPECIAL: &str = "special_tokens_map.json";

/// A `model_max_length` of at least this number means no limit; `transformers` writes 10^30.
const NO_MAX_LENGTH: f64 = 1e9;

impl Tokenizer {
    /// Opens the tokenizer in the folder `place`, or [of this name](crate#models-by-name): `tokenizer.json`, or else
    /// `vocab.txt`, with the settings in `tokenizer_config.json` and `special_tokens_map.json` if they exist. Without
    /// `tokenizer_config.json`, `vocab.txt` is uncased.
    ///
    /// # Errors
    /// Returns an error if a file is missing, cannot be read, is not UTF-8 or not JSON; if the vocabulary is empty, has
    /// a token twice or lacks a special token; or if the tokenizer is not a WordPiece.
    pub fn open(place: impl AsRef<Path>) -> Result<Tokenizer> {
        Tokenizer::in_folder(&Folder::at(place.as_ref())?)
    }

    /// Opens the tokenizer in a model folder.
    pub(crate) fn in_folder(folder: &Folder) -> Result<Tokenizer> {
        let (mut names, mut options) = (Names::default(), TokenizerOptions::default());
        let object = |name: &str| folder.find(name)?.map_or_else(|| Ok(Map::new()), |path| read_object(&path));
        names.read(&object(SPECIAL)?);
        let config = object(CONFIG)?;
        names.read(&config);
        let flag = |name: &str| config.get(name).and_then(Value::as_bool);
        options.lowercase = flag("do_lower_case").unwrap_or(options.lowercase);
        options.strip_accents = flag("strip_accents");
        options.chinese_chars = flag("tokenize_chinese_chars").unwrap_or(options.chinese_chars);
        if let Some(length) = config.get("model_max_length").and_then(Value::as_f64)
            && (1.0..NO_MAX_LENGTH).contains(&length)
        {
            options.max_length = length as usize;
        }

        let Some(path) = folder.find(TOKENIZER)? else {
            let neither = || folder.lacking(&format!("has neither {TOKENIZER} nor {VOCAB}"));
            return open_vocab(&folder.find(VOCAB)?.ok_or_else(neither)?, &names, &options);
        };
        let text = read_text(&path)?;
        // As in `transformers`, explicit settings take precedence over `tokenizer.json`.
        let pipeline = Pipeline::from_json(&text, |normalizer| {
            normalizer.lowercase = flag("do_lower_case").unwrap_or(normalizer.lowercase);
            normalizer.strip_accents = options.strip_accents.or(normalizer.strip_accents);
            normalizer.handle_chinese_chars = flag("tokenize_chinese_chars").unwrap_or(normalizer.handle_chinese_chars);
        });
        let tokenizer = pipeline.and_then(|pipeline| Tokenizer::from_pipeline(pipeline, names, options.max_length));
        tokenizer.map_err(|error| error.in_file(&path))
    }

    /// Opens a `vocab.txt`: one token per line, whose id is the number of the line, from 0.
    ///
    /// # Errors
    /// Returns an error like [`open`](Tokenizer::open).
    pub fn from_vocab_file(path: impl AsRef<Path>, options: &TokenizerOptions) -> Result<Tokenizer> {
        open_vocab(path.as_ref(), &Names::default(), options)
    }

    /// Creates a tokenizer from its tokens, ordered by id.
    pub(super) fn from_tokens(tokens: Vec<String>, names: &Names, options: &TokenizerOptions) -> Result<Tokenizer> {
        let special = [&names.unk, &names.cls, &names.sep].map(String::as_str);
        let pipeline = Pipeline::bert(tokens, special, normalizer(options), MAX_CHARS)?;
        Tokenizer::from_pipeline(pipeline, names.clone(), options.max_length)
    }

    fn from_pipeline(mut pipeline: Pipeline, names: Names, max_length: usize) -> Result<Tokenizer> {
        let unknown = &pipeline.model().unknown;
        if *unknown != names.unk {
            return Err(Error::tokenizer(format!(
                "the unknown token is {unknown:?} in the model, but {:?} in the configuration",
                names.unk
            )));
        }
        for name in names.all() {
            if pipeline.id(name).is_none() {
                return Err(Error::tokenizer(format!("the vocabulary has no {name}")));
            }
        }
        // Tokens that are already special keep their stored options.
        let missing = names.all().into_iter().filter(|name| !pipeline.added().is_special(name));
        let missing: Vec<_> = missing.map(|name| AddedToken::new(name, true)).collect();
        pipeline.add(missing);
        Ok(Tokenizer::from_inner(Inner::new(pipeline, names)?, max_length))
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
                added.push(AddedToken::new(token, false));
            }
        }
        let mut pipeline = inner.pipeline.clone();
        pipeline.add(added);
        Ok(Tokenizer::from_inner(Inner::new(pipeline, inner.names.clone())?, self.max_length()))
    }

    /// Returns the tokenizer of texts in lower case: `do_lower_case` of `sentence-transformers`, which keeps accents.
    pub(crate) fn lowercased(&self) -> Result<Tokenizer> {
        let inner = self.inner();
        let mut pipeline = inner.pipeline.clone();
        pipeline.lowercase();
        Ok(Tokenizer::from_inner(Inner::new(pipeline, inner.names.clone())?, self.max_length()))
    }

    /// Returns the text of `tokenizer.json`, which has the vocabulary and all settings that ids depend on.
    ///
    /// # Errors
    /// Returns an error only if serialization fails, which no tokenizer is known to cause.
    pub fn to_json(&self) -> Result<String> {
        self.inner().pipeline.to_json(false)
    }

    /// Writes `vocab.txt`, `tokenizer.json`, `tokenizer_config.json` and `special_tokens_map.json` in the format of
    /// `transformers` into the folder `dir`, creating it if necessary. Each existing file is replaced atomically.
    ///
    /// # Errors
    /// Returns an error if a file cannot be written.
    pub fn save(&self, dir: impl AsRef<Path>) -> Result<()> {
        let (dir, inner) = (dir.as_ref(), self.inner());
        let vocab: String = inner.tokens.iter().flat_map(|token| [token, "\n"]).collect();
        let stored = inner.pipeline.to_json(true)?;
        let special = inner.names.to_map();
        let mut config = special.clone();
        config.extend([
            ("tokenizer_class".to_string(), json!("BertTokenizer")),
            ("model_max_length".to_string(), json!(self.max_length())),
        ]);
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

fn open_vocab(path: &Path, names: &Names, options: &TokenizerOptions) -> Result<Tokenizer> {
    let text = read_text(path)?;
    let tokens: Vec<String> = text.trim_end_matches(['\n', '\r']).lines().map(str::to_string).collect();
    if let Some(line) = tokens.iter().position(|token| token.trim().is_empty()) {
        return Err(Error::format(path, format!("line {} is blank: each line is a token", line + 1)));
    }
    Tokenizer::from_tokens(tokens, names, options).map_err(|error| error.in_file(path))
}
