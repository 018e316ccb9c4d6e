//! The index of a sharded checkpoint in the format of `transformers`: `{"weight_map": {tensor: file, ...}}`.

use std::collections::BTreeMap;
use std::path::{Component, Path};

use serde::Deserialize;

use super::mapped::shown;

/// The largest index that is read, in bytes, as large as the longest header of a safetensors file.
const MAX_BYTES: usize = 100_000_000;

#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

/// Returns the file name of the shard that contains each tensor.
pub(super) fn read(bytes: &[u8]) -> Result<BTreeMap<String, String>, String> {
    if bytes.len() > MAX_BYTES {
        return Err(format!("has {} bytes, at most {MAX_BYTES} of an index of shards are read", bytes.len()));
    }
    let index: Index = serde_json::from_slice(bytes).map_err(|error| format!("is not an index of shards: {error}"))?;
    for (tensor, file) in &index.weight_map {
        if !is_plain(file) {
            let (tensor, file) = (shown(tensor), shown(file));
            return Err(format!("{tensor} is listed in {file}, but shards must be in the directory of the index"));
        }
    }
    if index.weight_map.is_empty() {
        return Err("is an index without tensors".to_string());
    }
    Ok(index.weight_map)
}

/// Returns whether `name` is a plain file name, without a directory, on every operating system.
fn is_plain(name: &str) -> bool {
    let mut components = Path::new(name).components();
    let is_name = matches!(components.next(), Some(Component::Normal(part)) if part == name);
    is_name && !name.contains(['/', '\\', ':', '\0'])
}
