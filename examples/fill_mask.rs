//! Which word is masked? The most probable tokens for each [MASK].

mod common;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use cloze::prelude::*;
use common::{ModelArgument, Result};
use serde_json::{Value, json};

/// Says which words are probable for each [MASK] of a text.
#[derive(Parser)]
struct Arguments {
    /// Texts with one or several [MASK] [default: some that come with the example]
    texts: Vec<String>,
    #[command(flatten)]
    model: ModelArgument,
    /// Tokens for each mask
    #[arg(long, default_value_t = 5)]
    top: usize,
    /// Also write what is printed to this file, as JSON
    #[arg(long)]
    json: Option<PathBuf>,
}

/// The first two are the course's.
const TEXTS: [&str; 5] = [
    "O gato [MASK] no tapete",
    "O cachorro [MASK] o carteiro.",
    "Ele foi ao [MASK] sacar dinheiro.",
    "The cat sat on the [MASK].",
    "The [MASK] in the village opens in the [MASK].",
];

fn main() -> ExitCode {
    common::exit::code(|| run(&Arguments::parse()))
}

fn run(arguments: &Arguments) -> Result {
    let model: FillMask = arguments.model.pipeline()?;
    let texts = common::texts(&arguments.texts, &TEXTS);
    let filled = model.fill(&texts, arguments.top)?;
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
    common::write_json(arguments.json.as_deref(), &report.collect::<Vec<_>>())
}
