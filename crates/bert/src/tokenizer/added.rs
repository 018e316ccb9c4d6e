//! Tokens that are found in a text before it is split into words.

use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};
use std::ops::Range;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::normalizer::Normalizer;
use super::pre_tokenizer::is_word;

/// Returns the exclusive upper bound of ids for a vocabulary of `tokens` tokens. Tokens are stored by id, so a small file must
/// not have a huge one.
pub(super) fn id_limit(tokens: usize) -> u32 {
    tokens.saturating_mul(4).saturating_add(1 << 16).min(1 << 22) as u32
}

/// A token that is found wherever it is written, as `tokenizer.json` describes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct AddedToken {
    pub(super) content: String,
    /// Found only as a whole word.
    pub(super) single_word: bool,
    /// Includes the blanks before it.
    pub(super) lstrip: bool,
    /// Includes the blanks after it.
    pub(super) rstrip: bool,
    /// Searched in the normalized text, in its normalized form.
    pub(super) normalized: bool,
    /// Left out when decoding without special tokens.
    pub(super) special: bool,
}

impl AddedToken {
    /// Special tokens are found in the text as it is written, other ones after normalization.
    pub(super) fn new(content: &str, special: bool) -> AddedToken {
        let content = content.to_string();
        AddedToken { content, single_word: false, lstrip: false, rstrip: false, normalized: !special, special }
    }

    /// Returns the token as `tokenizer_config.json` has it: its content, or an object if it has other properties than
    /// special tokens by default.
    pub(super) fn to_value(&self) -> Value {
        if *self == AddedToken::new(&self.content, true) {
            return json!(self.content);
        }
        let mut properties = json!(self);
        properties["__type"] = json!("AddedToken");
        properties
    }

    /// Reads a token from its properties in a side file. `special` holds even if the file says otherwise. Returns
    /// `None` if it has no content, or a property of another type than expected.
    pub(super) fn from_properties(properties: &Map<String, Value>, special: bool) -> Option<AddedToken> {
        let flag = |name: &str, default| properties.get(name).map_or(Some(default), Value::as_bool);
        let special = flag("special", special)? || special;
        Some(AddedToken {
            content: properties.get("content")?.as_str()?.to_string(),
            single_word: flag("single_word", false)?,
            lstrip: flag("lstrip", false)?,
            rstrip: flag("rstrip", false)?,
            normalized: flag("normalized", !special)?,
            special,
        })
    }
}

/// The added tokens of a tokenizer.
#[derive(Clone, Default)]
pub(super) struct Added {
    /// By increasing id.
    tokens: Vec<(u32, AddedToken)>,
    ids: HashMap<String, u32>,
    special: HashSet<String>,
    /// The normalized forms of tokens that normalization changes.
    normalized: HashMap<u32, String>,
    in_text: Patterns,
    in_normalized: Patterns,
}

impl Added {
    /// Adds tokens. A token that is in the vocabulary keeps its id; another one gets the id that is given with it, or
    /// else the next free id, from `vocabulary`, its size.
    ///
    /// # Errors
    /// Returns the reason if the id that a token is given with belongs to another token.
    pub(super) fn add(
        &mut self,
        tokens: impl IntoIterator<Item = (Option<u32>, AddedToken)>,
        normalizer: Option<&Normalizer>,
        vocabulary: &[Option<String>],
        id: impl Fn(&str) -> Option<u32>,
    ) -> Result<(), String> {
        let size = vocabulary.len() as u32;
        for (given, token) in tokens.into_iter().filter(|(_, token)| !token.content.is_empty()) {
            let next = self.end().max(size);
            let known = self.ids.get(&token.content).copied().or_else(|| id(&token.content));
            let id = known.or(given).unwrap_or(next);
            if known.is_none() {
                let in_vocabulary = vocabulary.get(id as usize).and_then(Option::as_deref);
                if let Some(other) = in_vocabulary.or_else(|| Some(&self.get(id)?.content)) {
                    return Err(format!(
                        "the added token {:?} has the id {id}, which is that of {other:?}",
                        token.content
                    ));
                }
                let limit = id_limit(vocabulary.len() + self.tokens.len());
                if id >= limit {
                    let token = &token.content;
                    return Err(format!("the added token {token:?} has the id {id}: must be below {limit} here"));
                }
            }
            if token.normalized
                && let Some(form) = normalizer.map(|normalizer| normalizer.apply(&token.content))
                && form != token.content
            {
                self.normalized.insert(id, form);
            }
            self.ids.insert(token.content.clone(), id);
            match token.special {
                true => self.special.insert(token.content.clone()),
                false => self.special.remove(&token.content),
            };
            match self.tokens.binary_search_by_key(&id, |(id, _)| *id) {
                Ok(at) => self.tokens[at].1 = token,
                Err(at) => self.tokens.insert(at, (id, token)),
            }
        }
        let of = |normalized: bool| {
            let tokens = self.tokens.iter().filter(move |(_, token)| token.normalized == normalized);
            tokens.map(|(id, token)| (self.form(*id, token), *id))
        };
        (self.in_text, self.in_normalized) = (Patterns::new(of(false)), Patterns::new(of(true)));
        Ok(())
    }

