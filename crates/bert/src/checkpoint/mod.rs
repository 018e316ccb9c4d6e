//! Model folders as `transformers` reads and writes them: the weights, and the names of parameters in them.

pub(crate) mod names;
mod save;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use cloze_tensor::{DType, Device, Tensor, TensorFile};

use crate::config::ModelType;
use crate::folder::Folder;
use crate::{BertConfig, Error, Result, Tokenizer};

pub use save::SaveOptions;
pub(crate) use save::save;

/// The name of the file of weights in a model folder.
pub const WEIGHTS_FILE: &str = "model.safetensors";
/// The name of the index of weights that are split into several files.
pub const WEIGHTS_INDEX_FILE: &str = "model.safetensors.index.json";

/// The parameters that were loaded, and those that were not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct LoadReport {
    /// The number of parameters loaded from the file.
    pub loaded: usize,
    /// Parameters of the head that are missing in the file and were initialised.
    pub missing: Vec<String>,
    /// Parameters of the head that have another shape in the file and were initialised, as requested with
    /// [`OpenOptions::fresh_head`](crate::OpenOptions::fresh_head).
    pub mismatched: Vec<String>,
    /// Tensors of the file that are not parameters of the model.
    pub unexpected: Vec<String>,
    /// Fields of `config.json` that are neither read nor known to be harmless. `transformers` ignores such fields, too;
    /// [`BertConfig::extra`] keeps them.
    pub unknown_fields: Vec<String>,
    /// Contradictions within `config.json` and between the files of the folder, including those of its tokenizer. Each says
    /// which value is used.
    pub conflicts: Vec<String>,
}

impl LoadReport {
    /// Adds the contradictions between the files of a tokenizer, and between it and the configuration of the model.
    pub(crate) fn add_tokenizer(&mut self, tokenizer: &Tokenizer, config: &BertConfig) {
        self.conflicts.extend_from_slice(tokenizer.conflicts());
        self.conflicts.extend(tokenizer.conflicts_with(config));
    }
}

impl fmt::Display for LoadReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} parameters loaded", self.loaded)?;
        let lists = [
            ("missing and initialised", &self.missing),
            ("of another shape in the file and initialised", &self.mismatched),
            ("not used", &self.unexpected),
            ("unknown fields of config.json", &self.unknown_fields),
        ];
        for (what, names) in lists {
            if !names.is_empty() {
                write!(f, "; {} {what}: {}", names.len(), names.join(", "))?;
            }
        }
        self.conflicts.iter().try_for_each(|conflict| write!(f, "; {conflict}"))
    }
}

/// Files with a model's weights or their index, in the order of preference.
const WEIGHTS: [&str; 4] = [WEIGHTS_FILE, WEIGHTS_INDEX_FILE, "pytorch_model.bin", "pytorch_model.bin.index.json"];

/// Opens the weights in a folder, in any supported format.
pub(crate) fn open_weights(folder: &Folder) -> Result<TensorFile> {
    for name in WEIGHTS {
        if let Some(path) = folder.find(name)? {
            return TensorFile::open_with(path, |shard| folder.get(shard));
        }
    }
    Err(folder.lacking(&format!("has no weights: expected one of {}", WEIGHTS.join(", "))))
}

/// Whether a parameter belongs to the embeddings or the encoder, which every checkpoint must have. Heads may be
/// missing.
fn is_body(canonical: &str) -> bool {
    canonical.starts_with("bert.") && !canonical.starts_with("bert.pooler.")
}

/// Returns the values of an f32 tensor in parts, so that the whole tensor is never copied.
fn parts(tensor: &Tensor) -> Result<impl Iterator<Item = Result<Vec<f32>>>> {
    const PART: usize = 1 << 16;
    let elements = tensor.elements();
    let flat = tensor.reshape(&[elements])?;
    let part = move |start| Ok(flat.narrow(0, start, PART.min(elements - start))?.to_vec()?);
    Ok((0..elements).step_by(PART).map(part))
}

/// The weights in a folder, with a record of the parameters that were read from it.
pub(crate) struct Checkpoint {
    file: TensorFile,
    model_type: ModelType,
    fresh_head: bool,
    /// Maps each canonical name to the name in the file.
    names: BTreeMap<String, String>,
    taken: BTreeSet<String>,
    missing: Vec<String>,
    mismatched: Vec<String>,
    /// Whether the decoder is not the table of word embeddings.
    untied: bool,
}

