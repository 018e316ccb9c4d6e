//! A JSON file beside a vocabulary, and the tables of the fields of `tokenizer_config.json` that are not read.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::added::AddedToken;
use crate::files::{read_object, short};
use crate::folder::Folder;
use crate::{Error, Result};

/// A `model_max_length` of at least this number means no limit; `transformers` writes 10^30.
const NO_MAX_LENGTH: f64 = 1e9;

/// Fields of `tokenizer_config.json` that change no id: where the tokenizer came from, and what callers of
/// `transformers` get by default, such as padding, which a packed batch does not have.
const HARMLESS: [&str; 34] = [
    "add_bos_token",
    "add_eos_token",
    "add_prefix_space",
    "backend",
    "chat_template",
    "clean_up_tokenization_spaces",
    "device_map",
    "errors",
    "from_slow",
    "full_tokenizer_file",
    "init_inputs",
    "is_local",
    "keep_accents",
    "legacy",
    "local_files_only",
    "max_length",
    "model_input_names",
    "model_type",
    "name_or_path",
    "pad_to_multiple_of",
    "pad_token_type_id",
    "padding",
    "padding_side",
    "processor_class",
    "return_token_type_ids",
    "special_tokens_map_file",
    "stride",
    "tokenizer_file",
    "transformers_version",
    "truncation",
    "truncation_strategy",
    "use_fast",
    "vocab_file",
    "vocab_size",
];

/// Fields that change ids, and the only value that is supported.
const ONLY: [(&str, &str); 7] = [
    ("clean_text", "true"),
    ("do_basic_tokenize", "true"),
    ("fast_tokenizer_files", "[]"),
    ("never_split", "[]"),
    ("split_special_tokens", "false"),
    ("truncation_side", "\"right\""),
    ("wordpieces_prefix", "\"##\""),
];

/// Special tokens by the name of their field.
pub(super) type Named = Vec<(String, AddedToken)>;

/// A JSON file of a folder.
pub(super) struct SideFile {
    path: PathBuf,
    pub(super) fields: Map<String, Value>,
}

impl SideFile {
    pub(super) fn find(folder: &Folder, name: &str) -> Result<SideFile> {
        let path = folder.find(name)?;
        let fields = path.as_deref().map_or_else(|| Ok(Map::new()), read_object)?;
        Ok(SideFile { path: path.unwrap_or_else(|| Path::new(name).to_path_buf()), fields })
    }

    pub(super) fn error(&self, reason: String) -> Error {
        Error::format(&self.path, reason)
    }

    pub(super) fn wrong(&self, field: &str, value: &Value, must: &str) -> Error {
        self.error(format!("{field} is {}: {must}", short(value)))
    }

    pub(super) fn flag(&self, field: &str, value: &Value) -> Result<bool> {
        value.as_bool().ok_or_else(|| self.wrong(field, value, "must be true, false or absent"))
    }

    /// Returns a maximum length, or `None` if it stands for no limit.
    pub(super) fn length(&self, field: &str, value: &Value) -> Result<Option<usize>> {
        match value.as_f64() {
            Some(length) if length >= NO_MAX_LENGTH => Ok(None),
            Some(length) if length >= 1.0 => Ok(Some(length as usize)),
            _ => Err(self.wrong(field, value, "must be a number of at least 1, or absent")),
        }
    }

    /// Returns a special token, given as a string or as an object with its properties.
    pub(super) fn token(&self, field: &str, value: &Value) -> Result<AddedToken> {
        let token = match value {
            Value::String(content) => Some(AddedToken::new(content, true)),
            Value::Object(properties) => AddedToken::from_properties(properties, true),
            _ => None,
        };
        let token = token.filter(|token| !token.content.is_empty());
        token.ok_or_else(|| self.wrong(field, value, "must be a token, as a string or an object with its \"content\""))
    }

    /// Appends the tokens of a list, or of an object that names them.
    pub(super) fn special(
        &self,
        field: &str,
        value: &Value,
        named: &mut Named,
        list: &mut Vec<AddedToken>,
    ) -> Result<()> {
        match value {
            Value::Array(tokens) => {
                for token in tokens {
                    list.push(self.token(field, token)?);
                }
            }
            Value::Object(tokens) => {
                for (name, token) in tokens {
                    named.push((name.clone(), self.token(field, token)?));
                }
            }
            _ => return Err(self.wrong(field, value, "must be a list of tokens, or absent")),
        }
        Ok(())
    }

    /// Returns the tokens of `added_tokens_decoder` by their ids.
    pub(super) fn decoder(&self, value: &Value) -> Result<Vec<(Option<u32>, AddedToken)>> {
        let must = "must be an object that maps ids to tokens with their properties";
        let entry = |(id, token): (&String, &Value)| {
            let (id, token) = (id.parse().ok()?, AddedToken::from_properties(token.as_object()?, false)?);
            Some((Some(id), token))
        };
        let tokens = value.as_object().and_then(|tokens| tokens.iter().map(entry).collect::<Option<Vec<_>>>());
        let mut tokens = tokens.ok_or_else(|| self.wrong("added_tokens_decoder", value, must))?;
        tokens.sort_by_key(|(id, _)| *id);
        Ok(tokens)
    }

    /// Returns the tokens of `added_tokens.json` with their ids.
    pub(super) fn ids(&self) -> Result<Vec<(u32, &String)>> {
        let id = |value: &Value| value.as_u64().and_then(|id| u32::try_from(id).ok());
        let entry = |(token, value): (_, &Value)| {
            let token: &String = token;
            Ok((id(value).ok_or_else(|| self.wrong(token, value, "must be an id"))?, token))
        };
        self.fields.iter().map(entry).collect()
    }

    /// Checks a field that has no meaning of its own here.
    pub(super) fn check_other(&self, field: &str, value: &Value) -> Result<()> {
        if let Some((_, only)) = ONLY.iter().find(|(name, _)| *name == field) {
            let given = value.to_string();
            let wrong = || self.wrong(field, value, &format!("must be {only} or absent"));
            return if given == *only { Ok(()) } else { Err(wrong()) };
        }
        if HARMLESS.contains(&field) || field.starts_with('_') || field.ends_with("_token_id") {
            return Ok(());
        }
        Err(self.wrong(field, value, "an unknown field, which may change the tokens: remove it if it does not"))
    }
}
