//! `adapter_config.json` of the Python package `peft`. The tensors say which layers are adapted, and with which rank;
//! the file must say the same, says how the corrections are scaled, and may ask for methods that are not supported.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use super::lora_targets::Targets;
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

/// The settings of adapters, as they are read.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct AdapterConfig {
    path: PathBuf,
    targets: Targets,
    rank: f64,
    alpha: f64,
    /// Ranks and alphas of layers, by their names.
    ranks: Vec<(Pattern, f64)>,
    alphas: Vec<(Pattern, f64)>,
    has_bias: bool,
    /// Whether to divide by √r instead of r (D. Kalajdzievski, "Rank Stabilized LoRA", 2023).
    rank_stabilized: bool,
}

impl AdapterConfig {
    /// Reads `adapter_config.json`.
    pub(super) fn read(path: &Path) -> Result<AdapterConfig> {
        let mut file = SideFile::open(path, Kind::Adapter)?;
        let required = |found: Option<f64>, name: &str| found.ok_or_else(|| file_error(path, name));
        let lora = file.read("peft_type", "only \"LORA\" is supported", |kind| (kind == "LORA").then_some(0.0))?;
        required(lora, "peft_type")?;
        let rank = required(file.size("r")?.map(|rank| rank as f64), "r")?;
        let alpha = required(file.read("lora_alpha", "must be a number", Value::as_f64)?, "lora_alpha")?;
        let must = "must map names of modules, or simple regular expressions, to numbers";
        let ranks = file.read("rank_pattern", must, patterns)?.unwrap_or_default();
        let alphas = file.read("alpha_pattern", must, patterns)?.unwrap_or_default();
        let targets = Targets::take(&mut file)?;
        let has_bias = file.flag("lora_bias")?.unwrap_or(false);
        let rank_stabilized = file.flag("use_rslora")?.unwrap_or(false);
        file.only("bias", &json!("none"))?;
        file.read("init_lora_weights", INITS_MUST, |value| {
            (value.is_boolean() || INITS.iter().any(|name| value == name)).then_some(())
        })?;
        for name in METHODS {
            file.read(name, "this method is not supported: must be false or absent", |value| {
                (*value == json!(false) || *value == json!([])).then_some(())
            })?;
        }
        file.finish()?;
        Ok(AdapterConfig { path: path.to_path_buf(), targets, rank, alpha, ranks, alphas, has_bias, rank_stabilized })
    }

    /// Returns the scale of the layer that `peft` calls `name`, whose adapter has this rank, and maybe a bias.
    ///
    /// # Errors
    /// Returns an error if the file says something else about the adapter, or has two alphas for it: which one applies
    /// depends on their order.
    pub(super) fn scale(&self, name: &str, rank: usize, has_bias: bool) -> Result<f64> {
        if let Some(reason) = self.targets.refuses(name) {
            return Err(self.wrong(format!("{reason} {name}, which has an adapter: must agree with the tensors")));
        }
        let own = self.pattern("rank_pattern", &self.ranks, name)?;
        let stored = rank as f64;
        if own.unwrap_or(self.rank) != stored {
            let (field, own) = own.map_or(("r", self.rank), |own| ("rank_pattern", own));
            return Err(
                self.wrong(format!("{field} is {own} for {name}, whose adapter has the rank {rank}: must agree"))
            );
        }
        if has_bias && !self.has_bias {
            return Err(self.wrong(format!("lora_bias is false, but the adapter of {name} has a bias: must agree")));
        }
        let alpha = self.pattern("alpha_pattern", &self.alphas, name)?.unwrap_or(self.alpha);
        Ok(alpha / if self.rank_stabilized { stored.sqrt() } else { stored })
    }

    /// Returns the number that a field has for the layer of this name.
    fn pattern(&self, field: &str, patterns: &[(Pattern, f64)], name: &str) -> Result<Option<f64>> {
        let own: Vec<f64> =
            patterns.iter().filter(|(pattern, _)| pattern.matches(name)).map(|(_, number)| *number).collect();
        match own.iter().find(|other| **other != own[0]) {
            Some(other) => Err(self.wrong(format!("{field} has {} and {other} for {name}: must have one", own[0]))),
            None => Ok(own.first().copied()),
        }
    }

    /// Returns an error about a parameter that is missing, if the file says that it is stored as a whole.
    pub(super) fn check_missing(&self, name: &str) -> Result<()> {
        match self.targets.stores(name) {
            true => {
                Err(self.wrong(format!("modules_to_save has the module of {name}, which is missing in the tensors")))
            }
            false => Ok(()),
        }
    }

    fn wrong(&self, reason: String) -> Error {
        Error::format(&self.path, reason)
    }
}

/// Returns an error about a field that must be there.
fn file_error(path: &Path, name: &str) -> Error {
    Error::format(path, format!("{name} is missing"))
}

/// Returns numbers by pattern, which matches the end of a name.
fn patterns(value: &Value) -> Option<Vec<(Pattern, f64)>> {
    let entry = |(pattern, number): (&String, &Value)| {
        Some((Pattern::parse(&format!(r"(.*\.)?({pattern})$"))?, number.as_f64()?))
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
