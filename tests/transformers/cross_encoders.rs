//! Cross-encoders trained here, compared with sentence-transformers: the losses, and the scores of saved folders.

use std::fs;
use std::path::Path;

use cloze::bert::{CrossEncoder, Pipeline};
use cloze::prelude::*;
use cloze::train::{LabelledBatch, Learn};
use serde_json::{Value, json};

use crate::Result;
use crate::python::Python;

const QUERIES: [&str; 4] = ["Where is the cat?", "Where is the cat?", "a avó", "Who opened the window?"];
const DOCUMENTS: [&str; 4] = ["The cat sat on the mat.", "It is late.", "A avó abriu a janela.", "so it was"];

/// Trains a classifier on the pairs, and saves it as it was before and after. Returns the first loss.
fn train<L: Clone>(dir: &Path, name: &str, config: &BertConfig, tokenizer: &Tokenizer, labels: Vec<L>) -> Result<f64>
where
    BertForSequenceClassification: Learn<LabelledBatch<L>>,
{
    let mut model = BertForSequenceClassification::new(config, &Device::Cpu, 7)?;
    let save = |model: &BertForSequenceClassification, when: &str| -> Result {
        let folder = dir.join(format!("{name}-{when}"));
        model.save(&folder)?;
        tokenizer.save(&folder)?;
        Ok(())
    };
    save(&model, "before")?;
    let (data, _) = LabelledData::of_pairs(&QUERIES, &DOCUMENTS, labels, tokenizer, 64)?;
    let report = Trainer::new(&mut model).optimizer(AdamW::new(1e-3)).progress(false).epochs(5).run(&data)?;
    save(&model, "after")?;
    Ok(report.losses[0])
}

#[test]
fn trained_cross_encoders_are_those_of_sentence_transformers() -> Result {
    let Some(python) = Python::of("trained_cross_encoders_are_those_of_sentence_transformers") else { return Ok(()) };
    let vocab = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/parity/fixtures/tokenizer/vocab.txt");
    let tokenizer = Tokenizer::from_vocab_file(vocab, &TokenizerOptions::cased().max_length(64))?;
    let config = BertConfig {
        hidden_size: 48,
        num_attention_heads: 3,
        intermediate_size: 80,
        initializer_range: 0.1,
        hidden_dropout_prob: 0.0,
        attention_probs_dropout_prob: 0.0,
        ..BertConfig::tiny(tokenizer.vocab_size())
    };
    let dir = tempfile::tempdir()?;
    let one = config.clone().with_labels(["relevance"]);
    let relevance = one.clone().with_problem_type(ProblemType::MultiLabel);
    let value = one.with_problem_type(ProblemType::Regression);
    let classes = config.with_labels(["contradiction", "entailment", "neutral"]);
    let (soft, numbers, labels) = ([1.0f32, 0.0, 0.75, 0.25], [4.5f32, -1.0, 2.0, 0.5], [1i64, 0, 1, 2]);
    let losses = [
        ("BinaryCrossEntropyLoss", train(dir.path(), "BinaryCrossEntropyLoss", &relevance, &tokenizer, soft.into())?),
        ("MSELoss", train(dir.path(), "MSELoss", &value, &tokenizer, numbers.into())?),
        ("CrossEntropyLoss", train(dir.path(), "CrossEntropyLoss", &classes, &tokenizer, labels.into())?),
    ];
    let labels = json!({"BinaryCrossEntropyLoss": soft, "MSELoss": numbers, "CrossEntropyLoss": labels});
    let given = json!({"queries": QUERIES, "documents": DOCUMENTS, "labels": labels});
    fs::write(dir.path().join("given.json"), given.to_string())?;
    python.run("cross_encoders.py", &[dir.path()])?;
    let expected: Value = serde_json::from_str(&fs::read_to_string(dir.path().join("expected.json"))?)?;
    for (name, loss) in losses {
        let expected = expected["losses"][name].as_f64().unwrap_or(f64::NAN);
        assert!((loss - expected).abs() < 1e-5, "{name}: {loss}, not {expected}");
    }
    let pairs: Vec<_> = QUERIES.into_iter().zip(DOCUMENTS).collect();
    for (name, expected) in expected["scores"].as_object().into_iter().flatten() {
        let expected: Vec<f64> = serde_json::from_value(expected.clone())?;
        let found = CrossEncoder::open(dir.path().join(name))?.predict(&pairs)?.concat();
        let largest = found.iter().zip(&expected).fold(0.0, |largest: f64, (a, b)| largest.max((a - b).abs()));
        println!("{name}: {largest:.1e}");
        assert!(found.len() == expected.len() && largest <= 1e-5, "{name}: {found:?}, not {expected:?}");
    }
    assert_eq!(expected["scores"].as_object().map(|scores| scores.len()), Some(6));
    Ok(())
}
