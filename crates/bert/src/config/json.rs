//! Reading and writing `config.json`.

use std::path::Path;

use cloze_tensor::metadata;
use serde_json::{Map, Value, json};

use super::unread_fields::UnreadFields;
use super::{BertConfig, HiddenAct, Labels, ModelType, labels};
use crate::files::short;
use crate::folder::Folder;
use crate::{Error, Result, files};

/// The name of the file in a model folder.
pub(crate) const FILE: &str = "config.json";

impl BertConfig {
    /// Opens the configuration `place`: a `config.json`, or the folder or [name](crate#models-by-name) of a model.
    /// Missing fields get BERT's defaults. Fields that are not known are kept in [`extra`](BertConfig::extra); the
    /// [`LoadReport`](crate::LoadReport) of a model lists them.
    ///
    /// # Errors
    /// Returns an error if the file cannot be read, is not a JSON object, describes a model that is not in BERT's
    /// family, has a field that asks for something that is not supported, or is not [valid](BertConfig::validate).
    pub fn open(place: impl AsRef<Path>) -> Result<BertConfig> {
        let place = place.as_ref();
        if is_json(place)? { BertConfig::in_file(place) } else { BertConfig::in_folder(&Folder::at(place)?) }
    }

    /// Reads the configuration in a model folder.
    pub(crate) fn in_folder(folder: &Folder) -> Result<BertConfig> {
        BertConfig::in_file(&folder.get(FILE)?)
    }

    fn in_file(path: &Path) -> Result<BertConfig> {
        BertConfig::from_json(&files::read_json(path)?).map_err(|error| error.in_file(path))
    }

    /// Reads the text of a `config.json`, like [`open`](BertConfig::open).
    ///
    /// # Errors
    /// Returns an error like [`open`](BertConfig::open).
    pub fn from_json(text: &str) -> Result<BertConfig> {
        let config = read(UnreadFields(files::parse_object(text).map_err(Error::config)?))?;
        config.validate()?;
        Ok(config)
    }

    /// Returns the text of a `config.json` that `transformers` can open.
    pub fn to_json(&self) -> String {
        format!("{:#}\n", Value::Object(self.to_map()))
    }

    /// Returns the fields of a `config.json`.
    pub(super) fn to_map(&self) -> Map<String, Value> {
        let mut map = self.extra.clone();
        // `transformers` requires a number in a DistilBERT.
        let classifier_dropout = match self.model_type {
            ModelType::Bert => self.classifier_dropout,
            ModelType::DistilBert => Some(self.classifier_dropout_prob()),
        };
        let fields = [
            ("model_type", json!(self.model_type.name())),
            ("architectures", json!(self.architectures)),
            ("vocab_size", json!(self.vocab_size)),
            ("hidden_size", json!(self.hidden_size)),
            ("num_hidden_layers", json!(self.num_hidden_layers)),
            ("num_attention_heads", json!(self.num_attention_heads)),
            ("intermediate_size", json!(self.intermediate_size)),
            ("hidden_act", json!(self.hidden_act.name())),
            ("hidden_dropout_prob", json!(self.hidden_dropout_prob)),
            ("attention_probs_dropout_prob", json!(self.attention_probs_dropout_prob)),
            ("max_position_embeddings", json!(self.max_position_embeddings)),
            ("type_vocab_size", json!(self.type_vocab_size)),
            ("initializer_range", json!(self.initializer_range)),
            ("layer_norm_eps", json!(self.layer_norm_eps)),
            ("pad_token_id", json!(self.pad_token_id)),
            ("classifier_dropout", json!(classifier_dropout)),
        ];
        map.extend(fields.map(|(name, value)| (name.to_string(), value)));
        if self.labels != Labels::numbered(2) {
            let by_id = self.labels.iter().enumerate().map(|(id, label)| (id.to_string(), json!(label)));
            map.insert("id2label".into(), Value::Object(by_id.collect()));
            // Reversed so that a repeated label gets its first id, as in `label_id`.
            let by_label = self.labels.iter().enumerate().rev().map(|(id, label)| (label.clone(), json!(id)));
            map.insert("label2id".into(), Value::Object(by_label.collect()));
        }
        self.model_type.own_fields(map)
    }

    /// Writes `config.json` into the folder `dir`, creating it if necessary, or writes the file `dir` if its name ends
    /// in `.json`. An existing file is replaced atomically.
    ///
    /// # Errors
    /// Returns an error if the configuration is invalid or the file cannot be written.
    pub fn save(&self, dir: impl AsRef<Path>) -> Result<()> {
        self.validate()?;
        let dir = dir.as_ref();
        let path = if is_json(dir)? { dir.to_path_buf() } else { dir.join(FILE) };
        files::replace(&path, self.to_json().as_bytes())
    }
}

