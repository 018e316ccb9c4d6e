//! The public interface of the tokenizer.

use std::fs;
use std::path::Path;

use cloze_bert::{BertConfig, EncodeOptions, ErrorKind, Tokenizer, TokenizerOptions, TrainOptions, Truncation};
use proptest::prelude::*;

const LINES: [&str; 6] = [
    "The cat sat on the mat, and the dog sat on the log.",
    "A dog looked at the cat; the cat looked out of the window.",
    "O gato dormiu na varanda e o cão ladrou no jardim.",
    "A avó abriu a janela: não há ninguém na rua.",
    "Looking, looked, looks! Sitting and sat?",
    "Jane threw it out the window (yesterday).",
];

fn trained() -> Tokenizer {
    Tokenizer::train(LINES, 160, &TrainOptions::new()).unwrap()
}

fn message<T: std::fmt::Debug>(result: cloze_bert::Result<T>) -> String {
    result.unwrap_err().to_string()
}

#[test]
fn training_is_deterministic() {
    let vocabulary = |lines: &[&str]| {
        let tokenizer = Tokenizer::train(lines, 150, &TrainOptions::new()).unwrap();
        (0..tokenizer.vocab_size() as u32).map(|id| tokenizer.token(id).unwrap().to_string()).collect::<Vec<_>>()
    };
    let first = vocabulary(&LINES);
    for _ in 0..5 {
        assert_eq!(vocabulary(&LINES), first);
    }
    let mut reversed = LINES;
    reversed.reverse();
    assert_eq!(vocabulary(&reversed), first);
    assert_eq!(first[..5], ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]);
    assert!(first.len() <= 150);
    assert!(first.iter().any(|token| token == "the") && first.iter().any(|token| token == "cat"));
}

#[test]
fn merges_by_frequency_then_age() {
    // The pair a ##b occurs five times and is merged first; then ab ##c, three times.
    let tokenizer = Tokenizer::train(["ab ab abc abc abc"], 100, &TrainOptions::new().min_frequency(3)).unwrap();
    let tokens: Vec<_> = (5..tokenizer.vocab_size() as u32).map(|id| tokenizer.token(id).unwrap()).collect();
    assert_eq!(tokens, ["a", "##b", "##c", "ab", "abc"]);
}

#[test]
fn a_vocab_size_that_is_too_small_is_an_error() {
    let message_of = |size| message(Tokenizer::train(["ab ba c"], size, &TrainOptions::new()));
    assert!(message_of(9).contains("vocab_size is 9: must be at least 10"), "{}", message_of(9));
    assert_eq!(Tokenizer::train(["ab ba c"], 10, &TrainOptions::new()).unwrap().vocab_size(), 10);
    for empty in [vec![], vec!["", " \n\u{200d}"]] {
        assert!(message(Tokenizer::train(empty, 100, &TrainOptions::new())).contains("no words"));
    }
}

#[test]
fn rare_characters_make_unknown_words() {
    let options = TrainOptions::new().alphabet_limit(2);
    let tokenizer = Tokenizer::train(["aa ab ab ba xa"], 100, &options).unwrap();
    assert_eq!(tokenizer.ids("xa").unwrap(), [tokenizer.unk_id()]);
    assert!(!tokenizer.ids("abab").unwrap().contains(&tokenizer.unk_id()));
}

#[test]
fn saved_tokenizers_give_the_same_ids() {
    let options =
        [TokenizerOptions::uncased(), TokenizerOptions::cased(), TokenizerOptions::uncased().strip_accents(false)];
    for options in options {
        let original = Tokenizer::train(LINES, 200, &options.max_length(77).into()).unwrap();
        let dir = tempfile::tempdir().unwrap();
        original.save(dir.path()).unwrap();
        let mut opened = vec![Tokenizer::open(dir.path()).unwrap()];
        for missing in ["vocab.txt", "tokenizer.json"] {
            let partial = tempfile::tempdir().unwrap();
            for file in ["vocab.txt", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"] {
                if file != missing {
                    fs::copy(dir.path().join(file), partial.path().join(file)).unwrap();
                }
            }
            opened.push(Tokenizer::open(partial.path()).unwrap());
        }
        opened.push(Tokenizer::from_vocab_file(dir.path().join("vocab.txt"), &options.max_length(77)).unwrap());
        for other in opened {
            assert_eq!((other.vocab_size(), other.max_length()), (original.vocab_size(), 77));
            for line in LINES {
                assert_eq!(other.encode(line).unwrap(), original.encode(line).unwrap());
                assert_eq!(other.ids(line).unwrap(), original.ids(line).unwrap());
            }
        }
    }
}

