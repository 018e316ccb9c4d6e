//! Low-rank adapters: a linear layer W stays as it is and learns a correction s B A of rank r beside it
//! (E. J. Hu, Y. Shen, P. Wallis, Z. Allen-Zhu, Y. Li, S. Wang, L. Wang, W. Chen, "LoRA", 2021).
//!
//! Files are those of the Python package `peft`: `adapter_config.json` and `adapter_model.safetensors`.

use std::collections::BTreeMap;
use std::path::Path;

use cloze_tensor::random::{Purpose, Stream};
use cloze_tensor::{DType, Device, Module, Tensor, TensorFile, save_safetensors};
use serde_json::{Value, json};

use super::{Linear, PreTrainedModel};
use crate::{Error, Result, files};

const CONFIG_FILE: &str = "adapter_config.json";
const WEIGHTS_FILE: &str = "adapter_model.safetensors";
/// What names begin with in a file of `peft`.
const PREFIX: &str = "base_model.model.";
/// `Purpose::Init` at this site draws adapters.
const SITE: u32 = u32::MAX;

/// The correction of one linear layer.
#[derive(Clone)]
pub struct Adapter {
    /// A, `[r, inputs]`
    pub lora_a: Tensor,
    /// B, `[outputs, r]`
    pub lora_b: Tensor,
    /// s = alpha / r
    pub scale: f64,
}
cloze_tensor::module!(Adapter { lora_a: "lora_A.weight", lora_b: "lora_B.weight" });

impl Adapter {
    /// What the layer's output is to be corrected by: `[.., inputs]` to `[.., outputs]`.
    pub(super) fn forward(&self, x: &Tensor) -> cloze_tensor::Result<Tensor> {
        x.matmul(&self.lora_a.t()?)?.matmul(&self.lora_b.t()?)?.mul_scalar(self.scale)
    }

    /// s B A
    fn product(&self) -> Result<Tensor> {
        Ok(self.lora_b.detach().matmul(&self.lora_a.detach())?.mul_scalar(self.scale)?)
    }
}

