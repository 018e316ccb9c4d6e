//! Looks at what a pre-trained model says of sentence pairs.

use std::path::Path;

use cloze::prelude::*;
use serde::{Deserialize, Serialize};

use super::Result;

/// Two sentences, one of which may contain `[MASK]`.
#[derive(Deserialize)]
pub struct Pair {
    a: String,
    b: String,
}

/// What the model says of a pair.
#[derive(Serialize)]
pub struct Inspected {
    a: String,
    b: String,
    masked_position: usize,
    original: Option<String>,
    top_5: Vec<(String, f64)>,
    is_next: f64,
    not_next: f64,
}

/// Of the corpus that comes with the examples.
const PAIRS: &str = include_str!("../data/inspect-pairs.json");

/// The pairs of a JSON file, or some of the small corpus.
pub fn pairs(path: Option<&Path>) -> Result<Vec<Pair>> {
    let Some(path) = path else { return Ok(serde_json::from_str(PAIRS)?) };
    let text = std::fs::read_to_string(path).map_err(|error| format!("{}: cannot read: {error}", path.display()))?;
    serde_json::from_str(&text).map_err(|error| format!("{}: {error}", path.display()).into())
}

/// Prints the five best tokens for a masked one in each pair (the `[MASK]` that is there, or else the first token
/// of the second sentence), and whether the second sentence follows the first.
pub fn run(model: &BertForPreTraining, tokenizer: &Tokenizer, pairs: &[Pair]) -> Result<Vec<Inspected>> {
    let inspected = pairs.iter().map(|pair| look(model, tokenizer, pair)).collect::<Result<Vec<_>>>()?;
    println!("\n=== Masked words: the five most probable ===");
    for pair in &inspected {
        println!("\nA: {}\nB: {}\n  masked position: {}", pair.a, pair.b, pair.masked_position);
        if let Some(original) = &pair.original {
            println!("  original token:  {original:?}");
        }
        pair.top_5.iter().for_each(|(token, probability)| println!("   -> {token:<12} p={probability:.4}"));
    }
    println!("\n=== Does the second sentence follow the first? ===");
    for pair in &inspected {
        println!("\nA: {}\nB: {}", pair.a, pair.b);
        println!("  P(IsNext)={:.3}  |  P(NotNext)={:.3}", pair.is_next, pair.not_next);
    }
    Ok(inspected)
}

fn look(model: &BertForPreTraining, tokenizer: &Tokenizer, pair: &Pair) -> Result<Inspected> {
    let longest =
        EncodeOptions::new().max_length(model.config().max_position_embeddings).truncation(Truncation::LongestFirst);
    let encoding = tokenizer.encode_with(&pair.a, Some(&pair.b), &longest)?;
    let is_next = model.is_next(&encoding)?;
    let mut masked = encoding.clone();
    let given = encoding.ids.iter().position(|&id| id == tokenizer.mask_id());
    let first_of_b = || (0..encoding.len()).find(|&at| encoding.sequence_ids[at] == Some(1));
    let position = given.or_else(first_of_b).ok_or_else(|| format!("no token to mask in {:?}", pair.b))?;
    masked.ids[position] = tokenizer.mask_id();
    let best = model.most_probable(&masked, position, 5)?;
    let token = |id: u32| tokenizer.token(id).unwrap_or("?").to_string();
    Ok(Inspected {
        a: pair.a.clone(),
        b: pair.b.clone(),
        masked_position: position,
        original: given.is_none().then(|| token(encoding.ids[position])),
        top_5: best.into_iter().map(|(id, probability)| (token(id), probability)).collect(),
        is_next,
        not_next: 1.0 - is_next,
    })
}
