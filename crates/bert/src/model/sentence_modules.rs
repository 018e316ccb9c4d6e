//! The list of modules in a folder of `sentence-transformers`, `modules.json`, and the modules after the pooling.

use std::path::Path;

use cloze_tensor::{Device, Module, Tensor, join_name};
use serde_json::{Map, Value, json};

use super::sentence_dense::{Dense, check_features};
use super::sentence_pooling::PoolingModule;
use crate::files::{read_json, replace};
use crate::folder::Folder;
use crate::side_file::{Kind, SideFile};
use crate::{Error, Result};

/// The name of the file that lists the modules.
const MODULES: &str = "modules.json";

/// An entry of `modules.json`.
pub(super) struct Entry {
    /// The name of the class, without its package, which depends on the version.
    class: String,
    /// The folder of the module within the model folder.
    path: String,
}

/// Reads the folder of the encoder, and the modules after it, from `modules.json`. Returns `None` if there is no such
/// file: the folder is then that of a bare encoder.
pub(super) fn read_entries(folder: &Folder) -> Result<Option<(String, Vec<Entry>)>> {
    let Some(path) = folder.find(MODULES)? else { return Ok(None) };
    let listed: Vec<Map<String, Value>> = serde_json::from_str(&read_json(&path)?)
        .map_err(|error| Error::format(&path, format!("not a list of modules: {error}")))?;
    let mut entries = Vec::with_capacity(listed.len());
    for (index, fields) in listed.into_iter().enumerate() {
        let mut file = SideFile::new(&path, Kind::Module, fields);
        let class = file.text("type")?.unwrap_or_default();
        let own = class.strip_prefix("sentence_transformers.").and_then(|class| class.rsplit('.').next());
        let allowed: &[&str] = if index == 0 { &["Transformer"] } else { &["Pooling", "Dense", "Normalize"] };
        let Some(own) = own.filter(|own| allowed.contains(own)) else {
            let works = allowed.join(", ");
            return Err(file.refuse("type", &class.into(), &format!("module {index} must be one of {works}")));
        };
        // Arguments of calls in Python, which the modules here do not have.
        file.only("kwargs", &json!([]))?;
        entries.push(Entry { class: own.to_string(), path: file.text("path")?.unwrap_or_default() });
        file.finish()?;
    }
    match entries.is_empty() {
        true => Err(Error::format(path, "lists no modules: the first must be a Transformer")),
        false => Ok(Some((entries.remove(0).path, entries))),
    }
}

/// Returns whether a folder has a list of modules.
///
/// # Errors
/// Returns an error if it lists another module than an encoder in the folder itself.
pub(crate) fn lists_only_encoder(folder: &Folder) -> Result<bool> {
    match read_entries(folder)? {
        None => Ok(false),
        Some((transformer, after)) if transformer.is_empty() && after.is_empty() => Ok(true),
        Some(_) => {
            let reason = "must list one Transformer, whose path is \"\": other modules are not supported here";
            Err(Error::format(folder.path().join(MODULES), reason))
        }
    }
}

/// The modules after the encoder.
#[derive(Clone, Default)]
pub(super) struct Modules {
    pub(super) pooling: PoolingModule,
    pub(super) after: Vec<After>,
}

/// A module after the pooling.
#[derive(Clone)]
pub(super) enum After {
    Dense(Dense),
    Normalize,
}

impl Module for Modules {
    fn visit(&self, name: &str, visitor: &mut dyn FnMut(&str, &Tensor)) {
        for (index, module) in self.after.iter().enumerate() {
            if let After::Dense(dense) = module {
                dense.visit(&join_name(name, &format!("{index}.linear")), visitor);
            }
        }
    }

    fn visit_mut(&mut self, name: &str, visitor: &mut dyn FnMut(&str, &mut Tensor)) {
        for (index, module) in self.after.iter_mut().enumerate() {
            if let After::Dense(dense) = module {
                dense.visit_mut(&join_name(name, &format!("{index}.linear")), visitor);
            }
        }
    }
}

impl Modules {
    /// Opens the modules of `entries` after an encoder with this hidden size.
    pub(super) fn open(folder: &Folder, entries: &[Entry], hidden_size: usize, device: &Device) -> Result<Modules> {
        let wrong = |reason: String| Error::format(folder.path().join(MODULES), reason);
        let Some((first, rest)) = entries.split_first().filter(|(first, _)| first.class == "Pooling") else {
            return Err(wrong("module 1 must be a Pooling: a sentence encoder needs one".to_string()));
        };
        let pooling = PoolingModule::read(&folder.inside(&first.path)?, hidden_size)?;
        let mut modules = Modules { pooling, after: Vec::new() };
        for entry in rest {
            let own = folder.inside(&entry.path)?;
            modules.after.push(match entry.class.as_str() {
                "Dense" => After::Dense(Dense::open(&own, modules.dimension(hidden_size), device)?),
                "Normalize" => {
                    // Older versions write no file, or none but an empty folder.
                    if let Some(path) = own.find("config.json")?.filter(|_| !entry.path.is_empty()) {
                        let mut file = SideFile::open(&path, Kind::Normalize)?;
                        check_features(&mut file)?;
                        file.finish()?;
                    }
                    After::Normalize
                }
                class => return Err(wrong(format!("has a {class} after the pooling: must be Dense or Normalize"))),
            });
        }
        Ok(modules)
    }

    /// Returns the dimension of the vectors of an encoder with this hidden size.
    pub(super) fn dimension(&self, hidden_size: usize) -> usize {
        let dense = self.after.iter().rev().find_map(|module| match module {
            After::Dense(dense) => Some(dense.outputs()),
            After::Normalize => None,
        });
        dense.unwrap_or(self.pooling.poolings.len() * hidden_size)
    }

    /// Applies the modules after the pooling: `[B, pooled]` to `[B, D]`.
    pub(super) fn finish(&self, pooled: Tensor) -> Result<Tensor> {
        self.after.iter().try_fold(pooled, |x, module| match module {
            After::Dense(dense) => dense.forward(&x),
            After::Normalize => normalized(&x),
        })
    }

    /// Writes `modules.json` and the folders that it names into the folder `dir` of an encoder with this hidden size.
    pub(super) fn write(&self, dir: &Path, hidden_size: usize) -> Result<()> {
        let mut listed = vec![(String::new(), "Transformer"), ("1_Pooling".to_string(), "Pooling")];
        self.pooling.write(&dir.join("1_Pooling"), hidden_size)?;
        for module in &self.after {
            let class = match module {
                After::Dense(_) => "Dense",
                After::Normalize => "Normalize",
            };
            let path = format!("{}_{class}", listed.len());
            if let After::Dense(dense) = module {
                dense.write(&dir.join(&path))?;
            }
            listed.push((path, class));
        }
        let entry = |(index, (path, class)): (usize, &(String, &str))| {
            let class = format!("sentence_transformers.models.{class}");
            json!({"idx": index, "name": index.to_string(), "path": path, "type": class})
        };
        let listed: Value = listed.iter().enumerate().map(entry).collect();
        replace(&dir.join(MODULES), format!("{listed:#}\n").as_bytes())
    }
}

/// Divides each row by its norm: `[B, D]` to `[B, D]`.
fn normalized(x: &Tensor) -> Result<Tensor> {
    // The added number keeps a vector of zeros, and its gradient, finite.
    let norms = x.mul(x)?.sum_keep(&[1])?.add_scalar(1e-24)?.sqrt()?; // [B, 1]
    Ok(x.div(&norms)?)
}