#[test]
fn layout_of_one_text_and_of_two() {
    let tokenizer = trained();
    let (cls, sep) = (tokenizer.cls_id(), tokenizer.sep_id());
    let one = tokenizer.encode("the cat").unwrap();
    let [the, cat] = [tokenizer.id("the").unwrap(), tokenizer.id("cat").unwrap()];
    assert_eq!(one.ids, [cls, the, cat, sep]);
    assert_eq!(one.token_types, [0; 4]);
    assert_eq!(one.tokens, ["[CLS]", "the", "cat", "[SEP]"]);
    assert_eq!(one.offsets, [(0, 0), (0, 3), (4, 7), (0, 0)]);
    assert_eq!(one.special_tokens_mask, [true, false, false, true]);
    assert_eq!(one.word_ids, [None, Some(0), Some(1), None]);
    let two = tokenizer.encode_pair("the cat", "cat").unwrap();
    assert_eq!(two.ids, [cls, the, cat, sep, cat, sep]);
    assert_eq!(two.token_types, [0, 0, 0, 0, 1, 1]);
    assert_eq!(two.sequence_ids, [None, Some(0), Some(0), None, Some(1), None]);
    assert_eq!(two.word_ids, [None, Some(0), Some(1), None, Some(0), None]);
    assert_eq!(tokenizer.encode("").unwrap().ids, [cls, sep]);
}

#[test]
fn truncation_and_windows() {
    let tokenizer = trained().with_max_length(8);
    let long = "the cat sat on the mat and the dog sat";
    let error = tokenizer.encode(long).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::TooLong { limit: 8, .. }), "{error}");
    let first = EncodeOptions::new().truncation(Truncation::OnlyFirst);
    let cut = tokenizer.encode_with(long, None, &first).unwrap();
    assert_eq!((cut.len(), cut.truncated), (8, tokenizer.ids(long).unwrap().len() - 6));
    assert_eq!(tokenizer.encode("the cat").unwrap().truncated, 0);
    // A question with windows over its context.
    let windows = EncodeOptions::new().max_length(9).truncation(Truncation::OnlySecond).stride(2);
    let encoding = tokenizer.encode_with("the cat", Some(long), &windows).unwrap();
    let whole = tokenizer.ids(long).unwrap();
    let mut covered = Vec::new();
    for window in std::iter::once(&encoding).chain(&encoding.overflowing) {
        assert!(window.len() <= 9);
        assert_eq!(window.tokens[..4], ["[CLS]", "the", "cat", "[SEP]"]);
        let context: Vec<u32> =
            window.ids.iter().zip(&window.sequence_ids).filter(|(_, s)| **s == Some(1)).map(|(&id, _)| id).collect();
        let keep = covered.len().saturating_sub(2);
        assert_eq!(covered[keep..], context[..covered.len() - keep]);
        covered.truncate(keep);
        covered.extend(context);
    }
    assert_eq!((covered, encoding.truncated), (whole, 0));
    assert!(message(tokenizer.encode_with("the cat", Some(long), &windows.stride(4))).contains("stride is 4"));
    let both = windows.truncation(Truncation::LongestFirst).stride(1);
    assert!(message(tokenizer.encode_with(long, Some(long), &both)).contains("both texts"));
}

#[test]
fn a_mask_in_the_text_is_a_special_token() {
    let tokenizer = trained();
    let encoding = tokenizer.encode("it [MASK] out the window.").unwrap();
    let at = encoding.ids.iter().position(|&id| id == tokenizer.mask_id()).unwrap();
    assert_eq!((encoding.offsets[at], encoding.special_tokens_mask[at]), ((3, 9), false));
    assert_eq!(tokenizer.ids("it [MASK] out the window.").unwrap(), encoding.ids[1..encoding.len() - 1]);
    // In lower case it is split into ordinary words.
    assert!(!tokenizer.ids("it [mask] out").unwrap().contains(&tokenizer.mask_id()));
}

