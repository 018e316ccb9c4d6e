//! How well a model answers questions.

use cloze_bert::QuestionAnswering;

use crate::metrics::SquadScores;
use crate::{Error, Result, Squad};

/// What a model answers to the questions of SQuAD, and how right it is.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct QuestionAnsweringEvaluation {
    /// The best answer to each question, in order; empty where there is none.
    pub predictions: Vec<String>,
    /// Exact match and F1.
    pub scores: SquadScores,
}

impl QuestionAnsweringEvaluation {
    /// Asks all questions of `squad`. How contexts are cut into windows, how long an answer may be, what precision to
    /// compute in and whether "there is no answer" may be the answer, as in SQuAD 2.0, is what `pipeline` says. A model
    /// that goes on training is asked through a clone, which must be dropped before its next step:
    /// `QuestionAnswering::new(model.clone(), tokenizer.clone())?`.
    ///
    /// # Errors
    /// When there is no question; when one is blank, or so long that it leaves no room for the context (says which).
    pub fn run(pipeline: &QuestionAnswering, squad: &Squad) -> Result<QuestionAnsweringEvaluation> {
        if squad.examples.is_empty() {
            return Err(Error::data("evaluation", "there is no question"));
        }
        let questions: Vec<(&str, &str)> =
            squad.examples.iter().map(|example| (example.question.as_str(), &*example.context)).collect();
        let best = pipeline.top_k_of_each(&questions, 1)?;
        let text =
            |answers: Vec<cloze_bert::Answer>| answers.into_iter().next().map_or_else(String::new, |best| best.text);
        let predictions: Vec<String> = best.into_iter().map(text).collect();
        let answers: Vec<Vec<&str>> = squad.examples.iter().map(|example| example.answer_texts()).collect();
        let scores = SquadScores::of(&predictions, &answers, squad.version)?;
        Ok(QuestionAnsweringEvaluation { predictions, scores })
    }
}
