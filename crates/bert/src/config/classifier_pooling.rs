//! What a classifier of sequences sees of one: `classifier_pooling` of `config.json`.

use serde_json::Value;

use crate::{BertConfig, Error, Result};

/// What a classifier of sequences sees of one, through the pooler.
///
/// `[CLS]` has learned in pre-training to compare two segments, and from little pre-training it has learned nothing else: the mean then
/// tells more of what the sequence says. The name of the field is ModernBERT's; transformers' BERT does not read it, and always
/// takes `[CLS]`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ClassifierPooling {
    /// `cls`: the last hidden state of `[CLS]`. BERT's.
    #[default]
    Cls,
    /// `mean`: the mean of the last hidden states of all tokens.
    Mean,
}

/// Name of the field, which BERT's configuration keeps among its others.
const FIELD: &str = "classifier_pooling";

impl ClassifierPooling {
    /// All of them.
    pub const ALL: [ClassifierPooling; 2] = [ClassifierPooling::Cls, ClassifierPooling::Mean];

    /// Its name in `config.json`.
    pub fn name(self) -> &'static str {
        match self {
            ClassifierPooling::Cls => "cls",
            ClassifierPooling::Mean => "mean",
        }
    }

    /// The pooling of this name in `config.json`.
    pub fn from_name(name: &str) -> Option<ClassifierPooling> {
        ClassifierPooling::ALL.into_iter().find(|pooling| pooling.name() == name)
    }
}

impl BertConfig {
    /// What a classifier of sequences sees; `[CLS]` where the configuration does not say.
    pub fn classifier_pooling(&self) -> ClassifierPooling {
        let name = self.extra.get(FIELD).and_then(Value::as_str);
        name.and_then(ClassifierPooling::from_name).unwrap_or_default()
    }

    /// The same configuration with a classifier that sees this.
    pub fn with_classifier_pooling(mut self, pooling: ClassifierPooling) -> BertConfig {
        self.extra.insert(FIELD.into(), pooling.name().into());
        self
    }

    /// Refuses what is no pooling.
    pub(super) fn check_classifier_pooling(&self) -> Result<()> {
        match self.extra.get(FIELD) {
            None | Some(Value::Null) => Ok(()),
            Some(value) if value.as_str().and_then(ClassifierPooling::from_name).is_some() => Ok(()),
            Some(value) => {
                let known = ClassifierPooling::ALL.map(ClassifierPooling::name).join(" or ");
                Err(Error::config(format!("{FIELD} is {value}: must be {known}, or absent")))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn poolings_are_read_written_and_checked() {
        let config = BertConfig::tiny(50);
        assert_eq!(config.classifier_pooling(), ClassifierPooling::Cls);
        assert!(!config.to_json().contains(FIELD));
        let mean = config.with_classifier_pooling(ClassifierPooling::Mean);
        let read = BertConfig::from_json(&mean.to_json()).unwrap();
        assert_eq!((read.classifier_pooling(), &read), (ClassifierPooling::Mean, &mean));
        for (given, said) in [("\"max\"", "is \"max\": must be cls or mean"), ("7", "is 7: must be cls or mean")] {
            let error = BertConfig::from_json(&format!("{{\"{FIELD}\": {given}}}")).unwrap_err().to_string();
            assert!(error.contains(&format!("{FIELD} {said}, or absent")), "{error}");
        }
    }
}
