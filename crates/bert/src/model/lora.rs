//! Low-rank adapters: each adapted linear layer keeps its weight W and learns a correction s B A of rank r
//! (E. J. Hu, Y. Shen, P. Wallis, Z. Allen-Zhu, Y. Li, S. Wang, L. Wang, W. Chen, "LoRA", 2021).
//!
//! This file adds, merges, saves and loads adapters; [`layers`](super::layers) computes with them. The files have
//! the format of the Python package `peft`: `adapter_config.json` and `adapter_model.safetensors`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use cloze_tensor::random::{Purpose, Stream};
use cloze_tensor::{DType, Module, Tensor, TensorFile, save_safetensors};
use serde_json::{Map, Value, json};

use super::Encoder;
use super::layers::{Adapter, Linear};
use crate::{Error, Result, files};

const CONFIG_FILE: &str = "adapter_config.json";
const WEIGHTS_FILE: &str = "adapter_model.safetensors";
/// The prefix of all names in a file of `peft`.
const PREFIX: &str = "base_model.model.";
/// The site at which `Purpose::Init` draws adapters.
const SITE: u32 = u32::MAX;

/// The rank of adapters, and the linear layers of the encoder that get one.
///
/// ```
/// use cloze_bert::{BertConfig, BertForSequenceClassification, LoraConfig, PreTrainedModel};
/// use cloze_tensor::{Device, Module};
/// let mut model = BertForSequenceClassification::new(&BertConfig::tiny(100), &Device::Cpu, 1)?;
/// let before = model.parameter_count();
/// model.add_adapters(&LoraConfig::new(4), 2)?;
/// let trained = model.named_parameters().into_iter().filter(|(_, tensor)| !tensor.is_frozen());
/// println!("{} of {before} parameters train", trained.map(|(_, tensor)| tensor.elements()).sum::<usize>());
/// # Ok::<(), cloze_bert::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct LoraConfig {
    rank: usize,
    alpha: f64,
    targets: Vec<String>,
}

impl LoraConfig {
    /// Creates a configuration for adapters of this rank on queries and values, with alpha 16.
    pub fn new(rank: usize) -> LoraConfig {
        LoraConfig { rank, alpha: 16.0, targets: vec!["query".into(), "value".into()] }
    }

    /// Sets alpha: corrections are scaled by `alpha / rank`.
    pub fn alpha(self, alpha: f64) -> LoraConfig {
        LoraConfig { alpha, ..self }
    }

    /// Sets the linear layers that get an adapter, by the end of their names: `query`, `attention.output.dense`, or
    /// `dense` for all layers of that name.
    pub fn targets<S: Into<String>>(self, targets: impl IntoIterator<Item = S>) -> LoraConfig {
        LoraConfig { targets: targets.into_iter().map(Into::into).collect(), ..self }
    }

    fn is_target(&self, name: &str) -> bool {
        self.targets
            .iter()
            .any(|target| name.strip_suffix(target.as_str()).is_some_and(|rest| rest.is_empty() || rest.ends_with('.')))
    }

    /// Reads `adapter_config.json`.
    fn read(path: &Path) -> Result<LoraConfig> {
        let map = files::read_object(path)?;
        let wrong = |key: &str, value: &Value| Error::format(path, format!("{key} is {value}"));
        let get = |key: &str| map.get(key).ok_or_else(|| Error::format(path, format!("{key} is missing")));
        check_supported(path, get("peft_type")?, &map)?;
        let rank = get("r")?;
        let rank = rank.as_u64().filter(|&rank| rank > 0).ok_or_else(|| wrong("r", rank))? as usize;
        let alpha = get("lora_alpha")?;
        let alpha = alpha.as_f64().ok_or_else(|| wrong("lora_alpha", alpha))?;
        let targets = get("target_modules")?;
        let names = targets.as_array().map(|names| names.iter().map(Value::as_str).collect::<Option<Vec<_>>>());
        let names = names.flatten().ok_or_else(|| wrong("target_modules", targets))?;
        Ok(LoraConfig::new(rank).alpha(alpha).targets(names))
    }