/// Whether `path` is a file rather than a folder.
///
/// # Errors
/// Returns an error if that cannot be found out.
fn is_json(path: &Path) -> Result<bool> {
    Ok(match metadata(path).map_err(|error| Error::io(path, "cannot read", error))? {
        Some(found) => !found.is_dir(),
        None => path.extension().is_some_and(|extension| extension == "json"),
    })
}

fn read(mut fields: UnreadFields) -> Result<BertConfig> {
    let model_type = match fields.take("model_type") {
        None => ModelType::Bert,
        Some(value) => value.as_str().and_then(ModelType::from_name).ok_or_else(|| {
            let known = ModelType::ALL.map(ModelType::name).join(", ");
            Error::config(format!("model_type is {}: must be one of {known}, or absent", short(&value)))
        })?,
    };
    let mut fields = UnreadFields(model_type.bert_fields(fields.0));
    let default = match model_type {
        ModelType::Bert => BertConfig::base(),
        ModelType::DistilBert => BertConfig::distilbert(),
    };
    let hidden_act = match fields.take("hidden_act") {
        None => HiddenAct::Gelu,
        Some(value) => value.as_str().and_then(HiddenAct::from_name).ok_or_else(|| {
            let known = HiddenAct::ALL.map(HiddenAct::name).join(", ");
            Error::config(format!("hidden_act is {}: must be one of {known}", short(&value)))
        })?,
    };
    let pad_token_id = fields.size("pad_token_id", 0)?;
    let pad_token_id = u32::try_from(pad_token_id)
        .map_err(|_| Error::config(format!("pad_token_id is {pad_token_id}: must be below vocab_size")))?;
    let architectures = match fields.take("architectures") {
        None => Vec::new(),
        Some(value) => serde_json::from_value(value.clone())
            .map_err(|_| Error::config(format!("architectures is {}: must be a list of names", short(&value))))?,
    };
    Ok(BertConfig {
        model_type,
        vocab_size: fields.size("vocab_size", default.vocab_size)?,
        hidden_size: fields.size("hidden_size", default.hidden_size)?,
        num_hidden_layers: fields.size("num_hidden_layers", default.num_hidden_layers)?,
        num_attention_heads: fields.size("num_attention_heads", default.num_attention_heads)?,
        intermediate_size: fields.size("intermediate_size", default.intermediate_size)?,
        hidden_act,
        hidden_dropout_prob: fields.number("hidden_dropout_prob")?.unwrap_or(default.hidden_dropout_prob),
        attention_probs_dropout_prob: fields
            .number("attention_probs_dropout_prob")?
            .unwrap_or(default.attention_probs_dropout_prob),
        max_position_embeddings: fields.size("max_position_embeddings", default.max_position_embeddings)?,
        type_vocab_size: fields.size("type_vocab_size", default.type_vocab_size)?,
        initializer_range: fields.number("initializer_range")?.unwrap_or(default.initializer_range),
        layer_norm_eps: fields.number("layer_norm_eps")?.unwrap_or(default.layer_norm_eps),
        pad_token_id,
        classifier_dropout: fields.number("classifier_dropout")?.or(default.classifier_dropout),
        labels: labels::read(&mut fields)?,
        architectures,
        extra: fields.0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn missing_fields_are_those_of_base() {
        assert_eq!(BertConfig::from_json("{}").unwrap(), BertConfig::base());
    }

    #[test]
    fn round_trip_keeps_unknown_fields() {
        let text = r#"{"model_type": "bert", "architectures": ["BertForMaskedLM"], "hidden_size": 128, "num_attention_heads": 2,
            "hidden_act": "gelu_new", "classifier_dropout": null, "id2label": {"1": "good", "0": "bad"},
            "label2id": {"good": 1, "bad": 0}, "position_embedding_type": "absolute", "use_cache": true, "my": {"own": [1]}}"#;
        let config = BertConfig::from_json(text).unwrap();
        assert_eq!(*config.labels, ["bad", "good"]);
        assert_eq!(config.hidden_act, HiddenAct::GeluNew);
        assert_eq!(config.extra["my"]["own"][0], 1);
        let dir = tempfile::tempdir().unwrap();
        config.save(dir.path()).unwrap();
        assert_eq!(BertConfig::open(dir.path()).unwrap(), config);
        assert_eq!(BertConfig::open(dir.path().join("config.json")).unwrap(), config);
        let written: Value = serde_json::from_str(&config.to_json()).unwrap();
        for (name, value) in serde_json::from_str::<Map<String, Value>>(text).unwrap() {
            assert_eq!(written[&name], value, "{name}");
        }
    }

    /// The fields are those that `DistilBertConfig` in `transformers` writes.
    #[test]
    fn distilbert_fields_are_renamed() {
        let text = r#"{"model_type": "distilbert", "dim": 96, "n_layers": 3, "n_heads": 4, "hidden_dim": 200, "dropout": 0.2,
            "attention_dropout": 0.3, "qa_dropout": 0.05, "seq_classif_dropout": 0.25, "activation": "gelu",
            "sinusoidal_pos_embds": false, "vocab_size": 70, "tie_weights_": true}"#;
        let config = BertConfig::from_json(text).unwrap();
        let expected = BertConfig {
            num_hidden_layers: 3,
            hidden_size: 96,
            num_attention_heads: 4,
            intermediate_size: 200,
            hidden_dropout_prob: 0.2,
            attention_probs_dropout_prob: 0.3,
            classifier_dropout: Some(0.25),
            vocab_size: 70,
            extra: config.extra.clone(),
            ..BertConfig::distilbert()
        };
        assert_eq!(config, expected);
        assert_eq!(config.qa_dropout_prob(), 0.05);
        let written: Map<String, Value> = serde_json::from_str(&config.to_json()).unwrap();
        for (name, value) in serde_json::from_str::<Map<String, Value>>(text).unwrap() {
            assert_eq!(written[&name], value, "{name}");
        }
        for absent in ["hidden_size", "type_vocab_size", "layer_norm_eps"] {
            assert!(!written.contains_key(absent), "{absent}");
        }
        assert_eq!(BertConfig::from_json(&config.to_json()).unwrap(), config);
        let unset = BertConfig { classifier_dropout: None, ..config }.to_json();
        assert_eq!(serde_json::from_str::<Value>(&unset).unwrap()["seq_classif_dropout"], 0.2);
        let error = BertConfig::from_json(r#"{"model_type": "distilbert", "n_heads": 7}"#).unwrap_err().to_string();
        assert!(error.contains("num_attention_heads, 7"), "{error}");
    }

    #[test]
    fn errors_name_file_field_and_value() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.json");
        let cases = [
            ("[1]", "not a JSON object"),
            ("{\"hidden_size\": ", "not JSON: EOF while parsing a value at line 1 column 16"),
            (r#"{"model_type": "roberta"}"#, "model_type is \"roberta\": must be one of bert, distilbert, or absent"),
            (r#"{"hidden_size": -1}"#, "hidden_size is -1: must be an integer, 0 or more"),
            (r#"{"hidden_size": 1e30}"#, "hidden_size is 1e+30: must be an integer, 0 or more"),
            (r#"{"hidden_size": "768"}"#, "hidden_size is \"768\": must be an integer, 0 or more"),
            (r#"{"layer_norm_eps": "small"}"#, "layer_norm_eps is \"small\": must be a number"),
            (
                r#"{"hidden_act": "relu6"}"#,
                "hidden_act is \"relu6\": must be one of gelu, gelu_python, gelu_new, gelu_pytorch_tanh, \
                 gelu_python_tanh, gelu_fast, gelu_accurate, quick_gelu, relu, silu, swish, tanh",
            ),
            (
                r#"{"position_embedding_type": "relative_key"}"#,
                "position_embedding_type is \"relative_key\": must be \"absolute\" or absent",
            ),
            (r#"{"pruned_heads": {"0": [1]}}"#, "pruned_heads is {\"0\":[1]}: must be {} or absent"),
            (r#"{"tie_word_embeddings": "no"}"#, "tie_word_embeddings is \"no\": must be true, false or absent"),
            (r#"{"is_decoder": true}"#, "is_decoder is true: must be false or absent"),
            (r#"{"architectures": "Bert"}"#, "architectures is \"Bert\": must be a list of names"),
            (r#"{"num_hidden_layers": 0}"#, "num_hidden_layers is 0: must be from 1 to 16384"),
            (r#"{"pad_token_id": 99999999999}"#, "pad_token_id is 99999999999: must be below vocab_size"),
        ];
        for (text, expected) in cases {
            std::fs::write(&path, text).unwrap();
            let message = BertConfig::open(dir.path()).unwrap_err().to_string();
            assert_eq!(message, format!("{}: {expected}", path.display()));
        }
        assert!(BertConfig::open(dir.path().join("none")).unwrap_err().to_string().contains("cannot read"));
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_an_error(text in "\\PC*") {
            let _ = BertConfig::from_json(&text);
        }

        #[test]
        fn any_number_is_read_or_an_error(field in 0usize..7, number in any::<f64>(), whole in any::<i128>(), as_whole in any::<bool>()) {
            let name = ["vocab_size", "hidden_size", "num_labels", "layer_norm_eps", "pad_token_id", "classifier_dropout", "num_attention_heads"][field];
            let number = if as_whole { whole.to_string() } else { format!("{number:e}") };
            if let Ok(config) = BertConfig::from_json(&format!("{{\"{name}\": {number}}}")) {
                let _ = config.parameter_counts();
            }
        }
    }
}
