//! Tokenizer folders as they are in the world. The expected ids are those of `transformers` 5.23.

use std::fs;
use std::path::Path;

use cloze_bert::{BertConfig, BertForMaskedLM, FillMask, OpenOptions, Pipeline, PreTrainedModel, Tokenizer};
use cloze_tensor::Device;

const VOCAB: &str = "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\na\nb\n##b\ncat\nthe\nab\n";

/// A folder with these files.
fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in files {
        fs::write(dir.path().join(name), text).unwrap();
    }
    dir
}

fn opened(files: &[(&str, &str)]) -> Tokenizer {
    Tokenizer::open(folder(files).path()).unwrap()
}

fn with_vocab(file: &str, text: &str) -> Tokenizer {
    opened(&[("vocab.txt", VOCAB), (file, text)])
}

fn ids(tokenizer: &Tokenizer, text: &str) -> Vec<u32> {
    tokenizer.encode(text).unwrap().ids
}

fn refused(files: &[(&str, &str)]) -> String {
    Tokenizer::open(folder(files).path()).unwrap_err().to_string()
}

fn reopened(tokenizer: &Tokenizer, without: Option<&str>) -> Tokenizer {
    let dir = tempfile::tempdir().unwrap();
    tokenizer.save(dir.path()).unwrap();
    without.into_iter().for_each(|name| fs::remove_file(dir.path().join(name)).unwrap());
    Tokenizer::open(dir.path()).unwrap()
}

