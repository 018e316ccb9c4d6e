//! The modules after the encoder in a folder of `sentence-transformers`: `modules.json` and the settings that it names.

use std::path::Path;

use serde_json::{Map, Value, json};

use crate::files::{read_object, replace};
use crate::folder::Folder;
use crate::{Error, Result};

/// The way in which the hidden states of a sentence are combined into one vector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SentencePooling {
    /// The hidden state of `[CLS]`.
    Cls,
    /// The maximum of each column over all tokens.
    Max,
    /// The mean over all tokens, special tokens included.
    Mean,
    /// The sum over all tokens, divided by the square root of their number.
    MeanSqrtLen,
}

impl SentencePooling {
    /// All values, in the order in which `sentence-transformers` concatenates them.
    pub const ALL: [SentencePooling; 4] =
        [SentencePooling::Cls, SentencePooling::Max, SentencePooling::Mean, SentencePooling::MeanSqrtLen];

    /// Returns the name in `1_Pooling/config.json`.
    pub fn name(self) -> &'static str {
        match self {
            SentencePooling::Cls => "cls",
            SentencePooling::Max => "max",
            SentencePooling::Mean => "mean",
            SentencePooling::MeanSqrtLen => "mean_sqrt_len_tokens",
        }
    }

    /// Returns the flag that older versions use instead of the name.
    fn flag(self) -> &'static str {
        match self {
            SentencePooling::Cls => "pooling_mode_cls_token",
            SentencePooling::Max => "pooling_mode_max_tokens",
            SentencePooling::Mean => "pooling_mode_mean_tokens",
            SentencePooling::MeanSqrtLen => "pooling_mode_mean_sqrt_len_tokens",
        }
    }
}

/// The modules after the encoder, as described by `modules.json` and the files that it names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Modules {
    /// The folder of the encoder within the model folder.
    pub(super) transformer: String,
    pub(super) poolings: Vec<SentencePooling>,
    pub(super) normalize: bool,
}

/// The name of the file that lists the modules.
const MODULES: &str = "modules.json";
/// The folder that the settings of the pooling are written to.
const POOLING: &str = "1_Pooling";

/// Mean pooling, which `sentence-transformers` uses for a folder without `modules.json`.
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
            // The package before the class depends on the version.
            match field("type").rsplit('.').next().unwrap_or_default() {
                "Transformer" if index == 0 => modules.transformer = field("path").to_string(),
                "Pooling" => modules.poolings = read_pooling(folder, field("path"))?,
                "Normalize" => modules.normalize = true,
                _ => {
                    let reason = format!(
                        "module {index} is {:?}: only Transformer, Pooling and Normalize are supported",
                        field("type")
                    );
                    return Err(Error::format(path, reason));
                }
            }
        }
        match modules.poolings.is_empty() {
            true => Err(Error::format(path, "has no Pooling module: a sentence encoder needs one")),
            false => Ok(modules),
        }
    }

    /// Writes `modules.json` and the files that it names into the folder `dir` of an encoder with this hidden size.
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
            // Flags have no order. Names do, but only newer versions read them.
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
                return Err(Error::format(path, format!("{unknown} is not supported: must be one of {}", known())));
            }
            let known = SentencePooling::ALL.into_iter().filter(|pooling| flags.contains(&pooling.flag()));
            known.map(SentencePooling::name).collect()
        }
    };
    let pooling = |name: &&str| SentencePooling::ALL.into_iter().find(|pooling| pooling.name() == *name);
    if let Some(unknown) = named.iter().find(|name| pooling(name).is_none()) {
        return Err(Error::format(
            path,
            format!("pooling_mode {unknown:?} is not supported: must be one of {}", known()),
        ));
    }
    match named.is_empty() {
        true => Err(Error::format(path, format!("names no pooling: must be one of {}", known()))),
        false => Ok(named.iter().filter_map(pooling).collect()),
    }
}

fn known() -> String {
    SentencePooling::ALL.map(SentencePooling::name).join(", ")
}
