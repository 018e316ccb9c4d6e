//! The settings of sentence encoders and cross-encoders, compared with sentence-transformers: prompts, poolings, dense
//! layers, lengths, case, adapters, scores.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use cloze::bert::{CrossEncoder, Pipeline, SentenceEmbedder};
use cloze::prelude::*;

use crate::Result;
use crate::python::Python;

const TEXTS: [&str; 4] = ["The CAT sat on the mat, and so it was.", "", "a", "Query: É a avó que abriu a janela."];

#[test]
fn settings_are_those_of_sentence_transformers() -> Result {
    let Some(python) = Python::of("settings_are_those_of_sentence_transformers") else { return Ok(()) };
    let vocab = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/parity/fixtures/tokenizer/vocab.txt");
    let tokenizer = Tokenizer::from_vocab_file(vocab, &TokenizerOptions::cased().max_length(24))?;
    let config = BertConfig {
        hidden_size: 48,
        num_attention_heads: 3,
        intermediate_size: 80,
        initializer_range: 0.1,
        ..BertConfig::tiny(tokenizer.vocab_size())
    };
    let dir = tempfile::tempdir()?;
    BertModel::new(&config, &Device::Cpu, 3)?.save(dir.path().join("model"))?;
    let one = config.with_labels(["score"]);
    BertForSequenceClassification::new(&one, &Device::Cpu, 4)?.save(dir.path().join("classifier"))?;
    for folder in ["model", "classifier"] {
        tokenizer.save(dir.path().join(folder))?;
    }
    fs::write(dir.path().join("texts.json"), serde_json::to_string(&TEXTS)?)?;
    python.run("sentence_settings.py", &[dir.path()])?;

    let mut compared = 0;
    for entry in fs::read_dir(dir.path())? {
        let folder = entry?.path();
        let Ok(expected) = fs::read_to_string(folder.join("expected.json")) else { continue };
        let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let largest = if name.starts_with("cross") {
            let pairs: Vec<_> = TEXTS.iter().flat_map(|a| TEXTS.map(|b| (*a, b))).collect();
            let expected: Vec<f64> = serde_json::from_str(&expected)?;
            let found = CrossEncoder::open(&folder)?.predict(&pairs)?.concat();
            assert_eq!(found.len(), expected.len());
            found.iter().zip(expected).fold(0.0, |largest: f64, (a, b)| largest.max((a - b).abs()))
        } else {
            embedder_distance(&SentenceEmbedder::open(&folder)?, &serde_json::from_str(&expected)?)?
        };
        println!("{name}: {largest:.1e}");
        assert!(largest <= 1e-5, "{name}: differs by {largest:.1e}");
        compared += 1;
    }
    assert_eq!(compared, 25);
    Ok(())
}

/// Returns the largest difference of the vectors of each prompt.
fn embedder_distance(embedder: &SentenceEmbedder, expected: &BTreeMap<String, Vec<Vec<f32>>>) -> Result<f64> {
    let mut largest = 0.0f64;
    for (prompt, expected) in expected {
        let found = match prompt.as_str() {
            "" => embedder.embed(&TEXTS)?,
            "query" => embedder.query(&TEXTS)?,
            "document" => embedder.document(&TEXTS)?,
            name => embedder.prompted(name, &TEXTS)?,
        };
        for (found, expected) in found.iter().zip(expected) {
            assert_eq!(found.len(), expected.len(), "prompt {prompt:?}");
            largest = found.iter().zip(expected).fold(largest, |most, (a, b)| most.max(f64::from((a - b).abs())));
        }
    }
    Ok(largest)
}
