//! Shows the predictions of a pre-trained model for sentence pairs.

use std::path::Path;

use cloze::bert::FilledMask;
use cloze::prelude::*;
use serde::{Deserialize, Serialize};

use cloze_examples::Result;

use crate::model::Pretrained;

/// Two sentences, one of which may contain `[MASK]`.
#[derive(Deserialize)]
pub struct Pair {
    a: String,
    b: String,
}

/// The predictions for a pair.
#[derive(Serialize)]
pub struct Inspected {
    a: String,
    b: String,
    /// The token that was masked, and its position.
    original: String,
    masked_position: usize,
    top_5: Vec<(String, f64)>,
    /// The positions of the `[MASK]` that the pair has itself, each with what is predicted there.
    own_masks: Vec<(usize, Vec<(String, f64)>)>,
    is_next: Option<f64>,
    not_next: Option<f64>,
}

/// Pairs from the built-in corpus.
const PAIRS: &str = include_str!("../data/inspect-pairs.json");

/// Reads pairs from a JSON file, or returns some from the built-in corpus.
pub fn pairs(path: Option<&Path>) -> Result<Vec<Pair>> {
    let Some(path) = path else { return Ok(serde_json::from_str(PAIRS)?) };
    let text = std::fs::read_to_string(path).map_err(|error| format!("{}: cannot read: {error}", path.display()))?;
    serde_json::from_str(&text).map_err(|error| format!("{}: {error}", path.display()).into())
}

/// Prints, for each pair, the five most probable tokens for the first token of the second sentence, which is masked as in the
/// course, and the probability that the second sentence follows the first. Where the pair has a `[MASK]` of its own, prints what
/// is predicted for that, too. A model that is trained without next sentences reads the pair as one segment, as in training.
pub fn run(model: &impl Pretrained, tokenizer: &Tokenizer, pairs: &[Pair]) -> Result<Vec<Inspected>> {
    let fill_mask = FillMask::new(model.masked_lm(), tokenizer.clone())?;
    let next_sentence = model.next_sentence().map(|model| NextSentence::new(model, tokenizer.clone())).transpose()?;
    let inspect = |pair| inspect(&fill_mask, next_sentence.as_ref(), tokenizer, pair);
    let inspected = pairs.iter().map(inspect).collect::<Result<Vec<_>>>()?;
    println!("\n=== Masked words: the five most probable ===");
    let print = |top_5: &[(String, f64)]| {
        top_5.iter().for_each(|(token, probability)| println!("   -> {token:<12} p={probability:.4}"));
    };
    for pair in &inspected {
        println!("\nA: {}\nB: {}\n  masked position: {}", pair.a, pair.b, pair.masked_position);
        println!("  original token:  {:?}", pair.original);
        print(&pair.top_5);
        for (position, top_5) in &pair.own_masks {
            println!("  [MASK] of the text, position {position}:");
            print(top_5);
        }
    }
    if next_sentence.is_some() {
        println!("\n=== Does the second sentence follow the first? ===");
    }
    for pair in &inspected {
        if let (Some(is_next), Some(not_next)) = (pair.is_next, pair.not_next) {
            println!("\nA: {}\nB: {}", pair.a, pair.b);
            println!("  P(IsNext)={is_next:.3}  |  P(NotNext)={not_next:.3}");
        }
    }
    Ok(inspected)
}

fn inspect(
    fill_mask: &FillMask,
    next_sentence: Option<&NextSentence>,
    tokenizer: &Tokenizer,
    pair: &Pair,
) -> Result<Inspected> {
    let is_next = next_sentence.map(|model| model.probability(&pair.a, &pair.b)).transpose()?;
    let is_next = is_next.map(cloze_examples::print_report);
    let encoding = match next_sentence {
        Some(_) => tokenizer.encode_pair(&pair.a, &pair.b)?,
        None => tokenizer.encode(&format!("{} {}", pair.a, pair.b))?,
    };
    let first_of_b = match next_sentence {
        Some(_) => encoding.sequence_ids.iter().position(|&sequence| sequence == Some(1)),
        // After `[CLS]` and the first sentence.
        None => Some(tokenizer.encode(&pair.a)?.len() - 1).filter(|position| position + 1 < encoding.len()),
    };
    let position = first_of_b.ok_or_else(|| format!("no token to mask in {:?}", pair.b))?;
    let mut masked = encoding.clone();
    masked.ids[position] = tokenizer.mask_id();
    let top_5 = |mask: FilledMask| mask.guesses.into_iter().map(|guess| (guess.token, guess.probability)).collect();
    let mut found = fill_mask.fill_encoded(&[masked], 5)?.remove(0).into_iter();
    let found = found.find(|mask| mask.position == position).ok_or("the masked token was not predicted")?;
    let own_masks = match encoding.ids.contains(&tokenizer.mask_id()) {
        true => fill_mask.fill_encoded(std::slice::from_ref(&encoding), 5)?.remove(0),
        false => Vec::new(),
    };
    Ok(Inspected {
        a: pair.a.clone(),
        b: pair.b.clone(),
        original: encoding.tokens[position].clone(),
        masked_position: position,
        top_5: top_5(found),
        own_masks: own_masks.into_iter().map(|mask| (mask.position, top_5(mask))).collect(),
        is_next,
        not_next: is_next.map(|is_next| 1.0 - is_next),
    })
}