    fn to_json(&self, heads: &[String]) -> Value {
        json!({
            "peft_type": "LORA", "r": self.rank, "lora_alpha": self.alpha, "target_modules": self.targets,
            "lora_dropout": 0.0, "bias": "none", "fan_in_fan_out": false, "inference_mode": true,
            "modules_to_save": heads, "task_type": null, "base_model_name_or_path": null,
        })
    }
}

/// Returns an error if `adapter_config.json` describes another method than plain LoRA.
fn check_supported(path: &Path, kind: &Value, map: &Map<String, Value>) -> Result<()> {
    if kind != "LORA" {
        return Err(Error::format(path, format!("peft_type is {kind}: only \"LORA\" is supported")));
    }
    for key in ["use_rslora", "use_dora", "fan_in_fan_out"] {
        if let Some(value @ Value::Bool(true)) = map.get(key) {
            return Err(Error::format(path, format!("{key} is {value}: only false is supported")));
        }
    }
    match map.get("bias").filter(|value| *value != "none") {
        Some(value) => Err(Error::format(path, format!("bias is {value}: only \"none\" is supported"))),
        None => Ok(()),
    }
}

/// Whether the parameter `name` belongs to an adapter.
fn is_adapter(name: &str) -> bool {
    name.contains(".lora_")
}

/// Whether the parameter `name` trains in a model with adapters: these and the head do.
fn trains(name: &str) -> bool {
    is_adapter(name) || !name.starts_with("bert.")
}

/// Adds adapters to linear layers of the encoder.
pub(super) fn add(encoder: &mut Encoder, config: &LoraConfig, seed: u64) -> Result<()> {
    if config.rank == 0 {
        return Err(Error::config("the rank of adapters is 0: must be at least 1"));
    }
    let mut count = 0;
    each_linear(encoder, |name, linear| {
        if !config.is_target(name) {
            return Ok(());
        }
        let (outputs, inputs) = (linear.weight.shape()[0], linear.weight.shape()[1]);
        let device = linear.weight.device();
        let mut stream = Stream::new(seed, Purpose::Init, SITE, count, 0);
        count += 1;
        linear.adapter = Some(Adapter {
            lora_a: Tensor::randn(&[config.rank, inputs], 1.0 / config.rank as f64, &mut stream, &device)?
                .requires_grad(),
            lora_b: Tensor::zeros(&[outputs, config.rank], DType::F32, &device)?.requires_grad(),
            scale: config.alpha / config.rank as f64,
        });
        Ok(())
    })?;
    match count {
        0 => Err(Error::config(format!("no linear layer of the encoder is called {}", config.targets.join(" or ")))),
        _ => Ok(()),
    }
}

/// Freezes all parameters except the adapters and the head.
pub(super) fn freeze_base(model: &mut impl Module) {
    model.visit_mut("", &mut |name, parameter| {
        if !trains(name) {
            *parameter = parameter.clone().freeze();
        }
    });
}

/// Makes all parameters trainable again.
pub(super) fn unfreeze(model: &mut impl Module) {
    model.visit_mut("", &mut |_, parameter| {
        if parameter.is_frozen() {
            *parameter = parameter.clone().requires_grad();
        }
    });
}

/// Whether a model has adapters.
pub(super) fn is_adapted(model: &impl Module) -> bool {
    let mut adapted = false;
    model.visit("", &mut |name, _| adapted |= is_adapter(name));
    adapted
}

/// Adds the corrections to the weights and removes the adapters.
pub(super) fn merge(encoder: &mut Encoder) -> Result<()> {
    each_linear(encoder, |_, linear| {
        if let Some(adapter) = linear.adapter.take() {
            linear.weight = linear.weight.detach().add(&adapter.product()?)?.requires_grad();
        }
        Ok(())
    })
}

