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
