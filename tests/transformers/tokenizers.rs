//! Tokenizers saved by cloze give the same ids in transformers.

use std::fs;
use std::path::Path;

use cloze::prelude::*;

use crate::Result;
use crate::python::Python;

#[test]
fn saved_tokenizers_open_in_transformers() -> Result {
    let Some(python) = Python::of("saved_tokenizers_open_in_transformers") else { return Ok(()) };
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/parity/fixtures/tokenizer");
    // Repeated texts are excluded, because they are too long for a tokenizer with a maximum length.
    let texts: Vec<serde_json::Value> = serde_json::from_str(&fs::read_to_string(fixtures.join("strings.json"))?)?;
    let texts: Vec<&str> = texts.iter().filter_map(|text| text.as_str()).collect();
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("texts.json");
    fs::write(&file, serde_json::to_string(&texts)?)?;

    let sentences = ["The cat sat on the mat.", "A avó abriu a janela: não há ninguém.", "今天天气很好。"];
    let trained = |options: TokenizerOptions| Tokenizer::train(sentences, 150, &options.into());
    let tokenizers = [
        trained(TokenizerOptions::uncased())?,
        trained(TokenizerOptions::cased())?,
        trained(TokenizerOptions::uncased().strip_accents(false).chinese_chars(false))?,
        Tokenizer::from_vocab_file(fixtures.join("vocab.txt"), &TokenizerOptions::uncased())?,
    ];
    let mut arguments = vec![file];
    for (index, tokenizer) in tokenizers.iter().enumerate() {
        let folder = dir.path().join(index.to_string());
        tokenizer.save(&folder)?;
        arguments.push(folder);
    }
    python.run("tokenize_texts.py", &arguments)?;
    for (tokenizer, folder) in tokenizers.into_iter().zip(&arguments[1..]) {
        let tokenizer = tokenizer.with_max_length(usize::MAX);
        let theirs: Vec<(Vec<u32>, Vec<usize>)> =
            serde_json::from_str(&fs::read_to_string(folder.join("encodings.json"))?)?;
        assert_eq!(theirs.len(), texts.len());
        for (text, (ids, offsets)) in texts.iter().zip(theirs) {
            let ours = tokenizer.encode(text)?;
            assert_eq!(ours.ids, ids, "{text:?}");
            assert_eq!(ours.offsets.iter().flat_map(|&(a, b)| [a, b]).collect::<Vec<_>>(), offsets, "{text:?}");
        }
    }
    Ok(())
}

/// The encoding of a text or of a pair of texts.
#[derive(Debug, PartialEq, serde::Deserialize)]
struct Expected {
    ids: Vec<u32>,
    types: Vec<u32>,
    offsets: Vec<(usize, usize)>,
}

#[derive(serde::Deserialize)]
struct Folder {
    encodings: Vec<Expected>,
    max_length: usize,
}

/// Encodes each text and each pair of neighbours.
fn encodings(folder: &Path, texts: &[String]) -> Result<Vec<Expected>> {
    let tokenizer = Tokenizer::open(folder)?.with_max_length(usize::MAX);
    let single = texts.iter().map(|text| tokenizer.encode(text));
    let pairs = texts
        .windows(2)
        .filter(|pair| !pair.iter().any(String::is_empty))
        .map(|pair| tokenizer.encode_pair(&pair[0], &pair[1]));
    let expected =
        |encoding: Encoding| Expected { ids: encoding.ids, types: encoding.token_types, offsets: encoding.offsets };
    Ok(single.chain(pairs).map(|encoding| encoding.map(expected)).collect::<std::result::Result<_, _>>()?)
}

/// Folders of many kinds give what their AutoTokenizer gives, except for those called `differs`, whose differences are
/// on purpose, and `refused`. Saved and opened again, they give the same.
#[test]
fn odd_folders_tokenize_as_in_transformers() -> Result {
    let Some(python) = Python::of("odd_folders_tokenize_as_in_transformers") else { return Ok(()) };
    let dir = tempfile::tempdir()?;
    python.run("odd_tokenizers.py", &[dir.path()])?;
    let texts: Vec<String> = serde_json::from_str(&fs::read_to_string(dir.path().join("texts.json"))?)?;
    let (mut equal, mut failures) = (0, Vec::new());
    for entry in fs::read_dir(dir.path())?.filter_map(|entry| entry.ok()).filter(|entry| entry.path().is_dir()) {
        let (folder, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
        let ours = encodings(&folder, &texts);
        if name.starts_with("refused") {
            let said = ours.err().map(|error| error.to_string()).unwrap_or_default();
            assert!(said.contains("tokenizer_config.json: "), "{name}: {said}");
            continue;
        }
        let theirs: Folder = serde_json::from_str(&fs::read_to_string(folder.join("expected.json"))?)?;
        let ours = match ours {
            Ok(ours) => ours,
            Err(error) => {
                failures.push(format!("{name}: {error}"));
                continue;
            }
        };
        let tokenizer = Tokenizer::open(&folder)?;
        tokenizer.save(folder.join("again"))?;
        if encodings(&folder.join("again"), &texts)? != ours {
            failures.push(format!("{name}: differs when it is saved and opened again"));
        }
        if name.starts_with("differs") {
            assert_ne!(ours, theirs.encodings, "{name}");
            continue;
        }
        equal += 1;
        assert_eq!(tokenizer.max_length(), theirs.max_length, "{name}");
        let differs = ours.iter().zip(&theirs.encodings).enumerate().find(|(_, (ours, theirs))| ours != theirs);
        failures.extend(differs.map(|(at, (ours, theirs))| format!("{name}, {at}: {ours:?}\n  for {theirs:?}")));
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    assert_eq!(equal, 34);
    Ok(())
}
