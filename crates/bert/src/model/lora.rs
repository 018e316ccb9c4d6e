//! Low-rank adapters: each adapted linear layer keeps its weight W and learns a correction s B A of rank r
//! (E. J. Hu, Y. Shen, P. Wallis, Z. Allen-Zhu, Y. Li, S. Wang, L. Wang, W. Chen, "LoRA", 2021).
//!
//! This file adds and merges adapters; [`lora_files`](super::lora_files) reads and writes them, and
//! [`layers`](super::layers) computes with them.

use cloze_tensor::random::{Purpose, Stream};
use cloze_tensor::{DType, Module, Tensor};

use super::BertModel;
use super::layers::{Adapter, Linear};
use crate::checkpoint::names::{canonical, stored};
use crate::{Error, ModelType, Result};

/// The site at which `Purpose::Init` draws adapters.
const SITE: u32 = u32::MAX;

/// The rank of adapters, and the linear layers of the encoder and the pooler that get one.
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
    /// `dense` for all layers of that name, the pooler included. Names are those of the state dict.
    pub fn targets<S: AsRef<str>>(self, targets: impl IntoIterator<Item = S>) -> LoraConfig {
        LoraConfig { targets: targets.into_iter().map(|target| target.as_ref().to_string()).collect(), ..self }
    }

    fn is_target(&self, name: &str) -> bool {
        self.targets
            .iter()
            .any(|target| name.strip_suffix(target.as_str()).is_some_and(|rest| rest.is_empty() || rest.ends_with('.')))
    }
}

/// Whether the parameter `name` belongs to an adapter.
pub(super) fn is_adapter(name: &str) -> bool {
    name.contains(".lora_")
}

/// Whether the parameter `name` trains in every model with adapters: these and the head do.
pub(super) fn trains(name: &str) -> bool {
    let name = canonical(name, ModelType::Bert);
    is_adapter(&name) || !(name.starts_with("bert.") || name.starts_with("modules."))
}

/// Adds adapters to linear layers of the bare model.
pub(super) fn add(bert: &mut BertModel, config: &LoraConfig, seed: u64) -> Result<()> {
    if config.rank == 0 {
        return Err(Error::config("the rank of adapters is 0: must be at least 1"));
    }
    let mut count = 0;
    let model_type = bert.config.model_type;
    each_linear(bert, |name, linear| {
        // The name in the state dict of `transformers`.
        let theirs = stored(&format!("{name}."), model_type);
        if !config.is_target(name) && !config.is_target(theirs.trim_end_matches('.')) {
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
            bias: None,
            scale: config.alpha / config.rank as f64,
        });
        Ok(())
    })?;
    match count {
        0 => Err(Error::config(format!("no linear layer of the encoder is called {}", config.targets.join(" or ")))),
        _ => Ok(()),
    }
}

/// Freezes all parameters except the adapters, the head, and those that `keep` names.
pub(super) fn freeze_base(model: &mut impl Module, keep: impl Fn(&str) -> bool) {
    model.visit_mut("", &mut |name, parameter| {
        if !trains(name) && !keep(name) {
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
pub(super) fn merge(bert: &mut BertModel) -> Result<()> {
    each_linear(bert, |_, linear| {
        if let Some(adapter) = linear.adapter.take() {
            linear.weight = linear.weight.detach().add(&adapter.product()?)?.requires_grad();
            if let Some(bias) = &adapter.bias {
                let correction = bias.detach().mul_scalar(adapter.scale)?;
                linear.bias = linear.bias.detach().add(&correction)?.requires_grad();
            }
        }
        Ok(())
    })
}

/// Calls `change` with the canonical name of every linear layer of the encoder and the pooler, and the layer.
pub(super) fn each_linear(bert: &mut BertModel, mut change: impl FnMut(&str, &mut Linear) -> Result<()>) -> Result<()> {
    for (index, layer) in bert.encoder.layer.iter_mut().enumerate() {
        for (name, linear) in layer.linears_mut() {
            change(&format!("bert.encoder.layer.{index}.{name}"), linear)?;
        }
    }
    bert.pooler.as_mut().map_or(Ok(()), |pooler| change("bert.pooler.dense", &mut pooler.dense))
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