    /// The id behind the last one.
    pub(super) fn end(&self) -> u32 {
        self.tokens.last().map_or(0, |(last, _)| last + 1)
    }

    /// Removes the tokens with the id `end` or a greater one.
    pub(super) fn truncate(&mut self, end: u32) {
        self.tokens.retain(|(id, _)| *id < end);
    }

    fn form<'a>(&'a self, id: u32, token: &'a AddedToken) -> &'a str {
        let form = if token.normalized { self.normalized.get(&id) } else { None };
        form.map_or(token.content.as_str(), String::as_str)
    }

    /// The tokens in the order of their ids.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, &AddedToken)> {
        self.tokens.iter().map(|(id, token)| (*id, token))
    }

    pub(super) fn id(&self, content: &str) -> Option<u32> {
        self.ids.get(content).copied()
    }

    /// Returns the token with this id.
    pub(super) fn get(&self, id: u32) -> Option<&AddedToken> {
        let at = self.tokens.binary_search_by_key(&id, |(id, _)| *id).ok()?;
        Some(&self.tokens[at].1)
    }

    /// Returns the token with this id, in the form in which it is searched.
    pub(super) fn token(&self, id: u32) -> Option<&str> {
        self.get(id).map(|token| self.form(id, token))
    }

    pub(super) fn is_special(&self, content: &str) -> bool {
        self.special.contains(content)
    }

    /// Returns whether what is before or behind a token decides whether it is one.
    pub(super) fn looks_around(&self) -> bool {
        self.tokens.iter().any(|(_, token)| token.single_word)
    }

    /// Cuts a text at the tokens that are searched in it: all of it, in bytes, each part with the id of its token.
    pub(super) fn cut(&self, text: &str, normalized: bool) -> Vec<(Option<u32>, Range<usize>)> {
        let patterns = if normalized { &self.in_normalized } else { &self.in_text };
        let (mut parts, mut done, mut from) = (Vec::new(), 0, 0);
        while let Some((id, found)) = patterns.find(text, from) {
            from = found.end;
            let (Some(token), before, after) = (self.get(id), &text[..found.start], &text[found.end..]) else {
                continue;
            };
            if token.single_word && (before.ends_with(is_word) || after.starts_with(is_word)) {
                continue;
            }
            // Blanks that the token before has taken stay with it.
            let start = if token.lstrip { before.trim_end().len().max(done) } else { found.start };
            let end = if token.rstrip { text.len() - after.trim_start().len() } else { found.end };
            // Only blanks, which the token before has taken.
            if end <= start {
                continue;
            }
            if done < start {
                parts.push((None, done..start));
            }
            parts.push((Some(id), start..end));
            done = end;
        }
        if done < text.len() {
            parts.push((None, done..text.len()));
        }
        parts
    }
}

/// Strings to search. A look-up costs the same for any number of them.
#[derive(Clone, Default)]
struct Patterns {
    ids: HashMap<Box<[u8]>, u32>,
    /// By first byte, the lengths of the strings that begin with it, the longest first.
    lengths: Vec<Vec<usize>>,
}

