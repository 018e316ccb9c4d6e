//! What a classifier of sequences is for: `problem_type` of `config.json`.

use serde_json::Value;

use crate::{BertConfig, Error, Result};

/// What a classifier of sequences is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ProblemType {
    /// `single_label_classification`: exactly one label applies.
    SingleLabel,
    /// `multi_label_classification`: any number of labels apply.
    MultiLabel,
    /// `regression`: each label is a number.
    Regression,
}

/// Name of the field, which BERT's configuration keeps among its others.
const FIELD: &str = "problem_type";

impl ProblemType {
    /// All of them.
    pub const ALL: [ProblemType; 3] = [ProblemType::SingleLabel, ProblemType::MultiLabel, ProblemType::Regression];

    /// Its name in `config.json`.
    pub fn name(self) -> &'static str {
        match self {
            ProblemType::SingleLabel => "single_label_classification",
            ProblemType::MultiLabel => "multi_label_classification",
            ProblemType::Regression => "regression",
        }
    }
}

impl BertConfig {
    /// What the classifier is for. Where the configuration does not say: one of its labels, or regression where it
    /// has a single one, as `transformers` takes it.
    pub fn problem_type(&self) -> ProblemType {
        let name = self.extra.get(FIELD).and_then(Value::as_str);
        let named = ProblemType::ALL.into_iter().find(|problem| Some(problem.name()) == name);
        named.unwrap_or(if self.num_labels() == 1 { ProblemType::Regression } else { ProblemType::SingleLabel })
    }

    /// The same configuration for a classifier of this kind.
    pub fn with_problem_type(mut self, problem: ProblemType) -> BertConfig {
        self.extra.insert(FIELD.into(), problem.name().into());
        self
    }

    /// Refuses what is no problem type.
    pub(super) fn check_problem_type(&self) -> Result<()> {
        match self.extra.get(FIELD) {
            None | Some(Value::Null) => Ok(()),
            Some(value) if ProblemType::ALL.iter().any(|problem| value == problem.name()) => Ok(()),
            Some(value) => {
                let known = ProblemType::ALL.map(ProblemType::name).join(", ");
                Err(Error::config(format!("{FIELD} is {value}: must be one of {known}, or absent")))
            }
        }
    }
}
