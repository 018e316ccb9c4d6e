//! What follows the encoder in a folder of `sentence-transformers`: `modules.json` and the settings that it names.

use std::path::Path;

use serde_json::{Map, Value, json};

use crate::files::{read_object, replace};
use crate::folder::Folder;
use crate::{Error, Result};

/// How the hidden states of a sentence become one vector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SentencePooling {
    /// That of `[CLS]`.
    Cls,
    /// The largest of each column.
    Max,
    /// The mean of all tokens, special ones included.
    Mean,
    /// The sum of all tokens by the root of their number.
    MeanSqrtLen,
}

impl SentencePooling {
    /// In the order in which `sentence-transformers` puts several side by side.
    pub const ALL: [SentencePooling; 4] =
        [SentencePooling::Cls, SentencePooling::Max, SentencePooling::Mean, SentencePooling::MeanSqrtLen];

    /// Its name in `1_Pooling/config.json`.
    pub fn name(self) -> &'static str {
        match self {
            SentencePooling::Cls => "cls",
            SentencePooling::Max => "max",
            SentencePooling::Mean => "mean",
            SentencePooling::MeanSqrtLen => "mean_sqrt_len_tokens",
        }
    }

    /// The flag that older versions have in its place.
    fn flag(self) -> &'static str {
        match self {
            SentencePooling::Cls => "pooling_mode_cls_token",
            SentencePooling::Max => "pooling_mode_max_tokens",
            SentencePooling::Mean => "pooling_mode_mean_tokens",
            SentencePooling::MeanSqrtLen => "pooling_mode_mean_sqrt_len_tokens",
        }
    }
}

/// What follows the encoder: `modules.json` and what it names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Modules {
    /// Folder of the encoder inside the model's.
    pub(super) transformer: String,
    pub(super) poolings: Vec<SentencePooling>,
    pub(super) normalize: bool,
}

/// The file that lists them.
const MODULES: &str = "modules.json";
/// Where our own pooling is.
const POOLING: &str = "1_Pooling";

/// Without `modules.json`, as `sentence-transformers` takes a bare encoder: the mean.
impl Default for Modules {
    fn default() -> Modules {
        Modules { transformer: String::new(), poolings: vec![SentencePooling::Mean], normalize: false }
    }
}

impl Modules {
    pub(super) fn read(folder: &Folder) -> Result<Modules> {
        let Some(path) = folder.find(MODULES)? else { return Ok(Modules::default()) };
        let text = crate::files::read_text(&path)?;
        let listed: Vec<Map<String, Value>> = serde_json::from_str(&text)
            .map_err(|error| Error::format(&path, format!("not a list of modules: {error}")))?;
        let mut modules = Modules { poolings: Vec::new(), ..Modules::default() };
        for (index, module) in listed.iter().enumerate() {
            let field = |name: &str| module.get(name).and_then(Value::as_str).unwrap_or_default();
            // Versions differ in the packages before the class.
            match field("type").rsplit('.').next().unwrap_or_default() {
                "Transformer" if index == 0 => modules.transformer = field("path").to_string(),
                "Pooling" => modules.poolings = read_pooling(folder, field("path"))?,
                "Normalize" => modules.normalize = true,
                _ => {
                    let reason = format!(
                        "module {index} is {:?}: only Transformer, Pooling and Normalize are read",
                        field("type")
                    );
                    return Err(Error::format(path, reason));
                }
            }
        }
        match modules.poolings.is_empty() {
            true => Err(Error::format(path, "has no Pooling module: tokens do not become a sentence")),
            false => Ok(modules),
        }
    }

    /// Writes `modules.json` and what it names into folder `dir`, for an encoder there of this width.
    pub(super) fn write(&self, dir: &Path, hidden_size: usize) -> Result<()> {
        let mut modules = vec![("", "Transformer"), (POOLING, "Pooling")];
        if self.normalize {
            modules.push(("2_Normalize", "Normalize"));
        }
        let listed = modules.iter().enumerate().map(|(index, (path, class))| {
            let class = format!("sentence_transformers.models.{class}");
            json!({"idx": index, "name": index.to_string(), "path": path, "type": class})
        });
        let mut pooling = Map::from_iter([("word_embedding_dimension".into(), hidden_size.into())]);
        let in_order = SentencePooling::ALL.into_iter().filter(|pooling| self.poolings.contains(pooling));
        if in_order.eq(self.poolings.iter().copied()) {
            pooling.extend(SentencePooling::ALL.map(|kind| (kind.flag().into(), self.poolings.contains(&kind).into())));
        } else {
            // Flags have no order; only newer versions know names.
            let names: Value = self.poolings.iter().map(|pooling| pooling.name()).collect();
            pooling.insert("pooling_mode".into(), names);
        }
        let write = |path: &Path, value: Value| replace(path, format!("{value:#}\n").as_bytes());
        write(&dir.join(POOLING).join("config.json"), Value::Object(pooling))?;
        write(&dir.join(MODULES), listed.collect())
    }
}

fn read_pooling(folder: &Folder, inside: &str) -> Result<Vec<SentencePooling>> {
    let path = folder.inside(inside)?.get("config.json")?;
    let config = read_object(&path)?;
    let named: Vec<&str> = match config.get("pooling_mode") {
        Some(Value::String(name)) => vec![name],
        Some(Value::Array(names)) => names.iter().filter_map(Value::as_str).collect(),
        _ => {
            let on = config.iter().filter(|(name, value)| name.starts_with("pooling_mode_") && **value == true);
            let flags: Vec<&str> = on.map(|(name, _)| name.as_str()).collect();
            if let Some(unknown) = flags.iter().find(|flag| SentencePooling::ALL.iter().all(|p| p.flag() != **flag)) {
                return Err(Error::format(path, format!("{unknown} is not supported: {} are", known())));
            }
            let known = SentencePooling::ALL.into_iter().filter(|pooling| flags.contains(&pooling.flag()));
            known.map(SentencePooling::name).collect()
        }
    };
    let pooling = |name: &&str| SentencePooling::ALL.into_iter().find(|pooling| pooling.name() == *name);
    if let Some(unknown) = named.iter().find(|name| pooling(name).is_none()) {
        return Err(Error::format(path, format!("pooling_mode {unknown:?} is not supported: {} are", known())));
    }
    match named.is_empty() {
        true => Err(Error::format(path, format!("names no pooling: {} are known", known()))),
        false => Ok(named.iter().filter_map(pooling).collect()),
    }
}

fn known() -> String {
    SentencePooling::ALL.map(SentencePooling::name).join(", ")
}
