//! The index of a checkpoint in shards, as `transformers` writes it: `{"weight_map": {tensor: file, ...}}`.

use std::collections::BTreeMap;
use std::path::{Component, Path};

use serde::Deserialize;

use super::mapped::shown;

#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

/// For each tensor the name of the file that it is in: a name without a folder.
pub(super) fn read(bytes: &[u8]) -> Result<BTreeMap<String, String>, String> {
    let index: Index = serde_json::from_slice(bytes).map_err(|error| format!("is no index of shards: {error}"))?;
    for (tensor, file) in &index.weight_map {
        if !is_plain(file) {
            let (tensor, file) = (shown(tensor), shown(file));
            return Err(format!(
                "says that {tensor} is in {file}: shards are files beside the index, without a folder"
            ));
        }
    }
    if index.weight_map.is_empty() {
        return Err("is an index of no tensors".to_string());
    }
    Ok(index.weight_map)
}

/// Whether this names a file in the same folder, on any system.
fn is_plain(name: &str) -> bool {
    let mut components = Path::new(name).components();
    let is_name = matches!(components.next(), Some(Component::Normal(part)) if part == name);
    is_name && !name.contains(['/', '\\', ':', '\0'])
}
