//! Real files, in the folder that `CLOZE_DATA` names.

use std::path::PathBuf;

use cloze_train::metrics::SquadVersion;
use cloze_train::{
    BadRows, Columns, ConllFormat, TagScheme, label_names, read_conll, read_rows, read_squad, sanitize,
    sanitize_scores, tag_names,
};

#[test]
fn sst2() {
    let Some(data) = std::env::var_os("CLOZE_DATA") else {
        println!("SKIPPED: set CLOZE_DATA to a folder that has sst2/train.tsv and sst2/dev.tsv (GLUE's SST-2)");
        return;
    };
    for (name, count) in [("train", 67_349), ("dev", 872)] {
        let rows = read_rows(PathBuf::from(&data).join(format!("sst2/{name}.tsv")), &Columns::new()).unwrap();
        assert_eq!((rows.len(), rows.last().map(|row| row.line)), (count, Some(count + 1)));
        let names = label_names(&rows).unwrap();
        assert_eq!(names, ["0", "1"]);
        let clean = sanitize(name, rows, Some(&names));
        assert_eq!((clean.texts.len(), clean.dropped.total()), (count, 0), "{}", clean.dropped);
    }
}

fn data(needed: &str) -> Option<PathBuf> {
    let data = std::env::var_os("CLOZE_DATA").map(PathBuf::from);
    if data.is_none() {
        println!("SKIPPED: set CLOZE_DATA to a folder that has {needed}");
    }
    data
}

#[test]
fn sts_b() {
    let Some(data) = data("sts/stsb-en-train.csv and sts/stsb-en-dev.csv (STS-B)") else { return };
    for (name, count) in [("train", 5749), ("dev", 1500)] {
        let columns = Columns::numbered().second_text("2").label("3");
        let rows = read_rows(data.join(format!("sts/stsb-en-{name}.csv")), &columns).unwrap();
        let clean = sanitize_scores(name, rows).check(BadRows::Fail).unwrap();
        assert_eq!((clean.texts.len(), clean.second_texts.len(), clean.labels.len()), (count, count, count));
        assert!(clean.labels.iter().all(|score| (0.0..=5.0).contains(score)));
    }
}

#[test]
fn wnut_17() {
    let Some(data) = data("ner/ (WNUT-17)") else { return };
    for (name, sentences, words) in [
        ("wnut17train.conll", 3394, 62_730),
        ("emerging.dev.conll", 1009, 15_733),
        ("emerging.test.annotated", 1287, 23_394),
    ] {
        let (read, report) = read_conll(data.join("ner").join(name), &ConllFormat::new()).unwrap();
        assert_eq!((read.len(), report.sentences, report.words), (sentences, sentences, words), "{name}");
        assert_eq!((report.scheme, report.converted, report.irregular), (Some(TagScheme::Iob2), 0, 0), "{name}");
        assert!(tag_names(&read).len() == 13, "{:?}", tag_names(&read));
    }
}

#[test]
fn squad() {
    let Some(data) = data("squad/dev-v1.1.json (SQuAD)") else { return };
    let squad = read_squad(data.join("squad/dev-v1.1.json")).unwrap();
    assert_eq!((squad.titles.len(), squad.examples.len(), squad.version), (48, 10_570, SquadVersion::V1_1));
    assert!(squad.examples.iter().all(|example| !example.answers.is_empty()));
    let (questions, dropped) = squad.questions("dev", BadRows::Fail).unwrap();
    assert_eq!((questions.len(), dropped.total()), (10_570, 0));
    let (first, last) = squad.split_at_article(38).unwrap();
    assert_eq!(first.examples.len() + last.examples.len(), 10_570);
    assert!(last.examples.iter().all(|example| example.article >= 38));
}
