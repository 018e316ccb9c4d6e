//! Model folders: `config.json` and `model.safetensors`, as `transformers` reads and writes them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::Path;

use cloze_tensor::{DType, Device, Module, Tensor, TensorFile, save_safetensors};

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

/// The positions 0, 1, 2, ..., which say nothing.
const POSITIONS: &str = "bert.embeddings.position_ids";

/// Parameters that a file may hold once, twice, or under the second name alone: the decoder is tied.
const TIED: [(&str, &str); 2] = [
    ("bert.embeddings.word_embeddings.weight", "cls.predictions.decoder.weight"),
    ("cls.predictions.bias", "cls.predictions.decoder.bias"),
];

/// Checks that the decoder of the masked-language-model head is the table of word embeddings.
pub(crate) fn check_tied(config: &BertConfig) -> Result<()> {
    match config.extra.get("tie_word_embeddings").and_then(serde_json::Value::as_bool) {
        Some(false) => Err(Error::config(
            "tie_word_embeddings is false: must be true or absent, the decoder is tied to the word embeddings",
        )),
        _ => Ok(()),
    }
}

/// The values of an f32 tensor a part at a time, so that no copy of the whole is made.
fn parts(tensor: &Tensor) -> Result<impl Iterator<Item = Result<Vec<f32>>>> {
    const PART: usize = 1 << 16;
    let elements = tensor.elements();
    let flat = tensor.reshape(&[elements])?;
    let part = move |start| Ok(flat.narrow(0, start, PART.min(elements - start))?.to_vec()?);
    Ok((0..elements).step_by(PART).map(part))
}

/// A file of weights that is being read.
pub(crate) struct Checkpoint {
    file: TensorFile,
    /// Canonical name to the name in the file.
    names: BTreeMap<String, String>,
    taken: BTreeSet<String>,
    missing: Vec<String>,
}

impl Checkpoint {
    fn open(path: &Path) -> Result<Checkpoint> {
        let file = TensorFile::open(path)?;
        let names = file.names();
        let has_prefix = names.iter().any(|name| name.starts_with("bert."));
        let mut by_canonical = BTreeMap::new();
        for name in names {
            if let Some(other) = by_canonical.insert(canonical(&name, has_prefix), name.clone()) {
                return Err(Error::format(path, format!("has both {other} and {name}, which are the same parameter")));
            }
        }
        let mut checkpoint = Checkpoint { file, names: by_canonical, taken: BTreeSet::new(), missing: Vec::new() };
        for (name, copy) in TIED {
            checkpoint.tie(name, copy)?;
        }
        Ok(checkpoint)
    }

    /// Drops the `copy` of parameter `name`, which must be equal, or takes it for the parameter.
    fn tie(&mut self, name: &str, copy: &str) -> Result<()> {
        let Some(copy) = self.names.remove(copy) else { return Ok(()) };
        let Some(stored) = self.names.get(name) else {
            self.names.insert(name.to_string(), copy);
            return Ok(());
        };
        let [a, b] = [stored, &copy].map(|name| self.file.tensor(name, &Device::Cpu));
        let (a, b) = (a?.to_dtype(DType::F32)?, b?.to_dtype(DType::F32)?);
        let mut same = a.shape() == b.shape();
        for (a, b) in parts(&a)?.zip(parts(&b)?) {
            same = same && a? == b?;
        }
        match same {
            true => Ok(()),
            false => {
                let reason =
                    format!("{copy} differs from {stored}: a decoder that is not tied to it has no place here");
                Err(Error::format(self.file.path(), reason))
            }
        }
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
        let tensor = tensor.to_dtype(DType::F32)?;
        let mut position = 0;
        for part in parts(&tensor)? {
            let part = part?;
            if let Some(at) = part.iter().position(|x| !x.is_finite()) {
                let reason = format!("{stored} is {} at element {}: weights must be finite", part[at], position + at);
                return Err(Error::format(self.file.path(), reason));
            }
            position += part.len();
        }
        self.taken.insert(name.to_string());
        Ok(Some(tensor))
    }

    fn report(self) -> Result<LoadReport> {
        let is_body = |name: &&String| name.starts_with("bert.") && !name.starts_with("bert.pooler.");
        if let Some(name) = self.missing.iter().find(is_body) {
            let count = self.missing.iter().filter(is_body).count();
            let reason = format!("{name} is missing ({count} parameters of embeddings and encoder in all)");
            return Err(Error::format(self.file.path(), reason));
        }
        let unexpected = |(name, stored): (&String, &String)| {
            (!self.taken.contains(name) && name != POSITIONS).then(|| stored.clone())
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
