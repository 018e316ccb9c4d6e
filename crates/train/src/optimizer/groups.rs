//! Parameter groups with their own learning rate or weight decay.

use crate::{Error, Result};

/// The settings of the parameters whose name contains a string.
///
/// ```
/// use cloze_train::{AdamW, ParameterGroup};
/// // The encoder learns at a tenth of the rate of the head; the embeddings are not decayed.
/// let adamw = AdamW::new(1e-3)
///     .group(ParameterGroup::of("bert.").learning_rate_factor(0.1))
///     .group(ParameterGroup::of("word_embeddings").learning_rate_factor(0.1).weight_decay(0.0));
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct ParameterGroup {
    part: String,
    factor: f64,
    weight_decay: Option<f64>,
}

impl ParameterGroup {
    /// Makes the group of the parameters whose name contains `part`: `bert.encoder.layer.0.`, `word_embeddings`.
    pub fn of(part: impl Into<String>) -> ParameterGroup {
        ParameterGroup { part: part.into(), factor: 1.0, weight_decay: None }
    }

    /// Sets the factor on the learning rate.
    pub fn learning_rate_factor(self, factor: f64) -> ParameterGroup {
        ParameterGroup { factor, ..self }
    }

    /// Sets the weight decay, including that of biases and LayerNorm.
    pub fn weight_decay(self, weight_decay: f64) -> ParameterGroup {
        ParameterGroup { weight_decay: Some(weight_decay), ..self }
    }
}

/// The learning rate factor and weight decay of a parameter.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Treatment {
    /// The factor on the learning rate.
    pub(super) factor: f64,
    pub(super) weight_decay: f64,
}

/// The rules that decide the treatment of each parameter.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Rules {
    pub(super) weight_decay: f64,
    pub(super) decay_everything: bool,
    pub(super) layer_decay: f64,
    pub(super) groups: Vec<ParameterGroup>,
}

impl Rules {
    /// Returns the names and values of the settings, in words.
    pub(super) fn settings(&self) -> Vec<(String, String)> {
        let spared = if self.decay_everything { "" } else { ", not of biases and LayerNorm" };
        let mut settings = vec![("weight decay".to_string(), format!("{}{spared}", self.weight_decay))];
        if self.layer_decay != 1.0 {
            settings.push(("layer decay".to_string(), self.layer_decay.to_string()));
        }
        settings.extend(self.groups.iter().enumerate().map(|(index, group)| {
            let decay = group.weight_decay.map_or(String::new(), |decay| format!(", weight decay {decay}"));
            let value = format!("{:?}: learning rate times {}{decay}", group.part, group.factor);
            (format!("parameter group {}", index + 1), value)
        }));
        settings
    }

    pub(super) fn check(&self) -> Result<()> {
        let check = |setting, value: f64| match value >= 0.0 && value.is_finite() {
            true => Ok(()),
            false => Err(Error::invalid(setting, value, "at least 0 and finite")),
        };
        check("weight decay", self.weight_decay)?;
        if !(self.layer_decay > 0.0 && self.layer_decay <= 1.0) {
            return Err(Error::invalid("layer decay", self.layer_decay, "above 0 and at most 1"));
        }
        self.groups.iter().try_for_each(|group| {
            check("learning rate factor of a group", group.factor)?;
            check("weight decay of a group", group.weight_decay.unwrap_or(0.0))
        })
    }

    /// Returns the treatment of each of these parameters.
    ///
    /// # Errors
    /// Returns an error if a group matches no parameter.
    pub(super) fn treatments(&self, names: &[&str]) -> Result<Vec<Treatment>> {
        if let Some(group) = self.groups.iter().find(|group| !names.iter().any(|name| name.contains(&group.part))) {
            let why = format!("no trained parameter has {:?} in its name", group.part);
            return Err(Error::data("parameter group", why));
        }
        let layers = names.iter().filter_map(|name| layer_of(name)).max().map_or(0, |last| last + 1);
        let treatment = |name: &&str| {
            let spared = !self.decay_everything && (name.ends_with("bias") || name.contains("LayerNorm"));
            let own = self.groups.iter().rfind(|group| name.contains(&group.part));
            let factor = self.layer_decay.powi((layers + 1 - depth(name, layers)) as i32);
            let decay = if spared { 0.0 } else { self.weight_decay };
            Treatment {
                factor: factor * own.map_or(1.0, |group| group.factor),
                weight_decay: own.and_then(|group| group.weight_decay).unwrap_or(decay),
            }
        };
        Ok(names.iter().map(treatment).collect())
    }
}

