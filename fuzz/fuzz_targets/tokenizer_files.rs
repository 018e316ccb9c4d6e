//! The files of a tokenizer, one of them with other content: refused, or opened, written and opened again as the same.
#![no_main]

use std::sync::LazyLock;

use cloze_bert::{Tokenizer, TokenizerOptions, TrainOptions};
use cloze_fuzz::{Scratch, checked, limited, mutate_json};
use libfuzzer_sys::{fuzz_mutator, fuzz_target, fuzzer_mutate};

const FILES: [&str; 5] =
    ["tokenizer.json", "vocab.txt", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"];

static SCRATCH: LazyLock<Scratch> = LazyLock::new(|| {
    let scratch = Scratch::new();
    for (folder, file) in ["a", "b"].into_iter().zip(["vocab.txt", "tokenizer.json"]) {
        let tokenizer = Tokenizer::train(["the cat sat on the mat, ação"], 60, &TrainOptions::new()).unwrap();
        tokenizer.save(scratch.path().join(folder)).unwrap();
        scratch.remove(&format!("{folder}/{file}"));
    }
    scratch
});

fuzz_target!(|data: &[u8]| {
    let Some((&kind, rest)) = data.split_first() else { return };
    let file = FILES[usize::from(kind) % FILES.len()];
    // Folder a has `tokenizer.json` without `vocab.txt`, folder b the opposite.
    let folder = if kind >= 128 || file == "vocab.txt" { "b" } else { "a" };
    let name = format!("{folder}/{file}");
    let before = std::fs::read(SCRATCH.path().join(&name)).ok();
    SCRATCH.write(&name, rest);
    limited(data.len(), || {
        if let Some(tokenizer) = checked(Tokenizer::open(SCRATCH.path().join(folder))) {
            check(&tokenizer);
        }
        if file == "vocab.txt" {
            checked(Tokenizer::from_vocab_file(SCRATCH.path().join(&name), &TokenizerOptions::cased()));
        }
    });
    match before {
        Some(before) => drop(SCRATCH.write(&name, before)),
        None => SCRATCH.remove(&name),
    }
});

fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    mutate_json(data, size, seed, 1, |data, size| fuzzer_mutate(data, size, max_size))
});

fn check(tokenizer: &Tokenizer) {
    const TEXT: &str = "The cats [MASK] sat, a\u{301}ção 中 <x>.";
    let ids = tokenizer.ids(TEXT).expect("any text has ids");
    assert!(ids.iter().all(|&id| (id as usize) < tokenizer.vocab_size()));
    let encoded = tokenizer.encode(TEXT);
    if let Some(encoded) = checked(encoded) {
        let length = TEXT.chars().count();
        assert!(encoded.offsets.iter().all(|&(start, end)| start <= end && end <= length), "{encoded:?}");
        checked(tokenizer.decode(&encoded.ids, true)).expect("ids of the tokenizer have a text");
    }
    let json = tokenizer.to_json().expect("a tokenizer can be written");
    assert!(serde_json::from_str::<serde_json::Value>(&json).is_ok());
    let pieces: u32 = 0;
    assert!(tokenizer.token(pieces).is_none_or(|token| tokenizer.id(token).is_some()));
}
