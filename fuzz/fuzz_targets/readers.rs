//! Readers of rows and annotations: TSV, CSV, JSON, JSON Lines, CoNLL and SQuAD, in every form of columns; what was read
//! is cleaned as before training.
#![no_main]

use std::sync::LazyLock;

use cloze_fuzz::{Scratch, checked, limited, mutate_json};
use cloze_train::{
    BadRows, Columns, ConllFormat, read_conll, read_rows, read_squad, sanitize, sanitize_multi_label, sanitize_scores,
    stream_rows,
};
use libfuzzer_sys::{fuzz_mutator, fuzz_target, fuzzer_mutate};

static SCRATCH: LazyLock<Scratch> = LazyLock::new(Scratch::new);

fuzz_target!(|data: &[u8]| {
    let [kind, form, rest @ ..] = data else { return };
    limited(data.len(), || match kind % 6 {
        0 => rows("a.tsv", rest, *form),
        1 => rows("a.csv", rest, *form),
        2 => rows("a.json", rest, *form),
        3 => rows("a.jsonl", rest, *form),
        4 => conll(rest, *form),
        _ => squad(rest, *form),
    });
});

fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    mutate_json(data, size, seed, 2, |data, size| fuzzer_mutate(data, size, max_size))
});

fn rows(name: &str, bytes: &[u8], form: u8) {
    let path = SCRATCH.write(name, bytes);
    let columns = match form % 6 {
        0 => Columns::new(),
        1 => Columns::numbered(),
        2 => Columns::new().text("a").second_text("b").label("c"),
        3 => Columns::numbered().text("2").label("1"),
        4 => Columns::new().text("a").labels(["b", "c"]),
        _ => Columns::new().separator(char::from(form)),
    };
    let streamed = checked(stream_rows(&path, &columns));
    if let Some(streamed) = streamed {
        streamed.for_each(|row| drop(checked(row)));
    }
    let Some(rows) = checked(read_rows(&path, &columns)) else { return };
    let lines = bytes.iter().filter(|&&byte| byte == b'\n' || byte == b'\r').count() + 1;
    // A document, whatever its name, counts its entries.
    let last = lines.max(rows.len());
    assert!(rows.iter().all(|row| row.line >= 1 && row.line <= last), "a line beyond the file");
    let count = rows.len();
    let clean = sanitize("train", rows.clone(), None);
    assert_eq!(clean.texts.len() + clean.dropped.total(), count);
    assert!(clean.texts.iter().all(|text| !text.trim().is_empty()));
    let _ = clean.dropped.to_string();
    checked(clean.check(BadRows::Fail));
    let names = ["0".to_string(), "yes".to_string()];
    assert!(sanitize("train", rows.clone(), Some(&names)).labels.iter().all(|&label| label == 0 || label == 1));
    assert!(sanitize_scores("train", rows.clone()).labels.iter().all(|score| score.is_finite()));
    let several = sanitize_multi_label("train", rows, &names);
    assert!(several.labels.iter().all(|labels| labels.len() == 2));
}

fn conll(bytes: &[u8], form: u8) {
    let path = SCRATCH.write("a.conll", bytes);
    let bad = if form >= 128 { BadRows::Drop } else { BadRows::Fail };
    let format = match form % 4 {
        0 | 1 => ConllFormat::new(),
        2 => ConllFormat::new().word_column(1 + usize::from(form / 4 % 4)).tag_column(2),
        _ => ConllFormat::new().comment("#"),
    };
    let Some((sentences, report)) = checked(read_conll(path, &format.bad_rows(bad))) else { return };
    let _ = report.to_string();
    assert_eq!(sentences.len(), report.sentences);
    for sentence in &sentences {
        assert!(!sentence.words.is_empty() && sentence.words.len() == sentence.tags.len());
    }
}

fn squad(bytes: &[u8], form: u8) {
    let path = SCRATCH.write("a.json", bytes);
    let Some(squad) = checked(read_squad(path)) else { return };
    for example in &squad.examples {
        let _ = (example.to_question(), example.answer_texts());
    }
    checked(squad.questions("train", BadRows::Drop));
    checked(squad.questions("train", BadRows::Fail));
    checked(squad.clone().without_blank("train", BadRows::Drop));
    checked(squad.split_at_article(usize::from(form)));
}
