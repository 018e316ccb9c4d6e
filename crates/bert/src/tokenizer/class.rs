//! The class of a tokenizer: `tokenizer_class` of `tokenizer_config.json` or `config.json`.

use serde_json::Value;

/// How a class of `transformers` makes its tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Class {
    /// BERT's pipeline.
    #[default]
    Bert,
    /// BERT's pipeline for models without token types.
    Untyped,
    /// The pipeline in `tokenizer.json`, whatever `tokenizer_config.json` says.
    Stored,
}

impl Class {
    /// Returns the name of a class that makes its tokens so.
    pub(super) fn name(self) -> &'static str {
        match self {
            Class::Bert => "BertTokenizer",
            Class::Untyped => "DistilBertTokenizer",
            Class::Stored => "PreTrainedTokenizerFast",
        }
    }

    /// Returns whether the class gives token types, unless its settings say otherwise.
    pub(super) fn has_token_types(self) -> bool {
        self == Class::Bert
    }
}

/// The classes of `transformers` with BERT's pipeline, without the suffix `Fast`.
const BERT: [&str; 11] = [
    "BertTokenizer",
    "ConvBertTokenizer",
    "DPRContextEncoderTokenizer",
    "DPRQuestionEncoderTokenizer",
    "ElectraTokenizer",
    "LayoutLMTokenizer",
    "LxmertTokenizer",
    "MobileBertTokenizer",
    "RealmTokenizer",
    "RetriBertTokenizer",
    "SqueezeBertTokenizer",
];

/// The classes with BERT's pipeline that give no token types.
const UNTYPED: [&str; 3] = ["BertTokenizerLegacy", "DPRReaderTokenizer", "DistilBertTokenizer"];

/// The classes that do what `tokenizer.json` says, without the suffix `Fast`.
const STORED: [&str; 2] = ["PreTrainedTokenizer", "TokenizersBackend"];

/// Returns how the class of this name makes its tokens.
///
/// # Errors
/// Returns the reason if the class has an algorithm that this library does not have.
pub(super) fn of(name: &Value) -> Result<Class, String> {
    let class = name.as_str().map(|name| name.strip_suffix("Fast").unwrap_or(name));
    match class {
        Some(class) if BERT.contains(&class) => Ok(Class::Bert),
        Some(class) if UNTYPED.contains(&class) => Ok(Class::Untyped),
        Some(class) if STORED.contains(&class) => Ok(Class::Stored),
        _ => Err(format!(
            "tokenizer_class is {name}: must be BertTokenizer, a class with the same algorithm, PreTrainedTokenizerFast, or absent"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_have_the_algorithm_of_bert_or_are_refused_by_name() {
        for name in ["BertTokenizer", "BertTokenizerFast", "ElectraTokenizer"] {
            assert_eq!(of(&name.into()), Ok(Class::Bert));
        }
        assert_eq!(of(&"DistilBertTokenizerFast".into()), Ok(Class::Untyped));
        for name in ["PreTrainedTokenizerFast", "TokenizersBackend"] {
            assert_eq!(of(&name.into()), Ok(Class::Stored));
        }
        for name in ["BertJapaneseTokenizer", "FunnelTokenizer", "MPNetTokenizer", "RobertaTokenizerFast", "Fast"] {
            assert!(of(&name.into()).unwrap_err().starts_with(&format!("tokenizer_class is {name:?}: ")));
        }
        assert!(of(&7.into()).is_err());
    }
}
