//! Saving a model folder.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use cloze_tensor::{DType, Module, Tensor, retry, save_safetensors};
use serde_json::{Value, json};

use super::{WEIGHTS_FILE, WEIGHTS_INDEX_FILE, names};
use crate::{BertConfig, Error, ModelType, Result, files};

/// Options for saving a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SaveOptions {
    dtype: DType,
    max_shard_bytes: Option<usize>,
}

impl Default for SaveOptions {
    fn default() -> SaveOptions {
        SaveOptions { dtype: DType::F32, max_shard_bytes: None }
    }
}

impl SaveOptions {
    /// Creates options for one file of f32 weights.
    pub fn new() -> SaveOptions {
        SaveOptions::default()
    }

    /// Sets the dtype that weights are rounded to. [`DType::BF16`] and [`DType::F16`] halve the file.
    pub fn dtype(self, dtype: DType) -> SaveOptions {
        SaveOptions { dtype, ..self }
    }

    /// Splits the weights into files of at most `bytes` bytes of tensors, with an index. A larger tensor gets a file
    /// with no other tensor in it.
    pub fn max_shard_bytes(self, bytes: usize) -> SaveOptions {
        SaveOptions { max_shard_bytes: Some(bytes), ..self }
    }
}

/// Writes a model into the folder `dir`.
pub(crate) fn save(
    dir: &Path,
    model: &impl Module,
    config: &BertConfig,
    architecture: &str,
    options: &SaveOptions,
) -> Result<()> {
    let dtype = match options.dtype {
        DType::F32 => "float32",
        DType::BF16 => "bfloat16",
        DType::F16 => "float16",
        DType::F64 => "float64",
        other => return Err(Error::config(format!("dtype is {other}: weights can be saved as f32, bf16, f16 or f64"))),
    };
    files::create_folder(dir)?;
    let stored = |(name, tensor): (String, Tensor)| {
        Ok((names::stored(&name, config.model_type), tensor.detach().to_dtype(options.dtype)?))
    };
    let mut parameters = model.named_parameters();
    // Without ties, `transformers` reads the bias of the decoder under this name only.
    let [(_, weight), (bias, copy)] = names::TIED;
    if config.model_type == ModelType::Bert && parameters.iter().any(|(name, _)| name == weight) {
        let bias = parameters.iter().find(|(name, _)| name == bias).map(|(_, bias)| bias.clone());
        parameters.extend(bias.map(|bias| (copy.to_string(), bias)));
    }
    let tensors = parameters.into_iter().map(stored).collect::<Result<Vec<_>>>()?;
    // Weights are written first: a folder with only a configuration would look like a model.
    match options.max_shard_bytes {
        None => save_safetensors(dir.join(WEIGHTS_FILE), tensors, &METADATA)?,
        Some(most) => save_shards(dir, tensors, most)?,
    }
    let mut config = BertConfig { architectures: vec![config.model_type.class_name(architecture)], ..config.clone() };
    config.extra.remove("torch_dtype");
    config.extra.insert("dtype".into(), Value::from(dtype));
    config.save(dir)
}

/// The entry that `transformers` expects in the header of a file of weights.
const METADATA: [(&str, &str); 1] = [("format", "pt")];

/// Writes the weights as several files of at most `most` bytes of tensors, and the index.
fn save_shards(dir: &Path, tensors: Vec<(String, Tensor)>, most: usize) -> Result<()> {
    let bytes = |tensor: &Tensor| tensor.elements() * tensor.dtype().size();
    let total: usize = tensors.iter().map(|(_, tensor)| bytes(tensor)).sum();
    let mut shards: Vec<Vec<(String, Tensor)>> = Vec::new();
    let mut room = 0;
    for (name, tensor) in tensors {
        let size = bytes(&tensor);
        match shards.last_mut() {
            Some(shard) if size <= room => {
                room -= size;
                shard.push((name, tensor));
            }
            _ => {
                room = most.saturating_sub(size);
                shards.push(vec![(name, tensor)]);
            }
        }
    }
    let count = shards.len();
    let mut weight_map = BTreeMap::new();
    for (index, shard) in shards.into_iter().enumerate() {
        let file = format!("model-{:05}-of-{count:05}.safetensors", index + 1);
        weight_map.extend(shard.iter().map(|(name, _)| (name.clone(), file.clone())));
        save_safetensors(dir.join(&file), shard, &METADATA)?;
    }
    let index = json!({"metadata": {"total_size": total}, "weight_map": weight_map});
    files::replace(&dir.join(WEIGHTS_INDEX_FILE), format!("{index:#}\n").as_bytes())?;
    // An older file with all weights would be opened instead of the shards.
    let whole = dir.join(WEIGHTS_FILE);
    match retry(|| fs::remove_file(&whole)) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(Error::io(whole, "cannot remove", error)),
        _ => Ok(()),
    }
}
