//! What the files beside a vocabulary say: `tokenizer_config.json`, `special_tokens_map.json` and `added_tokens.json`.
//!
//! Every field is read, is known to be harmless, or is an error that names it (see [`SideFile`]). The rules of
//! precedence are those of `transformers` 5: with `added_tokens_decoder` in `tokenizer_config.json`, the two other
//! files do not count; otherwise `special_tokens_map.json` takes precedence over it.

use serde_json::{Value, json};

use super::added::AddedToken;
use super::class::{self, Class};
use super::normalizer::BertNormalizer;
use super::options::TokenizerOptions;
use super::special::Names;
use super::token_fields::{self, Named, WithIds};
use crate::Result;
use crate::config::CONFIG_FILE;
use crate::folder::Folder;
use crate::side_file::{Kind, SideFile};

pub(super) const TOKENIZER: &str = "tokenizer.json";
pub(crate) const CONFIG: &str = "tokenizer_config.json";
pub(super) const SPECIAL: &str = "special_tokens_map.json";
const ADDED: &str = "added_tokens.json";
/// A `model_max_length` of at least this number means no limit; `transformers` writes 10^30.
const NO_MAX_LENGTH: f64 = 1e9;

/// The fields of special tokens in the order in which `transformers` adds those that a vocabulary lacks.
const ORDER: [&str; 7] = ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];

/// What is known of a tokenizer besides how it makes tokens.
#[derive(Clone, Default)]
pub(super) struct Source {
    pub(super) class: Class,
    /// Whether `model_input_names` lists token types. `None` stands for what the class has.
    pub(super) token_types: Option<bool>,
    /// Contradictions between two files, each with the file that takes precedence.
    pub(super) conflicts: Vec<String>,
}

impl Source {
    /// Returns whether the second text of a pair has another token type than the first.
    pub(super) fn has_token_types(&self) -> bool {
        self.token_types.unwrap_or(self.class.has_token_types())
    }
}

/// The settings of a tokenizer.
#[derive(Default)]
pub(super) struct Settings {
    pub(super) source: Source,
    pub(super) names: Names,
    pub(super) lowercase: Option<bool>,
    pub(super) strip_accents: Option<bool>,
    pub(super) chinese_chars: Option<bool>,
    pub(super) max_length: Option<usize>,
    /// The tokens to add to the vocabulary, in this order, with the id that a file gives them.
    pub(super) added: WithIds,
    /// Whether the properties of tokens with an id take precedence over those in `tokenizer.json`.
    pub(super) replaces: bool,
}

impl Settings {
    /// Reads the files of a folder. Files that do not exist have no fields.
    ///
    /// # Errors
    /// Returns an error if a file cannot be read, or a field is unknown or has a value that is not supported.
    pub(super) fn read(folder: &Folder) -> Result<Settings> {
        let mut config = SideFile::find(folder, CONFIG, Kind::Tokenizer)?;
        let mut model = SideFile::find(folder, CONFIG_FILE, Kind::Config)?;
        let (class, conflict) = class(&mut config, &mut model)?;
        let names = config.read("model_input_names", "must be a list of names", |names| names.as_array().cloned())?;
        let token_types = names.map(|names| names.iter().any(|name| name == "token_type_ids"));
        let mut settings = Settings {
            source: Source { class, token_types, conflicts: conflict.into_iter().collect() },
            lowercase: config.flag("do_lower_case")?,
            strip_accents: config.flag("strip_accents")?,
            chinese_chars: config.flag("tokenize_chinese_chars")?,
            max_length: max_length(&mut config)?.or(model.size("max_position_embeddings")?),
            ..Settings::default()
        };
        let decoder = token_fields::decoder(&mut config)?;
        let (mut named, specific, mut others) = token_fields::special(&mut config)?;
        for (field, only) in only() {
            config.only(field, &only)?;
        }
        config.finish()?;
        named.extend(specific);
        let special: Vec<String> = others.iter().map(|token| token.content.clone()).collect();
        let (map_named, map_others) = special_tokens_map(folder)?;
        settings.compare(&named, &map_named, decoder.is_some());
        let added = token_fields::ids(&mut SideFile::find(folder, ADDED, Kind::Tokens)?)?;
        match decoder {
            Some(decoder) => {
                settings.compare_added(&decoder, &added);
                settings.added.extend(decoder);
                settings.replaces = true;
            }
            None => {
                named.retain(|(field, _)| map_named.iter().all(|(other, _)| other != field));
                named.extend(map_named);
                others.extend(map_others);
                let special = |content: &String| {
                    special.contains(content) || named.iter().any(|(_, token)| token.content == *content)
                };
                for (id, content) in &added {
                    settings.added.push((Some(*id), AddedToken::new(content, special(content))));
                }
                settings.added.sort_by_key(|(id, _)| *id);
            }
        }
        settings.add(named, others);
        Ok(settings)
    }

