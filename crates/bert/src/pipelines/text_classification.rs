//! Classifying texts.

use cloze_tensor::Precision;

use super::Pipeline;
use super::long_text::{LongText, Reported};
use super::output::largest;
use super::runner::Runner;
use super::score_function::ScoreFunction;
use crate::{BertForSequenceClassification, Mode, PreTrainedModel, Result, Tokenizer};

/// The classification of a text.
#[derive(Clone, Debug, PartialEq)]
pub struct Classification {
    /// The label with the highest score.
    pub label: String,
    /// The id of the label.
    pub id: usize,
    /// The score of the label.
    pub score: f64,
    /// The score of each label, by id: probabilities that sum to 1, independent probabilities, or values.
    pub scores: Vec<f64>,
}

/// A pipeline that classifies texts. As in `transformers`, the scores are values if the
/// [problem type](crate::BertConfig::named_problem_type) is regression, independent probabilities if it is multi-label
/// classification or the model has one label, and otherwise probabilities that sum to 1.
pub struct TextClassification {
    runner: Runner<BertForSequenceClassification>,
    scores: ScoreFunction,
}

impl Pipeline for TextClassification {
    type Model = BertForSequenceClassification;

    fn new(model: BertForSequenceClassification, tokenizer: Tokenizer) -> Result<TextClassification> {
        let scores = ScoreFunction::of_classifier(model.config())?;
        Ok(TextClassification { runner: Runner::new(model, tokenizer, LongText::Truncate)?, scores })
    }

    fn precision(mut self, precision: Precision) -> Self {
        self.runner.precision = precision;
        self
    }

    fn model(&self) -> &BertForSequenceClassification {
        &self.runner.model
    }

    fn tokenizer(&self) -> &Tokenizer {
        &self.runner.tokenizer
    }
}

impl TextClassification {
    /// Sets what happens to texts that are too long, [`LongText::Truncate`] by default. With windows, the logits are
    /// averaged before they become scores, which equals classifying the mean pooled vector (C. Sun, X. Qiu, Y. Xu, X.
    /// Huang, "How to Fine-Tune BERT for Text Classification?", 2019, hierarchical mean pooling).
    pub fn long_texts(mut self, long_texts: LongText) -> TextClassification {
        self.runner.long_texts = long_texts;
        self
    }

    /// Returns the names of the labels, by id.
    pub fn labels(&self) -> &[String] {
        &self.runner.model.config().labels
    }

    /// Classifies each text.
    ///
    /// # Errors
    /// Returns an error if a text is blank, or too long and [refused](LongText::Refuse).
    pub fn classify(&self, texts: &[impl AsRef<str>]) -> Result<Reported<Vec<Classification>>> {
        self.run(texts.iter().map(|text| (text.as_ref(), None)))
    }

    /// Classifies each pair of texts, for example as entailment or paraphrase.
    ///
    /// # Errors
    /// Returns an error like [`classify`](TextClassification::classify).
    pub fn classify_pairs(
        &self,
        pairs: &[(impl AsRef<str>, impl AsRef<str>)],
    ) -> Result<Reported<Vec<Classification>>> {
        self.run(pairs.iter().map(|(first, second)| (first.as_ref(), Some(second.as_ref()))))
    }

    fn run<'t>(
        &self,
        texts: impl Iterator<Item = (&'t str, Option<&'t str>)>,
    ) -> Result<Reported<Vec<Classification>>> {
        let texts = self.runner.read(texts)?;
        let logits = self.runner.means(texts, |model, batch| model.forward(batch, Mode::Eval))?; // [texts, C]
        Ok(logits.map(|logits| logits.iter().map(|logits| self.classification(logits)).collect()))
    }

    fn classification(&self, logits: &[f32]) -> Classification {
        let scores = self.scores.apply(logits);
        let id = largest(&scores);
        Classification { label: self.labels()[id].clone(), id, score: scores[id], scores }
    }
}