impl Checkpoint {
    /// Opens the weights in a folder for a model with this configuration, which may say that the decoder is not tied.
    pub(crate) fn open(folder: &Folder, config: &BertConfig, fresh_head: bool) -> Result<Checkpoint> {
        let model_type = config.model_type;
        let file = open_weights(folder)?;
        let mut names = BTreeMap::new();
        for name in file.names() {
            if let Some(other) = names.insert(names::canonical(&name, model_type), name.clone()) {
                let reason = format!("{other} and {name} are names of the same parameter: remove one");
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
            untied: !config.tie_word_embeddings(),
        };
        checkpoint.tie_decoder()?;
        Ok(checkpoint)
    }

    /// Returns whether the decoder is not the table of word embeddings: the configuration says so, or the file has both
    /// with different values.
    pub(crate) fn is_untied(&self) -> bool {
        self.untied
    }

    /// Leaves one name for each parameter of the decoder. As in `transformers`, two different tensors are not tied.
    fn tie_decoder(&mut self) -> Result<()> {
        let [weight, bias] = names::TIED;
        if !self.untied && !self.tie(weight.0, weight.1)? {
            self.untied = true;
        }
        if !self.tie(bias.0, bias.1)? {
            // The decoder adds its own bias; the other one is not used.
            if let Some(stored) = self.names.remove(bias.1)
                && let Some(unused) = self.names.insert(bias.0.to_string(), stored)
            {
                self.names.insert(bias.1.to_string(), unused);
            }
        }
        Ok(())
    }

    /// Removes the `copy` of parameter `name`, and returns true, if it has the same values. If only the copy exists, it
    /// becomes the parameter.
    fn tie(&mut self, name: &str, copy: &str) -> Result<bool> {
        let Some(stored_copy) = self.names.get(copy).cloned() else { return Ok(true) };
        if let Some(stored) = self.names.get(name) {
            let [a, b] = [stored, &stored_copy].map(|name| self.file.tensor(name, &Device::Cpu));
            let (a, b) = (a?.to_dtype(DType::F32)?, b?.to_dtype(DType::F32)?);
            if a.shape() != b.shape() {
                return Ok(false);
            }
            for (a, b) in parts(&a)?.zip(parts(&b)?) {
                if a? != b? {
                    return Ok(false);
                }
            }
        } else {
            self.names.insert(name.to_string(), stored_copy);
        }
        self.names.remove(copy);
        Ok(true)
    }

    /// Returns the tensor of parameter `name` as stored. Returns `None`, and records the parameter as missing, if the
    /// file does not have it.
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
            let mut reason = format!("{stored} has shape {:?}, the configuration requires {shape:?}", tensor.shape());
            if !is_body(&name) {
                reason.push_str("; OpenOptions::fresh_head initialises such a head");
            }
            return Err(self.wrong(stored, reason));
        }
        if !tensor.dtype().is_float() {
            return Err(self.wrong(stored, format!("{stored} has dtype {}, expected a float", tensor.dtype())));
        }
        Ok(Some(tensor))
    }

    /// Returns the parameter `name` in f32. Returns `None`, and records the parameter as missing, if the file does not
    /// have it.
    pub(crate) fn take(&mut self, name: &str, shape: &[usize], device: &Device) -> Result<Option<Tensor>> {
        let name = names::canonical(name, ModelType::Bert);
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

    /// Returns an error about a tensor of the file.
    fn wrong(&self, stored: &str, reason: String) -> Error {
        Error::format(self.file.path_of(stored).unwrap_or(self.file.path()), reason)
    }

    /// Returns an error if a parameter of the embeddings or the encoder was missing.
    pub(crate) fn check_missing(&self) -> Result<()> {
        let Some(name) = self.missing.first() else { return Ok(()) };
        let count = self.missing.len();
        let mut reason = format!("{name} is missing ({count} parameters of embeddings and encoder in total)");
        let found: Vec<&str> = self.names.values().take(3).map(String::as_str).collect();
        if found.is_empty() {
            reason.push_str(": the file has no tensors");
        } else if !self.names.keys().any(|name| is_body(name)) {
            reason = format!("{reason}: the file has other tensors ({}, ...)", found.join(", "));
        }
        Err(Error::format(self.file.path(), reason))
    }

    /// Returns the record of what was read.
    pub(crate) fn report(self) -> LoadReport {
        let unexpected = |(name, stored): (&String, &String)| {
            (!self.taken.contains(name) && name != names::POSITION_IDS).then(|| stored.clone())
        };
        let unexpected = self.names.iter().filter_map(unexpected).collect();
        let loaded = self.taken.len() - self.mismatched.len();
        LoadReport { loaded, missing: self.missing, mismatched: self.mismatched, unexpected, ..LoadReport::default() }
    }
}
