//! Tests of cloze's tokenizer against Hugging Face's `tokenizers`: ids, tokens, offsets, words, decoded text and the JSON.
//!
//! `cargo test --manifest-path tests/tokenizers/Cargo.toml`
#![cfg(test)]

use std::collections::BTreeSet;

use cloze_bert::Tokenizer;
use proptest::prelude::*;
use serde_json::{Value, json};

const SPECIAL: [&str; 5] = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"];

/// A `tokenizer.json` of these parts. Added tokens get the ids behind `tokens`.
fn description(normalizer: &Value, pre_tokenizer: &Value, added: &[Value], tokens: &[String]) -> String {
    let mut added_tokens: Vec<Value> = (0..5).map(|id| token(id, SPECIAL[id], [false; 4], true)).collect();
    // The crate counts these ids itself, whatever the file says.
    added_tokens.extend(added.iter().zip(tokens.len()..).map(|(token, id)| {
        let mut token = token.clone();
        token["id"] = json!(id);
        token
    }));
    let vocabulary: serde_json::Map<String, Value> =
        tokens.iter().zip(0..).map(|(token, id)| (token.clone(), json!(id))).collect();
    json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": added_tokens,
        "normalizer": normalizer,
        "pre_tokenizer": pre_tokenizer,
        "post_processor": {"type": "BertProcessing", "sep": ["[SEP]", 3], "cls": ["[CLS]", 2]},
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": true},
        "model": {
            "type": "WordPiece",
            "unk_token": "[UNK]",
            "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100,
            "vocab": vocabulary,
        },
    })
    .to_string()
}

fn token(id: usize, content: &str, [single_word, lstrip, rstrip, normalized]: [bool; 4], special: bool) -> Value {
    json!({
        "id": id, "content": content, "single_word": single_word, "lstrip": lstrip, "rstrip": rstrip,
        "normalized": normalized, "special": special,
    })
}

fn bert(clean_text: bool, chinese: bool, strip_accents: Option<bool>, lowercase: bool) -> Value {
    json!({
        "type": "BertNormalizer", "clean_text": clean_text, "handle_chinese_chars": chinese,
        "strip_accents": strip_accents, "lowercase": lowercase,
    })
}

/// The special tokens, then these characters as the beginning and as the continuation of words, then these pieces.
fn vocabulary(characters: impl IntoIterator<Item = char>, pieces: &[&str]) -> Vec<String> {
    let characters: BTreeSet<char> = characters.into_iter().collect();
    let mut tokens: Vec<String> = SPECIAL.map(String::from).to_vec();
    tokens.extend(characters.iter().map(char::to_string));
    tokens.extend(characters.iter().map(|c| format!("##{c}")));
    tokens.extend(pieces.iter().map(|piece| piece.to_string()));
    tokens
}

struct Both {
    ours: Tokenizer,
    theirs: tokenizers::Tokenizer,
}

impl Both {
    fn open(description: &str) -> Both {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("tokenizer.json"), description).unwrap();
        let ours = Tokenizer::open(folder.path()).unwrap().with_max_length(usize::MAX);
        let theirs: tokenizers::Tokenizer = description.parse().unwrap();
        assert_eq!(ours.to_json().unwrap(), theirs.to_string(false).unwrap());
        ours.save(folder.path()).unwrap();
        let saved = std::fs::read_to_string(folder.path().join("tokenizer.json")).unwrap();
        assert_eq!(saved, theirs.to_string(true).unwrap());
        Both { ours, theirs }
    }

    fn check(&self, text: &str) {
        let ours = self.ours.encode(text).unwrap();
        let theirs = self.theirs.encode_char_offsets(text, true).unwrap();
        assert_eq!(ours.ids, theirs.get_ids(), "{text:?}");
        assert_eq!(ours.tokens, theirs.get_tokens(), "{text:?}");
        assert_eq!(ours.offsets, theirs.get_offsets(), "{text:?}");
        assert_eq!(ours.word_ids, theirs.get_word_ids(), "{text:?}");
        assert_eq!(self.ours.ids(text).unwrap(), ours.ids[1..ours.len() - 1], "{text:?}");
        for skip_special in [false, true] {
            let decoded = self.theirs.decode(&ours.ids, skip_special).unwrap();
            assert_eq!(self.ours.decode(&ours.ids, skip_special).unwrap(), decoded, "{text:?}");
        }
    }
}

/// Every character of Unicode in a word, alone, beside a combining mark and twice.
#[test]
fn every_character() {
    let normalizers = [
        bert(true, true, None, true),
        bert(true, true, None, false),
        bert(true, false, Some(false), true),
        bert(false, true, Some(true), false),
    ];
    let all: Vec<char> = (0..=0x10_ffff).filter_map(char::from_u32).collect();
    for normalizer in normalizers {
        for block in all.chunks(2048) {
            let texts: Vec<String> = block
                .chunks(32)
                .map(|few| few.iter().map(|c| format!("x{c}y {c} \u{323}{c}\u{301}z{c}{c} ")).collect())
                .collect();
            let first = Both::open(&description(&normalizer, &Value::Null, &[], &vocabulary(['x'], &[])));
            let characters: BTreeSet<char> = texts.iter().flat_map(|text| normalized(&first.theirs, text)).collect();
            let tokens = vocabulary(characters, &[]);
            let both = Both::open(&description(&normalizer, &json!({"type": "BertPreTokenizer"}), &[], &tokens));
            texts.iter().for_each(|text| both.check(text));
        }
    }
}

