//! The measurements of a run, and the lines that they are written in.

use std::fmt;

use serde::de::{Error as _, MapAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::{Error, Result};

/// What was measured of an optimizer step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct StepRecord {
    /// Number of the step, from 1.
    pub step: u32,
    /// Epoch, from 1.
    pub epoch: u32,
    /// Loss of the step's batch.
    #[serde(deserialize_with = "or_nan")]
    pub loss: f64,
    /// Learning rate.
    #[serde(deserialize_with = "or_nan")]
    pub learning_rate: f64,
    /// Norm of the gradients before clipping.
    #[serde(deserialize_with = "or_nan")]
    pub gradient_norm: f64,
    /// Tokens that the run has trained on, this step's among them.
    pub tokens: u64,
    /// Seconds that the run has trained.
    #[serde(deserialize_with = "or_nan")]
    pub elapsed: f64,
}

/// What an evaluation measured.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct EvaluationRecord {
    /// The step after which it was.
    pub step: u32,
    /// Names of metrics, and their values, in the order given.
    pub values: Vec<(String, f64)>,
}

/// All that was measured of a run, in the order of its steps.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RunRecord {
    /// The steps.
    pub steps: Vec<StepRecord>,
    /// The evaluations.
    pub evaluations: Vec<EvaluationRecord>,
}

impl RunRecord {
    /// The names of all metrics that were evaluated, in the order of their first appearance.
    pub fn metrics(&self) -> Vec<&str> {
        let mut names: Vec<&str> = Vec::new();
        for (name, _) in self.evaluations.iter().flat_map(|evaluation| &evaluation.values) {
            if !names.contains(&name.as_str()) {
                names.push(name);
            }
        }
        names
    }

    /// The steps at which a metric was evaluated, and its values.
    pub fn metric(&self, name: &str) -> Vec<(u32, f64)> {
        let values = |evaluation: &EvaluationRecord| {
            evaluation.values.iter().find(|(other, _)| other == name).map(|(_, value)| (evaluation.step, *value))
        };
        self.evaluations.iter().filter_map(values).collect()
    }
}

impl EvaluationRecord {
    /// Checks that the names can be those of a line.
    pub(super) fn check(&self) -> Result<()> {
        for (index, (name, _)) in self.values.iter().enumerate() {
            if ["kind", "step"].contains(&name.as_str()) {
                return Err(Error::invalid(
                    "name of a metric",
                    format!("{name:?}"),
                    "another: the line's own is so called",
                ));
            }
            if self.values.iter().take(index).any(|(other, _)| other == name) {
                return Err(Error::invalid("name of a metric", format!("{name:?}"), "another: it is there twice"));
            }
        }
        Ok(())
    }
}

/// A line of the metrics.
pub(super) enum Line {
    Step(StepRecord),
    Evaluation(EvaluationRecord),
}

impl Line {
    pub(super) fn step(&self) -> u32 {
        match self {
            Line::Step(record) => record.step,
            Line::Evaluation(record) => record.step,
        }
    }
}

impl Serialize for Line {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Line::Step(record) => {
                #[derive(Serialize)]
                struct Tagged<'a> {
                    kind: &'static str,
                    #[serde(flatten)]
                    record: &'a StepRecord,
                }
                Tagged { kind: "step", record }.serialize(serializer)
            }
            Line::Evaluation(record) => {
                let mut map = serializer.serialize_map(Some(2 + record.values.len()))?;
                map.serialize_entry("kind", "evaluation")?;
                map.serialize_entry("step", &record.step)?;
                for (name, value) in &record.values {
                    map.serialize_entry(name, value)?;
                }
                map.end()
            }
        }
    }
}

impl<'de> Deserialize<'de> for Line {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Line, D::Error> {
        let mut fields = deserializer.deserialize_map(Fields)?;
        let kind = fields.iter().position(|(name, _)| name == "kind").map(|at| fields.remove(at).1);
        match kind.as_ref().and_then(|kind| kind.as_str()) {
            Some("step") => {
                let record = serde_json::Value::Object(fields.into_iter().collect());
                StepRecord::deserialize(record).map(Line::Step).map_err(D::Error::custom)
            }
            Some("evaluation") => {
                let at = fields.iter().position(|(name, _)| name == "step");
                let step = at.map(|at| fields.remove(at).1).and_then(|step| u32::try_from(step.as_u64()?).ok());
                let step = step.ok_or_else(|| D::Error::custom("`step` is no number of a step"))?;
                let value = |(name, value): (String, serde_json::Value)| match or_nan(value) {
                    Ok(value) => Ok((name, value)),
                    Err(_) => Err(D::Error::custom(format!("`{name}` is no number"))),
                };
                let values = fields.into_iter().map(value).collect::<Result<_, _>>()?;
                Ok(Line::Evaluation(EvaluationRecord { step, values }))
            }
            _ => Err(D::Error::custom("`kind` is neither \"step\" nor \"evaluation\"")),
        }
    }
}

/// The fields of an object, in their order, which a map would lose.
struct Fields;

impl<'de> Visitor<'de> for Fields {
    type Value = Vec<(String, serde_json::Value)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut fields = Vec::new();
        while let Some(field) = map.next_entry()? {
            fields.push(field);
        }
        Ok(fields)
    }
}

/// A number, which is NaN where JSON had none for it.
fn or_nan<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    Ok(Option::<f64>::deserialize(deserializer)?.unwrap_or(f64::NAN))
}
