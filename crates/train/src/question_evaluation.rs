//! Evaluation of models that answer questions.

use cloze_bert::QuestionAnswering;

use crate::metrics::SquadScores;
use crate::{Error, Result, Squad};

/// Answers predicted by a model for SQuAD questions, with their scores.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct QuestionAnsweringEvaluation {
    /// The best answer to each question, in order; empty if the model finds none.
    pub predictions: Vec<String>,
    /// Exact match and F1.
    pub scores: SquadScores,
}

impl QuestionAnsweringEvaluation {
    /// Asks all questions of `squad`. The settings of `pipeline` control how contexts are split into windows, the
    /// maximum answer length, the precision, and whether "no answer" is a possible answer, as in SQuAD 2.0.
    ///
    /// To evaluate a model between training steps, make the pipeline from a clone,
    /// `QuestionAnswering::new(model.clone(), tokenizer.clone())?`, and drop it before the next step.
    ///
    /// # Errors
    /// Returns an error if there are no questions, or if a question is blank or so long that no room is left for the
    /// context (names the question).
    pub fn run(pipeline: &QuestionAnswering, squad: &Squad) -> Result<QuestionAnsweringEvaluation> {
        if squad.examples.is_empty() {
            return Err(Error::data("evaluation", "no questions"));
        }
        let best = pipeline.top_k_of_each(&questions(squad), 1)?;
        let text =
            |answers: Vec<cloze_bert::Answer>| answers.into_iter().next().map_or_else(String::new, |best| best.text);
        let predictions: Vec<String> = best.into_iter().map(text).collect();
        let answers: Vec<Vec<&str>> = squad.examples.iter().map(|example| example.answer_texts()).collect();
        let scores = SquadScores::of(&predictions, &answers, squad.version)?;
        Ok(QuestionAnsweringEvaluation { predictions, scores })
    }

    /// Checks the questions that [`run`](QuestionAnsweringEvaluation::run) will ask, so that training does not start in
    /// vain.
    ///
    /// # Errors
    /// Returns the errors of [`run`](QuestionAnsweringEvaluation::run) about questions.
    pub fn check(pipeline: &QuestionAnswering, squad: &Squad) -> Result<()> {
        Ok(pipeline.check(&questions(squad))?)
    }
}

/// Returns the questions with their contexts.
fn questions(squad: &Squad) -> Vec<(&str, &str)> {
    squad.examples.iter().map(|example| (example.question.as_str(), &*example.context)).collect()
}
