//! Tests of the cleaning of rows.

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn rows<T: Into<Cell>, L: Into<Cell>>(rows: impl IntoIterator<Item = (T, L)>) -> Vec<Row> {
    (1..).zip(rows).map(|(line, (text, label))| Row::new(line, text, label)).collect()
}

#[test]
fn labels_without_names_and_with_them() {
    let labels = [json!(1), json!("good"), json!(" bad "), json!(2), json!(-3), json!("1.0"), json!(null)];
    let plain = sanitize("a", rows(labels.clone().map(|label| ("a", label))), None);
    assert_eq!(plain.labels, [1, 2, -3]);
    assert_eq!(plain.dropped.counts, BTreeMap::from([(DropReason::BadLabel, 4)]));

    let names = ["bad", "good"].map(String::from);
    let named = sanitize("a", rows(labels.map(|label| ("a", label))), Some(&names));
    assert_eq!(named.labels, [1, 1, 0]);
    assert_eq!(named.dropped.counts, BTreeMap::from([(DropReason::BadLabel, 1), (DropReason::UnknownClass, 3)]));

    // Names that are integers leave no room for indices.
    let numbers = ["0", "4", "-1"].map(String::from);
    let given = [json!(4), json!(4.0), json!("04"), json!(0), json!(-1), json!("-1"), json!(1), json!(2)];
    let named = sanitize("a", rows(given.map(|label| ("a", label))), Some(&numbers));
    assert_eq!(named.labels, [1, 1, 1, 0, 2, 2]);
    assert_eq!(named.dropped.counts, BTreeMap::from([(DropReason::UnknownClass, 2)]));
}

#[test]
fn rows_without_a_gold_label_are_dropped() {
    let names = ["no", "yes"].map(String::from);
    let labels = [json!("yes"), json!("-"), json!(" - "), json!(-1), json!("-1"), json!(0)];
    let clean = sanitize("a", rows(labels.map(|label| ("a", label))), Some(&names));
    let told = "#1 reason=no gold label  sample=(\"a\", \"-\")  line=2";
    assert!(clean.dropped.to_string().contains(told), "{}", clean.dropped);
    assert_eq!((clean.labels, clean.dropped.counts[&DropReason::NoLabel]), (vec![1, 0], 4));
}

#[test]
fn several_labels() {
    let names = ["rude", "toxic", "3"].map(String::from);
    let labels = [
        json!(["toxic", "rude"]),
        json!([]),
        json!(" rude "),
        json!([3]),
        json!({"toxic": 1, "rude": "0", "3": false, "other": 7}),
        json!({"toxic": 2, "rude": 0, "3": 1}),
        json!({"toxic": 1, "rude": 0}),
        json!(["kind"]),
        json!([null]),
        json!(null),
    ];
    let clean = sanitize_multi_label("a", rows(labels.map(|label| ("a", label))), &names);
    let applying = [[true, true, false], [false; 3], [true, false, false], [false, false, true], [false, true, false]];
    assert_eq!(clean.labels, applying);
    assert_eq!(clean.dropped.counts, BTreeMap::from([(DropReason::BadLabel, 4), (DropReason::UnknownClass, 1)]));
}

#[test]
fn malformed_rows_are_dropped() {
    let given = [Row::new(1, "a", 1), Row::malformed(2, "found 3 columns")];
    let clean = sanitize("a", given, None);
    let dropped = DroppedRow { line: 2, reason: DropReason::Malformed, sample: "found 3 columns".into() };
    assert_eq!((clean.labels.as_slice(), clean.dropped.first.as_slice()), (&[1][..], &[dropped][..]));
}

#[test]
fn a_pair_needs_both_texts() {
    let pair = |line, second: Value| Row { second_text: Some(second.into()), ..Row::new(line, "a", 0) };
    let clean = sanitize("a", [pair(1, json!(["b"])), pair(2, json!(" ")), pair(3, json!(3))], None);
    assert_eq!(clean.texts, ["a", "a"]);
    assert_eq!(clean.second_texts, ["b", "3"]);
    let dropped = DroppedRow { line: 2, reason: DropReason::Blank, sample: "\" \"".into() };
    assert_eq!(clean.dropped.first, [dropped]);
}

#[test]
fn numbers_of_pairs() {
    let pair = |line, label: Cell| Row { second_text: Some("b".into()), ..Row::new(line, "a", label) };
    let labels = [json!(4.5).into(), json!("-1e1").into(), json!(true).into(), json!(1e39).into(), json!("nan").into()];
    let labels = labels.into_iter().chain([Cell::NonFinite(f64::NAN), json!(null).into()]);
    let clean = sanitize_scores("train", (1..).zip(labels).map(|(line, label)| pair(line, label)));
    assert_eq!((clean.labels.as_slice(), clean.second_texts.len()), (&[4.5, -10.0][..], 2));
    assert_eq!(clean.dropped.counts, BTreeMap::from([(DropReason::BadLabel, 5)]));

    let tokenizer = Tokenizer::train(["a b"], 30, &cloze_bert::TrainOptions::new()).unwrap();
    let (data, _) = clean.encode(&tokenizer, 9).unwrap();
    assert_eq!((data.labels(), data.sequences()[0].token_types.last()), (&[4.5, -10.0][..], Some(&1)));
    let (data, _) = sanitize("train", rows([("a", 1)]), None).encode(&tokenizer, 9).unwrap();
    assert_eq!((data.labels(), data.sequences()[0].token_types.last()), (&[1][..], Some(&0)));
}

