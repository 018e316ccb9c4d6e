//! Model folders: `config.json` and the weights, as `transformers` reads and writes them.

mod names;
mod save;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use cloze_tensor::{DType, Device, Tensor, TensorFile};

use crate::config::ModelType;
use crate::folder::Folder;
use crate::weights::{Source, Weights};
use crate::{BertConfig, BertModel, Error, Result};

pub(crate) use save::save;

/// Name of the file of weights in a model folder.
pub const WEIGHTS_FILE: &str = "model.safetensors";
/// Name of the file that says which of several files a weight is in.
pub const WEIGHTS_INDEX_FILE: &str = "model.safetensors.index.json";

/// What loading found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct LoadReport {
    /// Parameters that came from the file.
    pub loaded: usize,
    /// Parameters of heads that the file does not have; they were made anew.
    pub missing: Vec<String>,
    /// Parameters of heads that the file has in another shape; they were made anew, as
    /// [`OpenOptions::fresh_head`](crate::OpenOptions::fresh_head) asks.
    pub mismatched: Vec<String>,
    /// Tensors of the file that the model has no place for.
    pub unexpected: Vec<String>,
}

impl fmt::Display for LoadReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} parameters loaded", self.loaded)?;
        let lists = [
            ("made anew", &self.missing),
            ("made anew, being of another shape in the file", &self.mismatched),
            ("not used", &self.unexpected),
        ];
        for (what, names) in lists {
            if !names.is_empty() {
                write!(f, "; {} {what}: {}", names.len(), names.join(", "))?;
            }
        }
        Ok(())
    }
}

/// Files that hold a model's weights, or say which files do, in the order in which they are looked for.
const WEIGHTS: [&str; 4] = [WEIGHTS_FILE, WEIGHTS_INDEX_FILE, "pytorch_model.bin", "pytorch_model.bin.index.json"];

/// Opens the weights in a folder, of whichever form.
fn open_weights(folder: &Folder) -> Result<TensorFile> {
    for name in WEIGHTS {
        if let Some(path) = folder.find(name)? {
            return TensorFile::open_with(path, |shard| folder.get(shard));
        }
    }
    Err(folder.lacking(&format!("has no weights: none of {}", WEIGHTS.join(", "))))
}

/// Whether a parameter is part of the encoder, without which a checkpoint is none; heads may be missing.
fn is_body(canonical: &str) -> bool {
    canonical.starts_with("bert.") && !canonical.starts_with("bert.pooler.")
}

/// The values of an f32 tensor a part at a time, so that no copy of the whole is made.
fn parts(tensor: &Tensor) -> Result<impl Iterator<Item = Result<Vec<f32>>>> {
    const PART: usize = 1 << 16;
    let elements = tensor.elements();
    let flat = tensor.reshape(&[elements])?;
    let part = move |start| Ok(flat.narrow(0, start, PART.min(elements - start))?.to_vec()?);
    Ok((0..elements).step_by(PART).map(part))
}

/// Weights that are being read.
pub(crate) struct Checkpoint {
    file: TensorFile,
    model_type: ModelType,
    fresh_head: bool,
    /// Canonical name to the name in the file.
    names: BTreeMap<String, String>,
    taken: BTreeSet<String>,
    missing: Vec<String>,
    mismatched: Vec<String>,
    /// Why the decoder is not tied to the word embeddings, where it is not.
    untied: Option<String>,
}