fn normalized(tokenizer: &tokenizers::Tokenizer, text: &str) -> Vec<char> {
    use tokenizers::Normalizer;
    let mut normalized = tokenizers::NormalizedString::from(text);
    tokenizer.get_normalizer().unwrap().normalize(&mut normalized).unwrap();
    normalized.get().chars().filter(|c| !c.is_whitespace()).collect()
}

fn text() -> impl Strategy<Value = String> {
    let part = prop_oneof![
        "\\PC{0,4}",
        "[a-zA-ZÀ-ž ]{0,8}",
        "[\\u{0}-\\u{2ff}\\u{300}-\\u{36f}\\u{2000}-\\u{206f}]{0,4}",
        "(\\p{Han}|\\p{Hangul}|\\p{Arabic}|\\p{M}){0,3}",
        "[ \\t\\n]{0,3}",
        Just("[MASK]".to_string()),
        Just("<tag>".to_string()),
        Just("Ünit".to_string()),
        Just("unit2".to_string()),
        Just("the window isn't".to_string()),
    ];
    prop::collection::vec(part, 0..8).prop_map(|parts| parts.concat())
}

fn normalizer() -> impl Strategy<Value = Value> {
    let of_bert = (any::<bool>(), any::<bool>(), any::<Option<bool>>(), any::<bool>())
        .prop_map(|(clean, chinese, accents, lowercase)| bert(clean, chinese, accents, lowercase));
    let simple = prop::sample::select(vec![
        json!({"type": "Lowercase"}),
        json!({"type": "StripAccents"}),
        json!({"type": "Strip", "strip_left": true, "strip_right": true}),
        json!({"type": "Strip", "strip_left": false, "strip_right": true}),
        json!({"type": "NFC"}),
        json!({"type": "NFD"}),
        json!({"type": "NFKC"}),
        json!({"type": "NFKD"}),
        bert(true, true, None, true),
    ]);
    let sequence = prop::collection::vec(simple, 0..4)
        .prop_map(|normalizers| json!({"type": "Sequence", "normalizers": normalizers}));
    prop_oneof![4 => of_bert, 3 => sequence, 1 => Just(Value::Null)]
}

fn pre_tokenizer() -> impl Strategy<Value = Value> {
    let simple = || {
        prop::sample::select(vec![
            json!({"type": "BertPreTokenizer"}),
            json!({"type": "Whitespace"}),
            json!({"type": "WhitespaceSplit"}),
            json!({"type": "Punctuation", "behavior": "Isolated"}),
            json!({"type": "Punctuation", "behavior": "Removed"}),
        ])
    };
    let sequence = prop::collection::vec(simple(), 0..3)
        .prop_map(|pretokenizers| json!({"type": "Sequence", "pretokenizers": pretokenizers}));
    prop_oneof![4 => Just(json!({"type": "BertPreTokenizer"})), 2 => simple(), 2 => sequence, 1 => Just(Value::Null)]
}

/// Returns whether a character is in the tables that cloze uses. The `\w` of `tokenizers`, which `Whitespace` and whole-word
/// tokens use, has newer ones.
fn is_known(c: char) -> bool {
    use unicode_categories::UnicodeCategories;
    // A few characters of later scripts have changed their category.
    let known = c.is_letter()
        || c.is_mark()
        || c.is_number()
        || c.is_punctuation()
        || c.is_symbol()
        || c.is_separator()
        || c.is_other();
    known && c < '\u{10000}'
}

/// Added tokens with every option. Their normalized forms differ, because `tokenizers` refuses equal ones.
fn added() -> impl Strategy<Value = Vec<Value>> {
    let options = prop::collection::vec((any::<[bool; 4]>(), any::<bool>(), any::<bool>()), 4);
    options.prop_map(|options| {
        let contents = ["<tag>", "Ünit", "window", "t>a", " un"];
        let with = contents.into_iter().zip(options).filter(|(_, (_, _, present))| *present);
        with.map(|(content, (options, special, _))| token(0, content, options, special)).collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20_000))]

    #[test]
    fn any_text_and_tokenizer(
        texts in prop::collection::vec(text(), 1..4),
        normalizer in normalizer(),
        pre_tokenizer in pre_tokenizer(),
        added in added(),
    ) {
        let latin = ('a'..='z').chain('A'..='Z').chain('!'..='@').chain('à'..='ÿ').chain('\u{300}'..'\u{310}');
        let tokens = vocabulary(latin.filter(|c| *c != '#'), &["un", "##it", "##nit", "win", "##dow", "the", "isn", "do not"]);
        let both = Both::open(&description(&normalizer, &pre_tokenizer, &added, &tokens));
        let any = !pre_tokenizer.to_string().contains(r#""Whitespace""#)
            && added.iter().all(|token| token["single_word"] == false);
        for text in texts {
            both.check(&text.chars().filter(|&c| any || is_known(c)).collect::<String>());
        }
    }
}