#[test]
fn accents_and_case() {
    let uncased = trained();
    assert_eq!(uncased.ids("Avó CÃO").unwrap(), uncased.ids("avo cao").unwrap());
    let options = TokenizerOptions::uncased().strip_accents(false);
    let accented = Tokenizer::train(LINES, 200, &options.into()).unwrap();
    assert_eq!(accented.ids("AVÓ").unwrap(), accented.ids("avó").unwrap());
    assert_ne!(accented.ids("avó").unwrap(), accented.ids("avo").unwrap());
    let cased = Tokenizer::train(LINES, 200, &TokenizerOptions::cased().into()).unwrap();
    assert_ne!(cased.ids("The").unwrap(), cased.ids("the").unwrap());
    assert_eq!(cased.decode(&cased.ids("A avó abriu a janela.").unwrap(), true).unwrap(), "A avó abriu a janela.");
}

#[test]
fn look_ups() {
    let tokenizer = trained();
    let special = [tokenizer.pad_id(), tokenizer.unk_id(), tokenizer.cls_id(), tokenizer.sep_id(), tokenizer.mask_id()];
    assert_eq!(special, [0, 1, 2, 3, 4]);
    for id in 0..tokenizer.vocab_size() as u32 {
        let token = tokenizer.token(id).unwrap();
        assert_eq!(tokenizer.id(token), Some(id));
        assert_eq!(tokenizer.is_special(id), id < 5);
        assert_eq!(tokenizer.continues_word(id), token.starts_with("##"));
    }
    let beyond = tokenizer.vocab_size() as u32;
    assert_eq!((tokenizer.token(beyond), tokenizer.is_special(beyond)), (None, false));
    assert!(message(tokenizer.decode(&[0, beyond], true)).contains("at position 1 is out of range"));
    let ids = tokenizer.encode("The cat sat, looking.").unwrap().ids;
    assert_eq!(tokenizer.decode(&ids, true).unwrap(), "the cat sat, looking.");
    tokenizer.check_vocab_size(&BertConfig::tiny(tokenizer.vocab_size())).unwrap();
    let small = BertConfig::tiny(tokenizer.vocab_size() - 1);
    assert!(message(tokenizer.check_vocab_size(&small)).starts_with("vocab_size is "));
}

#[test]
fn errors_about_vocabularies_say_what_is_wrong() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("vocab.txt");
    let open = |bytes: &[u8]| {
        fs::write(&path, bytes).unwrap();
        let message = message(Tokenizer::open(dir.path()));
        message.strip_prefix(&format!("{}: ", path.display())).expect("the file is named").to_string()
    };
    assert_eq!(open(b"[PAD]\n[UNK]\n\xc3("), "not UTF-8: invalid byte at offset 12");
    assert_eq!(open(b""), "the vocabulary is empty");
    assert_eq!(open(b"[PAD]\n[CLS]\n[SEP]\n[MASK]\na\n"), "the vocabulary has no [UNK], the unk_token");
    fs::remove_file(&path).unwrap();
    assert!(message(Tokenizer::open(dir.path())).ends_with("has neither tokenizer.json nor vocab.txt"));
    assert!(message(Tokenizer::from_vocab_file(&path, &TokenizerOptions::uncased())).contains("cannot read"));
}

