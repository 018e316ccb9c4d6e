//! SQuAD files: articles, their paragraphs, and questions about them with the annotators' answers.

use std::path::Path;
use std::sync::Arc;

use serde::Deserialize;

use crate::files::read_text;
use crate::labelled::answer_span;
use crate::metrics::SquadVersion;
use crate::sanitize::{DropReason, Dropped};
use crate::{AnswerSpan, BadRows, Error, QuestionExample, Result};

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
}

impl SquadExample {
    /// Returns the question with its first answer, as a training example.
    pub fn to_question(&self) -> QuestionExample {
        QuestionExample {
            question: self.question.clone(),
            context: self.context.to_string(),
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
            context: question.context.into(),
            answers: question.answer.into_iter().collect(),
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

#[derive(Deserialize)]
struct SquadFile {
    #[serde(default)]
    version: String,
    data: Vec<Article>,
}

#[derive(Deserialize)]
struct Article {
    #[serde(default)]
    title: String,
    paragraphs: Vec<Paragraph>,
}

#[derive(Deserialize)]
struct Paragraph {
    context: String,
    qas: Vec<Question>,
}

#[derive(Deserialize)]
struct Question {
    id: String,
    question: String,
    #[serde(default)]
    answers: Vec<AnnotatedAnswer>,
    is_impossible: Option<bool>,
}

#[derive(Deserialize)]
struct AnnotatedAnswer {
    text: String,
    answer_start: usize,
}

/// Reads a JSON file of SQuAD 1.1 or 2.0, or of another data set in that format.
///
/// ```
/// use cloze_train::read_squad;
/// use serde_json::json;
/// let qas = json!([{"id": "1", "question": "Who sat?", "answers": [{"text": "The cat", "answer_start": 0}]}]);
/// let articles = json!([{"title": "Cats", "paragraphs": [{"context": "The cat sat.", "qas": qas}]}]);
/// let dir = tempfile::tempdir()?;
/// let path = dir.path().join("dev.json");
/// std::fs::write(&path, json!({"version": "1.1", "data": articles}).to_string())?;
/// let squad = read_squad(&path)?;
/// assert_eq!(squad.examples[0].answer_texts(), ["The cat"]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// Returns an error if the file cannot be read, does not have that format (names the place) or has no questions.
pub fn read_squad(path: impl AsRef<Path>) -> Result<Squad> {
    let path = path.as_ref();
    let text = read_text(path)?;
    let file: SquadFile = serde_json::from_str(&text)
        .map_err(|error| Error::data_in(path, "SQuAD", format!("not in SQuAD's JSON format: {error}")))?;
    let mut squad = Squad::default();
    let mut says_impossible = file.version.trim_start_matches(['v', 'V']).starts_with('2');
    for (article, Article { title, paragraphs }) in file.data.into_iter().enumerate() {
        squad.titles.push(title);
        for paragraph in paragraphs {
            let context: Arc<str> = paragraph.context.into();
            for Question { id, question, answers, is_impossible } in paragraph.qas {
                says_impossible |= is_impossible.is_some();
                let is_impossible = is_impossible.unwrap_or(false);
                // Impossible questions may list answers that are plausible but wrong.
                let answers = answers.into_iter().filter(|_| !is_impossible);
                let answers = answers.map(|answer| AnswerSpan { text: answer.text, start: answer.answer_start });
                let (context, answers) = (context.clone(), answers.collect());
                squad.examples.push(SquadExample { id, article, question, context, answers, is_impossible });
            }
        }
    }
    if squad.examples.is_empty() {
        return Err(Error::data_in(path, "SQuAD", "the file has no questions"));
    }
    if says_impossible {
        squad.version = SquadVersion::V2_0;
    }
    Ok(squad)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use serde_json::{Value, json};

    use super::*;

    fn read(text: &str) -> Result<Squad> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.json");
        fs::write(&path, text).unwrap();
        read_squad(path)
    }

    fn file(version: &str, questions: Value) -> String {
        let paragraph = json!({"context": "Olá, the cat sat.", "qas": questions});
        let second = json!({"title": "B", "paragraphs": [{"context": "", "qas": [{"id": "z", "question": "?"}]}]});
        let articles = json!([{"title": "A", "paragraphs": [paragraph]}, {"title": "E", "paragraphs": []}, second]);
        json!({"version": version, "data": articles}).to_string()
    }

    fn answer(text: &str, start: usize) -> Value {
        json!({"text": text, "answer_start": start})
    }

    #[test]
    fn both_versions() {
        let question = json!([{"id": "a", "question": "who", "answers": [answer("cat", 9), answer("the cat", 5)]}]);
        let squad = read(&file("1.1", question)).unwrap();
        assert_eq!((squad.version, squad.titles.join(" ")), (SquadVersion::V1_1, "A E B".to_string()));
        let first = &squad.examples[0];
        assert_eq!((first.article, first.is_impossible, first.answer_texts()), (0, false, vec!["cat", "the cat"]));
        assert_eq!(first.to_question().answer, Some(AnswerSpan { text: "cat".into(), start: 9 }));
        assert_eq!((squad.examples[1].article, squad.examples[1].to_question().answer), (2, None));

        let impossible = json!([{"id": "a", "question": "who", "is_impossible": true, "answers": [answer("cat", 9)]}]);
        for version in ["v2.0", ""] {
            let squad = read(&file(version, impossible.clone())).unwrap();
            assert_eq!((squad.version, squad.examples[0].answers.len()), (SquadVersion::V2_0, 0));
            assert!(squad.examples[0].is_impossible);
        }
    }

    #[test]
    fn articles_stay_together() {
        let squad =
            read(&file("1.1", json!([{"id": "a", "question": "who"}, {"id": "b", "question": "who"}]))).unwrap();
        let (first, others) = squad.clone().split_at_article(1).unwrap();
        assert_eq!((first.examples.len(), others.examples.len(), others.titles.len()), (2, 1, 3));
        for articles in [0, 3] {
            let error = squad.clone().split_at_article(articles).unwrap_err().to_string();
            assert!(error.ends_with("leaves questions in both parts: the file has 3 articles"), "{error}");
        }
    }

    #[test]
    fn answers_that_are_not_there_are_dropped_or_fatal() {
        let questions = json!([
            {"id": "a", "question": "who", "answers": [answer("cat", 9)]},
            {"id": "b", "question": "who", "answers": [answer("cat", 10)]},
            {"id": "c", "question": "who", "answers": [answer(" ", 4)]},
        ]);
        let squad = read(&file("1.1", questions)).unwrap();
        let (questions, dropped) = squad.questions("train", BadRows::Drop).unwrap();
        assert_eq!((questions.len(), dropped.total(), dropped.first[0].line), (1, 3, 2));
        assert_eq!(dropped.first[2].sample, "z: it has no answer and is not marked as impossible");
        let error = squad.questions("train", BadRows::Fail).unwrap_err().to_string();
        assert!(error.starts_with("question: train: b: the answer \"cat\""), "{error}");
    }

    #[test]
    fn what_is_blank_cannot_be_asked() {
        let questions = json!([{"id": "a", "question": "who"}, {"id": "b", "question": " \n"}]);
        let squad = read(&file("1.1", questions)).unwrap();
        let (kept, dropped) = squad.clone().without_blank("validation", BadRows::Drop).unwrap();
        assert_eq!((kept.examples.len(), kept.titles.len(), dropped.counts[&DropReason::Blank]), (1, 3, 2));
        let samples = [&dropped.first[0].sample, &dropped.first[1].sample];
        assert_eq!(samples, ["b: the question is blank", "z: the context is blank"]);
        let error = squad.without_blank("validation", BadRows::Fail).unwrap_err().to_string();
        assert_eq!(error, "question: validation: b: the question is blank");
    }

    #[test]
    fn errors_name_the_place() {
        let said = |text: &str| read(text).unwrap_err().to_string();
        assert!(said("{").contains("a.json: SQuAD: not in SQuAD's JSON format: EOF while parsing"), "{}", said("{"));
        assert!(said("{\"version\": \"1.1\"}").contains("missing field `data` at line 1 column 18"));
        assert!(said("{\"data\": []}").ends_with("SQuAD: the file has no questions"));
        let negative =
            file("1.1", json!([{"id": "a", "question": "?", "answers": [{"text": "a", "answer_start": -1}]}]));
        assert!(said(&negative).contains("invalid value: integer `-1`, expected usize"), "{}", said(&negative));
    }
}
