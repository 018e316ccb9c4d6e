//! The configuration of a model, with the field names of Hugging Face's `config.json`.

mod classifier_pooling;
mod count;
mod fields;
mod hidden_act;
mod json;
mod labels;
mod model_type;
mod names;
mod problem_type;
mod unread_fields;

use serde_json::{Map, Value};

use crate::{Error, Result};
pub use classifier_pooling::ClassifierPooling;
pub use count::ParameterCounts;
pub(crate) use fields::Remarks;
pub use hidden_act::HiddenAct;
pub(crate) use json::FILE as CONFIG_FILE;
pub use model_type::ModelType;
pub use names::Labels;
pub use problem_type::ProblemType;

/// The configuration of a model: its shape and its hyper-parameters.
///
/// ```
/// use cloze_bert::BertConfig;
/// let config = BertConfig { hidden_dropout_prob: 0.0, ..BertConfig::mini(8_000) };
/// config.validate()?;
/// assert_eq!(config.head_size(), 64);
/// # Ok::<(), cloze_bert::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct BertConfig {
    /// The member of BERT's family.
    pub model_type: ModelType,
    /// The number of tokens in the vocabulary.
    pub vocab_size: usize,
    /// The size of the hidden states.
    pub hidden_size: usize,
    /// The number of layers of the encoder.
    pub num_hidden_layers: usize,
    /// The number of attention heads of a layer; divides `hidden_size`.
    pub num_attention_heads: usize,
    /// The inner size of the feed-forward networks.
    pub intermediate_size: usize,
    /// The activation of the feed-forward networks and of the masked-language-model head.
    pub hidden_act: HiddenAct,
    /// The dropout of embeddings and of the output of each block, in [0, 1). Training refuses one between 0 and
    /// 1/256, or above 255/256: dropouts are rounded to multiples of 1/256.
    pub hidden_dropout_prob: f64,
    /// The dropout of attention probabilities, like `hidden_dropout_prob`.
    pub attention_probs_dropout_prob: f64,
    /// The number of position embeddings, which is the maximum length of a sequence, special tokens included.
    pub max_position_embeddings: usize,
    /// The number of token types (segments); 0 in a DistilBERT.
    pub type_vocab_size: usize,
    /// The standard deviation of the normal distribution that weights are drawn from.
    pub initializer_range: f64,
    /// The number that LayerNorm adds to the variance.
    pub layer_norm_eps: f64,
    /// The id of the padding token.
    pub pad_token_id: u32,
    /// The dropout before a classifier. `None` stands for `hidden_dropout_prob`.
    pub classifier_dropout: Option<f64>,
    /// The names of a classifier's labels by id: `id2label` and `label2id` of `config.json`.
    pub labels: Labels,
    /// The class names of the models that the weights belong to.
    pub architectures: Vec<String>,
    /// All other fields of `config.json`, kept when it is written.
    pub extra: Map<String, Value>,
}

/// [`BertConfig::base`].
impl Default for BertConfig {
    fn default() -> BertConfig {
        BertConfig {
            model_type: ModelType::Bert,
            vocab_size: 30_522,
            hidden_size: 768,
            num_hidden_layers: 12,
            num_attention_heads: 12,
            intermediate_size: 3072,
            hidden_act: HiddenAct::Gelu,
            hidden_dropout_prob: 0.1,
            attention_probs_dropout_prob: 0.1,
            max_position_embeddings: 512,
            type_vocab_size: 2,
            initializer_range: 0.02,
            layer_norm_eps: 1e-12,
            pad_token_id: 0,
            classifier_dropout: None,
            labels: Labels::numbered(2),
            architectures: Vec::new(),
            extra: Map::new(),
        }
    }
}

impl BertConfig {
    /// Returns BERT-Base: 12 layers of size 768, 12 heads, 30,522 tokens.
    pub fn base() -> BertConfig {
        BertConfig::default()
    }

    /// Returns BERT-Large: 24 layers of size 1024, 16 heads, 30,522 tokens.
    pub fn large() -> BertConfig {
        BertConfig::default().shape(24, 1024, 16)
    }

    /// Returns DistilBERT: 6 layers of size 768, 12 heads, no token types, 30,522 tokens (V. Sanh et al., 2019).
    pub fn distilbert() -> BertConfig {
        BertConfig {
            model_type: ModelType::DistilBert,
            type_vocab_size: 0,
            classifier_dropout: Some(0.2),
            ..BertConfig::default().shape(6, 768, 12)
        }
    }