    /// Returns settings with these special tokens only.
    pub(super) fn of(names: Names) -> Settings {
        let mut settings = Settings { names, ..Settings::default() };
        settings.add(Vec::new(), Vec::new());
        settings
    }

    /// Returns the options for a vocabulary without a pipeline of its own.
    pub(super) fn options(&self) -> TokenizerOptions {
        let default = TokenizerOptions::default();
        TokenizerOptions {
            lowercase: self.lowercase.unwrap_or(default.lowercase),
            strip_accents: self.strip_accents,
            chinese_chars: self.chinese_chars.unwrap_or(default.chinese_chars),
            max_length: self.max_length.unwrap_or(default.max_length),
        }
    }

    /// Changes the normalizer of a `tokenizer.json` to what `tokenizer_config.json` says, and records where they
    /// differ. As in `transformers`, an explicit setting takes precedence, but not for a class that stores all of it.
    pub(super) fn adjust(&mut self, normalizer: &mut BertNormalizer) {
        let (accents, normalizer_lowercase) = (normalizer.strip_accents, normalizer.lowercase);
        let strip = (self.strip_accents, accents == self.strip_accents);
        let settings = [
            ("do_lower_case", self.lowercase, &mut normalizer.lowercase),
            ("tokenize_chinese_chars", self.chinese_chars, &mut normalizer.handle_chinese_chars),
        ];
        let (stored, mut differ) = (self.source.class == Class::Stored, Vec::new());
        if self.lowercase.is_none() && !stored && !normalizer_lowercase {
            self.source.conflicts.push(format!(
                "{TOKENIZER} keeps case, {CONFIG} has no do_lower_case, for which transformers takes true: \
                 {TOKENIZER} counts"
            ));
        }
        for (field, given, own) in settings {
            if let Some(given) = given.filter(|given| given != own) {
                differ.push(format!("{field} is {given} in {CONFIG}, {own} in {TOKENIZER}"));
                *own = if stored { *own } else { given };
            }
        }
        if let (Some(given), false) = strip {
            let own = accents.map_or("null".to_string(), |own| own.to_string());
            differ.push(format!("strip_accents is {given} in {CONFIG}, {own} in {TOKENIZER}"));
            normalizer.strip_accents = if stored { accents } else { Some(given) };
        }
        let winner = if stored { TOKENIZER } else { CONFIG };
        self.source.conflicts.extend(differ.into_iter().map(|what| format!("{what}: {winner} counts")));
    }

    /// Takes the names of BERT's special tokens, and adds the tokens that the vocabulary may lack in the order of
    /// `transformers`.
    fn add(&mut self, mut named: Named, others: Vec<AddedToken>) {
        for (field, token) in &named {
            if let Some(name) = self.names.field(field) {
                name.clone_from(&token.content);
            }
        }
        let mut tokens = Vec::new();
        for field in ORDER {
            match (named.iter().position(|(name, _)| name == field), self.names.field(field)) {
                (Some(at), _) => tokens.push(named.remove(at).1),
                (None, Some(name)) => tokens.push(AddedToken::new(name, true)),
                (None, None) => {}
            }
        }
        tokens.extend(named.into_iter().map(|(_, token)| token));
        tokens.extend(others);
        for token in tokens {
            if self.added.iter().all(|(_, other)| other.content != token.content) {
                self.added.push((None, token));
            }
        }
    }

