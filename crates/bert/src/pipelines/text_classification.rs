//! What kind of text is it?

use cloze_tensor::Precision;

use super::{Asked, Pipeline, finite, largest, softmax};
use crate::config::ProblemType;
use crate::{BertForSequenceClassification, Mode, PreTrainedModel, Result, Tokenizer};

/// What a text was found to be.
#[derive(Clone, Debug, PartialEq)]
pub struct Classification {
    /// The label with the highest score.
    pub label: String,
    /// Its id.
    pub id: usize,
    /// Its score.
    pub score: f64,
    /// Of each label, by id: probabilities that sum to 1; probabilities of each by itself, where several labels may
    /// apply; values, for regression.
    pub scores: Vec<f64>,
}

/// Classifies texts, by what `problem_type` in the model's configuration says: one class, several labels, or numbers.
pub struct TextClassification {
    asked: Asked<BertForSequenceClassification>,
    truncate: bool,
}

impl Pipeline for TextClassification {
    type Model = BertForSequenceClassification;

    fn new(model: BertForSequenceClassification, tokenizer: Tokenizer) -> Result<TextClassification> {
        Ok(TextClassification { asked: Asked::new(model, tokenizer)?, truncate: false })
    }

    fn precision(mut self, precision: Precision) -> Self {
        self.asked.precision = precision;
        self
    }
}

impl TextClassification {
    /// Whether the end of a text that is too long is left out; without this it is an error.
    pub fn truncate(self, truncate: bool) -> TextClassification {
        TextClassification { truncate, ..self }
    }

    /// Names of the labels, by id.
    pub fn labels(&self) -> &[String] {
        &self.asked.model.config().labels
    }

    /// What each text is.
    ///
    /// # Errors
    /// When a text is blank, or longer than the model or the tokenizer takes.
    pub fn classify(&self, texts: &[&str]) -> Result<Vec<Classification>> {
        self.run(texts.iter().map(|text| (*text, None)))
    }

    /// What each pair of texts is: entailment, paraphrase.
    ///
    /// # Errors
    /// As [`classify`](TextClassification::classify).
    pub fn classify_pairs(&self, pairs: &[(&str, &str)]) -> Result<Vec<Classification>> {
        self.run(pairs.iter().map(|(first, second)| (*first, Some(*second))))
    }

    fn run<'t>(&self, texts: impl Iterator<Item = (&'t str, Option<&'t str>)>) -> Result<Vec<Classification>> {
        let encodings = self.asked.encode(texts, self.truncate)?;
        let mut found = Vec::with_capacity(encodings.len());
        let problem = self.asked.model.config().problem_type();
        self.asked.in_batches(&encodings, |model, batch, _| {
            let logits = finite(&model.forward(batch, Mode::Eval)?)?; // [B, C]
            found.extend(logits.chunks_exact(self.labels().len()).map(|row| self.classification(row, problem)));
            Ok(())
        })?;
        Ok(found)
    }

    fn classification(&self, logits: &[f32], problem: ProblemType) -> Classification {
        let scores = match problem {
            ProblemType::SingleLabel => softmax(logits),
            ProblemType::MultiLabel => logits.iter().map(|&x| 1.0 / (1.0 + f64::from(-x).exp())).collect(),
            ProblemType::Regression => logits.iter().map(|&x| x.into()).collect(),
        };
        let id = largest(&scores);
        Classification { label: self.labels()[id].clone(), id, score: scores[id], scores }
    }
}