/// Returns the number of the encoder layer that a parameter belongs to.
fn layer_of(name: &str) -> Option<usize> {
    let (_, rest) = name.split_once("encoder.layer.")?;
    rest.split('.').next()?.parse().ok()
}

/// Returns 0 for the embeddings, n + 1 for layer n, and one more than the last layer for the head.
fn depth(name: &str, layers: usize) -> usize {
    match layer_of(name) {
        Some(layer) => layer + 1,
        None if name.contains("embeddings.") => 0,
        None => layers + 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMES: [&str; 6] = [
        "bert.embeddings.word_embeddings.weight",
        "bert.encoder.layer.0.output.dense.weight",
        "bert.encoder.layer.1.output.dense.bias",
        "bert.encoder.layer.1.output.LayerNorm.weight",
        "bert.pooler.dense.weight",
        "classifier.bias",
    ];

    fn rules() -> Rules {
        Rules { weight_decay: 0.01, decay_everything: false, layer_decay: 1.0, groups: Vec::new() }
    }

    #[test]
    fn decay_spares_biases_and_normalisations() {
        let decays =
            |rules: Rules| rules.treatments(&NAMES).unwrap().iter().map(|t| t.weight_decay).collect::<Vec<_>>();
        assert_eq!(decays(rules()), [0.01, 0.01, 0.0, 0.0, 0.01, 0.0]);
        assert_eq!(decays(Rules { decay_everything: true, ..rules() }), [0.01; 6]);
        let groups = vec![ParameterGroup::of("bias").weight_decay(0.5)];
        assert_eq!(decays(Rules { groups, ..rules() }), [0.01, 0.01, 0.5, 0.0, 0.01, 0.5]);
    }

    #[test]
    fn lower_layers_learn_slower() {
        let factors = |rules: Rules| rules.treatments(&NAMES).unwrap().iter().map(|t| t.factor).collect::<Vec<_>>();
        assert_eq!(factors(rules()), [1.0; 6]);
        assert_eq!(factors(Rules { layer_decay: 0.5, ..rules() }), [0.125, 0.25, 0.5, 0.5, 1.0, 1.0]);
        let groups = vec![
            ParameterGroup::of("bert.").learning_rate_factor(0.5),
            ParameterGroup::of("pooler").learning_rate_factor(3.0),
        ];
        let both = Rules { layer_decay: 0.5, groups, ..rules() };
        assert_eq!(factors(both), [0.0625, 0.125, 0.25, 0.25, 3.0, 1.0]);
    }

    #[test]
    fn invalid_settings_are_refused() {
        let groups = vec![ParameterGroup::of("decoder")];
        let error = Rules { groups, ..rules() }.treatments(&NAMES).unwrap_err().to_string();
        assert_eq!(error, "parameter group: no trained parameter has \"decoder\" in its name");
        for (rules, expected) in [
            (Rules { layer_decay: 0.0, ..rules() }, "layer decay is 0, must be above 0 and at most 1"),
            (Rules { weight_decay: -1.0, ..rules() }, "weight decay is -1, must be at least 0 and finite"),
            (
                Rules { groups: vec![ParameterGroup::of("b").learning_rate_factor(f64::NAN)], ..rules() },
                "learning rate factor of a group is NaN, must be at least 0 and finite",
            ),
        ] {
            assert_eq!(rules.check().unwrap_err().to_string(), expected);
        }
    }
}
