//! The input of a classifier of sequences: `classifier_pooling` of `config.json`.

use serde_json::Value;

use crate::{BertConfig, Error, Result};

/// The vector of a sequence that a classifier reads, through the pooler.
///
/// Pre-training teaches `[CLS]` to compare two segments. After little pre-training it represents little else, and the
/// mean of the tokens says more about the content of the sequence. The name of the field is ModernBERT's; BERT in
/// `transformers` ignores it and always reads `[CLS]`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ClassifierPooling {
    /// `cls`: the last hidden state of `[CLS]`, as in BERT.
    #[default]
    Cls,
    /// `mean`: the mean of the last hidden states of all tokens.
    Mean,
}

/// The name of the field, stored in [`BertConfig::extra`].
const FIELD: &str = "classifier_pooling";

impl ClassifierPooling {
    /// All values.
    pub const ALL: [ClassifierPooling; 2] = [ClassifierPooling::Cls, ClassifierPooling::Mean];

    /// Returns the name in `config.json`.
    pub fn name(self) -> &'static str {
        match self {
            ClassifierPooling::Cls => "cls",
            ClassifierPooling::Mean => "mean",
        }
    }

    /// Returns the pooling of this name in `config.json`.
    pub fn from_name(name: &str) -> Option<ClassifierPooling> {
        ClassifierPooling::ALL.into_iter().find(|pooling| pooling.name() == name)
    }
}

impl BertConfig {
    /// Returns the pooling of a classifier of sequences, `[CLS]` by default.
    pub fn classifier_pooling(&self) -> ClassifierPooling {
        let name = self.extra.get(FIELD).and_then(Value::as_str);
        name.and_then(ClassifierPooling::from_name).unwrap_or_default()
    }

    /// Sets the pooling of a classifier of sequences.
    pub fn with_classifier_pooling(mut self, pooling: ClassifierPooling) -> BertConfig {
        self.extra.insert(FIELD.into(), pooling.name().into());
        self
    }

    /// Returns an error if the field is not the name of a pooling.
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
