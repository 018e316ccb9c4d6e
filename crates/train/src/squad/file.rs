//! Reading of SQuAD files in every form: the format of SQuAD, of `datasets`, and of annotation tools.

use std::path::Path;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::{Squad, SquadExample};
use crate::files::read_text;
use crate::metrics::SquadVersion;
use crate::{AnswerSpan, Error, Result};

/// The start of an answer that is nowhere, by the convention of BERT's scripts.
const NOWHERE: i64 = -1;

type Object = Map<String, Value>;

/// Reads a JSON file of SQuAD 1.1 or 2.0, or of another data set in that format:
///
/// - articles with paragraphs, in `data` or as a list;
/// - a list of paragraphs with `context` and `qas`;
/// - a row for each question with `context`, `question` and `answers`, in a list or as JSON Lines, as `datasets` writes
///   SQuAD. A row with empty `answers` is impossible to answer, as is any such question in a file of version 2.0.
///
/// `answers` may be a list of answers, or an object with lists `text` and `answer_start`. Ids may be strings or
/// numbers; a question without one gets its number. Answers of impossible questions are ignored. A question that cannot
/// be used does not make the file unreadable: [`Squad::questions`] drops or refuses it.
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
    let wrong = |why: String| Error::data_in(path, "SQuAD", format!("not in SQuAD's JSON format: {why}"));
    let root = parse(&read_text(path)?).map_err(wrong)?;
    let mut reader = Reader::default();
    let (place, items) = match &root {
        Value::Array(items) => ("", items.as_slice()),
        Value::Object(object) => match object.get("data") {
            Some(Value::Array(items)) => {
                reader.is_version_2 = version_of(object).trim_start_matches(['v', 'V']).starts_with('2');
                ("data", items.as_slice())
            }
            Some(_) => return Err(wrong("`data` is not a list".to_string())),
            None if is_item(object) => ("", std::slice::from_ref(&root)),
            None => return Err(wrong("there is no field `data`".to_string())),
        },
        _ => return Err(wrong("it is neither an object nor a list".to_string())),
    };
    for (at, item) in items.iter().enumerate() {
        reader.item(item, &format!("{place}[{at}]")).map_err(wrong)?;
    }
    let Reader { mut squad, is_version_2, says_impossible } = reader;
    if squad.examples.is_empty() {
        return Err(Error::data_in(path, "SQuAD", "the file has no questions"));
    }
    if is_version_2 || says_impossible {
        squad.version = SquadVersion::V2_0;
    }
    Ok(squad)
}

/// Parses a document, or else the lines of JSON Lines as a list.
fn parse(text: &str) -> Result<Value, String> {
    let whole = match serde_json::from_str(text) {
        Ok(whole) => return Ok(whole),
        Err(error) => error,
    };
    let lines = (1..).zip(text.lines()).filter(|(_, line)| !line.trim().is_empty());
    let row = |(number, line): (usize, &str)| {
        serde_json::from_str(line).map_err(|error| {
            let said = error.to_string();
            format!("{} at line {number} column {}", said.split(" at line ").next().unwrap_or_default(), error.column())
        })
    };
    let mut rows = lines.map(row);
    match rows.next() {
        // The first line is a row, so the others should be too.
        Some(Ok(first)) => std::iter::once(Ok(first)).chain(rows).collect::<Result<_, String>>().map(Value::Array),
        _ => Err(whole.to_string()),
    }
}

fn version_of(root: &Object) -> String {
    root.get("version").and_then(text_of).unwrap_or_default()
}

/// Returns whether an object is an article, a paragraph or a question with its context.
fn is_item(object: &Object) -> bool {
    ["paragraphs", "qas", "context"].iter().any(|key| object.contains_key(*key))
}

/// Returns a string, or a number or boolean as text.
fn text_of(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(_) | Value::Bool(_) => Some(value.to_string()),
        _ => None,
    }
}

/// Returns a text that must not be a list or an object.
fn single_text(object: &Object, key: &str, place: &str) -> Result<String, String> {
    match object.get(key) {
        Some(Value::Array(_) | Value::Object(_)) => Err(format!("{place}.{key} is not a text")),
        _ => Ok(text(object, key)),
    }
}

/// Returns a text, which is empty if there is none.
fn text(object: &Object, key: &str) -> String {
    object.get(key).and_then(text_of).unwrap_or_default()
}

fn list<'v>(object: &'v Object, key: &str, place: &str) -> Result<&'v [Value], String> {
    match object.get(key) {
        Some(Value::Array(items)) => Ok(items),
        Some(_) => Err(format!("{place}.{key} is not a list")),
        None => Err(format!("{place} has no {key}")),
    }
}

/// The questions read so far.
#[derive(Default)]
struct Reader {
    squad: Squad,
    /// Whether the file says that it has version 2.0.
    is_version_2: bool,
    /// Whether any question says whether it is impossible.
    says_impossible: bool,
}

impl Reader {
    /// Reads an article, a paragraph or a row.
    fn item(&mut self, item: &Value, place: &str) -> Result<(), String> {
        let Value::Object(item) = item else { return Err(format!("{place} is not an object")) };
        if item.contains_key("paragraphs") {
            self.squad.titles.push(text(item, "title"));
            for (at, paragraph) in list(item, "paragraphs", place)?.iter().enumerate() {
                self.paragraph(paragraph, &format!("{place}.paragraphs[{at}]"))?;
            }
            return Ok(());
        }
        if !is_item(item) {
            return Err(format!("{place} has neither paragraphs nor a context"));
        }
        // Consecutive paragraphs of one title are an article.
        let title = text(item, "title");
        if title.is_empty() || self.squad.titles.last() != Some(&title) {
            self.squad.titles.push(title);
        }
        match item.contains_key("qas") {
            true => self.paragraph(&Value::Object(item.clone()), place),
            false => self.question(item, self.context(item, place)?, place),
        }
    }

