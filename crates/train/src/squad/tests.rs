//! Tests of the reader of SQuAD files.

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
    // However many questions a paragraph has, it is in memory once.
    assert!(Arc::ptr_eq(&first.to_question().context, &first.context));
    assert_eq!((squad.examples[1].article, squad.examples[1].to_question().answer), (2, None));

    let impossible = json!([{"id": "a", "question": "who", "is_impossible": true, "answers": [answer("cat", 9)]}]);
    for version in ["v2.0", ""] {
        let squad = read(&file(version, impossible.clone())).unwrap();
        assert_eq!((squad.version, squad.examples[0].answers.len()), (SquadVersion::V2_0, 0));
        assert!(squad.examples[0].is_impossible);
    }
}

/// The script of SQuAD 2.0 takes a question for impossible if its answers are empty.
#[test]
fn empty_answers_are_impossible_in_version_2() {
    let questions = json!([{"id": "a", "question": "who", "answers": []}, {"id": "b", "question": "who"}]);
    for (version, expected) in [("v2.0", [true, false]), ("1.1", [false, false])] {
        let squad = read(&file(version, questions.clone())).unwrap();
        assert_eq!([0, 1].map(|at: usize| squad.examples[at].is_impossible), expected);
    }
}

#[test]
fn starts_may_be_strings() {
    let start = |start: Value| {
        let answers = json!([{"text": "cat", "answer_start": start}]);
        let squad = read(&file("1.1", json!([{"id": "a", "question": "who", "answers": answers}]))).unwrap();
        (squad.examples[0].answers[0].start, squad.examples[0].fault.is_some())
    };
    assert_eq!([json!("9"), json!(9.0)].map(start), [(9, false); 2]);
    assert!([json!("x"), json!(9.5)].map(start).iter().all(|(_, is_fault)| *is_fault));
}