impl Patterns {
    fn new<'a>(patterns: impl Iterator<Item = (&'a str, u32)>) -> Patterns {
        let mut all = Patterns::default();
        for (pattern, id) in patterns {
            if let Some(&byte) = pattern.as_bytes().first() {
                all.lengths.resize(256, Vec::new());
                all.lengths[byte as usize].push(pattern.len());
                let known = all.ids.entry(pattern.as_bytes().into()).or_insert(id);
                *known = id.min(*known);
            }
        }
        for lengths in &mut all.lengths {
            lengths.sort_unstable_by_key(|&length| Reverse(length));
            lengths.dedup();
        }
        all
    }

    /// Finds the leftmost and there the longest match that begins at byte `from` or after it.
    fn find(&self, text: &str, from: usize) -> Option<(u32, Range<usize>)> {
        if self.lengths.is_empty() {
            return None;
        }
        let bytes = text.as_bytes();
        (from..bytes.len()).find_map(|start| {
            self.lengths[bytes[start] as usize].iter().find_map(|&length| {
                let found = start..start + length;
                Some((*self.ids.get(bytes.get(found.clone())?)?, found))
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tokenizer::pipeline::Pipeline;

    fn cut(tokens: &[AddedToken], text: &str) -> Vec<(Option<u32>, String)> {
        let mut added = Added::default();
        let tokens = tokens.iter().cloned().map(|token| (None, token));
        added.add(tokens, None, &vec![None; 10], |_| None).unwrap();
        added.cut(text, false).into_iter().map(|(id, part)| (id, text[part].to_string())).collect()
    }

    /// A list of all tokens by id is in memory.
    #[test]
    fn ids_have_a_limit() {
        let vocabulary = |id: u32| {
            let text = format!(
                r#"{{"version": "1.0", "model": {{"type": "WordPiece", "unk_token": "?", "continuing_subword_prefix": "@",
                    "max_input_chars_per_word": 100, "vocab": {{"?": 0, "a": {id}}}}}}}"#
            );
            Pipeline::from_json(&text, |_| ()).err().map(|error| error.to_string())
        };
        assert_eq!(vocabulary(7), None);
        let said = vocabulary(u32::MAX).unwrap();
        assert!(said.contains("\"a\" has the id 4294967295: must be below "), "{said}");
    }

    #[test]
    fn few_tokens_have_no_large_ids() {
        let add = |id| Added::default().add([(Some(id), AddedToken::new("x", false))], None, &[], |_| None);
        assert_eq!(
            (add(65_535), add(65_536).unwrap_err()),
            (Ok(()), "the added token \"x\" has the id 65536: must be below 65536 here".to_string())
        );
        assert_eq!((id_limit(30_522), id_limit(usize::MAX)), (187_624, 1 << 22));
    }

    #[test]
    fn a_token_may_begin_in_the_blanks_of_the_one_before() {
        let tokens = [AddedToken { rstrip: true, ..AddedToken::new("<m>", true) }, AddedToken::new(" x", true)];
        let parts = cut(&tokens, "<m> x<m>  y");
        let expected = [(Some(10), "<m> "), (Some(11), " x"), (Some(10), "<m>  "), (None, "y")];
        assert_eq!(parts, expected.map(|(id, part)| (id, part.to_string())));
    }

    #[test]
    fn the_longest_token_at_the_leftmost_place() {
        let tokens = ["ab", "abc", "c"].map(|content| AddedToken::new(content, true));
        let parts = cut(&tokens, "xabcabé");
        let expected = [(None, "x"), (Some(11), "abc"), (Some(10), "ab"), (None, "é")];
        assert_eq!(parts, expected.map(|(id, part)| (id, part.to_string())));
        assert_eq!(cut(&tokens, ""), []);
        assert_eq!(cut(&[], "abc"), [(None, "abc".to_string())]);
    }

    #[test]
    fn blanks_and_whole_words() {
        let strips = AddedToken { lstrip: true, rstrip: true, ..AddedToken::new("<m>", true) };
        let parts = cut(std::slice::from_ref(&strips), "a <m>  <m> b");
        let expected = [(None, "a"), (Some(10), " <m>  "), (Some(10), "<m> "), (None, "b")];
        assert_eq!(parts, expected.map(|(id, part)| (id, part.to_string())));
        let whole = AddedToken { single_word: true, ..AddedToken::new("ab", true) };
        let parts = cut(&[whole], "ab abc, ab.");
        let expected = [(Some(10), "ab"), (None, " abc, "), (Some(10), "ab"), (None, ".")];
        assert_eq!(parts, expected.map(|(id, part)| (id, part.to_string())));
    }
}
