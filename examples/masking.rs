//! What masking does to a text (section 5.2.1 of the course): of 15 % of the tokens, which are to be predicted, 80 %
//! become [MASK], 10 % a random token, and 10 % stay.

mod common;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use cloze::prelude::*;
use cloze::tensor::random::{Purpose, Stream};
use cloze::train::{Selection, Target, TargetKind, VocabularyTable};
use common::{ModelArgument, Result, Table, thousands};
use serde::Serialize;
use serde_json::json;

/// Masks texts as in pre-training, and counts what becomes of their tokens over many draws.
#[derive(Parser)]
struct Arguments {
    /// Texts to mask [default: some that come with the example]
    texts: Vec<String>,
    #[command(flatten)]
    model: ModelArgument,
    /// Share of the tokens that are to be predicted
    #[arg(long, default_value_t = 0.15)]
    probability: f64,
    /// Draw for each token on its own, as the course does; BERT takes 15 % of the tokens of a text, rounded
    #[arg(long)]
    course: bool,
    /// Choose whole words, not pieces of words
    #[arg(long)]
    whole_word: bool,
    /// Times that each text is masked to count
    #[arg(long, default_value_t = 10_000)]
    draws: u32,
    /// Seed of everything random
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Also write what is printed to this file, as JSON
    #[arg(long)]
    json: Option<PathBuf>,
}

impl Arguments {
    /// Tokens of a text that are to be predicted, on average, of so many that are not special.
    fn expected(&self, length: f64) -> f64 {
        let share = self.probability * length;
        if self.course { share + (1.0 - self.probability).powf(length) } else { share.round().max(1.0).min(length) }
    }
}

const TEXTS: [&str; 2] = [
    "O cachorro mordeu o carteiro.",
    "The cat sat on the mat beside the fire. A mouse ran over the mat, but the cat was quick.",
];

/// A text, masked.
#[derive(Serialize)]
struct Masked {
    original: Vec<String>,
    now: Vec<String>,
    /// Positions of the tokens to predict, and what became of them.
    targets: Vec<(u32, &'static str)>,
}

/// What became of the tokens of many draws.
#[derive(Default, Serialize)]
struct Counts {
    tokens: u64,
    targets: u64,
    masked: u64,
    random: u64,
    kept: u64,
}

impl Counts {
    fn add(&mut self, tokens: usize, targets: &[Target]) {
        self.tokens += tokens as u64;
        self.targets += targets.len() as u64;
        for target in targets {
            match target.kind {
                TargetKind::Masked => self.masked += 1,
                TargetKind::Random => self.random += 1,
                TargetKind::Kept => self.kept += 1,
            }
        }
    }

    /// `targets` is the number of tokens that the rule makes targets, on average.
    fn table(&self, probability: f64, targets: f64) -> Table {
        let header = ["", "count", "share", "rule", "expected", "standard deviation"];
        let tokens = ["tokens".to_string(), thousands(self.tokens)];
        // What is drawn independently of the rest is binomial.
        let row = |name: &str, count: u64, of: u64, rule: f64| {
            let (all, share) = (of as f64, 100.0 * count as f64 / of.max(1) as f64);
            [
                name.to_string(),
                thousands(count),
                format!("{share:.2} %"),
                format!("{:.2} %", 100.0 * rule),
                thousands((all * rule).round() as u64),
                thousands((all * rule * (1.0 - rule)).sqrt().round() as u64),
            ]
        };
        let mut to_predict = row("to be predicted", self.targets, self.tokens, probability);
        to_predict[4] = thousands(targets.round() as u64);
        Table::new("<>")
            .row(header)
            .row(tokens)
            .row(to_predict.into_iter().take(5))
            .row(row("  now [MASK]", self.masked, self.targets, 0.8))
            .row(row("  now a random token", self.random, self.targets, 0.1))
            .row(row("  as they were", self.kept, self.targets, 0.1))
    }
}

fn main() -> ExitCode {
    common::exit::code(|| run(&Arguments::parse()))
}

fn run(arguments: &Arguments) -> Result {
    let tokenizer = Tokenizer::open(arguments.model.place())?;
    let vocabulary = VocabularyTable::new(&tokenizer)?;
    let selection = if arguments.course { Selection::Bernoulli } else { Selection::Fixed };
    let masking =
        Masking::bert().probability(arguments.probability).selection(selection).whole_word(arguments.whole_word);
    let texts = common::texts(&arguments.texts, &TEXTS);
    let encodings = texts.iter().map(|text| tokenizer.encode(text)).collect::<cloze::bert::Result<Vec<Encoding>>>()?;
    let mask = |index: usize, draw: u32, ids: &mut Vec<u32>| -> Result<Vec<Target>> {
        ids.clone_from(&encodings[index].ids);
        let mut stream = Stream::new(arguments.seed, Purpose::Masking, 0, draw, index as u32);
        Ok(masking.mask(ids, &vocabulary, &mut stream)?)
    };

    let mut ids = Vec::new();
    let mut masked = Vec::new();
    for (index, encoding) in encodings.iter().enumerate() {
        let targets = mask(index, 0, &mut ids)?;
        println!("=== {} ===\n\n{}", texts[index], table(&tokenizer, encoding, &ids, &targets));
        masked.push(Masked {
            original: encoding.tokens.clone(),
            now: ids.iter().map(|&id| token(&tokenizer, id)).collect(),
            targets: targets.iter().map(|target| (target.position, name(target.kind))).collect(),
        });
    }

    let ordinary = |encoding: &Encoding| encoding.ids.iter().filter(|&&id| !tokenizer.is_special(id)).count();
    let lengths: Vec<usize> = encodings.iter().map(ordinary).collect();
    let mut counts = Counts::default();
    for draw in 0..arguments.draws {
        for (index, &length) in lengths.iter().enumerate() {
            counts.add(length, &mask(index, draw, &mut ids)?);
        }
    }
    let expected: Vec<f64> = lengths.iter().map(|&length| arguments.expected(length as f64)).collect();
    let targets = f64::from(arguments.draws) * expected.iter().sum::<f64>();
    let table = counts.table(arguments.probability, targets);
    println!("=== {} times over ===\n\n{table}", thousands(arguments.draws.into()));
    let of = |(expected, length): (&f64, &usize)| format!("{} of {length}", (expected * 100.0).round() / 100.0);
    let of: Vec<String> = expected.iter().zip(&lengths).map(of).collect();
    match arguments.course {
        true => print!("Each token is drawn on its own, but at least one of a text is predicted; on average "),
        false => print!("BERT takes its share of each text, rounded, but at least one token: "),
    }
    println!("{}.", of.join(", "));
    common::write_json(arguments.json.as_deref(), &json!({"masked": masked, "counts": counts}))
}

fn token(tokenizer: &Tokenizer, id: u32) -> String {
    tokenizer.token(id).unwrap_or_default().to_string()
}

fn name(kind: TargetKind) -> &'static str {
    match kind {
        TargetKind::Masked => "masked",
        TargetKind::Random => "random",
        TargetKind::Kept => "kept",
    }
}

fn table(tokenizer: &Tokenizer, encoding: &Encoding, ids: &[u32], targets: &[Target]) -> Table {
    let mut table = Table::new("><").row(["position", "token", "model sees", "kind", "must say"]);
    for (position, original) in encoding.tokens.iter().enumerate() {
        let target = targets.iter().find(|target| target.position as usize == position);
        let (kind, target) = target.map_or(("", ""), |target| (name(target.kind), original));
        let now = token(tokenizer, ids[position]);
        table = table.row([position.to_string(), original.clone(), now, kind.to_string(), target.to_string()]);
    }
    table
}