    /// Returns a model of 4 layers of size 256 with 4 heads, small enough to pre-train on a CPU.
    pub fn mini(vocab_size: usize) -> BertConfig {
        BertConfig { vocab_size, ..BertConfig::default().shape(4, 256, 4) }
    }

    /// Returns a model of 2 layers of size 128 with 2 heads, for tests and first steps.
    pub fn tiny(vocab_size: usize) -> BertConfig {
        BertConfig { vocab_size, ..BertConfig::default().shape(2, 128, 2) }
    }

    /// Returns the preset of this name (`tiny`, `mini`, `base`, `large`) with a vocabulary of `vocab_size` tokens.
    ///
    /// # Errors
    /// Returns an error if there is no such preset.
    pub fn by_name(name: &str, vocab_size: usize) -> Result<BertConfig> {
        let config = match name {
            "tiny" => BertConfig::tiny(vocab_size),
            "mini" => BertConfig::mini(vocab_size),
            "base" => BertConfig::base(),
            "large" => BertConfig::large(),
            _ => return Err(Error::config(format!("no preset is named {name:?}: must be tiny, mini, base or large"))),
        };
        Ok(BertConfig { vocab_size, ..config })
    }

    /// Sets the shape. The intermediate size is four times the hidden size, as in every published BERT.
    fn shape(self, layers: usize, hidden: usize, heads: usize) -> BertConfig {
        BertConfig {
            num_hidden_layers: layers,
            hidden_size: hidden,
            num_attention_heads: heads,
            intermediate_size: 4 * hidden,
            ..self
        }
    }

    /// Sets the labels.
    pub fn with_labels<S: AsRef<str>>(self, labels: impl IntoIterator<Item = S>) -> BertConfig {
        BertConfig { labels: labels.into_iter().collect(), ..self }
    }

    /// Returns the number of labels of a classifier.
    pub fn num_labels(&self) -> usize {
        self.labels.len()
    }

    /// Returns the id of a label.
    pub fn label_id(&self, label: &str) -> Option<usize> {
        self.labels.iter().position(|name| name == label)
    }

    /// Returns the size of an attention head, `hidden_size / num_attention_heads`, or 0 without heads.
    pub fn head_size(&self) -> usize {
        self.hidden_size.checked_div(self.num_attention_heads).unwrap_or(0)
    }

    /// Returns the dropout before a classifier: `classifier_dropout`, or else `hidden_dropout_prob`.
    pub fn classifier_dropout_prob(&self) -> f64 {
        self.classifier_dropout.unwrap_or(self.hidden_dropout_prob)
    }

    /// Returns whether the decoder of masked tokens is the table of word embeddings: `tie_word_embeddings`, true by
    /// default.
    pub fn tie_word_embeddings(&self) -> bool {
        self.extra.get(TIE_WORD_EMBEDDINGS).and_then(Value::as_bool).unwrap_or(true)
    }

    /// Sets whether the decoder of masked tokens is the table of word embeddings.
    pub fn with_tie_word_embeddings(mut self, tie: bool) -> BertConfig {
        self.extra.insert(TIE_WORD_EMBEDDINGS.into(), tie.into());
        self
    }

    /// Returns the dropout before the question-answering head: 0 in BERT, `qa_dropout` (0.1 by default) in DistilBERT.
    pub fn qa_dropout_prob(&self) -> f64 {
        match self.model_type {
            ModelType::Bert => 0.0,
            ModelType::DistilBert => self.extra.get("qa_dropout").and_then(Value::as_f64).unwrap_or(0.1),
        }
    }

