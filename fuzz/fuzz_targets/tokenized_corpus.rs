//! Tokenized corpora: shards and their index with other numbers and bytes, under checksums that fit, as an attacker or a bug
//! of a writer would make them. They are refused, or every document, sentence and token can be read.
#![no_main]

use std::sync::LazyLock;

use cloze_bert::{Tokenizer, TrainOptions};
use cloze_fuzz::{Choices, Scratch, checked, limited};
use cloze_train::{CorpusFiles, ShardOptions, Shards, TokenizedCorpus};
use libfuzzer_sys::fuzz_target;
use twox_hash::XxHash3_128;

struct Files {
    scratch: Scratch,
    index: String,
    /// The two shards.
    shards: [Vec<u8>; 2],
}

static FILES: LazyLock<Files> = LazyLock::new(|| {
    rayon::ThreadPoolBuilder::new().num_threads(1).build_global().expect("there are no threads yet");
    let scratch = Scratch::new();
    let corpus = scratch.write("corpus", "the cat sat\nthe mat\n\na dog ran\n\nthe cat ran\nthe dog sat\n");
    let tokenizer = Tokenizer::train(["the cat sat on a mat, the dog ran"], 60, &TrainOptions::new()).unwrap();
    let options = ShardOptions::new().shard_tokens(5);
    let folder = scratch.path().join("shards");
    CorpusFiles::at([corpus]).unwrap().progress(false).prepare(&tokenizer, &folder, &options).unwrap();
    let read = |name| std::fs::read(folder.join(name)).unwrap();
    let shards = ["shard-00000.safetensors", "shard-00001.safetensors"].map(read);
    let index = String::from_utf8(read("index.json")).unwrap();
    assert_eq!(with_checksum(&index), index, "the checksum is computed as in the library");
    Files { scratch, index, shards }
});

fuzz_target!(|data: &[u8]| {
    let Files { scratch, index, shards } = &*FILES;
    let mut choices = Choices::new(data);
    let (mut index, mut shards) = (index.clone(), shards.clone());
    for _ in 0..4 {
        match choices.below(4) {
            0 if choices.any_left() => change_number(&mut index, &mut choices),
            1 if choices.any_left() => change_shard(&mut shards[choices.below(2)], &mut choices),
            2 if choices.any_left() => resize(&mut shards[choices.below(2)], &mut choices),
            _ => break,
        }
    }
    let keeps_sums = choices.byte() >= 240;
    for (number, bytes) in shards.iter().enumerate() {
        scratch.write(&format!("shards/shard-{number:05}.safetensors"), bytes);
        if !keeps_sums {
            index = with_sums(&index, number, bytes);
        }
    }
    scratch.write("shards/index.json", with_checksum(&index));
    limited(data.len(), || read(&mut choices));
});

/// Returns the index with the size and the hash of a shard.
fn with_sums(index: &str, number: usize, bytes: &[u8]) -> String {
    let name = format!("\"shard-{number:05}.safetensors\"");
    let Some(at) = index.find(&name) else { return index.to_string() };
    let (before, after) = index.split_at(at);
    let after = with_value(after, "\"bytes\": ", &bytes.len().to_string());
    let after = with_value(&after, "\"xxh128\": ", &format!("\"{:032x}\"", XxHash3_128::oneshot(bytes)));
    format!("{before}{after}")
}

/// Replaces the first value of a field.
fn with_value(text: &str, field: &str, value: &str) -> String {
    let Some(at) = text.find(field).map(|at| at + field.len()) else { return text.to_string() };
    let end = text[at..].find([',', '\n']).map_or(text.len(), |end| at + end);
    format!("{}{value}{}", &text[..at], &text[end..])
}

/// Returns the index with its own checksum.
fn with_checksum(index: &str) -> String {
    let empty = with_value(index, "\"checksum\": ", "\"\"");
    with_value(&empty, "\"checksum\": ", &format!("\"{:032x}\"", XxHash3_128::oneshot(empty.as_bytes())))
}

/// Replaces one of the numbers of the index.
fn change_number(index: &mut String, choices: &mut Choices<'_>) {
    let bytes = index.as_bytes();
    let starts: Vec<usize> =
        (1..bytes.len()).filter(|&at| bytes[at].is_ascii_digit() && bytes[at - 1] == b' ').collect();
    let at = starts[usize::from(choices.byte()) % starts.len()];
    let end = bytes[at..].iter().position(|byte| !byte.is_ascii_digit()).map_or(bytes.len(), |end| at + end);
    index.replace_range(at..end, &choices.size().to_string());
}

/// Overwrites a byte or a number of a shard.
fn change_shard(shard: &mut [u8], choices: &mut Choices<'_>) {
    let at = (usize::from(choices.byte()) << 8 | usize::from(choices.byte())) % shard.len().max(1);
    let bytes = match choices.below(3) {
        0 => vec![choices.byte()],
        1 => (choices.size() as u64).to_le_bytes().to_vec(),
        _ => choices.size().to_string().into_bytes(),
    };
    shard[at..].iter_mut().zip(bytes).for_each(|(to, byte)| *to = byte);
}

fn resize(shard: &mut Vec<u8>, choices: &mut Choices<'_>) {
    let length = (usize::from(choices.byte()) << 8 | usize::from(choices.byte())) % (2 * shard.len() + 8);
    shard.resize(length, 0);
}

fn read(choices: &mut Choices<'_>) {
    let Some(shards) = checked(Shards::open(FILES.scratch.path().join("shards"))) else { return };
    let _ = format!("{:?}", shards.statistics());
    if let Some(corpus) = checked(shards.corpus()) {
        check(&corpus);
    }
    let (worker, workers) = (choices.below(4), choices.size());
    if let Some(share) = checked(shards.share(worker, workers)) {
        check(&share);
    }
    if let Some(range) = checked(shards.range(choices.below(4)..choices.size())) {
        check(&range);
    }
}

fn check(corpus: &TokenizedCorpus) {
    let (mut sentences, mut tokens) = (0, 0);
    for document in 0..corpus.document_count() {
        for sentence in corpus.sentences_of(document) {
            let range = corpus.tokens_of(sentence);
            tokens += range.len();
            assert_eq!(corpus.ids_of(range.clone()).len(), range.len());
            sentences += 1;
        }
    }
    assert!(sentences <= corpus.sentence_count() && tokens <= corpus.token_count());
    assert_eq!(corpus.ids().count(), tokens);
    if let Some((train, held_out)) = checked(corpus.split(0.5, 1)) {
        assert_eq!(train.document_count() + held_out.document_count(), corpus.document_count());
    }
}