#[test]
fn added_tokens_have_the_ids_of_added_tokens_json() {
    let tokenizer = with_vocab("added_tokens.json", r#"{"foo": 12, "bar": 11}"#);
    assert_eq!(ids(&tokenizer, "the foo cat"), [2, 9, 12, 8, 3]);
    assert_eq!(ids(&tokenizer, "FOO Bar bar"), [2, 12, 11, 11, 3]);
    assert_eq!(tokenizer.vocab_size(), 13);
    // A token of the vocabulary is then found inside a word, too.
    let tokenizer = with_vocab("added_tokens.json", r#"{"cat": 8}"#);
    assert_eq!(ids(&tokenizer, "CAT cat catb"), [2, 8, 8, 8, 6, 3]);
}

#[test]
fn added_tokens_keep_their_written_form() {
    let tokenizer = with_vocab("added_tokens.json", r#"{"FOO": 11}"#);
    assert_eq!(ids(&tokenizer, "the foo FOO"), [2, 9, 11, 11, 3]);
    assert_eq!((tokenizer.token(11), tokenizer.id("FOO"), tokenizer.id("foo")), (Some("FOO"), Some(11), None));
    let dir = tempfile::tempdir().unwrap();
    tokenizer.save(dir.path()).unwrap();
    assert_eq!(fs::read_to_string(dir.path().join("vocab.txt")).unwrap(), format!("{VOCAB}FOO\n"));
    assert_eq!(ids(&Tokenizer::open(dir.path()).unwrap(), "foo"), [2, 11, 3]);
}

#[test]
fn an_id_in_a_file_counts_or_is_refused() {
    let tokenizer = with_vocab("added_tokens.json", r#"{"foo": 20}"#);
    assert_eq!((ids(&tokenizer, "foo"), tokenizer.vocab_size(), tokenizer.token(15)), (vec![2, 20, 3], 21, None));
    assert_eq!(ids(&reopened(&tokenizer, None), "foo"), [2, 20, 3]);
    let said = refused(&[("vocab.txt", VOCAB), ("added_tokens.json", r#"{"foo": 8}"#)]);
    assert!(said.contains("\"foo\" has the id 8, which is that of \"cat\""), "{said}");
    let said = refused(&[("vocab.txt", VOCAB), ("added_tokens.json", r#"{"foo": "8"}"#)]);
    assert!(said.contains("added_tokens.json: foo is \"8\": must be an id"), "{said}");
    let conflicting = with_vocab("added_tokens.json", r#"{"cat": 11}"#);
    assert_eq!(ids(&conflicting, "cat"), [2, 8, 3]);
    let expected = "the added token \"cat\" has the id 11, in the vocabulary 8: 8 counts";
    assert_eq!(conflicting.conflicts(), [expected]);
}

#[test]
fn special_tokens_are_added_in_the_order_of_transformers() {
    for field in ["additional_special_tokens", "extra_special_tokens"] {
        let tokenizer = with_vocab("tokenizer_config.json", &format!(r#"{{"{field}": ["FOO", "bar"]}}"#));
        assert_eq!(ids(&tokenizer, "FOO Bar bar foo"), [2, 11, 1, 12, 1, 3]);
        assert!(tokenizer.is_special(11) && tokenizer.is_special(12));
        // A model need not have rows for tokens without an id, until a text has one.
        tokenizer.check_vocab_size(&BertConfig::tiny(11)).unwrap();
        for without in [None, Some("tokenizer.json"), Some("vocab.txt")] {
            assert_eq!(ids(&reopened(&tokenizer, without), "FOO Bar bar"), [2, 11, 1, 12, 3]);
        }
    }
    let config =
        r#"{"extra_special_tokens": {"q_token": "FOO"}, "x_token": "bar", "bos_token": "<s>", "eos_token": null}"#;
    let tokenizer = with_vocab("tokenizer_config.json", config);
    assert_eq!(ids(&tokenizer, "<s> FOO bar"), [2, 11, 13, 12, 3]);
    // Those with other names are added in the order of the file.
    let config =
        r#"{"z_token": "<z>", "extra_special_tokens": {"y_token": "<y>", "a_token": "<a>"}, "b_token": "<b>"}"#;
    assert_eq!(ids(&with_vocab("tokenizer_config.json", config), "<z><b><y><a>"), [2, 11, 12, 13, 14, 3]);
}

#[test]
fn added_tokens_keep_their_properties() {
    let config = r#"{"additional_special_tokens": [{"content": "[E]", "lstrip": true}], "mask_token": {"content": "[MASK]", "rstrip": true}}"#;
    let tokenizer = with_vocab("tokenizer_config.json", config);
    for without in [None, Some("tokenizer.json")] {
        let tokenizer = reopened(&tokenizer, without);
        assert_eq!(
            tokenizer.encode("a [E][MASK] b").unwrap().offsets,
            [(0, 0), (0, 1), (1, 5), (5, 12), (12, 13), (0, 0)]
        );
    }
}

#[test]
fn token_types_follow_the_class_and_the_names_of_inputs() {
    let types = |tokenizer: &Tokenizer| tokenizer.encode_pair("the", "cat").unwrap().token_types;
    for (config, second) in [
        (r#"{}"#, 1),
        (r#"{"tokenizer_class": "DistilBertTokenizer"}"#, 0),
        (r#"{"model_input_names": ["input_ids", "attention_mask"]}"#, 0),
        (r#"{"tokenizer_class": "DistilBertTokenizer", "model_input_names": ["input_ids", "token_type_ids"]}"#, 1),
    ] {
        let tokenizer = with_vocab("tokenizer_config.json", config);
        for tokenizer in [&tokenizer, &reopened(&tokenizer, None), &reopened(&tokenizer, Some("tokenizer.json"))] {
            assert_eq!(types(tokenizer), [0, 0, 0, second, second], "{config}");
        }
    }
}

#[test]
fn added_tokens_decoder_takes_the_place_of_the_other_files() {
    let config = r#"{"additional_special_tokens": ["[E]"], "mask_token": "[MASK]",
        "added_tokens_decoder": {"11": {"content": "foo", "special": false, "normalized": true}}}"#;
    let tokenizer = opened(&[
        ("vocab.txt", VOCAB),
        ("tokenizer_config.json", config),
        ("added_tokens.json", r#"{"bar": 11}"#),
        ("special_tokens_map.json", r#"{"mask_token": "cat"}"#),
    ]);
    assert_eq!(ids(&tokenizer, "the foo bar [E] cat"), [2, 9, 11, 1, 12, 8, 3]);
    assert_eq!(tokenizer.mask_id(), 4);
    let conflicts = tokenizer.conflicts().join("; ");
    assert!(conflicts.contains(r#"mask_token is "[MASK]" in tokenizer_config.json, "cat" in special_tokens_map.json"#));
    assert!(conflicts.contains("\"bar\" has the id 11 in added_tokens.json"), "{conflicts}");
    // Without it, special_tokens_map.json counts.
    let tokenizer = opened(&[
        ("vocab.txt", VOCAB),
        ("tokenizer_config.json", r#"{"mask_token": "the"}"#),
        ("special_tokens_map.json", r#"{"mask_token": {"content": "cat", "lstrip": true}}"#),
    ]);
    assert_eq!((tokenizer.mask_id(), tokenizer.conflicts().len()), (8, 1));
    assert_eq!(tokenizer.encode("a cat").unwrap().offsets[2], (1, 5));
}

#[test]
fn lengths_and_classes() {
    assert_eq!(with_vocab("tokenizer_config.json", r#"{"max_len": 77}"#).max_length(), 77);
    assert_eq!(with_vocab("tokenizer_config.json", r#"{"max_len": 77, "model_max_length": 33}"#).max_length(), 33);
    // Without any, a text may be as long as the model in the folder allows.
    assert_eq!(with_vocab("config.json", r#"{"max_position_embeddings": 1024}"#).max_length(), 1024);
    let tokenizer = opened(&[
        ("vocab.txt", VOCAB),
        ("tokenizer_config.json", r#"{"tokenizer_class": "BertTokenizer"}"#),
        ("config.json", r#"{"tokenizer_class": "RobertaTokenizer"}"#),
    ]);
    let differs = "tokenizer_class is \"BertTokenizer\" in tokenizer_config.json, \"RobertaTokenizer\" in config.json";
    assert_eq!(tokenizer.conflicts(), [format!("{differs}: tokenizer_config.json counts")]);
    let same = r#"{"tokenizer_class": "DistilBertTokenizerFast"}"#;
    assert_eq!(ids(&with_vocab("tokenizer_config.json", same), "the catb"), [2, 9, 8, 7, 3]);
    for file in ["tokenizer_config.json", "config.json"] {
        let said = refused(&[("vocab.txt", VOCAB), (file, r#"{"tokenizer_class": "BertJapaneseTokenizer"}"#)]);
        assert!(said.contains(&format!("{file}: tokenizer_class is \"BertJapaneseTokenizer\": must be")), "{said}");
    }
    let said = refused(&[
        ("vocab.txt", VOCAB),
        ("tokenizer_config.json", r#"{"tokenizer_class": "PreTrainedTokenizerFast"}"#),
    ]);
    assert!(said.contains("has no tokenizer.json"), "{said}");
}

#[test]
fn fields_are_read_or_harmless_or_refused_by_name() {
    with_vocab("tokenizer_config.json", r#"{"padding_side": "left", "do_basic_tokenize": true, "never_split": null}"#);
    for (fields, said) in [
        (r#"{"do_lower_case": "yes"}"#, r#"do_lower_case is "yes": must be true, false or absent"#),
        (r#"{"truncation_side": "left"}"#, r#"truncation_side is "left": must be "right" or absent"#),
        (r#"{"never_split": ["a"]}"#, r#"never_split is ["a"]: must be [] or absent"#),
        (r#"{"model_max_length": "9"}"#, r#"model_max_length is "9": must be a number of at least 1, or absent"#),
        (r#"{"subword_type": "x"}"#, r#"subword_type is "x": this field is not supported: must be absent"#),
        (r#"{"mask_token": 4}"#, "mask_token is 4: must be a token"),
        (r#"{"auto_map": {"AutoTokenizer": ["own.Tokenizer", null]}}"#, "auto_map is "),
    ] {
        let message = refused(&[("vocab.txt", VOCAB), ("tokenizer_config.json", fields)]);
        assert!(message.contains(&format!("tokenizer_config.json: {said}")), "{message}");
    }
}

#[test]
fn every_line_of_a_vocabulary_is_a_token() {
    // White space, a blank line, blanks after a token, a token twice.
    let tokenizer =
        opened(&[("vocab.txt", "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\n\u{2028}\n\ncat  \r\nthe\ncat\nab\n\n")]);
    assert_eq!(ids(&tokenizer, "the cat ab"), [2, 8, 9, 10, 3]);
    assert_eq!((tokenizer.vocab_size(), tokenizer.token(7), tokenizer.token(5)), (12, None, Some("\u{2028}")));
    tokenizer.check_vocab_size(&BertConfig::tiny(11)).unwrap();
    assert!(tokenizer.check_vocab_size(&BertConfig::tiny(10)).is_err());
    for without in [None, Some("tokenizer.json")] {
        let again = reopened(&tokenizer, without);
        assert_eq!((ids(&again, "the cat ab"), again.token(7)), (vec![2, 8, 9, 10, 3], tokenizer.token(7)));
    }
}

#[test]
fn a_vocabulary_may_lack_special_tokens() {
    let tokenizer = opened(&[("vocab.txt", "[PAD]\n[UNK]\n[CLS]\n[SEP]\ncat\nthe\n")]);
    assert_eq!(ids(&tokenizer, "the [MASK]"), [2, 5, 6, 3]);
    tokenizer.check_vocab_size(&BertConfig::tiny(6)).unwrap();
    let again = reopened(&tokenizer, None);
    again.check_vocab_size(&BertConfig::tiny(6)).unwrap();
    assert_eq!(ids(&again, "the [MASK]"), [2, 5, 6, 3]);
    // Only masking needs [MASK], and says so.
    assert!(!tokenizer.has_mask());
    let model = |rows| BertForMaskedLM::new(&BertConfig::tiny(rows), &Device::Cpu, 0).unwrap();
    let said = FillMask::new(model(6), tokenizer.clone()).err().unwrap().to_string();
    assert!(said.contains("the vocabulary has no [MASK]"), "{said}");
    FillMask::new(model(7), tokenizer).unwrap().top_k("the [MASK]", 1).unwrap();
    // Without [CLS] no text fits the model.
    let tokenizer = opened(&[("vocab.txt", "[PAD]\n[UNK]\n[SEP]\n[MASK]\ncat\nthe\n")]);
    assert_eq!(ids(&tokenizer, "the cat"), [6, 5, 4, 2]);
    assert!(tokenizer.check_vocab_size(&BertConfig::tiny(6)).is_err());
}

/// A `tokenizer.json` with the tokens of [`VOCAB`], cased, and a hole at the id 8.
fn stored(folder: &Path) {
    let vocabulary: Vec<String> =
        VOCAB.lines().enumerate().map(|(id, token)| format!("\"{token}\": {}", id + usize::from(id > 7))).collect();
    let json = format!(
        r###"{{"version": "1.0", "added_tokens": [{{"id": 12, "content": "foo", "single_word": false, "lstrip": false,
            "rstrip": false, "normalized": true, "special": false}}],
        "normalizer": {{"type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true, "strip_accents": null,
            "lowercase": false}}, "pre_tokenizer": {{"type": "BertPreTokenizer"}}, "post_processor": null,
        "decoder": {{"type": "WordPiece", "prefix": "##", "cleanup": true}},
        "model": {{"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100, "vocab": {{{}}}}}}}"###,
        vocabulary.join(", ")
    );
    fs::write(folder.join("tokenizer.json"), json).unwrap();
}

#[test]
fn ids_may_have_holes() {
    let dir = tempfile::tempdir().unwrap();
    stored(dir.path());
    let tokenizer = Tokenizer::open(dir.path()).unwrap();
    assert_eq!(ids(&tokenizer, "the foo cat The"), [2, 10, 12, 9, 1, 3]);
    assert_eq!((tokenizer.vocab_size(), tokenizer.token(8), tokenizer.id("ab")), (13, None, Some(11)));
    assert!(tokenizer.conflicts()[0].contains("has no do_lower_case, for which transformers takes true"));
    for without in [None, Some("tokenizer.json")] {
        assert_eq!(reopened(&tokenizer, without).id("ab"), Some(11));
    }
}

#[test]
fn tokenizer_config_takes_precedence_and_the_conflict_is_said() {
    let dir = tempfile::tempdir().unwrap();
    stored(dir.path());
    let config = |text: &str| {
        fs::write(dir.path().join("tokenizer_config.json"), text).unwrap();
        let tokenizer = Tokenizer::open(dir.path()).unwrap();
        (ids(&tokenizer, "The"), tokenizer.conflicts().to_vec())
    };
    let differs = "do_lower_case is true in tokenizer_config.json, false in tokenizer.json";
    let (known, unknown) = (vec![2, 10, 3], vec![2, 1, 3]);
    assert_eq!(config(r#"{"do_lower_case": true}"#), (known, vec![format!("{differs}: tokenizer_config.json counts")]));
    assert_eq!(config(r#"{"do_lower_case": false}"#), (unknown.clone(), vec![]));
    // The model's report says so, too.
    config(r#"{"do_lower_case": true}"#);
    BertForMaskedLM::new(&BertConfig::tiny(13), &Device::Cpu, 0).unwrap().save(dir.path()).unwrap();
    let (_, report) = BertForMaskedLM::open_reported(dir.path(), &Device::Cpu, &OpenOptions::new()).unwrap();
    assert!(report.to_string().ends_with(&format!("parameters loaded; {differs}: tokenizer_config.json counts")));
    // So it does about ids, lengths and fields that nobody knows.
    let path = dir.path().join("config.json");
    let text = fs::read_to_string(&path).unwrap();
    let text = text.replacen('{', "{\"my_note\": 1, \"num_labels\": 3, \"id2label\": {\"0\": \"x\"},", 1);
    fs::write(&path, text.replace("\"pad_token_id\": 0", "\"pad_token_id\": 5")).unwrap();
    config(r#"{"do_lower_case": false, "model_max_length": 600}"#);
    fs::write(dir.path().join("vocab.txt"), VOCAB).unwrap();
    let (_, report) = BertForMaskedLM::open_reported(dir.path(), &Device::Cpu, &OpenOptions::new()).unwrap();
    assert_eq!(report.unknown_fields, ["my_note"]);
    let expected = [
        "num_labels is 3 in config.json, id2label has 1 labels: num_labels counts, and the names do not",
        "\"cat\" has the id 8 in vocab.txt, 9 in tokenizer.json: tokenizer.json counts",
        "pad_token_id is 5 in config.json, the tokenizer has 0: the tokenizer counts",
        "the maximum length of the tokenizer is 600, max_position_embeddings in config.json 512: 512 counts",
    ];
    assert_eq!(report.conflicts, expected);
    // A pipeline gives the same report.
    let (_, of_pipeline) = FillMask::open_reported(dir.path(), &Device::Cpu).unwrap();
    assert_eq!(of_pipeline, report);
    fs::remove_file(dir.path().join("vocab.txt")).unwrap();
    fs::remove_file(path).unwrap();
    // Without a layout, a tokenizer of this class adds no special tokens.
    let class = r#"{"do_lower_case": true, "tokenizer_class": "PreTrainedTokenizerFast"}"#;
    fs::write(dir.path().join("tokenizer_config.json"), class).unwrap();
    assert!(Tokenizer::open(dir.path()).unwrap_err().to_string().contains("post_processor is not that of BERT"));
    let path = dir.path().join("tokenizer.json");
    let layout = r#""post_processor": {"type": "BertProcessing", "sep": ["[SEP]", 3], "cls": ["[CLS]", 2]}"#;
    fs::write(&path, fs::read_to_string(&path).unwrap().replace("\"post_processor\": null", layout)).unwrap();
    assert_eq!(config(class), (unknown.clone(), vec![format!("{differs}: tokenizer.json counts")]));
    // Saving keeps the class, and no conflict.
    Tokenizer::open(dir.path()).unwrap().save(dir.path()).unwrap();
    let saved = fs::read_to_string(dir.path().join("tokenizer_config.json")).unwrap();
    assert!(saved.contains(r#""tokenizer_class": "PreTrainedTokenizerFast""#), "{saved}");
    assert_eq!(config(&saved), (unknown, vec![]));
}
