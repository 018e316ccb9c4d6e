//! The measurements of a run, and their format in `metrics.jsonl`.

use std::fmt;

use serde::de::{Error as _, MapAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::{Error, Result};

/// The measurements of an optimizer step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct StepRecord {
    /// Number of the step, counted from 1.
    pub step: u32,
    /// Number of the epoch, counted from 1.
    pub epoch: u32,
    /// Training loss of the step.
    #[serde(deserialize_with = "or_nan")]
    pub loss: f64,
    /// Learning rate.
    #[serde(deserialize_with = "or_nan")]
    pub learning_rate: f64,
    /// Global gradient norm before clipping.
    #[serde(deserialize_with = "or_nan")]
    pub gradient_norm: f64,
    /// Number of tokens trained on so far, including this step.
    pub tokens: u64,
    /// Training time so far, in seconds.
    #[serde(deserialize_with = "or_nan")]
    pub elapsed: f64,
}

/// The metrics of an evaluation.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct EvaluationRecord {
    /// The step after which the evaluation took place.
    pub step: u32,
    /// Names and values of the metrics, in the order given.
    pub values: Vec<(String, f64)>,
}

/// All measurements of a run, in the order of its steps.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RunRecord {
    /// The steps.
    pub steps: Vec<StepRecord>,
    /// The evaluations.
    pub evaluations: Vec<EvaluationRecord>,
}

impl RunRecord {
    /// Returns the names of all evaluated metrics, in the order of their first appearance.
    pub fn metrics(&self) -> Vec<&str> {
        let mut names: Vec<&str> = Vec::new();
        for (name, _) in self.evaluations.iter().flat_map(|evaluation| &evaluation.values) {
            if !names.contains(&name.as_str()) {
                names.push(name);
            }
        }
        names
    }

    /// Returns the steps at which a metric was evaluated, with its values.
    pub fn metric(&self, name: &str) -> Vec<(u32, f64)> {
        let values = |evaluation: &EvaluationRecord| {
            evaluation.values.iter().find(|(other, _)| other == name).map(|(_, value)| (evaluation.step, *value))
        };
        self.evaluations.iter().filter_map(values).collect()
    }
}

impl EvaluationRecord {
    /// Checks that the names are unique, and none is reserved.
    pub(super) fn check(&self) -> Result<()> {
        for (index, (name, _)) in self.values.iter().enumerate() {
            let wrong = |limit: &str| Err(Error::invalid("name of a metric", format!("{name:?}"), limit));
            if ["kind", "step"].contains(&name.as_str()) {
                return wrong("another name: `kind` and `step` are reserved");
            }
            if self.values.iter().take(index).any(|(other, _)| other == name) {
                return wrong("unique");
            }
        }
        Ok(())
    }
}

/// A line of `metrics.jsonl`.
pub(super) enum LogLine {
    Step(StepRecord),
    Evaluation(EvaluationRecord),
}

impl LogLine {
    pub(super) fn step(&self) -> u32 {
        match self {
            LogLine::Step(record) => record.step,
            LogLine::Evaluation(record) => record.step,
        }
    }
}

impl Serialize for LogLine {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            LogLine::Step(record) => {
                #[derive(Serialize)]
                struct Tagged<'a> {
                    kind: &'static str,
                    #[serde(flatten)]
                    record: &'a StepRecord,
                }
                Tagged { kind: "step", record }.serialize(serializer)
            }
            LogLine::Evaluation(record) => {
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

impl<'de> Deserialize<'de> for LogLine {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<LogLine, D::Error> {
        let mut fields = deserializer.deserialize_map(OrderedFields)?;
        let kind = fields.iter().position(|(name, _)| name == "kind").map(|at| fields.remove(at).1);
        match kind.as_ref().and_then(|kind| kind.as_str()) {
            Some("step") => {
                let record = serde_json::Value::Object(fields.into_iter().collect());
                StepRecord::deserialize(record).map(LogLine::Step).map_err(D::Error::custom)
            }
            Some("evaluation") => {
                let at = fields.iter().position(|(name, _)| name == "step");
                let step = at.map(|at| fields.remove(at).1).and_then(|step| u32::try_from(step.as_u64()?).ok());
                let step = step.ok_or_else(|| D::Error::custom("`step` is not the number of a step"))?;
                let value = |(name, value): (String, serde_json::Value)| match or_nan(value) {
                    Ok(value) => Ok((name, value)),
                    Err(_) => Err(D::Error::custom(format!("`{name}` is not a number"))),
                };
                let values = fields.into_iter().map(value).collect::<Result<_, _>>()?;
                Ok(LogLine::Evaluation(EvaluationRecord { step, values }))
            }
            _ => Err(D::Error::custom("`kind` is neither \"step\" nor \"evaluation\"")),
        }
    }
}

/// Reads the fields of an object in their order, which a map would lose.
struct OrderedFields;

impl<'de> Visitor<'de> for OrderedFields {
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

/// Reads a number, and `null` as NaN.
fn or_nan<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    Ok(Option::<f64>::deserialize(deserializer)?.unwrap_or(f64::NAN))
}
