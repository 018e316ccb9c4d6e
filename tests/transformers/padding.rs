//! Padded batches and grown vocabularies, compared with transformers.

use std::fs;
use std::path::Path;

use cloze::prelude::*;
use serde_json::{Value, json};

use crate::Result;
use crate::python::Python;

/// Rows of ids and whether each is a token: padded on the left, padded on the right, and with a hole.
const IDS: [[u32; 6]; 3] = [[0, 0, 2, 9, 4, 3], [2, 17, 5, 3, 0, 0], [2, 8, 0, 30, 3, 0]];
const MASK: [[u32; 6]; 3] = [[0, 0, 1, 1, 1, 1], [1, 1, 1, 1, 0, 0], [1, 1, 0, 1, 1, 0]];

const ADDED: usize = 70;

fn config() -> BertConfig {
    BertConfig {
        num_attention_heads: 3,
        hidden_size: 48,
        intermediate_size: 80,
        initializer_range: 0.1,
        ..BertConfig::tiny(300)
    }
}

fn numbers(value: &Value) -> Vec<f32> {
    value
        .as_array()
        .map(|values| values.iter().map(|x| x.as_f64().unwrap_or(f64::NAN) as f32).collect())
        .unwrap_or_default()
}

fn distance(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).fold(0.0, |largest, (a, b)| largest.max((a - b).abs()))
}

/// Saves a model whose decoder has different biases.
fn model(config: &BertConfig, folder: &Path) -> Result<BertForMaskedLM> {
    let mut model = BertForMaskedLM::new(config, &Device::Cpu, 5)?;
    let bias: Vec<f32> = (0..300).map(|id| 0.01 * id as f32).collect();
    model.cls.predictions.bias = Tensor::new(bias, &Device::Cpu)?.requires_grad();
    model.save(folder)?;
    Ok(model)
}

fn expected(python: &Python, folder: &Path) -> Result<Value> {
    let given = json!({"ids": IDS, "mask": MASK, "vocab_size": 300 + ADDED});
    fs::write(folder.join("given.json"), given.to_string())?;
    python.run("padding.py", &[folder])?;
    Ok(serde_json::from_str(&fs::read_to_string(folder.join("expected.json"))?)?)
}

#[test]
fn masks_are_those_of_transformers_with_positions() -> Result {
    let Some(python) = Python::of("masks_are_those_of_transformers_with_positions") else { return Ok(()) };
    let dir = tempfile::tempdir()?;
    let model = model(&config(), dir.path())?;
    let expected = expected(&python, dir.path())?;
    let batch = Batch::from_padded(&IDS.concat(), &[0; 18], &MASK.concat(), 6)?;
    let hidden = model.bert.forward(&batch, Mode::Eval)?.to_vec::<f32>()?;
    // With the positions of the tokens among the tokens, transformers computes the same.
    let found = distance(&hidden, &numbers(&expected["among tokens"]));
    assert!(found < 1e-5, "differs by {found:.1e}");
    // Without, it counts what is padded, except on the right.
    let by_row = |hidden: &[f32], row: usize| hidden[row * 4 * 48..][..4 * 48].to_vec();
    let counted = numbers(&expected["positions not given"]);
    let different = [0, 1, 2].map(|row| distance(&by_row(&hidden, row), &by_row(&counted, row)));
    assert!(different[1] < 1e-5 && different[0] > 0.1 && different[2] > 0.1, "{different:?}");
    Ok(())
}

#[test]
fn rows_of_new_tokens_are_drawn_as_by_transformers() -> Result {
    let Some(python) = Python::of("rows_of_new_tokens_are_drawn_as_by_transformers") else { return Ok(()) };
    for is_tied in [true, false] {
        let dir = tempfile::tempdir()?;
        let mut model = model(&config().with_tie_word_embeddings(is_tied), dir.path())?;
        let expected = expected(&python, dir.path())?;
        model.resize_token_embeddings(300 + ADDED, 5)?;
        let words = &model.bert.embeddings.word_embeddings.weight;
        let decoder = model.cls.predictions.decoder.as_ref().unwrap_or(words);
        for (table, name) in [(words, "rows"), (decoder, "decoder")] {
            let (found, theirs) = (table.narrow(0, 300, ADDED)?.to_vec::<f32>()?, numbers(&expected[name]));
            // Both are drawn around the same mean, with the same deviation.
            assert!(distance(&found, &theirs) < 1e-4);
            let (found, theirs) = (deviation(&found), deviation(&theirs));
            assert!(found > 1e-6 && (found / theirs - 1.0).abs() < 0.1, "deviations {found:e} and {theirs:e}");
        }
        let bias = model.cls.predictions.bias.narrow(0, 300, ADDED)?.to_vec::<f32>()?;
        assert!(distance(&bias, &numbers(&expected["biases"])) < 1e-5, "{bias:?}, not {}", expected["biases"]);
    }
    Ok(())
}

/// Returns the root mean square deviation of rows from their mean.
fn deviation(rows: &[f32]) -> f64 {
    let mean = |column: usize| rows.iter().skip(column).step_by(48).sum::<f32>() / ADDED as f32;
    let means: Vec<f32> = (0..48).map(mean).collect();
    let square = |(x, mean): (&f32, &f32)| f64::from(x - mean).powi(2);
    (rows.iter().zip(means.iter().cycle()).map(square).sum::<f64>() / rows.len() as f64).sqrt()
}
