//! `adapter_config.json` of the Python package `peft`. The tensors say which layers are adapted, and with which rank;
//! the file says how their corrections are scaled, and may ask for methods that are not supported.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use super::pattern::Pattern;
use crate::side_file::{Kind, SideFile};
use crate::{Error, Result};

/// Values of `init_lora_weights` that leave the weights of the model as they are.
const INITS: [&str; 3] = ["gaussian", "orthogonal", "eva"];
const INITS_MUST: &str =
    "must be true, false, gaussian, orthogonal or eva; others change the weights, so convert such adapters with peft";

/// Fields of methods that compute something other than W + s B A.
const METHODS: [&str; 15] = [
    "alora_invocation_tokens",
    "arrow_config",
    "ensure_weight_tying",
    "fan_in_fan_out",
    "kasa_config",
    "layer_replication",
    "megatron_config",
    "monteclora_config",
    "target_parameters",
    "trainable_token_indices",
    "use_bdlora",
    "use_dora",
    "use_qalora",
    "velora_config",
    "lora_ga_config",
];

/// The scale of the corrections.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Scales {
    path: PathBuf,
    alpha: f64,
    /// Alphas of layers, by their names.
    alphas: Vec<(Pattern, f64)>,
    /// Whether to divide by √r instead of r (D. Kalajdzievski, "Rank Stabilized LoRA", 2023).
    rank_stabilized: bool,
}

impl Scales {
    /// Reads `adapter_config.json`.
    pub(super) fn read(path: &Path) -> Result<Scales> {
        let mut file = SideFile::open(path, Kind::Adapter)?;
        let required = |found: Option<f64>, name: &str| found.ok_or_else(|| file_error(path, name));
        let lora = file.read("peft_type", "only \"LORA\" is supported", |kind| (kind == "LORA").then_some(0.0))?;
        required(lora, "peft_type")?;
        required(file.size("r")?.map(|rank| rank as f64), "r")?;
        let alpha = required(file.read("lora_alpha", "must be a number", Value::as_f64)?, "lora_alpha")?;
        let must = "must map names of modules, or simple regular expressions, to numbers";
        let alphas = file.read("alpha_pattern", must, alphas)?.unwrap_or_default();
        let rank_stabilized = file.flag("use_rslora")?.unwrap_or(false);
        file.only("bias", &json!("none"))?;
        file.read("init_lora_weights", INITS_MUST, |value| {
            (value.is_boolean() || INITS.iter().any(|name| value == name)).then_some(())
        })?;
        for name in METHODS {
            file.read(name, "this method is not supported: must be false or absent", |value| {
                let unused = *value == json!(false) || value.as_array().is_some_and(Vec::is_empty);
                (unused || value.as_object().is_some_and(Map::is_empty)).then_some(())
            })?;
        }
        file.finish()?;
        Ok(Scales { path: path.to_path_buf(), alpha, alphas, rank_stabilized })
    }

    /// Returns the scale of the layer that `peft` calls `name`, whose adapter has this rank.
    ///
    /// # Errors
    /// Returns an error if the file has two alphas for the layer: which one applies depends on their order.
    pub(super) fn of(&self, name: &str, rank: usize) -> Result<f64> {
        let own: Vec<f64> =
            self.alphas.iter().filter(|(pattern, _)| pattern.matches(name)).map(|(_, alpha)| *alpha).collect();
        if let Some(other) = own.iter().find(|other| **other != own[0]) {
            let reason = format!("alpha_pattern has {} and {other} for {name}: must have one alpha", own[0]);
            return Err(Error::format(&self.path, reason));
        }
        let alpha = own.first().copied().unwrap_or(self.alpha);
        Ok(alpha / if self.rank_stabilized { (rank as f64).sqrt() } else { rank as f64 })
    }
}

/// Returns an error about a field that must be there.
fn file_error(path: &Path, name: &str) -> Error {
    Error::format(path, format!("{name} is missing"))
}

/// Returns alphas by pattern, which matches the end of a name.
fn alphas(value: &Value) -> Option<Vec<(Pattern, f64)>> {
    let entry = |(pattern, alpha): (&String, &Value)| {
        Some((Pattern::parse(&format!(r"(.*\.)?({pattern})$"))?, alpha.as_f64()?))
    };
    value.as_object()?.iter().map(entry).collect()
}

/// The settings of adapters, as they are written.
pub(super) struct Written<'a> {
    /// The adapted modules with their ranks and scales.
    pub(super) layers: &'a [(String, usize, f64)],
    /// The modules that are stored as a whole.
    pub(super) whole: &'a [String],
    pub(super) has_bias: bool,
}

impl Written<'_> {
    /// Returns the content of `adapter_config.json`.
    pub(super) fn to_json(&self) -> Value {
        let alpha = |rank: usize, scale: f64| scale * rank as f64;
        let (rank, scale) = self.layers.first().map_or((1, 1.0), |(_, rank, scale)| (*rank, *scale));
        let targets: Vec<&str> = self.layers.iter().map(|(name, ..)| name.as_str()).collect();
        let ranks = self.layers.iter().filter(|layer| layer.1 != rank).map(|layer| (layer.0.clone(), json!(layer.1)));
        let other = |layer: &&(String, usize, f64)| alpha(layer.1, layer.2) != alpha(rank, scale);
        let alphas = self.layers.iter().filter(other).map(|layer| (layer.0.clone(), json!(alpha(layer.1, layer.2))));
        json!({
            "peft_type": "LORA", "r": rank, "lora_alpha": alpha(rank, scale), "target_modules": targets,
            "rank_pattern": Map::from_iter(ranks), "alpha_pattern": Map::from_iter(alphas),
            "lora_bias": self.has_bias, "lora_dropout": 0.0, "bias": "none", "fan_in_fan_out": false,
            "inference_mode": true, "modules_to_save": self.whole, "task_type": null, "base_model_name_or_path": null,
        })
    }
}
