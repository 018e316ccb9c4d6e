//! Model folders: `config.json` and `model.safetensors`, as `transformers` reads and writes them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::Path;

use cloze_tensor::{DType, Device, Module, SafetensorsFile, Tensor, save_safetensors};

use crate::weights::Weights;
use crate::{BertConfig, Error, Result};

/// Name of the file of weights in a model folder.
pub const WEIGHTS_FILE: &str = "model.safetensors";

/// What loading found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct LoadReport {
    /// Parameters that came from the file.
    pub loaded: usize,
    /// Parameters of heads that the file does not have; they were made anew.
    pub missing: Vec<String>,
    /// Tensors of the file that the model has no place for.
    pub unexpected: Vec<String>,
}

impl fmt::Display for LoadReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} parameters loaded", self.loaded)?;
        for (what, names) in [("made anew", &self.missing), ("not used", &self.unexpected)] {
            if !names.is_empty() {
                write!(f, "; {} {what}: {}", names.len(), names.join(", "))?;
            }
        }
        Ok(())
    }
}

/// Other names under which a parameter is found.
fn canonical(name: &str, has_prefix: bool) -> String {
    let name = name.replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias");
    if has_prefix || name.starts_with("cls.") { name } else { format!("bert.{name}") }
}

/// Tensors that say nothing beyond the parameters: the positions 0, 1, 2, ..., and the tied decoder.
const REDUNDANT: [&str; 3] =
    ["bert.embeddings.position_ids", "cls.predictions.decoder.weight", "cls.predictions.decoder.bias"];

/// A file of weights that is being read.
pub(crate) struct Checkpoint {
    file: SafetensorsFile,
    /// Canonical name to the name in the file.
    names: BTreeMap<String, String>,
    taken: BTreeSet<String>,
    missing: Vec<String>,
}

impl Checkpoint {
    fn open(path: &Path) -> Result<Checkpoint> {
        let file = SafetensorsFile::open(path)?;
        let names = file.names();
        let has_prefix = names.iter().any(|name| name.starts_with("bert."));
        let names = names.into_iter().map(|name| (canonical(&name, has_prefix), name)).collect();
        Ok(Checkpoint { file, names, taken: BTreeSet::new(), missing: Vec::new() })
    }

    /// The parameter `name`, in f32; `None`, and noted, where the file does not have it.
    pub(crate) fn take(&mut self, name: &str, shape: &[usize], device: &Device) -> Result<Option<Tensor>> {
        let Some(stored) = self.names.get(name) else {
            self.missing.push(name.to_string());
            return Ok(None);
        };
        let tensor = self.file.tensor(stored, device)?;
        if tensor.shape() != shape {
            let reason = format!("{stored} has shape {:?}, the configuration says {shape:?}", tensor.shape());
            return Err(Error::format(self.file.path(), reason));
        }
        if !tensor.dtype().is_float() {
            return Err(Error::format(self.file.path(), format!("{stored} has type {}, not a float", tensor.dtype())));
        }
        self.taken.insert(name.to_string());
        Ok(Some(tensor.to_dtype(DType::F32)?))
    }

    fn report(self) -> Result<LoadReport> {
        let is_body = |name: &&String| name.starts_with("bert.") && !name.starts_with("bert.pooler.");
        if let Some(name) = self.missing.iter().find(is_body) {
            let count = self.missing.iter().filter(is_body).count();
            let reason = format!("{name} is missing ({count} parameters of embeddings and encoder in all)");
            return Err(Error::format(self.file.path(), reason));
        }
        let unexpected = |(name, stored): (&String, &String)| {
            (!self.taken.contains(name) && !REDUNDANT.contains(&name.as_str())).then(|| stored.clone())
        };
        let unexpected = self.names.iter().filter_map(unexpected).collect();
        Ok(LoadReport { loaded: self.taken.len(), missing: self.missing, unexpected })
    }
}

/// Builds a model of the weights in folder `dir`.
pub(crate) fn load<M>(
    dir: &Path,
    config: &BertConfig,
    device: &Device,
    build: impl FnOnce(Weights<'_>) -> Result<M>,
) -> Result<(M, LoadReport)> {
    let checkpoint = Checkpoint::open(&dir.join(WEIGHTS_FILE))?;
    let (model, checkpoint) = Weights::with(Some(checkpoint), config, device, 0, build)?;
    let report = checkpoint.map_or_else(|| Ok(LoadReport::default()), Checkpoint::report)?;
    Ok((model, report))
}

/// Writes a model into folder `dir`.
pub(crate) fn save(dir: &Path, model: &impl Module, config: &BertConfig, architecture: &str) -> Result<()> {
    std::fs::create_dir_all(dir).map_err(|error| Error::io(dir, "cannot make the folder", error))?;
    // The weights first: a folder with a configuration alone would look like a model.
    save_safetensors(dir.join(WEIGHTS_FILE), model.named_parameters(), &[("format", "pt")])?;
    BertConfig { architectures: vec![architecture.to_string()], ..config.clone() }.save(dir)
}
