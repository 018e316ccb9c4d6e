//! Ids and offsets of several hundred strings, and pairs with every truncation strategy.

use std::fs;
use std::path::Path;

use cloze::bert::Encoding;
use cloze::prelude::*;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::Result;
use crate::fixture::folder;

fn read<T: DeserializeOwned>(name: &str) -> Result<T> {
    Ok(serde_json::from_str(&fs::read_to_string(folder("tokenizer").join(name))?)?)
}

fn flat(encoding: &Encoding) -> Vec<usize> {
    encoding.offsets.iter().flat_map(|&(start, end)| [start, end]).collect()
}

/// Opens a tokenizer from a folder with `vocab.txt` and this `tokenizer_config.json`.
fn open(vocab: &Path, config: &str) -> Result<Tokenizer> {
    let dir = tempfile::tempdir()?;
    fs::copy(vocab, dir.path().join("vocab.txt"))?;
    fs::write(dir.path().join("tokenizer_config.json"), config)?;
    Ok(Tokenizer::open(dir.path())?)
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Text {
    Once(String),
    Repeated(String, usize),
}

fn check_strings(tokenizer: Tokenizer, variant: &str) -> Result {
    let tokenizer = tokenizer.with_max_length(usize::MAX);
    let texts: Vec<Text> = read("strings.json")?;
    let expected: Vec<(Vec<u32>, Vec<usize>)> = read(&format!("{variant}.json"))?;
    assert!(texts.len() == expected.len() && texts.len() >= 300, "{variant}");
    for (text, (mut ids, mut offsets)) in texts.into_iter().zip(expected) {
        let text = match text {
            Text::Once(text) => text,
            Text::Repeated(phrase, times) => {
                let length = phrase.chars().count();
                ids = [vec![tokenizer.cls_id()], ids.repeat(times), vec![tokenizer.sep_id()]].concat();
                let moved = (0..times).flat_map(|n| offsets.iter().map(move |offset| n * length + offset));
                offsets = [vec![0, 0], moved.collect(), vec![0, 0]].concat();
                phrase.repeat(times)
            }
        };
        let encoding = tokenizer.encode(&text)?;
        assert_eq!(encoding.ids, ids, "{variant}: {text:?}");
        assert_eq!(flat(&encoding), offsets, "{variant}: {text:?}");
        // Encoding to ids only is a separate code path.
        assert_eq!(tokenizer.ids(&text)?, ids[1..ids.len() - 1], "{variant}: {text:?}");
    }
    Ok(())
}

#[test]
fn strings_on_a_small_vocabulary() -> Result {
    let vocab = folder("tokenizer").join("vocab.txt");
    let variants = [
        ("uncased", r#"{"do_lower_case": true}"#),
        ("cased", r#"{"do_lower_case": false}"#),
        ("accented", r#"{"do_lower_case": true, "strip_accents": false, "tokenize_chinese_chars": false}"#),
    ];
    for (variant, config) in variants {
        check_strings(open(&vocab, config)?, variant)?;
    }
    Ok(())
}

#[test]
fn strings_on_bert_base_uncased() -> Result {
    let Some(data) = std::env::var_os("CLOZE_DATA") else {
        eprintln!(
            "SKIPPED strings_on_bert_base_uncased: CLOZE_DATA is not set to a folder with the model's vocab.txt as \
             vocab/bert-base-uncased-vocab.txt and its tokenizer.json as vocab/bert-base-uncased-tokenizer.json"
        );
        return Ok(());
    };
    let vocab = Path::new(&data).join("vocab");
    check_strings(open(&vocab.join("bert-base-uncased-vocab.txt"), "{}")?, "bert-base-uncased")?;
    let dir = tempfile::tempdir()?;
    fs::copy(vocab.join("bert-base-uncased-tokenizer.json"), dir.path().join("tokenizer.json"))?;
    check_strings(Tokenizer::open(dir.path())?, "bert-base-uncased")
}

/// Ids, token types, offsets.
type Window = (Vec<u32>, Vec<u32>, Vec<usize>);

#[derive(Deserialize, Debug)]
struct Pair {
    first: String,
    second: Option<String>,
    strategy: String,
    max_length: usize,
    stride: usize,
    first_only: bool,
    windows: Option<Vec<Window>>,
}

#[test]
fn truncated_pairs() -> Result {
    let tokenizer = open(&folder("tokenizer").join("vocab.txt"), "{}")?;
    for case in read::<Vec<Pair>>("pairs.json")? {
        let encode = |options| tokenizer.encode_with(&case.first, case.second.as_deref(), &options);
        let window =
            |encoding: &Encoding| -> Window { (encoding.ids.clone(), encoding.token_types.clone(), flat(encoding)) };
        let room = EncodeOptions::new().max_length(case.max_length);
        let options = room.truncation(match case.strategy.as_str() {
            "only_first" => Truncation::OnlyFirst,
            "only_second" => Truncation::OnlySecond,
            "longest_first" => Truncation::LongestFirst,
            other => return Err(format!("unknown strategy {other}").into()),
        });
        let Some(windows) = &case.windows else {
            assert!(encode(options).is_err() && encode(options.stride(case.stride)).is_err(), "{case:?}");
            continue;
        };
        let alone = encode(options)?;
        assert_eq!((window(&alone), alone.overflowing.len()), (windows[0].clone(), 0), "{case:?}");
        match encode(options.stride(case.stride)) {
            Err(_) => assert!(case.first_only, "{case:?}"),
            Ok(first) => {
                let found: Vec<_> = std::iter::once(&first).chain(&first.overflowing).map(window).collect();
                assert!(found == *windows && !case.first_only, "{case:?}: {found:?}");
            }
        }
        // Without truncation, the encoding is the same if the text fits, and an error otherwise.
        let fits = encode(EncodeOptions::new().max_length(usize::MAX))?.len() <= case.max_length;
        match encode(room) {
            Ok(whole) => assert!(fits && window(&whole) == windows[0], "{case:?}"),
            Err(_) => assert!(!fits, "{case:?}"),
        }
    }
    Ok(())
}
