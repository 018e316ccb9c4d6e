//! Adapters in the files of the Python package `peft`: `adapter_config.json` and `adapter_model.safetensors`.
//!
//! The names in them are those of the model that was adapted: a bare encoder has no prefix `bert.`, a DistilBERT has
//! names of its own.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use cloze_tensor::{DType, Module, Tensor, TensorFile, save_safetensors};
use serde_json::Value;

use super::layers::Adapter;
use super::lora::{self, each_linear, is_adapter};
use super::lora_config::{AdapterConfig, Written};
use super::{BertModel, PreTrainedModel};
use crate::checkpoint::names::{canonical, stored};
use crate::folder::Folder;
use crate::{Error, ModelType, Result, files};

pub(super) const CONFIG_FILE: &str = "adapter_config.json";
const WEIGHTS_FILE: &str = "adapter_model.safetensors";
/// The prefix of all names in a file of `peft`.
const PREFIX: &str = "base_model.model.";

/// How `peft` names the parameters of a model.
#[derive(Clone, Copy)]
struct Naming {
    model_type: ModelType,
    /// Whether the model is a bare encoder.
    bare: bool,
}

impl Naming {
    fn of<M: PreTrainedModel>(model: &M) -> Naming {
        Naming { model_type: model.config().model_type, bare: M::ARCHITECTURE == BertModel::ARCHITECTURE }
    }

    /// Returns the name of the module that this library calls `name`.
    fn module(self, name: &str) -> String {
        // The maps of names are those of parameters, whose modules end in a dot.
        self.stored(&format!("{name}.")).trim_end_matches('.').to_string()
    }

    /// Returns the name of the parameter that this library calls `name`.
    fn stored(self, name: &str) -> String {
        let name = stored(&canonical(name, ModelType::Bert), self.model_type);
        let bare = ["bert.", "distilbert."].into_iter().find_map(|prefix| name.strip_prefix(prefix));
        bare.filter(|_| self.bare).map_or_else(|| name.clone(), str::to_string)
    }
}

/// Writes the adapters of `model`, and all other parameters that train, into folder `dir`.
pub(super) fn save<M: PreTrainedModel>(model: &M, dir: &Path) -> Result<()> {
    let naming = Naming::of(model);
    let (mut layers, mut has_bias) = (Vec::new(), false);
    // A copy of the handles, because `each_linear` gives mutable access.
    each_linear(&mut model.bert().clone(), |name, linear| {
        if let Some(Adapter { lora_a, bias, scale, .. }) = &linear.adapter {
            layers.push((naming.module(name), lora_a.shape()[0], *scale));
            has_bias |= bias.is_some();
        }
        Ok(())
    })?;
    if layers.is_empty() {
        return Err(Error::config("the model has no adapters: add some with add_adapters()"));
    }
    let whole = whole_modules(model, naming);
    let is_whole = |own: &str| {
        whole.iter().any(|module| {
            own.strip_prefix(module.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        })
    };
    let mut tensors = Vec::new();
    model.visit("", &mut |name, tensor| {
        let own = naming.stored(name);
        if is_adapter(name) || is_whole(&own) {
            tensors.push((format!("{PREFIX}{own}"), tensor.detach()));
        }
    });
    files::create_folder(dir)?;
    save_safetensors(dir.join(WEIGHTS_FILE), tensors, &[("format", "pt")])?;
    let config = Written { layers: &layers, whole: &whole, has_bias }.to_json();
    files::replace(&dir.join(CONFIG_FILE), format!("{config:#}\n").as_bytes())
}

/// Returns the modules that train besides the adapters: heads, and single modules of the bare model.
fn whole_modules(model: &impl Module, naming: Naming) -> Vec<String> {
    let mut whole = BTreeSet::new();
    model.visit("", &mut |name, tensor| {
        if !is_adapter(name) && (lora::trains(name) || !tensor.is_frozen()) {
            let own = naming.stored(name);
            let module = if lora::trains(name) { own.split_once('.') } else { own.rsplit_once('.') };
            whole.insert(module.map_or_else(|| own.clone(), |(module, _)| module.to_string()));
        }
    });
    whole.into_iter().collect()
}

/// Returns the folder of the model that the adapters with this configuration were trained on.
pub(super) fn base(path: &Path) -> Result<Folder> {
    const FIELD: &str = "base_model_name_or_path";
    let value = files::read_object(path)?.remove(FIELD).unwrap_or_default();
    let wrong = |reason: String| Error::format(path, format!("{FIELD} is {value}: {reason}"));
    match &value {
        Value::String(name) => Folder::at(Path::new(name)).map_err(|error| wrong(error.to_string())),
        _ => Err(wrong("must be the folder or the name of the model that the adapters belong to".to_string())),
    }
}

/// Adds the adapters in a folder to `model`, replaces the parameters that are stored as a whole, and freezes all
/// others. Returns the canonical names of the parameters that were replaced.
pub(super) fn load<M: PreTrainedModel>(model: &mut M, folder: &Folder) -> Result<BTreeSet<String>> {
    let config = AdapterConfig::read(&folder.get(CONFIG_FILE)?)?;
    let old = folder.find("adapter_model.bin")?;
    let path = folder.find(WEIGHTS_FILE)?.or(old).map_or_else(|| folder.get(WEIGHTS_FILE), Ok)?;
    let file = TensorFile::open_with(path, |shard| folder.get(shard))?;
    let naming = Naming::of(model);
    let own = |stored: String| (canonical(stored.strip_prefix(PREFIX).unwrap_or(&stored), naming.model_type), stored);
    let names = file.names().into_iter().map(own).collect();
    let mut tensors = Tensors { file: &file, names, config: &config, naming };

    let mut adapted = 0;
    each_linear(model.bert_mut(), |name, linear| {
        linear.adapter = tensors.adapter(name, &linear.weight)?;
        adapted += usize::from(linear.adapter.is_some());
        Ok(())
    })?;
    if adapted == 0 {
        return Err(Error::format(file.path(), "has no adapters of linear layers of the encoder or the pooler"));
    }

    let (mut replaced, mut result) = (BTreeSet::new(), Ok(()));
    model.visit_mut("", &mut |name, parameter| {
        let name = canonical(name, ModelType::Bert);
        if result.is_ok() && !is_adapter(&name) {
            match tensors.replacement(&name, parameter) {
                Ok(Some(tensor)) => {
                    *parameter = tensor;
                    replaced.insert(name);
                }
                Ok(None) => {}
                Err(error) => result = Err(error),
            }
        }
    });
    result?;
    // A model without a pooler does not need that part of an encoder.
    let pooled = model.bert().pooler.is_some();
    let mut unknown = tensors.names.iter().filter(|(name, _)| pooled || !name.starts_with("bert.pooler."));
    if let Some((_, name)) = unknown.next() {
        return Err(Error::format(file.path(), format!("{name} is not a parameter of this model")));
    }
    lora::freeze_base(model, |name| replaced.contains(&canonical(name, ModelType::Bert)));
    Ok(replaced)
}

/// The tensors of a file that have not been read yet.
struct Tensors<'a> {
    file: &'a TensorFile,
    /// Maps each canonical name to the name in the file.
    names: BTreeMap<String, String>,
    config: &'a AdapterConfig,
    naming: Naming,
}