/// Writes the adapters and the head of `model`, whose encoder is `encoder`, into folder `dir`.
pub(super) fn save(model: &impl Module, encoder: &Encoder, dir: &Path) -> Result<()> {
    let config = config_of(encoder)?;
    let (mut tensors, mut heads) = (Vec::new(), Vec::new());
    model.visit("", &mut |name, tensor| {
        if trains(name) {
            tensors.push((format!("{PREFIX}{name}"), tensor.detach()));
            let head = name.split('.').next().unwrap_or(name).to_string();
            if !is_adapter(name) && !heads.contains(&head) {
                heads.push(head);
            }
        }
    });
    files::create_folder(dir)?;
    save_safetensors(dir.join(WEIGHTS_FILE), tensors, &[("format", "pt")])?;
    files::replace(&dir.join(CONFIG_FILE), format!("{:#}\n", config.to_json(&heads)).as_bytes())
}

/// Returns the configuration that the adapters of an encoder have.
fn config_of(encoder: &Encoder) -> Result<LoraConfig> {
    let mut config: Option<LoraConfig> = None;
    let mut targets = BTreeSet::new();
    // A copy of the handles, because `each_linear` gives mutable access.
    each_linear(&mut encoder.clone(), |name, linear| {
        if let Some(adapter) = &linear.adapter {
            let rank = adapter.lora_a.shape()[0];
            config = Some(LoraConfig::new(rank).alpha(adapter.scale * rank as f64));
            targets.insert(name.to_string());
        }
        Ok(())
    })?;
    let config = config.ok_or_else(|| Error::config("the model has no adapters: add some with add_adapters()"))?;
    Ok(config.targets(targets))
}

/// Reads the configuration of the adapters in folder `dir`.
pub(super) fn read_config(dir: &Path) -> Result<LoraConfig> {
    LoraConfig::read(&dir.join(CONFIG_FILE))
}

/// Reads the values of the adapters of `model`, and of its head if the file has one, from folder `dir`.
pub(super) fn read_values(model: &mut impl Module, dir: &Path) -> Result<()> {
    let file = TensorFile::open(dir.join(WEIGHTS_FILE))?;
    let own = |stored: String| (stored.strip_prefix(PREFIX).unwrap_or(&stored).to_string(), stored);
    let mut names: BTreeMap<String, String> = file.names().into_iter().map(own).collect();
    let wrong = |reason| Err(Error::format(file.path(), reason));
    let mut result = Ok(());
    model.visit_mut("", &mut |name, parameter| {
        if result.is_err() {
            return;
        }
        result = match names.remove(name) {
            Some(stored) => read_value(&file, &stored, parameter),
            None if is_adapter(name) => wrong(format!("{PREFIX}{name} is missing")),
            None => Ok(()),
        };
    });
    result?;
    match names.values().next() {
        Some(name) => wrong(format!("{name} is not a parameter of this model")),
        None => Ok(()),
    }
}

/// Replaces a parameter by the tensor `stored` of a file.
fn read_value(file: &TensorFile, stored: &str, parameter: &mut Tensor) -> Result<()> {
    let tensor = file.tensor(stored, &parameter.device())?;
    if tensor.shape() != parameter.shape() {
        let reason = format!("{stored} has shape {:?}, the model has {:?}", tensor.shape(), parameter.shape());
        return Err(Error::format(file.path(), reason));
    }
    *parameter = tensor.to_dtype(DType::F32)?.requires_grad();
    Ok(())
}

/// Calls `change` with the name of every linear layer of the encoder, relative to its encoder layer, and the layer.
fn each_linear(encoder: &mut Encoder, mut change: impl FnMut(&str, &mut Linear) -> Result<()>) -> Result<()> {
    for layer in &mut encoder.layer {
        for (name, linear) in layer.linears_mut() {
            change(name, linear)?;
        }
    }
    Ok(())
}

/// Returns an error if a model has adapters, because its weights alone are then not the whole model.
pub(super) fn check_merged(model: &impl Module) -> Result<()> {
    match is_adapted(model) {
        true => Err(Error::config(
            "the model has adapters: merge them with merge_adapters(), or save only them with save_adapters()",
        )),
        false => Ok(()),
    }
}