    /// Records the special tokens that the two files name differently.
    fn compare(&mut self, config: &Named, map: &Named, config_counts: bool) {
        let winner = if config_counts { CONFIG } else { SPECIAL };
        for (field, token) in config {
            let other = map.iter().find(|(name, other)| name == field && other.content != token.content);
            if let Some((_, other)) = other {
                let (ours, theirs) = (&token.content, &other.content);
                self.source
                    .conflicts
                    .push(format!("{field} is {ours:?} in {CONFIG}, {theirs:?} in {SPECIAL}: {winner} counts"));
            }
        }
    }

    /// Records the tokens of `added_tokens.json` that `added_tokens_decoder` does not have with the same id.
    fn compare_added(&mut self, decoder: &[(Option<u32>, AddedToken)], added: &[(u32, String)]) {
        for (id, content) in added {
            if decoder.iter().all(|(other, token)| (*other, &token.content) != (Some(*id), content)) {
                self.source.conflicts.push(format!(
                    "{content:?} has the id {id} in {ADDED}, but not in added_tokens_decoder of {CONFIG}, which counts"
                ));
            }
        }
    }
}

/// Fields of `tokenizer_config.json` that change ids, and the only value that is supported.
fn only() -> [(&'static str, Value); 7] {
    [
        ("clean_text", json!(true)),
        ("do_basic_tokenize", json!(true)),
        ("fast_tokenizer_files", json!([])),
        ("never_split", json!([])),
        ("split_special_tokens", json!(false)),
        ("truncation_side", json!("right")),
        ("wordpieces_prefix", json!("##")),
    ]
}

/// Takes the maximum length. `None` means no limit.
fn max_length(config: &mut SideFile) -> Result<Option<usize>> {
    let length = |value: &Value| match value.as_f64() {
        Some(length) if length >= NO_MAX_LENGTH => Some(None),
        Some(length) if length >= 1.0 => Some(Some(length as usize)),
        _ => None,
    };
    let has_new_name = config.has("model_max_length");
    // The name before `transformers` 3.
    let old = config.read("max_len", "must be a number of at least 1, or absent", length)?;
    let new = config.read("model_max_length", "must be a number of at least 1, or absent", length)?;
    Ok(if has_new_name { new.flatten() } else { old.flatten() })
}

/// Returns the tokens of `special_tokens_map.json`: those with names, and the lists.
fn special_tokens_map(folder: &Folder) -> Result<(Named, Vec<AddedToken>)> {
    let mut map = SideFile::find(folder, SPECIAL, Kind::Tokens)?;
    let (mut named, specific, others) = token_fields::special(&mut map)?;
    map.finish()?;
    named.extend(specific);
    Ok((named, others))
}

/// Takes the class, from `tokenizer_config.json` or else from `model`, the `config.json`, and the contradiction between
/// them.
fn class(config: &mut SideFile, model: &mut SideFile) -> Result<(Class, Option<String>)> {
    let code = |map: &Value| if map.is_array() { Some(map.clone()) } else { map.get("AutoTokenizer").cloned() };
    if let Some(code) = config.take("auto_map").as_ref().and_then(code) {
        return Err(config.refuse("auto_map", &code, "code that comes with the model: no tokenizer of this library"));
    }
    let (given, other) = (config.take("tokenizer_class"), model.take("tokenizer_class"));
    match (given, other) {
        (Some(given), other) => {
            let class = class::of(&given).map_err(|reason| config.wrong(reason))?;
            let other = other.filter(|other| class::of(other) != Ok(class));
            let conflict =
                |other| format!("tokenizer_class is {given} in {CONFIG}, {other} in {CONFIG_FILE}: {CONFIG} counts");
            Ok((class, other.map(conflict)))
        }
        (None, Some(other)) => class::of(&other).map(|class| (class, None)).map_err(|reason| model.wrong(reason)),
        (None, None) => Ok((Class::Bert, None)),
    }
}
