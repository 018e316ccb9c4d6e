//! SQuAD files: articles, their paragraphs, and questions about them with the annotators' answers.

mod file;

use std::sync::Arc;

pub use file::read_squad;

use crate::labelled::answer_span;
use crate::metrics::SquadVersion;
use crate::sanitize::{DropReason, Dropped};
use crate::{AnswerSpan, BadRows, Error, QuestionExample, Result, split_by_group};

/// The questions of a SQuAD file.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Squad {
    /// The version whose rules apply to its answers: 2.0 if the file says so, or has `is_impossible` fields.
    pub version: SquadVersion,
    /// The titles of the articles, in order.
    pub titles: Vec<String>,
    /// The questions, in order.
    pub examples: Vec<SquadExample>,
}

/// A SQuAD question.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct SquadExample {
    /// The id of the question.
    pub id: String,
    /// The index of its article in [`Squad::titles`].
    pub article: usize,
    /// The text of the question.
    pub question: String,
    /// The paragraph that the question is about, shared by all its questions.
    pub context: Arc<str>,
    /// All right answers; empty if the question is impossible to answer.
    pub answers: Vec<AnswerSpan>,
    /// Whether the context does not contain an answer.
    pub is_impossible: bool,
    /// What makes the question unusable for training, if the file has an answer without a place.
    fault: Option<String>,
}

impl SquadExample {
    /// Returns the question with its first answer, as a training example.
    pub fn to_question(&self) -> QuestionExample {
        QuestionExample {
            question: self.question.clone(),
            context: self.context.clone(),
            answer: self.answers.first().cloned(),
        }
    }

    /// Returns the texts of all right answers.
    pub fn answer_texts(&self) -> Vec<&str> {
        self.answers.iter().map(|answer| answer.text.as_str()).collect()
    }
}

impl Squad {
    /// Makes a data set of questions that do not come from a SQuAD file, as a single article. The rules of version 2.0
    /// apply if any question has no answer.
    pub fn of_questions(questions: impl IntoIterator<Item = QuestionExample>) -> Squad {
        let example = |(number, question): (usize, QuestionExample)| SquadExample {
            id: number.to_string(),
            article: 0,
            is_impossible: question.answer.is_none(),
            question: question.question,
            context: question.context,
            answers: question.answer.into_iter().collect(),
            fault: None,
        };
        let examples: Vec<SquadExample> = questions.into_iter().enumerate().map(example).collect();
        let any_impossible = examples.iter().any(|example| example.is_impossible);
        let version = if any_impossible { SquadVersion::V2_0 } else { SquadVersion::V1_1 };
        Squad { version, titles: vec![String::new()], examples }
    }

    /// Splits the questions into those about the first `articles` articles and those about the others, so that a model
    /// can be evaluated on articles that it was not trained on.
    ///
    /// # Errors
    /// Returns an error if either part has no questions.
    pub fn split_at_article(self, articles: usize) -> Result<(Squad, Squad)> {
        let count = self.titles.len();
        let (first, others): (Vec<_>, Vec<_>) =
            self.examples.into_iter().partition(|example| example.article < articles);
        if first.is_empty() || others.is_empty() {
            let limit = format!("a number that leaves questions in both parts: the file has {count} articles");
            return Err(Error::invalid("number of articles", articles, limit));
        }
        let part = |examples| Squad { version: self.version, titles: self.titles.clone(), examples };
        Ok((part(first), part(others)))
    }

    /// Splits the questions at random, so that about `fraction` of them are held out, and returns those to train on and those
    /// to evaluate on. The questions about an article stay together, or about a context if there is one article, so that a
    /// model is evaluated on text that it was not trained on.
    ///
    /// # Errors
    /// Returns an error like [`split_by_group`](crate::split_by_group).
    pub fn split(self, fraction: f64, seed: u64) -> Result<(Squad, Squad)> {
        let first = self.examples.first().map(|example| example.article);
        let (training, held_out) = match self.examples.iter().all(|example| Some(example.article) == first) {
            true => split_by_group(self.examples, fraction, seed, |example| example.context.clone()),
            false => split_by_group(self.examples, fraction, seed, |example| example.article),
        }?;
        let part = |examples| Squad { version: self.version, titles: self.titles.clone(), examples };
        Ok((part(training), part(held_out)))
    }

    /// Drops the questions that cannot be asked because the question or its context is blank. Returns the others and a
    /// report, in which `name` identifies the data.
    ///
    /// # Errors
    /// Returns an error if no question is left, or if one is dropped and `bad` is [`BadRows::Fail`] (names the first).
    pub fn without_blank(self, name: &str, bad: BadRows) -> Result<(Squad, Dropped)> {
        let (examples, dropped) = self.sift(name, bad, DropReason::Blank, |example| {
            let parts = [("question", example.question.as_str()), ("context", &example.context)];
            match parts.iter().find(|(_, text)| text.trim().is_empty()) {
                Some((part, _)) => Err(format!("the {part} is blank")),
                None => Ok(example.clone()),
            }
        })?;
        Ok((Squad { examples, ..self }, dropped))
    }

    /// Returns the questions to train on, each with its first answer, and a report in which `name` identifies the data.
    /// Drops questions whose answer is blank or not at its stated position, and questions that have no answer but are
    /// not marked as impossible.
    ///
    /// # Errors
    /// Returns an error if no question is left, or if one is dropped and `bad` is [`BadRows::Fail`] (names the first).
    pub fn questions(&self, name: &str, bad: BadRows) -> Result<(Vec<QuestionExample>, Dropped)> {
        self.sift(name, bad, DropReason::Misplaced, |example| {
            if let Some(fault) = &example.fault {
                return Err(fault.clone());
            }
            let question = example.to_question();
            match &question.answer {
                Some(answer) => answer_span(answer, &question.context).map(|_| ())?,
                None if example.is_impossible => (),
                None => return Err("it has no answer and is not marked as impossible".into()),
            }
            Ok(question)
        })
    }

    /// Applies `take` to each question. Returns the results, and a report of the questions for which it failed.
    fn sift<T>(
        &self,
        name: &str,
        bad: BadRows,
        reason: DropReason,
        take: impl Fn(&SquadExample) -> Result<T, String>,
    ) -> Result<(Vec<T>, Dropped)> {
        let mut dropped = Dropped { name: name.to_string(), ..Dropped::default() };
        let mut kept = Vec::with_capacity(self.examples.len());
        for (number, example) in (1..).zip(&self.examples) {
            match take(example) {
                Ok(taken) => kept.push(taken),
                Err(why) if bad == BadRows::Fail => {
                    return Err(Error::data("question", format!("{name}: {}: {why}", example.id)));
                }
                Err(why) => dropped.push(number, reason, || format!("{}: {why}", example.id)),
            }
        }
        dropped.check(kept.len(), BadRows::Drop)?;
        Ok((kept, dropped))
    }
}

#[cfg(test)]
mod tests;