impl Checkpoint {
    fn open(folder: &Folder, model_type: ModelType, fresh_head: bool) -> Result<Checkpoint> {
        let file = open_weights(folder)?;
        let mut names = BTreeMap::new();
        for name in file.names() {
            if let Some(other) = names.insert(names::canonical(&name, model_type), name.clone()) {
                let reason = format!("has both {other} and {name}, which are the same parameter");
                return Err(Error::format(file.path(), reason));
            }
        }
        let mut checkpoint = Checkpoint {
            file,
            model_type,
            fresh_head,
            names,
            taken: BTreeSet::new(),
            missing: Vec::new(),
            mismatched: Vec::new(),
            untied: None,
        };
        for (name, copy) in names::TIED {
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
        if !same {
            self.untied =
                Some(format!("{copy} differs from {stored}: a decoder that is not tied to it has no place here"));
        }
        Ok(())
    }

    /// What the file has as parameter `name`; `None`, and noted, where it has nothing.
    pub(crate) fn find(&mut self, name: &str, shape: &[usize], device: &Device) -> Result<Option<Tensor>> {
        let name = names::canonical(name, ModelType::Bert);
        let Some(stored) = self.names.get(&name) else {
            self.missing.push(names::stored(&name, self.model_type));
            return Ok(None);
        };
        let tensor = self.file.tensor(stored, device)?;
        if tensor.shape() != shape {
            if self.fresh_head && !is_body(&name) {
                self.mismatched.push(stored.clone());
                self.taken.insert(name);
                return Ok(None);
            }
            let mut reason = format!("{stored} has shape {:?}, the configuration says {shape:?}", tensor.shape());
            if !is_body(&name) {
                reason.push_str("; OpenOptions::fresh_head makes such a head anew");
            }
            return Err(self.wrong(stored, reason));
        }
        if !tensor.dtype().is_float() {
            return Err(self.wrong(stored, format!("{stored} has type {}, not a float", tensor.dtype())));
        }
        Ok(Some(tensor))
    }

    /// The parameter `name`, in f32; `None`, and noted, where the file does not have it.
    pub(crate) fn take(&mut self, name: &str, shape: &[usize], device: &Device) -> Result<Option<Tensor>> {
        let name = names::canonical(name, ModelType::Bert);
        if let Some(reason) = &self.untied
            && name.starts_with("cls.predictions.")
        {
            return Err(Error::format(self.file.path(), reason.clone()));
        }
        let Some(tensor) = self.find(&name, shape, device)? else { return Ok(None) };
        let tensor = tensor.to_dtype(DType::F32)?;
        let mut position = 0;
        for part in parts(&tensor)? {
            let part = part?;
            if let Some(at) = part.iter().position(|x| !x.is_finite()) {
                let stored = self.names.get(&name).unwrap_or(&name);
                let reason = format!("{stored} is {} at element {}: weights must be finite", part[at], position + at);
                return Err(self.wrong(stored, reason));
            }
            position += part.len();
        }
        self.taken.insert(name);
        Ok(Some(tensor))
    }

    /// An error about a tensor of the file.
    fn wrong(&self, stored: &str, reason: String) -> Error {
        Error::format(self.file.path_of(stored).unwrap_or(self.file.path()), reason)
    }

    /// Refuses what lacks embeddings or encoder.
    fn check_missing(&self) -> Result<()> {
        let Some(name) = self.missing.first() else { return Ok(()) };
        let count = self.missing.len();
        let mut reason = format!("{name} is missing ({count} parameters of embeddings and encoder in all)");
        let found: Vec<&str> = self.names.values().take(3).map(String::as_str).collect();
        if found.is_empty() {
            reason.push_str(": the file has no tensors");
        } else if !self.names.keys().any(|name| is_body(name)) {
            reason = format!("{reason}: the file has other tensors, {}, ...", found.join(", "));
        }
        Err(Error::format(self.file.path(), reason))
    }

    fn report(self) -> LoadReport {
        let unexpected = |(name, stored): (&String, &String)| {
            (!self.taken.contains(name) && name != names::POSITION_IDS).then(|| stored.clone())
        };
        let unexpected = self.names.iter().filter_map(unexpected).collect();
        let loaded = self.taken.len() - self.mismatched.len();
        LoadReport { loaded, missing: self.missing, mismatched: self.mismatched, unexpected }
    }
}

/// Builds a model of the weights in a folder; what a head lacks is drawn with `seed`.
pub(crate) fn load<M>(
    folder: &Folder,
    config: &BertConfig,
    device: &Device,
    seed: u64,
    fresh_head: bool,
    build: impl FnOnce(Weights<'_>) -> Result<M>,
) -> Result<(M, LoadReport)> {
    let checkpoint = Checkpoint::open(folder, config.model_type, fresh_head)?;
    // Before a value is read or drawn: a file that holds nothing must not cost what the configuration asks for.
    let body = |weights: Weights<'_>| BertModel::without_pooler(weights.at("bert"), config);
    let (_, checkpoint) = Source::shapes(checkpoint, config).build(body)?;
    checkpoint.as_ref().map_or(Ok(()), Checkpoint::check_missing)?;
    let (model, checkpoint) = Source::new(checkpoint, config, device, seed).build(build)?;
    let report = checkpoint.map(Checkpoint::report).unwrap_or_default();
    Ok((model, report))
}
