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

/// The fields that DistilBERT also reads by BERT's names.
pub(super) const SHARED: [&str; 3] = ["hidden_size", "num_attention_heads", "num_hidden_layers"];
/// The fields that DistilBERT does not have: there are no token types, and epsilon is 1e-12.
const FIXED: [&str; 2] = ["layer_norm_eps", "type_vocab_size"];

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

    /// Returns the name that this family's `config.json` has for a field that is BERT's, if it has one.
    pub(super) fn own_name(self, bert_name: &str) -> Option<&'static str> {
        let own = DISTILBERT.iter().find(|(_, bert)| *bert == bert_name).map(|(own, _)| *own);
        own.filter(|_| self == ModelType::DistilBert)
    }

    /// Renames the fields of this family's `config.json` to BERT's names. As in `transformers`, [`SHARED`] fields with
    /// BERT's names take precedence, and other ones with BERT's names do not count.
    pub(super) fn bert_fields(self, mut map: Map<String, Value>) -> Map<String, Value> {
        if self == ModelType::DistilBert {
            map.retain(|name, _| SHARED.contains(&name.as_str()) || !self.ignores(name));
            for (own, bert) in DISTILBERT {
                if let Some(value) = map.remove(own) {
                    map.entry(bert).or_insert(value);
                }
            }
        }
        map
    }

    /// Returns whether the field is one of BERT's that this family does not have.
    pub(super) fn ignores(self, name: &str) -> bool {
        let distilbert = self == ModelType::DistilBert;
        distilbert && !SHARED.contains(&name) && (FIXED.contains(&name) || self.own_name(name).is_some())
    }

    /// Renames fields with BERT's names to those of this family's `config.json`.
    pub(super) fn own_fields(self, mut map: Map<String, Value>) -> Map<String, Value> {
        if self == ModelType::DistilBert {
            for (own, bert) in DISTILBERT {
                if let Some(value) = map.remove(bert) {
                    map.insert(own.to_string(), value);
                }
            }
            map.retain(|field, _| !FIXED.contains(&field.as_str()));
        }
        map
    }
}
