//! The layout of special tokens in `tokenizer.json`. [`encoding`](super::super::encoding) has BERT's in code, so another
//! one can only be named.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// The `post_processor` of a `tokenizer.json`. It is read to be compared and saved again.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "type")]
#[allow(clippy::enum_variant_names, reason = "the names of tokenizer.json")]
pub(super) enum PostProcessor {
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

impl PostProcessor {
    /// Returns whether the layout is `[CLS] A [SEP]` with token type 0, and for pairs `B [SEP]` with type 1 behind it.
    pub(super) fn is_bert(&self, cls: &str, sep: &str) -> bool {
        let special = |id: &str, token_type: u32| json!({"SpecialToken": {"id": id, "type_id": token_type}});
        let text = |id: &str, token_type: u32| json!({"Sequence": {"id": id, "type_id": token_type}});
        match self {
            PostProcessor::BertProcessing { sep: (own_sep, _), cls: (own_cls, _) } => own_sep == sep && own_cls == cls,
            PostProcessor::TemplateProcessing { single, pair, .. } => {
                let first = [special(cls, 0), text("A", 0), special(sep, 0)];
                let second = [text("B", 1), special(sep, 1)];
                *single == first && *pair == [&first[..], &second].concat()
            }
            PostProcessor::RobertaProcessing { .. } | PostProcessor::Other(_) => false,
        }
    }
}
