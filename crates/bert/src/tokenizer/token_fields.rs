//! Tokens in the fields of the files beside a vocabulary.

use serde_json::Value;

use super::added::AddedToken;
use crate::Result;
use crate::side_file::SideFile;

/// Special tokens by the name of their field.
pub(super) type Named = Vec<(String, AddedToken)>;
/// Tokens with the ids that a file gives them.
pub(super) type WithIds = Vec<(Option<u32>, AddedToken)>;

/// Returns a special token, given as a string or as an object with its properties.
pub(super) fn token(file: &SideFile, field: &str, value: &Value) -> Result<AddedToken> {
    let token = match value {
        Value::String(content) => Some(AddedToken::new(content, true)),
        Value::Object(properties) => AddedToken::from_properties(properties, true),
        _ => None,
    };
    let token = token.filter(|token| !token.content.is_empty());
    token.ok_or_else(|| file.refuse(field, value, "must be a token, as a string or an object with its \"content\""))
}

/// Takes the tokens of all fields that are named after one: those with fields of their own, and those in lists or in
/// objects that name them.
pub(super) fn special(file: &mut SideFile) -> Result<(Named, Named, Vec<AddedToken>)> {
    let (mut own, mut named, mut listed) = (Named::new(), Named::new(), Vec::new());
    for (field, value) in file.take_all("_token") {
        own.push((field.clone(), token(file, &field, &value)?));
    }
    for field in ["additional_special_tokens", "extra_special_tokens"] {
        match file.take(field) {
            None => {}
            Some(Value::Array(tokens)) => {
                for value in &tokens {
                    listed.push(token(file, field, value)?);
                }
            }
            Some(Value::Object(tokens)) => {
                for (name, value) in file.in_order(tokens) {
                    named.push((name, token(file, field, &value)?));
                }
            }
            Some(value) => return Err(file.refuse(field, &value, "must be a list of tokens, or absent")),
        }
    }
    Ok((own, named, listed))
}

/// Takes the tokens of `added_tokens_decoder`, by their ids.
pub(super) fn decoder(file: &mut SideFile) -> Result<Option<WithIds>> {
    let entry = |(id, token): (&String, &Value)| {
        let (id, token) = (id.parse().ok()?, AddedToken::from_properties(token.as_object()?, false)?);
        Some((Some(id), token))
    };
    let tokens = file.read(
        "added_tokens_decoder",
        "must be an object that maps ids to tokens with their properties",
        |value| value.as_object()?.iter().map(entry).collect::<Option<Vec<_>>>(),
    )?;
    Ok(tokens.map(|mut tokens| {
        tokens.sort_by_key(|(id, _)| *id);
        tokens
    }))
}

/// Takes the tokens of `added_tokens.json`, with their ids.
pub(super) fn ids(file: &mut SideFile) -> Result<Vec<(u32, String)>> {
    let id = |value: &Value| value.as_u64().and_then(|id| u32::try_from(id).ok());
    let tokens = file.take_all("").into_iter();
    let entry = |(token, value): (String, Value)| match id(&value) {
        Some(id) => Ok((id, token)),
        None => Err(file.refuse(&token, &value, "must be an id")),
    };
    tokens.map(entry).collect()
}
