//! The function that turns the logits of a classifier into scores.

use super::output::softmax;
use crate::config::ProblemType;
use crate::model::Activation;
use crate::{BertConfig, Error, Result};

/// The function that turns the logits of a classifier into scores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ScoreFunction {
    Identity,
    Sigmoid,
    Softmax,
}

impl ScoreFunction {
    /// Returns the function of a classifier, as in `transformers`. With one label, the function that the configuration
    /// [names](named) takes precedence over the sigmoid.
    pub(super) fn of_classifier(config: &BertConfig) -> Result<ScoreFunction> {
        Ok(match (config.named_problem_type(), config.num_labels()) {
            (Some(ProblemType::Regression), _) => ScoreFunction::Identity,
            (_, 1) => named(config)?.unwrap_or(ScoreFunction::Sigmoid),
            (Some(ProblemType::MultiLabel), _) => ScoreFunction::Sigmoid,
            _ => ScoreFunction::Softmax,
        })
    }

    /// Returns the function of a cross-encoder: `activation` or the one that the configuration [names](named), or else the
    /// sigmoid for a single label, also that of a regression, as in `sentence-transformers`.
    pub(super) fn of_cross_encoder(config: &BertConfig, activation: Option<Activation>) -> Result<ScoreFunction> {
        let named = match activation {
            Some(activation) => Some(activation.into()),
            None => named(config)?,
        };
        let single = config.num_labels() == 1;
        Ok(named.unwrap_or(if single { ScoreFunction::Sigmoid } else { ScoreFunction::Identity }))
    }

    /// Computes the score of each label.
    pub(super) fn apply(self, logits: &[f32]) -> Vec<f64> {
        match self {
            ScoreFunction::Identity => logits.iter().map(|&x| x.into()).collect(),
            ScoreFunction::Sigmoid => logits.iter().map(|&x| 1.0 / (1.0 + (-f64::from(x)).exp())).collect(),
            ScoreFunction::Softmax => softmax(logits),
        }
    }
}

/// Returns the function that `config.json` names in one of the fields of `sentence-transformers`.
fn named(config: &BertConfig) -> Result<Option<ScoreFunction>> {
    let nested = config.extra.get("sentence_transformers").and_then(|fields| fields.get("activation_fn"));
    let old = config.extra.get("sbert_ce_default_activation_function");
    let fields = [("sbert_ce_default_activation_function", old), ("sentence_transformers.activation_fn", nested)];
    let Some((field, value)) = fields
        .into_iter()
        .find_map(|(field, value)| value.filter(|value| !value.is_null()).map(|value| (field, value)))
    else {
        return Ok(None);
    };
    match Activation::of_scores(value) {
        Some(activation) => Ok(Some(activation.into())),
        None => Err(Error::config(format!("{field} is {value}: {}", Activation::OF_SCORES))),
    }
}

impl From<Activation> for ScoreFunction {
    fn from(activation: Activation) -> ScoreFunction {
        match activation {
            Activation::Sigmoid => ScoreFunction::Sigmoid,
            _ => ScoreFunction::Identity,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn functions_follow_the_configuration() {
        use ScoreFunction::{Identity, Sigmoid, Softmax};
        let config = |labels: usize, fields: Value| {
            let mut config = BertConfig::tiny(100).with_labels((0..labels).map(|label| label.to_string()));
            config.extra = fields.as_object().cloned().unwrap_or_default();
            config
        };
        let identity = "torch.nn.modules.linear.Identity";
        for (labels, fields, classifier, cross) in [
            (1, json!({}), Sigmoid, Sigmoid),
            (3, json!({}), Softmax, Identity),
            (1, json!({"problem_type": "regression"}), Identity, Sigmoid),
            (1, json!({"problem_type": "single_label_classification"}), Sigmoid, Sigmoid),
            (2, json!({"problem_type": "multi_label_classification"}), Sigmoid, Identity),
            (1, json!({"sentence_transformers": {"activation_fn": identity}}), Identity, Identity),
            (1, json!({"sbert_ce_default_activation_function": identity}), Identity, Identity),
            (1, json!({"sbert_ce_default_activation_function": null}), Sigmoid, Sigmoid),
            (3, json!({"sbert_ce_default_activation_function": "torch.nn.Sigmoid"}), Softmax, Sigmoid),
        ] {
            let config = config(labels, fields);
            assert_eq!(ScoreFunction::of_classifier(&config).unwrap(), classifier, "{:?}", config.extra);
            assert_eq!(ScoreFunction::of_cross_encoder(&config, None).unwrap(), cross, "{:?}", config.extra);
        }
        let refused =
            ScoreFunction::of_classifier(&config(1, json!({"sentence_transformers": {"activation_fn": "my.F"}})));
        assert!(
            refused.unwrap_err().to_string().starts_with("sentence_transformers.activation_fn is \"my.F\": must be")
        );
        let sigmoid = ScoreFunction::of_cross_encoder(&config(2, json!({})), Some(Activation::Sigmoid));
        assert_eq!(sigmoid.unwrap(), Sigmoid);
        assert!((Sigmoid.apply(&[1.7])[0] - 0.845_534_7).abs() < 1e-7);
    }
}