    fn paragraph(&mut self, paragraph: &Value, place: &str) -> Result<(), String> {
        let Value::Object(paragraph) = paragraph else { return Err(format!("{place} is not an object")) };
        let context = self.context(paragraph, place)?;
        for (at, question) in list(paragraph, "qas", place)?.iter().enumerate() {
            let place = format!("{place}.qas[{at}]");
            let Value::Object(question) = question else { return Err(format!("{place} is not an object")) };
            self.question(question, context.clone(), &place)?;
        }
        Ok(())
    }

    /// Returns the context of a paragraph or a row, which it shares with the question before if it is the same.
    fn context(&self, object: &Object, place: &str) -> Result<Arc<str>, String> {
        let context = single_text(object, "context", place)?;
        Ok(match self.squad.examples.last() {
            Some(last) if *last.context == context => last.context.clone(),
            _ => context.into(),
        })
    }

    fn question(&mut self, question: &Object, context: Arc<str>, place: &str) -> Result<(), String> {
        let marked = question.get("is_impossible").and_then(flag);
        let (given, is_columns) = answers(question.get("answers"), place)?;
        // `datasets` has no mark, and the script of SQuAD 2.0 does not look at it: a question without answers is
        // impossible. In BERT's scripts, the start is -1.
        let is_nowhere = |answer: &Answer| answer.text.is_empty() && answer.start == Some(NOWHERE);
        let is_empty = given.is_empty() && (is_columns || (self.is_version_2 && question.contains_key("answers")));
        let has_none = is_empty || (!given.is_empty() && given.iter().all(is_nowhere));
        let is_impossible = marked.unwrap_or(has_none);
        self.says_impossible |= marked.is_some() || is_impossible;
        let given = if is_impossible { Vec::new() } else { given };
        let unanswered = || {
            let fields = question.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
            let has_no_field = !is_impossible && !question.contains_key("answers");
            has_no_field
                .then(|| format!("it has no field answers and is not marked as impossible: its fields are {fields}"))
        };
        let fault = given.iter().find_map(Answer::fault).or_else(unanswered);
        // An answer without a place is kept, because evaluation needs only its text.
        let nowhere = context.chars().count();
        let start = |answer: &Answer| answer.start.and_then(|start| start.try_into().ok()).unwrap_or(nowhere);
        let span = |answer: Answer| AnswerSpan { start: start(&answer), text: answer.text };
        self.squad.examples.push(SquadExample {
            id: question.get("id").and_then(text_of).unwrap_or_else(|| self.squad.examples.len().to_string()),
            article: self.squad.titles.len() - 1,
            question: single_text(question, "question", place)?,
            context,
            answers: given.into_iter().map(span).collect(),
            is_impossible,
            fault,
        });
        Ok(())
    }
}

fn flag(value: &Value) -> Option<bool> {
    match text_of(value)?.to_lowercase().as_str() {
        "true" | "1" => Some(true),
        "false" | "0" => Some(false),
        _ => None,
    }
}

/// An answer as the file has it.
struct Answer {
    text: String,
    start: Option<i64>,
}

impl Answer {
    fn new(text: Option<&Value>, start: Option<&Value>) -> Answer {
        let integer = |start: &Value| match start {
            Value::String(digits) => digits.trim().parse().ok(),
            _ => {
                start.as_i64().or_else(|| start.as_f64().filter(|start| start.fract() == 0.0).map(|start| start as i64))
            }
        };
        Answer { text: text.and_then(text_of).unwrap_or_default(), start: start.and_then(integer) }
    }

    fn fault(&self) -> Option<String> {
        match self.start {
            Some(start) if start >= 0 => None,
            Some(start) => Some(format!("the answer {:?} starts at {start}, which is not in the context", self.text)),
            None => Some(format!("the answer {:?} has no answer_start", self.text)),
        }
    }
}

/// Returns the answers of a question, and whether they are lists of texts and starts, as `datasets` has them.
fn answers(given: Option<&Value>, place: &str) -> Result<(Vec<Answer>, bool), String> {
    let items = |value: Option<&Value>| match value {
        None | Some(Value::Null) => Vec::new(),
        Some(Value::Array(items)) => items.clone(),
        Some(single) => vec![single.clone()],
    };
    match given {
        None | Some(Value::Null) => Ok((Vec::new(), false)),
        Some(Value::Array(answers)) => {
            let answer = |(at, answer): (usize, &Value)| match answer {
                Value::Object(answer) => Ok(Answer::new(answer.get("text"), answer.get("answer_start"))),
                _ => Err(format!("{place}.answers[{at}] is not an object")),
            };
            Ok((answers.iter().enumerate().map(answer).collect::<Result<_, _>>()?, false))
        }
        Some(Value::Object(columns)) => {
            let (texts, starts) = (items(columns.get("text")), items(columns.get("answer_start")));
            let answer = |(at, text): (usize, &Value)| Answer::new(Some(text), starts.get(at));
            Ok((texts.iter().enumerate().map(answer).collect(), true))
        }
        Some(_) => Err(format!("{place}.answers is neither a list nor an object")),
    }
}