#[test]
fn bad_json_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    trained().save(dir.path()).unwrap();
    let path = dir.path().join("tokenizer.json");
    let good = fs::read_to_string(&path).unwrap();
    let level = r#"{"version": "1.0", "model": {"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "a"}}"#;
    for bad in ["", "[]", "{}", &good[..good.len() / 2], level, &good.replace("\"[UNK]\"", "\"[ANK]\"")] {
        fs::write(&path, bad).unwrap();
        assert!(message(Tokenizer::open(dir.path())).starts_with(&path.display().to_string()));
    }
    // Ids that would need too much memory, and one that two tokens have.
    fs::write(&path, good.replace("\"the\": ", "\"the\": 99999")).unwrap();
    assert!(message(Tokenizer::open(dir.path())).contains("must be below"));
    fs::write(&path, good.replace("\"[PAD]\": 0", "\"[PAD]\": 1")).unwrap();
    assert!(message(Tokenizer::open(dir.path())).contains("\"[PAD]\" and \"[UNK]\" both have the id 1"));
    for field in ["\"model\": {", "{"] {
        fs::write(&path, good.replacen(field, &format!("{field} \"dropout\": 0.1,"), 1)).unwrap();
        assert!(message(Tokenizer::open(dir.path())).contains("unknown field `dropout`"));
    }
    fs::write(&path, &good).unwrap();
    fs::write(dir.path().join("tokenizer_config.json"), "{").unwrap();
    assert!(message(Tokenizer::open(dir.path())).contains("tokenizer_config.json: not JSON"));
}

#[test]
fn another_kind_of_model_is_named() {
    let dir = tempfile::tempdir().unwrap();
    trained().save(dir.path()).unwrap();
    let bpe = r#"{"version": "1.0", "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false},
        "model": {"type": "BPE", "vocab": {"a": 0}, "merges": []}}"#;
    let unigram = r#"{"version": "1.0", "model": {"type": "Unigram", "unk_id": 0, "vocab": [["a", 0.0]]}}"#;
    for (json, kind) in [(bpe, "BPE"), (unigram, "Unigram")] {
        fs::write(dir.path().join("tokenizer.json"), json).unwrap();
        let said = message(Tokenizer::open(dir.path()));
        assert!(said.contains(&format!("its model is {kind:?}, supported is \"WordPiece\"")), "{said}");
    }
}

#[test]
fn added_tokens_may_share_blanks() {
    let dir = tempfile::tempdir().unwrap();
    trained().save(dir.path()).unwrap();
    let path = dir.path().join("tokenizer.json");
    let mut json: serde_json::Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    let token = |id: u32, content: &str, rstrip: bool| {
        serde_json::json!({"id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": rstrip,
            "normalized": false, "special": false})
    };
    let next = trained().vocab_size() as u32;
    let added = json["added_tokens"].as_array_mut().unwrap();
    added.extend([token(next, "<m>", true), token(next + 1, " x", false)]);
    fs::write(&path, json.to_string()).unwrap();
    let tokenizer = Tokenizer::open(dir.path()).unwrap();
    let encoding = tokenizer.encode("<m> x").unwrap();
    assert_eq!(encoding.ids[1..3], [next, next + 1]);
    assert_eq!(encoding.offsets[1..3], [(0, 4), (3, 5)]);
    assert_eq!(tokenizer.ids("<m> x").unwrap(), [next, next + 1]);
}

#[test]
fn special_tokens_may_have_other_names() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("vocab.txt"), "<pad>\n<unk>\n<s>\n</s>\n<mask>\na\n").unwrap();
    let config = r#"{"pad_token": "<pad>", "unk_token": {"content": "<unk>", "lstrip": false}, "cls_token": "<s>",
        "sep_token": "</s>", "mask_token": "<mask>", "model_max_length": 1000000000000000019884624838656}"#;
    fs::write(dir.path().join("tokenizer_config.json"), config).unwrap();
    let tokenizer = Tokenizer::open(dir.path()).unwrap();
    assert_eq!(tokenizer.encode("a <mask> b").unwrap().ids, [2, 5, 4, 1, 3]);
    assert_eq!(tokenizer.max_length(), 512);
    let other = tempfile::tempdir().unwrap();
    tokenizer.save(other.path()).unwrap();
    assert_eq!(Tokenizer::open(other.path()).unwrap().encode("a <mask> b").unwrap().ids, [2, 5, 4, 1, 3]);
}

