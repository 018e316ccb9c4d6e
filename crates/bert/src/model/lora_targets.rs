//! The modules that an `adapter_config.json` says are adapted or stored as a whole. `peft` leaves out adapters of all
//! others, so a file that has some contradicts its settings.

use serde_json::{Value, json};

use super::pattern::Pattern;
use crate::Result;
use crate::side_file::SideFile;

/// The layers that `peft` adapts where nothing else is said: those of a BERT and of a DistilBERT.
const DEFAULT: [&str; 4] = ["query", "value", "q_lin", "v_lin"];

/// A choice of modules.
#[derive(Clone, Debug, PartialEq)]
enum Modules {
    /// `all-linear`
    All,
    /// The modules whose whole names match a regular expression.
    Pattern(Pattern),
    /// The modules with these names, or whose names end in one of them after a dot.
    Names(Vec<String>),
}

impl Modules {
    const MUST: &'static str = "must be a list of names, a regular expression, or \"all-linear\"";

    /// Returns the choice, or `Some(None)` for a regular expression that is not known here: the tensors alone then
    /// count.
    fn read(value: &Value) -> Option<Option<Modules>> {
        match value {
            Value::String(all) if all.eq_ignore_ascii_case("all-linear") => Some(Some(Modules::All)),
            Value::String(pattern) => Some(Pattern::parse(pattern).map(Modules::Pattern)),
            _ => names(value).map(|names| Some(Modules::Names(names))),
        }
    }

    fn has(&self, module: &str) -> bool {
        let ends = |name: &String| module.strip_suffix(name.as_str()).is_some_and(|rest| rest.ends_with('.'));
        match self {
            Modules::All => true,
            Modules::Pattern(pattern) => pattern.matches(module),
            Modules::Names(names) => names.iter().any(|name| name == module || ends(name)),
        }
    }
}

/// The modules of adapters.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Targets {
    adapted: Modules,
    excluded: Option<Modules>,
    layers: Vec<u64>,
    /// The module lists that the indices in `layers` refer to, such as `layer`. Empty means any list.
    lists: Vec<String>,
    whole: Vec<String>,
}

impl Targets {
    /// Takes the fields that choose modules.
    pub(super) fn take(file: &mut SideFile) -> Result<Targets> {
        let adapted = file.read("target_modules", Modules::MUST, Modules::read)?;
        let layers = file.read("layers_to_transform", "must be a number or a list of numbers", numbers)?;
        let lists = file.read("layers_pattern", "must be a name or a list of names", names)?;
        if let (None, Some(lists)) = (&layers, &lists) {
            return Err(file.refuse("layers_pattern", &json!(lists), "must be absent without layers_to_transform"));
        }
        let default = || Some(Modules::Names(DEFAULT.map(str::to_string).to_vec()));
        Ok(Targets {
            adapted: adapted.unwrap_or_else(default).unwrap_or(Modules::All),
            excluded: file.read("exclude_modules", Modules::MUST, Modules::read)?.flatten(),
            layers: layers.unwrap_or_default(),
            lists: lists.unwrap_or_default(),
            whole: file.read("modules_to_save", "must be a list of names", names)?.unwrap_or_default(),
        })
    }

    /// Returns why a module with this name has no adapter, if it has none.
    pub(super) fn refuses(&self, module: &str) -> Option<&'static str> {
        if self.excluded.as_ref().is_some_and(|excluded| excluded.has(module)) {
            return Some("exclude_modules has");
        }
        if !self.adapted.has(module) {
            return Some("target_modules does not have");
        }
        let Modules::Names(names) = &self.adapted else { return None };
        let exact = names.iter().any(|name| name == module);
        (!exact && !self.layers.is_empty() && !self.layer(module).is_some_and(|layer| self.layers.contains(&layer)))
            .then_some("layers_to_transform does not have")
    }

    /// Returns the number of the layer that a module is in: the first number behind the name of a list.
    fn layer(&self, module: &str) -> Option<u64> {
        let parts: Vec<&str> = module.split('.').collect();
        let any = self.lists.is_empty();
        parts.windows(3).enumerate().find_map(|(at, parts)| match parts[1].parse() {
            Ok(layer) if (any && at > 0) || self.lists.iter().any(|list| list == parts[0]) => Some(layer),
            _ => None,
        })
    }

    /// Returns whether a parameter belongs to a module that is stored as a whole.
    pub(super) fn stores(&self, parameter: &str) -> bool {
        let modules = parameter.match_indices('.').map(|(end, _)| &parameter[..end]);
        modules.into_iter().any(|module| self.whole.iter().any(|name| module.ends_with(name.as_str())))
    }
}

/// Returns the names in a list, or a single name.
fn names(value: &Value) -> Option<Vec<String>> {
    match value {
        Value::String(name) => Some(vec![name.clone()]),
        _ => value.as_array()?.iter().map(|name| name.as_str().map(str::to_string)).collect(),
    }
}

/// Returns the numbers in a list, or a single number.
fn numbers(value: &Value) -> Option<Vec<u64>> {
    match value.as_array() {
        Some(values) => values.iter().map(Value::as_u64).collect(),
        None => value.as_u64().map(|number| vec![number]),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::side_file::Kind;

    /// The expected values are those of `check_target_module_exists` in `peft` 0.21.
    #[test]
    fn modules_are_chosen_as_in_peft() {
        const QUERY: &str = "bert.encoder.layer.1.attention.self.query";
        for (fields, expected) in [
            (json!({"target_modules": ["query"]}), true),
            (json!({"target_modules": ["uery", "value"]}), false),
            (json!({"target_modules": ["self.query"], "exclude_modules": ["query"]}), false),
            (json!({"target_modules": r".*layer\.1\..*query"}), true),
            (json!({"target_modules": "query"}), false),
            (json!({"target_modules": "ALL-linear", "layers_to_transform": [0]}), true),
            (json!({"target_modules": "all-linear", "exclude_modules": ".*query"}), false),
            (json!({"target_modules": ["query"], "layers_to_transform": 1}), true),
            (json!({"target_modules": ["query"], "layers_to_transform": [0, 2]}), false),
            (json!({"target_modules": [QUERY], "layers_to_transform": [0]}), true),
            (json!({"target_modules": ["query"], "layers_to_transform": [1], "layers_pattern": "layer"}), true),
            (json!({"target_modules": ["query"], "layers_to_transform": [1], "layers_pattern": ["h"]}), false),
            (json!({"target_modules": ["query"], "layers_to_transform": []}), true),
            (json!({}), true),
            (json!({"target_modules": []}), false),
            (json!({"target_modules": "(?!x).*query"}), true),
        ] {
            let Value::Object(map) = fields.clone() else { panic!() };
            let targets = Targets::take(&mut SideFile::new(Path::new("f"), Kind::Adapter, map)).unwrap();
            assert_eq!(targets.refuses(QUERY).is_none(), expected, "{fields}");
        }
    }
}
