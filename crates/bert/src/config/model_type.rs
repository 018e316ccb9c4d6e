//! The member of BERT's family that a configuration describes, and the names of the fields in DistilBERT's
//! `config.json`.

use std::ops::RangeInclusive;

use serde_json::{Map, Value};

/// The members of BERT's family that share this encoder: `model_type` of `config.json`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ModelType {
    /// BERT (J. Devlin, M.-W. Chang, K. Lee, K. Toutanova, 2018).
    #[default]
    Bert,
    /// DistilBERT (V. Sanh, L. Debut, J. Chaumond, T. Wolf, 2019): half the layers, no token types, no pooler. Its
    /// classifiers have a hidden layer with ReLU instead.
    DistilBert,
}

/// Fields of `config.json`: DistilBERT's name, BERT's name.
const DISTILBERT: [(&str, &str); 8] = [
    ("dim", "hidden_size"),
    ("n_layers", "num_hidden_layers"),
    ("n_heads", "num_attention_heads"),
    ("hidden_dim", "intermediate_size"),
    ("activation", "hidden_act"),
    ("dropout", "hidden_dropout_prob"),
    ("attention_dropout", "attention_probs_dropout_prob"),
    ("seq_classif_dropout", "classifier_dropout"),
];

impl ModelType {
    /// All values.
    pub const ALL: [ModelType; 2] = [ModelType::Bert, ModelType::DistilBert];

    /// Returns the name in `config.json`.
    pub fn name(self) -> &'static str {
        match self {
            ModelType::Bert => "bert",
            ModelType::DistilBert => "distilbert",
        }
    }

    /// Returns the model type of this name in `config.json`.
    pub fn from_name(name: &str) -> Option<ModelType> {
        ModelType::ALL.into_iter().find(|model_type| model_type.name() == name)
    }

    /// Returns this family's name for a class of `transformers` such as `BertForMaskedLM`.
    pub(crate) fn class_name(self, bert_class: &str) -> String {
        match self {
            ModelType::Bert => bert_class.to_string(),
            ModelType::DistilBert => bert_class.replacen("Bert", "DistilBert", 1),
        }
    }

    /// Returns the numbers of token types that are allowed.
    pub(super) fn type_vocab_sizes(self) -> RangeInclusive<usize> {
        match self {
            ModelType::Bert => 1..=1 << 16,
            ModelType::DistilBert => 0..=0,
        }
    }

    /// Renames the fields of this family's `config.json` to BERT's names.
    pub(super) fn bert_fields(self, map: Map<String, Value>) -> Map<String, Value> {
        let bert_name =
            |name: String| DISTILBERT.iter().find(|(own, _)| *own == name).map(|(_, bert)| bert.to_string());
        match self {
            ModelType::Bert => map,
            ModelType::DistilBert => {
                map.into_iter().map(|(name, value)| (bert_name(name.clone()).unwrap_or(name), value)).collect()
            }
        }
    }

    /// Renames fields with BERT's names to those of this family's `config.json`.
    pub(super) fn own_fields(self, mut map: Map<String, Value>) -> Map<String, Value> {
        if self == ModelType::DistilBert {
            for (own, bert) in DISTILBERT {
                if let Some(value) = map.remove(bert) {
                    map.insert(own.to_string(), value);
                }
            }
            // DistilBERT has no token types, and its epsilon is fixed.
            map.retain(|field, _| field != "type_vocab_size" && field != "layer_norm_eps");
        }
        map
    }
}
