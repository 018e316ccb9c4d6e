//! Fills in masked words: prints the most probable tokens for each `[MASK]`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use cloze::prelude::*;
use cloze_examples::{ModelArgument, Result};
use serde_json::{Value, json};

/// Prints the most probable tokens for each [MASK] in a text.
#[derive(Parser)]
struct Arguments {
    /// Texts with one or more [MASK] [default: some built-in texts]
    texts: Vec<String>,
    #[command(flatten)]
    model: ModelArgument,
    /// Number of tokens to print for each mask
    #[arg(long, default_value_t = 5)]
    top: usize,
    /// Also write the results to this file, as JSON
    #[arg(long)]
    json: Option<PathBuf>,
}

/// The first two texts are from the course.
const TEXTS: [&str; 5] = [
    "O gato [MASK] no tapete",
    "O cachorro [MASK] o carteiro.",
    "Ele foi ao [MASK] sacar dinheiro.",
    "The cat sat on the [MASK].",
    "The [MASK] in the village opens in the [MASK].",
];

fn main() -> ExitCode {
    cloze_examples::exit_code(|| run(&Arguments::parse()))
}

fn run(arguments: &Arguments) -> Result {
    let model: FillMask = arguments.model.pipeline()?;
    let texts = cloze_examples::texts(&arguments.texts, &TEXTS);
    let filled = cloze_examples::print_report(model.fill(&texts, arguments.top)?);
    for (text, masks) in texts.iter().zip(&filled) {
        println!("{text}");
        for (number, mask) in masks.iter().enumerate() {
            if masks.len() > 1 {
                println!("  mask {}, position {}", number + 1, mask.position);
            }
            for guess in &mask.guesses {
                println!("   -> {:<12} p={:.4}", guess.token, guess.probability);
            }
        }
        println!();
    }
    let guesses = |mask: &cloze::bert::FilledMask| -> Value {
        let guess = |guess: &cloze::bert::Guess| json!({"token": guess.token, "probability": guess.probability});
        json!({"position": mask.position, "guesses": mask.guesses.iter().map(guess).collect::<Vec<_>>()})
    };
    let report = texts.iter().zip(&filled);
    let report =
        report.map(|(text, masks)| json!({"text": text, "masks": masks.iter().map(guesses).collect::<Vec<_>>()}));
    cloze_examples::write_json(arguments.json.as_deref(), &report.collect::<Vec<_>>())
}
