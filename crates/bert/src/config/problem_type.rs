//! The task of a classifier of sequences: `problem_type` of `config.json`.

use serde_json::{Value, json};

use crate::{BertConfig, Error, Result};

/// The task of a classifier of sequences.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ProblemType {
    /// `single_label_classification`: exactly one label applies.
    SingleLabel,
    /// `multi_label_classification`: any number of labels may apply.
    MultiLabel,
    /// `regression`: each label is a number.
    Regression,
}

/// The name of the field, stored in [`BertConfig::extra`].
const FIELD: &str = "problem_type";
/// The field with the settings of a cross-encoder.
const CROSS_ENCODER: &str = "sentence_transformers";

impl ProblemType {
    /// All values.
    pub const ALL: [ProblemType; 3] = [ProblemType::SingleLabel, ProblemType::MultiLabel, ProblemType::Regression];

    /// Returns the name in `config.json`.
    pub fn name(self) -> &'static str {
        match self {
            ProblemType::SingleLabel => "single_label_classification",
            ProblemType::MultiLabel => "multi_label_classification",
            ProblemType::Regression => "regression",
        }
    }
}

impl BertConfig {
    /// Returns the task of the classifier. If the configuration does not name one, it is regression with one label and
    /// single-label classification with several, as in the training of `transformers`. Scores depend on whether it is
    /// [named](BertConfig::named_problem_type).
    pub fn problem_type(&self) -> ProblemType {
        let single = || if self.num_labels() == 1 { ProblemType::Regression } else { ProblemType::SingleLabel };
        self.named_problem_type().unwrap_or_else(single)
    }

    /// Returns the task that the configuration names.
    pub fn named_problem_type(&self) -> Option<ProblemType> {
        let name = self.extra.get(FIELD).and_then(Value::as_str);
        ProblemType::ALL.into_iter().find(|problem| Some(problem.name()) == name)
    }

    /// Sets the task of the classifier. Also writes the activation of its scores to the field that `sentence-transformers`
    /// reads, so that a cross-encoder trained for regression returns its outputs without a sigmoid.
    pub fn with_problem_type(mut self, problem: ProblemType) -> BertConfig {
        self.extra.insert(FIELD.into(), problem.name().into());
        let activation = match problem {
            ProblemType::SingleLabel => None,
            ProblemType::MultiLabel => Some("torch.nn.modules.activation.Sigmoid"),
            ProblemType::Regression => Some("torch.nn.modules.linear.Identity"),
        };
        match activation {
            Some(name) => self.extra.insert(CROSS_ENCODER.into(), json!({"activation_fn": name})),
            None => self.extra.remove(CROSS_ENCODER),
        };
        self
    }

    /// Returns an error if the field is not the name of a problem type.
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