/// Which layers of the encoder get adapters, and of which size.
///
/// ```
/// use cloze_bert::{BertConfig, BertForSequenceClassification, LoraConfig, PreTrainedModel};
/// use cloze_tensor::{Device, Module};
/// let mut model = BertForSequenceClassification::new(&BertConfig::tiny(100), &Device::Cpu, 1)?;
/// let before = model.parameter_count();
/// model.add_adapters(&LoraConfig::new(4), 2)?;
/// let trained = model.named_parameters().into_iter().filter(|(name, _)| LoraConfig::trains(name));
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
    /// Adapters of this rank for queries and values, with alpha 16.
    pub fn new(rank: usize) -> LoraConfig {
        LoraConfig { rank, alpha: 16.0, targets: vec!["query".into(), "value".into()] }
    }

    /// Corrections are scaled by `alpha / rank`.
    pub fn alpha(self, alpha: f64) -> LoraConfig {
        LoraConfig { alpha, ..self }
    }

    /// The linear layers that get one, by the end of their names: `query`, `attention.output.dense`, `dense` for all
    /// that are called so.
    pub fn targets<S: Into<String>>(self, targets: impl IntoIterator<Item = S>) -> LoraConfig {
        LoraConfig { targets: targets.into_iter().map(Into::into).collect(), ..self }
    }

    /// Whether the parameter `name` is to be trained in a model with adapters: those themselves, and heads. Freeze the
    /// others.
    pub fn trains(name: &str) -> bool {
        name.contains(".lora_") || !name.starts_with("bert.")
    }

    fn is_target(&self, name: &str) -> bool {
        self.targets
            .iter()
            .any(|target| name.strip_suffix(target.as_str()).is_some_and(|rest| rest.is_empty() || rest.ends_with('.')))
    }

    /// What `adapter_config.json` says.
    fn read(path: &Path) -> Result<LoraConfig> {
        let map = files::read_object(path)?;
        let wrong = |key: &str, value: &Value| Error::format(path, format!("{key} is {value}"));
        let get = |key: &str| map.get(key).ok_or_else(|| Error::format(path, format!("has no {key}")));
        let kind = get("peft_type")?;
        if kind != "LORA" {
            return Err(Error::format(path, format!("peft_type is {kind}: only LORA is known here")));
        }
        for key in ["use_rslora", "use_dora", "fan_in_fan_out"] {
            if let Some(value @ Value::Bool(true)) = map.get(key) {
                return Err(Error::format(path, format!("{key} is {value}: that kind is not known here")));
            }
        }
        if let Some(value) = map.get("bias").filter(|value| *value != "none") {
            return Err(Error::format(path, format!("bias is {value}: only \"none\" is known here")));
        }
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

/// Gives linear layers of the encoder adapters.
pub(super) fn add(model: &mut impl PreTrainedModel, config: &LoraConfig, seed: u64) -> Result<()> {
    if config.rank == 0 {
        return Err(Error::config("the rank of adapters is 0: must be at least 1"));
    }
    let mut count = 0;
    each(model, |name, linear| {
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

/// Adds the corrections to the weights, and takes the adapters away.
pub(super) fn merge(model: &mut impl PreTrainedModel) -> Result<()> {
    each(model, |_, linear| {
        if let Some(adapter) = linear.adapter.take() {
            linear.weight = linear.weight.detach().add(&adapter.product()?)?.requires_grad();
        }
        Ok(())
    })
}

/// Writes adapters and heads.
pub(super) fn save(model: &impl PreTrainedModel, dir: &Path) -> Result<()> {
    let mut config: Option<LoraConfig> = None;
    let mut targets = std::collections::BTreeSet::new();
    for layer in &model.bert().encoder.layer {
        for (name, linear) in layer.linears() {
            if let Some(adapter) = &linear.adapter {
                let rank = adapter.lora_a.shape()[0];
                config = Some(LoraConfig::new(rank).alpha(adapter.scale * rank as f64));
                targets.insert(name);
            }
        }
    }
    let config = config.ok_or_else(|| Error::config("the model has no adapters: add_adapters() gives it some"))?;
    let config = config.targets(targets);
    let (mut tensors, mut heads) = (Vec::new(), Vec::new());
    model.visit("", &mut |name, tensor| {
        if LoraConfig::trains(name) {
            tensors.push((format!("{PREFIX}{name}"), tensor.detach()));
            let head = name.split('.').next().unwrap_or(name).to_string();
            if !name.contains(".lora_") && !heads.contains(&head) {
                heads.push(head);
            }
        }
    });
    std::fs::create_dir_all(dir).map_err(|error| Error::io(dir, "cannot make the folder", error))?;
    save_safetensors(dir.join(WEIGHTS_FILE), tensors, &[("format", "pt")])?;
    files::replace(&dir.join(CONFIG_FILE), format!("{:#}\n", config.to_json(&heads)).as_bytes())
}

/// Reads adapters, and the heads beside them.
pub(super) fn load(model: &mut impl PreTrainedModel, dir: &Path) -> Result<()> {
    let config = LoraConfig::read(&dir.join(CONFIG_FILE))?;
    add(model, &config, 0)?;
    let file = TensorFile::open(dir.join(WEIGHTS_FILE))?;
    let mut read: BTreeMap<String, Tensor> = BTreeMap::new();
    for name in file.names() {
        let own = name.strip_prefix(PREFIX).unwrap_or(&name).to_string();
        read.insert(own, file.tensor(&name, &Device::Cpu)?.to_dtype(DType::F32)?);
    }
    let mut wrong = None;
    model.visit_mut("", &mut |name, parameter| match read.remove(name) {
        Some(tensor) if tensor.shape() == parameter.shape() => *parameter = tensor.requires_grad(),
        Some(tensor) => {
            wrong = Some(format!("{name} has shape {:?}, the model's {:?}", tensor.shape(), parameter.shape()));
        }
        None if name.contains(".lora_") => wrong = Some(format!("has no {PREFIX}{name}")),
        None => {}
    });
    if let Some(name) = read.keys().next() {
        wrong = wrong.or(Some(format!("{name} is no parameter of this model")));
    }
    wrong.map_or(Ok(()), |reason| Err(Error::format(dir.join(WEIGHTS_FILE), reason)))
}

/// Calls `change` with every linear layer of the encoder's layers and its name.
fn each(model: &mut impl PreTrainedModel, mut change: impl FnMut(&str, &mut Linear) -> Result<()>) -> Result<()> {
    for layer in &mut model.bert_mut().encoder.layer {
        for (name, linear) in layer.linears_mut() {
            change(name, linear)?;
        }
    }
    Ok(())
}

/// Fails where a model has adapters: its weights alone are not what it computes.
pub(crate) fn check_merged(model: &impl Module) -> Result<()> {
    let mut adapted = false;
    model.visit("", &mut |name, _| adapted |= name.contains(".lora_"));
    match adapted {
        true => Err(Error::config("the model has adapters: merge_adapters() first, or save_adapters() them alone")),
        false => Ok(()),
    }
}
