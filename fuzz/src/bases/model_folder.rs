//! Folders of tiny models.

use cloze_bert::{
    BertConfig, BertForSequenceClassification, PreTrainedModel, SentenceEncoder, SentencePooling, Tokenizer,
    TrainOptions,
};
use cloze_tensor::Device;

use crate::Scratch;

/// The files that are changed, in the folder of an encoder or of a classifier.
pub const FILES: [(&str, &str); 10] = [
    ("encoder", "config.json"),
    ("encoder", "modules.json"),
    ("encoder", "1_Pooling/config.json"),
    ("encoder", "2_Dense/config.json"),
    ("encoder", "config_sentence_transformers.json"),
    ("encoder", "sentence_bert_config.json"),
    ("classifier", "config.json"),
    ("classifier", "config_sentence_transformers.json"),
    ("classifier", "sentence_bert_config.json"),
    ("classifier", "modules.json"),
];

/// The folders of an encoder and of a classifier.
pub struct ModelFolders {
    /// The folder that they are in.
    pub scratch: Scratch,
    /// The content of each of [`FILES`], if there is one.
    pub contents: Vec<Option<Vec<u8>>>,
}

/// Writes the folders.
pub fn model_folders() -> ModelFolders {
    let scratch = Scratch::new();
    let tokenizer = Tokenizer::train(["the cat sat on the mat"], 40, &TrainOptions::new()).expect("the model is valid");
    let config = BertConfig {
        hidden_size: 4,
        num_hidden_layers: 1,
        num_attention_heads: 2,
        intermediate_size: 8,
        max_position_embeddings: 16,
        ..BertConfig::tiny(tokenizer.vocab_size())
    };
    let (encoder, classifier) = (scratch.path().join("encoder"), scratch.path().join("classifier"));
    let poolings = [SentencePooling::Mean, SentencePooling::Cls];
    let model = SentenceEncoder::new(&config, &Device::Cpu, 1)
        .expect("the model is valid")
        .pooled_by(&poolings)
        .expect("the model is valid")
        .normalized(true);
    model.with_prompt("query", "the ").save(&encoder).expect("the model is valid");
    add_dense(&scratch);
    let labels = config.with_labels(["yes"]);
    BertForSequenceClassification::new(&labels, &Device::Cpu, 1)
        .expect("the model is valid")
        .save(&classifier)
        .expect("the model is valid");
    scratch.write("encoder/sentence_bert_config.json", r#"{"max_seq_length": 12, "do_lower_case": false}"#);
    scratch.write(
        "classifier/config_sentence_transformers.json",
        r#"{"activation_fn": "torch.nn.modules.linear.Identity"}"#,
    );
    for folder in [encoder, classifier] {
        tokenizer.save(folder).expect("the model is valid");
    }
    let read = |(folder, name): &(&str, &str)| std::fs::read(scratch.path().join(folder).join(name)).ok();
    let contents = FILES.iter().map(read).collect();
    ModelFolders { scratch, contents }
}

/// Adds a dense layer after the pooling of the encoder.
fn add_dense(scratch: &Scratch) {
    let modules = ["Transformer", "Pooling", "Dense", "Normalize"].iter().enumerate().map(|(at, name)| {
        let path = if at == 0 { String::new() } else { format!("{at}_{name}") };
        format!(r#"{{"idx": {at}, "name": "{at}", "path": "{path}", "type": "sentence_transformers.models.{name}"}}"#)
    });
    scratch.write("encoder/modules.json", format!("[{}]", modules.collect::<Vec<_>>().join(", ")));
    let config = r#"{"in_features": 8, "out_features": 2, "bias": true, "activation_function": "torch.nn.modules.activation.Tanh"}"#;
    scratch.write("encoder/2_Dense/config.json", config);
    let header = r#"{"linear.weight":{"dtype":"F32","shape":[2,8],"data_offsets":[0,64]},"linear.bias":{"dtype":"F32","shape":[2],"data_offsets":[64,72]}}"#;
    let weights = [&(header.len() as u64).to_le_bytes(), header.as_bytes(), &[0; 72]].concat();
    scratch.write("encoder/2_Dense/model.safetensors", weights);
}