    /// Checks that the configuration is valid. The limits on heads and positions follow from the layout of the random
    /// counters; the others keep parameter counts within 64 bits.
    ///
    /// # Errors
    /// Returns an error with the first invalid field, its value and the limit.
    pub fn validate(&self) -> Result<()> {
        let sizes = [
            ("vocab_size", self.vocab_size, i32::MAX as usize),
            ("hidden_size", self.hidden_size, 1 << 20),
            ("num_hidden_layers", self.num_hidden_layers, 1 << 14),
            ("num_attention_heads", self.num_attention_heads, 1 << 8),
            ("intermediate_size", self.intermediate_size, 1 << 24),
            ("max_position_embeddings", self.max_position_embeddings, 1 << 16),
            ("num_labels", self.labels.len(), MAX_LABELS),
        ];
        for (field, value, most) in sizes {
            if value == 0 || value > most {
                return Err(Error::config(format!("{field} is {value}: must be from 1 to {most}")));
            }
        }
        let (types, allowed) = (self.type_vocab_size, self.model_type.type_vocab_sizes());
        if !allowed.contains(&types) {
            let (least, most) = allowed.into_inner();
            return Err(Error::config(format!("type_vocab_size is {types}: must be from {least} to {most}")));
        }
        let (hidden, heads) = (self.hidden_size, self.num_attention_heads);
        if !hidden.is_multiple_of(heads) {
            let reason = format!("hidden_size is {hidden}: must be a multiple of num_attention_heads, {heads}");
            return Err(Error::config(reason));
        }
        let dropouts = [
            ("hidden_dropout_prob", self.hidden_dropout_prob),
            ("attention_probs_dropout_prob", self.attention_probs_dropout_prob),
            ("classifier_dropout", self.classifier_dropout_prob()),
            ("qa_dropout", self.qa_dropout_prob()),
        ];
        for (field, value) in dropouts {
            if !(0.0..1.0).contains(&value) {
                return Err(Error::config(format!("{field} is {value}: must be at least 0 and below 1")));
            }
        }
        for (field, value) in [("initializer_range", self.initializer_range), ("layer_norm_eps", self.layer_norm_eps)] {
            if !(value > 0.0 && value <= 1.0) {
                return Err(Error::config(format!("{field} is {value}: must be above 0 and at most 1")));
            }
        }
        if self.pad_token_id as usize >= self.vocab_size {
            let (pad, vocab) = (self.pad_token_id, self.vocab_size);
            return Err(Error::config(format!("pad_token_id is {pad}: must be below vocab_size, {vocab}")));
        }
        self.check_problem_type()?;
        self.check_classifier_pooling()?;
        self.check_extra()
    }
}

/// The field that says whether the decoder is tied, stored in [`BertConfig::extra`].
const TIE_WORD_EMBEDDINGS: &str = "tie_word_embeddings";

/// The maximum number of labels, low enough that an invalid file cannot fill the memory.
const MAX_LABELS: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    fn message(config: BertConfig) -> String {
        config.validate().unwrap_err().to_string()
    }

    #[test]
    fn presets_are_valid() {
        for name in ["tiny", "mini", "base", "large"] {
            let config = BertConfig::by_name(name, 1000).unwrap();
            config.validate().unwrap();
            assert_eq!(config.vocab_size, 1000);
            assert_eq!(config.head_size(), 64);
            assert_eq!(config.intermediate_size, 4 * config.hidden_size);
        }
        assert!(BertConfig::by_name("huge", 10).unwrap_err().to_string().contains("\"huge\""));
    }

    #[test]
    fn errors_name_field_value_and_limit() {
        let base = BertConfig::base;
        let cases = [
            (
                BertConfig { num_attention_heads: 7, ..base() },
                "hidden_size is 768: must be a multiple of num_attention_heads, 7",
            ),
            (BertConfig { num_attention_heads: 0, ..base() }, "num_attention_heads is 0: must be from 1 to 256"),
            (
                BertConfig { vocab_size: usize::MAX, ..base() },
                "vocab_size is 18446744073709551615: must be from 1 to 2147483647",
            ),
            (
                BertConfig { hidden_dropout_prob: 1.0, ..base() },
                "hidden_dropout_prob is 1: must be at least 0 and below 1",
            ),
            (
                BertConfig { attention_probs_dropout_prob: -0.1, ..base() },
                "attention_probs_dropout_prob is -0.1: must be at least 0 and below 1",
            ),
            (
                BertConfig { classifier_dropout: Some(f64::NAN), ..base() },
                "classifier_dropout is NaN: must be at least 0 and below 1",
            ),
            (BertConfig { layer_norm_eps: 0.0, ..base() }, "layer_norm_eps is 0: must be above 0 and at most 1"),
            (BertConfig { pad_token_id: 40_000, ..base() }, "pad_token_id is 40000: must be below vocab_size, 30522"),
            (BertConfig { labels: Labels::numbered(0), ..base() }, "num_labels is 0: must be from 1 to 1048576"),
        ];
        for (config, expected) in cases {
            assert_eq!(message(config), expected);
        }
    }

    #[test]
    fn labels_have_ids() {
        let config = BertConfig::tiny(100).with_labels(["negative", "neutral", "positive"]);
        assert_eq!((config.num_labels(), config.label_id("neutral"), config.label_id("bad")), (3, Some(1), None));
        assert_eq!(BertConfig { classifier_dropout: Some(0.25), ..config }.classifier_dropout_prob(), 0.25);
    }
}