#[test]
fn articles_stay_together() {
    let squad = read(&file("1.1", json!([{"id": "a", "question": "who"}, {"id": "b", "question": "who"}]))).unwrap();
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
    let expected = "z: it has no field answers and is not marked as impossible: its fields are id, question";
    assert_eq!(dropped.first[2].sample, expected);
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

fn ids(squad: &Squad) -> Vec<&str> {
    squad.examples.iter().map(|example| example.id.as_str()).collect()
}

/// As `datasets.load_dataset("squad_v2").to_json` and `simpletransformers` write SQuAD.
#[test]
fn every_arrangement_has_the_same_questions() {
    let (context, found) = ("Olá, the cat sat.", json!({"text": ["cat", "the cat"], "answer_start": [9, 5]}));
    let row = |id: &str, title: &str, answers: &Value| json!({"id": id, "title": title, "context": context, "question": "who", "answers": answers});
    let none = json!({"text": [], "answer_start": []});
    let rows = [row("a", "A", &found), row("b", "A", &none), row("c", "B", &found)];
    let lines = rows.iter().map(Value::to_string).collect::<Vec<_>>().join("\n");
    for text in [lines, json!(rows).to_string(), format!("{:#}", json!({"version": 1.1, "data": rows}))] {
        let squad = read(&text).unwrap();
        assert_eq!(
            (ids(&squad), squad.titles.join(" "), squad.version),
            (vec!["a", "b", "c"], "A B".into(), SquadVersion::V2_0)
        );
        let [first, second, third] = &squad.examples[..] else { panic!("three questions") };
        assert_eq!((first.answer_texts(), first.answers[1].start, third.article), (vec!["cat", "the cat"], 5, 1));
        assert_eq!((second.is_impossible, first.is_impossible, second.answers.len()), (true, false, 0));
        assert_eq!(squad.questions("train", BadRows::Fail).unwrap().0.len(), 3);
    }
    let one = read(&rows[0].to_string()).unwrap();
    assert_eq!((ids(&one), one.version), (vec!["a"], SquadVersion::V1_1));

    let paragraph = json!({"context": context, "qas": [{"id": 1, "question": "who", "answers": [answer("cat", 9)]}]});
    for text in [json!([{"title": "A", "paragraphs": [paragraph]}]), json!([paragraph]), json!({"data": [paragraph]})] {
        let squad = read(&text.to_string()).unwrap();
        assert_eq!((ids(&squad), squad.titles.len(), squad.version), (vec!["1"], 1, SquadVersion::V1_1));
    }
}

#[test]
fn types_are_not_looked_at_where_they_do_not_matter() {
    let questions = json!([
        {"id": 266675, "question": "who", "answers": [{"text": "cat", "answer_start": 9, "answer_id": 3}]},
        {"id": "b", "question": "who", "answers": null, "is_impossible": true},
        {"question": "who", "answers": [{"text": null, "answer_start": null}], "is_impossible": 1},
        {"id": "d", "question": "who", "answers": [{"text": "", "answer_start": -1}]},
        {"id": "e", "question": "who", "answers": [{"text": "cat", "answer_start": 9.0}], "is_impossible": "False"},
    ]);
    for version in [json!(2.0), json!(null), json!("v2.0"), json!(1.1)] {
        let articles = json!([{"title": null, "paragraphs": [{"context": "Olá, the cat sat.", "qas": questions}]}]);
        let squad = read(&json!({"version": version, "data": articles}).to_string()).unwrap();
        assert_eq!((ids(&squad), squad.version), (vec!["266675", "b", "2", "d", "e"], SquadVersion::V2_0));
        let impossible: Vec<bool> = squad.examples.iter().map(|example| example.is_impossible).collect();
        assert_eq!((impossible, squad.titles.as_slice()), (vec![false, true, true, true, false], &[String::new()][..]));
        assert_eq!(squad.questions("train", BadRows::Fail).unwrap().0.len(), 5);
    }
    let numbers = [(json!(2.0), SquadVersion::V2_0), (json!(2), SquadVersion::V2_0), (json!(1.1), SquadVersion::V1_1)];
    for (version, expected) in numbers {
        let paragraphs = json!([{"context": "a", "qas": [{"id": "a", "question": "?", "answers": [answer("a", 0)]}]}]);
        let text = json!({"version": version, "data": [{"paragraphs": paragraphs}]}).to_string();
        assert_eq!(read(&text).unwrap().version, expected);
    }
}

#[test]
fn questions_that_cannot_be_used_do_not_make_the_file_unreadable() {
    let questions = json!([
        {"id": "a", "question": "who", "answers": [answer("cat", 9)]},
        {"id": "b", "question": "who", "answers": [{"text": "cat", "answer_start": -1}]},
        {"id": "c", "question": "who", "answers": [{"text": "cat"}]},
        {"id": "d", "question": null, "answers": [answer("cat", 9)]},
    ]);
    let squad = read(&file("1.1", questions)).unwrap();
    assert_eq!(squad.examples[1].answer_texts(), ["cat"]);
    let (kept, dropped) = squad.questions("train", BadRows::Drop).unwrap();
    assert_eq!((kept.len(), dropped.total()), (2, 3));
    let samples: Vec<&str> = dropped.first.iter().map(|row| row.sample.as_str()).collect();
    assert_eq!(samples[0], "b: the answer \"cat\" starts at -1, which is not in the context");
    assert_eq!(samples[1], "c: the answer \"cat\" has no answer_start");
    let (_, blank) = squad.without_blank("train", BadRows::Drop).unwrap();
    assert_eq!(blank.first[0].sample, "d: the question is blank");
}

#[test]
fn errors_name_the_place() {
    let said = |text: &str| read(text).unwrap_err().to_string();
    assert!(said("{").contains("a.json: SQuAD: not in SQuAD's JSON format: EOF while parsing"), "{}", said("{"));
    for (text, why) in [
        ("{\"version\": \"1.1\"}", "there is no field `data`"),
        ("3", "it is neither an object nor a list"),
        ("{\"data\": {}}", "`data` is not a list"),
        ("{\"data\": [1]}", "data[0] is not an object"),
        ("[{}]", "[0] has neither paragraphs nor a context"),
        ("{\"data\": [{\"paragraphs\": [{\"context\": \"a\"}]}]}", "data[0].paragraphs[0] has no qas"),
        ("{\"data\": [{\"paragraphs\": 1}]}", "data[0].paragraphs is not a list"),
        ("[{\"context\": \"a\", \"qas\": [2]}]", "[0].qas[0] is not an object"),
        ("[{\"context\": \"a\", \"answers\": 2}]", "[0].answers is neither a list nor an object"),
        ("[{\"context\": \"a\", \"answers\": [2]}]", "[0].answers[0] is not an object"),
        ("{\"context\": [\"a\"], \"question\": [\"b\"]}", "[0].context is not a text"),
        ("[{\"context\": \"a\", \"question\": {}}]", "[0].question is not a text"),
        ("{\"context\": \"a\"}\n{\"context\": \n", "EOF while parsing a value at line 2 column 12"),
    ] {
        let expected = format!("a.json: SQuAD: not in SQuAD's JSON format: {why}");
        assert!(said(text).ends_with(&expected), "{} is not {expected}", said(text));
    }
    assert!(said("{\"data\": []}").ends_with("SQuAD: the file has no questions"));
}

#[test]
fn splits_keep_articles_and_contexts_together() {
    let question = |number: usize| QuestionExample {
        question: number.to_string(),
        context: format!("context {}", number / 3).into(),
        answer: None,
    };
    let mut squad = Squad::of_questions((0..30).map(question));
    let contexts = |part: &Squad| {
        part.examples.iter().map(|example| example.context.clone()).collect::<std::collections::BTreeSet<_>>()
    };
    let (training, held_out) = squad.clone().split(0.2, 7).unwrap();
    assert_eq!((training.examples.len(), held_out.examples.len()), (24, 6));
    assert!(contexts(&training).is_disjoint(&contexts(&held_out)));
    squad.examples.iter_mut().enumerate().for_each(|(number, example)| example.article = number / 10);
    let (training, held_out) = squad.split(0.2, 7).unwrap();
    assert_eq!((training.examples.len(), held_out.examples.len()), (20, 10));
    assert!(held_out.examples.iter().all(|example| example.article == held_out.examples[0].article));
}
