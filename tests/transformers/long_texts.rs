//! Long texts in windows, compared with the windows of transformers' tokenizers, which a script averages.

use std::fs;
use std::path::Path;

use cloze::prelude::*;
use serde::Deserialize;

use crate::Result;
use crate::python::Python;

const QUERY: &str = "Who sat?";
const STRIDE: usize = 7;
const MAX_LENGTH: usize = 24;

#[derive(Deserialize)]
struct Expected {
    classes: Vec<Vec<f64>>,
    pairs: Vec<Vec<f64>>,
    vectors: Vec<Vec<f64>>,
    windows: Vec<usize>,
}

#[test]
fn means_of_windows_are_those_of_transformers() -> Result {
    let Some(python) = Python::of("means_of_windows_are_those_of_transformers") else { return Ok(()) };
    let vocab = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/parity/fixtures/tokenizer/vocab.txt");
    let tokenizer = Tokenizer::from_vocab_file(vocab, &TokenizerOptions::cased().max_length(MAX_LENGTH))?;
    let config = BertConfig {
        hidden_size: 48,
        num_attention_heads: 3,
        intermediate_size: 80,
        initializer_range: 0.1,
        ..BertConfig::tiny(tokenizer.vocab_size())
    };
    let dir = tempfile::tempdir()?;
    let (classifier, encoder) = (dir.path().join("classifier"), dir.path().join("encoder"));
    let labels = config.clone().with_labels(["a", "b", "c"]);
    BertForSequenceClassification::new(&labels, &Device::Cpu, 4)?.save(&classifier)?;
    SentenceEncoder::new(&config, &Device::Cpu, 3)?.normalized(true).save(&encoder)?;
    tokenizer.save(&classifier)?;
    tokenizer.save(&encoder)?;
    let long = "The cat sat on the mat, and so it was; the grandmother opened the window. ".repeat(4);
    let texts = [long.as_str(), "The cat sat.", "É a avó que abriu a janela, e o gato dormiu no tapete da sala dela."];
    let given = serde_json::json!({"texts": texts, "query": QUERY, "stride": STRIDE, "max_length": MAX_LENGTH});
    fs::write(dir.path().join("texts.json"), given.to_string())?;
    python.run("long_texts.py", &[dir.path()])?;
    let expected: Expected = serde_json::from_str(&fs::read_to_string(dir.path().join("expected.json"))?)?;

    let windows = LongText::WindowsWithStride(STRIDE);
    let pipeline = TextClassification::open(&classifier)?.long_texts(windows);
    let found = pipeline.classify(&texts)?;
    assert_eq!(found.report.windows, expected.windows);
    assert!(expected.windows[0] > 4 && expected.windows[1] == 1, "{:?}", expected.windows);
    compare("classes", found.iter().map(|found| found.scores.clone()), &expected.classes);
    let pairs = texts.map(|text| (QUERY, text));
    compare("pairs", pipeline.classify_pairs(&pairs)?.into_iter().map(|found| found.scores), &expected.pairs);
    let vectors = SentenceEmbedder::open(&encoder)?.long_texts(windows).embed(&texts)?;
    compare("vectors", vectors.iter().map(|vector| vector.iter().map(|&x| x.into()).collect()), &expected.vectors);
    Ok(())
}

fn compare(what: &str, found: impl Iterator<Item = Vec<f64>>, expected: &[Vec<f64>]) {
    let (found, expected) = (found.flatten().collect::<Vec<_>>(), expected.concat());
    assert_eq!(found.len(), expected.len(), "{what}");
    let largest = found.iter().zip(&expected).fold(0.0f64, |largest, (a, b)| largest.max((a - b).abs()));
    println!("{what}: {largest:.1e}");
    assert!(largest <= 1e-5, "{what}: differs by {largest:.1e}");
}