/// Letters, accents, combining marks, Chinese, blanks, controls, and tokens of the vocabulary.
fn text() -> impl Strategy<Value = String> {
    let part = prop_oneof![
        "\\PC{0,4}",
        "[a-zA-ZÀ-ž ]{0,8}",
        "[\\u{0}-\\u{2ff}\\u{300}-\\u{36f}\\u{2000}-\\u{206f}]{0,4}",
        "(\\p{Han}|\\p{Hangul}|\\p{Arabic}){0,3}",
        Just("[MASK]".to_string()),
        Just("the window".to_string()),
    ];
    prop::collection::vec(part, 0..8).prop_map(|parts| parts.concat())
}

proptest! {
    #[test]
    fn offsets_index_the_text(first in text(), second in text()) {
        let tokenizer = trained();
        let encoding = tokenizer.encode_pair(&first, &second).unwrap();
        for (sequence, text) in [&first, &second].into_iter().enumerate() {
            let length = text.chars().count();
            let mut before = 0;
            for at in (0..encoding.len()).filter(|&at| encoding.sequence_ids[at] == Some(sequence)) {
                let (start, end) = encoding.offsets[at];
                prop_assert!(before <= start && start <= end && end <= length, "{:?} of {length}", encoding.offsets[at]);
                before = start;
            }
        }
    }

    #[test]
    fn the_fast_path_gives_the_same_ids(text in text()) {
        let tokenizer = trained();
        let encoding = tokenizer.encode(&text).unwrap();
        prop_assert_eq!(tokenizer.ids(&text).unwrap(), &encoding.ids[1..encoding.len() - 1]);
    }

    #[test]
    fn any_vocabulary_is_read_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("vocab.txt"), &bytes).unwrap();
        fs::write(dir.path().join("tokenizer_config.json"), &bytes).unwrap();
        let _ = Tokenizer::open(dir.path());
    }
}

/// Compares the fast path with the pipeline on every line of novels in two languages.
#[test]
fn novels() {
    let Some(data) = std::env::var_os("CLOZE_DATA") else {
        eprintln!(
            "SKIPPED novels: set CLOZE_DATA to a folder with vocab/bert-base-uncased-vocab.txt and corpus/eltec-*"
        );
        return;
    };
    let data = Path::new(&data);
    let vocab = data.join("vocab/bert-base-uncased-vocab.txt");
    let uncased = Tokenizer::from_vocab_file(&vocab, &TokenizerOptions::uncased()).unwrap().with_max_length(1 << 20);
    let cased = Tokenizer::from_vocab_file(&vocab, &TokenizerOptions::cased()).unwrap().with_max_length(1 << 20);
    // The published tokenizer.json describes the same tokenizer.
    let dir = tempfile::tempdir().unwrap();
    fs::copy(data.join("vocab/bert-base-uncased-tokenizer.json"), dir.path().join("tokenizer.json")).unwrap();
    let published = Tokenizer::open(dir.path()).unwrap();
    for line in LINES {
        assert_eq!(published.encode(line).unwrap(), uncased.encode(line).unwrap());
        assert_eq!(published.ids(line).unwrap(), uncased.ids(line).unwrap());
    }
    for corpus in ["corpus/eltec-eng", "corpus/eltec-por"] {
        let mut books: Vec<_> = fs::read_dir(data.join(corpus)).unwrap().map(|entry| entry.unwrap().path()).collect();
        books.sort();
        for book in &books[..2] {
            for line in fs::read_to_string(book).unwrap().lines() {
                for tokenizer in [&uncased, &cased] {
                    let encoding = tokenizer.encode(line).unwrap();
                    assert_eq!(tokenizer.ids(line).unwrap(), encoding.ids[1..encoding.len() - 1], "{line}");
                }
            }
        }
    }
}

/// The corpus of the examples has 41 documents, and a small vocabulary covers it.
#[test]
fn mini_corpus() {
    let corpus =
        fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/data/mini-corpus.txt")).unwrap();
    assert_eq!(corpus.trim().split("\n\n").count(), 41);
    let tokenizer = Tokenizer::train(corpus.lines(), 400, &TrainOptions::new()).unwrap();
    assert_eq!(tokenizer.vocab_size(), 400);
    assert!(!tokenizer.ids(&corpus).unwrap().contains(&tokenizer.unk_id()));
}