#[test]
fn what_is_left_must_do() {
    let names = ["bad", "good"].map(String::from);
    let said = |rows: Vec<Row>, bad| match sanitize("validation", rows, Some(&names)).check(bad) {
        Ok(clean) => format!("{} left", clean.texts.len()),
        Err(error) => error.to_string(),
    };
    let some = rows([("a", "good"), ("b", "mixed")]);
    assert_eq!(said(some.clone(), BadRows::Drop), "1 left");
    let why = "1 of 2 cannot be used, the first because of: unknown class: (\"b\", \"mixed\")";
    assert_eq!(said(some, BadRows::Fail), format!("line 2: rows: validation: {why}"));
    assert_eq!(said(vec![], BadRows::Drop), "rows: validation: no rows");
    let none = said(rows([("b", "mixed"), (" ", "bad")]), BadRows::Drop);
    assert_eq!(none, "rows: validation: all 2 were dropped: blank 1, unknown class 1");
}

#[test]
fn the_report_is_readable() {
    let nothing = sanitize("val", rows([("a", 1)]), None).dropped;
    assert_eq!((nothing.total(), nothing.to_string()), (0, "[val] 0 sample(s) dropped as invalid.".to_string()));

    let long = "é".repeat(100);
    let given = [
        Row::new(3, Cell::NonFinite(f64::NAN), 1),
        Row::new(5, "two\nlines\u{7}", "x"),
        Row::new(8, long, Value::Null),
        Row::new(9, " ", 1),
        Row::new(11, json!([null, []]), 1),
        Row::new(12, Value::Null, 1),
        Row::new(13, Cell::NonFinite(f64::NAN), 1),
    ];
    let expected = format!(
        "[train] 7 sample(s) dropped as invalid.
  #1 reason=NaN  sample=nan  line=3
  #2 reason=bad label  sample=(\"two\\nlines\\u0007\", \"x\")  line=5
  #3 reason=bad label  sample=(\"{}..., null)  line=8
  #4 reason=blank  sample=\" \"  line=9
  #5 reason=no text  sample=[null,[]]  line=11
  and 2 more; in total: null 1, NaN 2, no text 1, blank 1, bad label 2",
        "é".repeat(79)
    );
    assert_eq!(sanitize("train", given, None).dropped.to_string(), expected);
}

#[test]
fn scores_may_have_decimal_commas() {
    let labels = ["0,85", " -3,5 ", "+1,0", "2.5", "1,", ",5", "1,2,3", "1.000,5", "1,5e3", "a,b"];
    let clean = sanitize_scores("train", (1..).zip(labels).map(|(line, label)| Row::new(line, "a", label)));
    assert_eq!((clean.labels, clean.decimal_commas), (vec![0.85, -3.5, 1.0, 2.5], 3));
    assert_eq!(clean.dropped.total(), 6);
    // A class of this name stays one.
    let names = ["0,85".to_string(), "1".to_string()];
    assert_eq!(sanitize("train", [Row::new(1, "a", "0,85")], Some(&names)).labels, [0]);
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "[ a-cé1_+-]{0,5}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        let key = prop_oneof![Just("text"), Just("sentence"), Just("content"), Just("k")].prop_map(String::from);
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(key, inner, 0..4).prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn any_value_is_kept_or_dropped(given in prop::collection::vec((any_json(), any_json(), any_json()), 0..8)) {
        let count = given.len();
        let names = ["a", "b"].map(String::from);
        for names in [None, Some(&names[..])] {
            let rows = (1..).zip(given.clone()).map(|(line, (text, second, label))| Row {
                second_text: Some(second.into()),
                ..Row::new(line, text, label)
            });
            let clean = sanitize("any", rows, names);
            prop_assert_eq!(clean.texts.len() + clean.dropped.total(), count);
            prop_assert_eq!(clean.texts.len(), clean.labels.len());
            prop_assert_eq!(clean.texts.len(), clean.second_texts.len());
            let texts = clean.texts.iter().chain(&clean.second_texts);
            prop_assert!(texts.into_iter().all(|text| !text.is_empty() && text.trim() == text));
            if let Some(names) = names {
                prop_assert!(clean.labels.iter().all(|&label| (0..names.len() as i64).contains(&label)));
            }
            prop_assert_eq!(clean.dropped.first.len(), clean.dropped.total().min(dropped::SHOWN));
            prop_assert_eq!(clean.dropped.to_string().lines().count(),
                1 + clean.dropped.first.len() + usize::from(clean.dropped.total() > dropped::SHOWN));
        }
    }
}