impl Tensors<'_> {
    /// Removes and returns a tensor.
    fn take(&mut self, name: &str) -> Result<Option<(String, Tensor)>> {
        let Some(stored) = self.names.remove(name) else { return Ok(None) };
        let tensor = self.file.tensor(&stored, &cloze_tensor::Device::Cpu)?.to_dtype(DType::F32)?;
        Ok(Some((stored, tensor)))
    }

    /// Returns what replaces a parameter: a tensor of its own or, for the weight of an adapted layer of the head, which
    /// has no adapters here, the sum of both.
    fn replacement(&mut self, name: &str, parameter: &Tensor) -> Result<Option<Tensor>> {
        if let Some(found) = self.take(name)? {
            return self.fitting(found, parameter.shape(), parameter).map(Some);
        }
        let head = name.strip_suffix(".weight").filter(|module| lora::trains(module));
        match head.map(|module| self.adapter(module, parameter)).transpose()?.flatten() {
            Some(Adapter { bias: Some(_), .. }) => {
                let reason = format!("{name} is a head with a bias in its adapter (lora_bias): merge it with peft");
                Err(Error::format(self.file.path(), reason))
            }
            Some(adapter) => Ok(Some(parameter.detach().add(&adapter.product()?)?.requires_grad())),
            None => self.config.check_missing(&self.naming.stored(name)).map(|()| None),
        }
    }

    /// Returns a tensor of this shape as a parameter on the device of `parameter`.
    fn fitting(&self, (stored, tensor): (String, Tensor), shape: &[usize], parameter: &Tensor) -> Result<Tensor> {
        if tensor.shape() != shape {
            let reason = format!("{stored} has shape {:?}, the model has {shape:?}", tensor.shape());
            return Err(Error::format(self.file.path(), reason));
        }
        Ok(tensor.to_device(&parameter.device())?.requires_grad())
    }

    /// Reads the adapter of the linear layer `module` with this weight, if it has one.
    fn adapter(&mut self, module: &str, weight: &Tensor) -> Result<Option<Adapter>> {
        let Some(lora_a) = self.take(&format!("{module}.lora_A.weight"))? else { return Ok(None) };
        let &[outputs, inputs] = weight.shape() else { return Ok(None) };
        let rank = lora_a.1.shape().first().copied().unwrap_or(0);
        let missing = format!("{} has no lora_B.weight beside it", lora_a.0);
        let lora_b = self.take(&format!("{module}.lora_B.weight"))?;
        let lora_b = lora_b.ok_or_else(|| Error::format(self.file.path(), missing))?;
        let bias = self.take(&format!("{module}.lora_B.bias"))?;
        let scale = self.config.scale(&self.naming.module(module), rank, bias.is_some())?;
        Ok(Some(Adapter {
            lora_a: self.fitting(lora_a, &[rank, inputs], weight)?,
            lora_b: self.fitting(lora_b, &[outputs, rank], weight)?,
            bias: bias.map(|bias| self.fitting(bias, &[outputs], weight)).transpose()?,
            scale,
        }))
    }
}
