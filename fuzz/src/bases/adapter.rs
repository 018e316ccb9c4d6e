//! Adapters of a tiny model.

use cloze_bert::{BertConfig, BertForSequenceClassification, LoraConfig, PreTrainedModel};
use cloze_tensor::Device;

use crate::Scratch;

/// The files in the scratch folder.
pub const CONFIG: &str = "adapter/adapter_config.json";
/// The weights.
pub const WEIGHTS: &str = "adapter/adapter_model.safetensors";

/// A folder of adapters.
pub struct Adapters {
    /// The folder that it is in.
    pub scratch: Scratch,
    /// The content of `adapter_config.json`.
    pub config: Vec<u8>,
    /// The content of `adapter_model.safetensors`.
    pub weights: Vec<u8>,
}

/// Makes the model that the adapters belong to.
pub fn model() -> BertForSequenceClassification {
    let config = BertConfig {
        hidden_size: 4,
        num_hidden_layers: 1,
        num_attention_heads: 2,
        intermediate_size: 4,
        max_position_embeddings: 4,
        ..BertConfig::tiny(8)
    };
    BertForSequenceClassification::new(&config, &Device::Cpu, 1).expect("the configuration is valid")
}

/// Writes adapters of a tiny model.
pub fn adapters() -> Adapters {
    let scratch = Scratch::new();
    let mut model = model();
    model.add_adapters(&LoraConfig::new(2).targets(["query", "value"]), 1).expect("the model is valid");
    model.save_adapters(scratch.path().join("adapter")).expect("the model is valid");
    let read = |name| std::fs::read(scratch.path().join(name)).expect("the model is valid");
    let (config, weights) = (read(CONFIG), read(WEIGHTS));
    Adapters { scratch, config, weights }
}
