//! The fields of `config.json` that are not in [`BertConfig`]: those that are refused, those that nobody knows, and
//! those that contradict others.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::model_type::SHARED;
use super::{BertConfig, CONFIG_FILE, ModelType, TIE_WORD_EMBEDDINGS, labels};
use crate::files::{read_object, short};
use crate::folder::Folder;
use crate::side_file::Kind;
use crate::{Error, Result};

/// Fields that are read elsewhere: from [`BertConfig::extra`], or by [`labels`].
const READ: [&str; 9] = [
    "classifier_pooling",
    "id2label",
    "label2id",
    "num_labels",
    "problem_type",
    "qa_dropout",
    "sbert_ce_default_activation_function",
    "sentence_transformers",
    TIE_WORD_EMBEDDINGS,
];

/// Fields of another architecture, each with the only value that is supported.
fn only() -> [(&'static str, Value); 8] {
    [
        ("add_cross_attention", json!(false)),
        ("auto_map", json!({})),
        ("is_decoder", json!(false)),
        ("per_layer_config", json!({})),
        ("position_embedding_type", json!("absolute")),
        ("pruned_heads", json!({})),
        ("quantization_config", Value::Null),
        ("transformers_weights", json!("model.safetensors")),
    ]
}

impl BertConfig {
    /// Returns an error if a field of [`extra`](BertConfig::extra) describes another architecture than BERT.
    pub(super) fn check_extra(&self) -> Result<()> {
        for (field, expected) in only() {
            match self.extra.get(field) {
                None | Some(Value::Null) => {}
                Some(value) if *value == expected => {}
                Some(value) => {
                    return Err(Error::config(format!("{field} is {}: must be {expected} or absent", short(value))));
                }
            }
        }
        match self.extra.get(TIE_WORD_EMBEDDINGS) {
            None | Some(Value::Null | Value::Bool(_)) => Ok(()),
            Some(value) => {
                let value = short(value);
                Err(Error::config(format!("{TIE_WORD_EMBEDDINGS} is {value}: must be true, false or absent")))
            }
        }
    }
}

/// Unknown and contradictory fields of a valid `config.json`.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Remarks {
    /// Fields that no program is known to read, which people may write for themselves.
    pub(crate) unknown_fields: Vec<String>,
    /// Fields that say different things, with the one that counts.
    pub(crate) conflicts: Vec<String>,
}

impl Remarks {
    /// Returns the remarks about the file in a folder, which was read as `config`.
    pub(crate) fn in_folder(folder: &Folder, config: &BertConfig) -> Result<Remarks> {
        Ok(Remarks::of(&read_object(&folder.get(CONFIG_FILE)?)?, config))
    }

    fn of(fields: &Map<String, Value>, config: &BertConfig) -> Remarks {
        let written = BertConfig { extra: Map::new(), ..config.clone() }.to_map();
        let mut known: BTreeSet<&str> = written.keys().map(String::as_str).chain(READ).collect();
        known.extend(only().map(|(name, _)| name));
        known.extend(SHARED);
        if config.model_type == ModelType::Bert {
            known.remove("qa_dropout");
        }
        let unknown = |(name, value): &(&String, &Value)| {
            !value.is_null() && !known.contains(name.as_str()) && !Kind::Config.is_harmless(name)
        };
        let mut conflicts = labels::conflicts(fields);
        for bert in SHARED {
            let own = config.model_type.own_name(bert);
            if let (Some(own), Some(given)) = (own, fields.get(bert))
                && let Some(other) = fields.get(own)
                && other != given
            {
                conflicts.push(format!("{own} is {other} in {CONFIG_FILE}, {bert} is {given}: {bert} counts"));
            }
        }
        Remarks { unknown_fields: fields.iter().filter(unknown).map(|(name, _)| name.clone()).collect(), conflicts }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn remarks(text: &str) -> Remarks {
        let config = BertConfig::from_json(text).unwrap();
        Remarks::of(&serde_json::from_str(text).unwrap(), &config)
    }

    #[test]
    fn unknown_fields_are_listed() {
        let text = r#"{"model_type": "bert", "my_note": "x", "layer_norm_eps": 1e-6, "temperature": 2.0, "nothing": null,
            "pooler_type": "first_token_transform", "num_labels": 3, "auto_map": {}, "is_decoder": false}"#;
        assert_eq!(remarks(text), Remarks { unknown_fields: vec!["my_note".into()], conflicts: vec![] });
        assert_eq!(remarks(&BertConfig::base().to_json()), Remarks::default());
    }

    /// As in `transformers`, DistilBERT knows three of BERT's names.
    #[test]
    fn fields_of_bert_in_a_distilbert() {
        let text = r#"{"model_type": "distilbert", "dim": 48, "hidden_size": 96, "n_heads": 3, "num_attention_heads": 3,
            "hidden_act": "relu", "layer_norm_eps": 0.1, "intermediate_size": 7, "type_vocab_size": 2}"#;
        let config = BertConfig::from_json(text).unwrap();
        let expected = BertConfig { hidden_size: 96, num_attention_heads: 3, ..BertConfig::distilbert() };
        assert_eq!(config, expected);
        let remarks = remarks(text);
        assert_eq!(remarks.unknown_fields, ["hidden_act", "intermediate_size", "layer_norm_eps", "type_vocab_size"]);
        assert_eq!(remarks.conflicts, ["dim is 48 in config.json, hidden_size is 96: hidden_size counts"]);
    }

    #[test]
    fn contradicting_labels_are_said() {
        let of = |text: &str| remarks(text).conflicts;
        assert!(
            of(r#"{"id2label": {"0": "a", "1": "b"}, "label2id": {"a": "0", "b": 1}, "num_labels": 2}"#).is_empty()
        );
        for (text, said) in [
            (
                r#"{"id2label": {"0": "a", "1": "b"}, "num_labels": 3}"#,
                "num_labels is 3 in config.json, id2label has 2 labels: num_labels counts, and the names do not",
            ),
            (
                r#"{"label2id": {"a": 0}, "num_labels": 2}"#,
                "num_labels is 2 in config.json, label2id has 1 labels: num_labels counts, and the names do not",
            ),
            (
                r#"{"id2label": {"0": "a", "1": "b"}, "label2id": {"LABEL_0": 0, "LABEL_1": 1}}"#,
                "label2id gives \"LABEL_0\" the id 0 in config.json, id2label calls it \"a\": id2label counts",
            ),
        ] {
            assert_eq!(of(text), [said], "{text}");
        }
    }
}
