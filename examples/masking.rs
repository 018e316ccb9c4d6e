//! Masking (section 5.2.1 of the course): the model must predict 15 % of the tokens. Of these, 80 % become `[MASK]`,
//! 10 % become a random token, and 10 % are unchanged.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use cloze::prelude::*;
use cloze::tensor::random::{Purpose, Stream};
use cloze::train::{MaskingUnit, Selection, Target, TargetKind, VocabularyTable};
use cloze_examples::{ModelArgument, Result, Table, thousands};
use serde::Serialize;
use serde_json::json;

/// Masks texts as in pre-training, and counts over many draws what happens to their tokens.
#[derive(Parser)]
struct Arguments {
    /// Texts to mask [default: some built-in texts]
    texts: Vec<String>,
    #[command(flatten)]
    model: ModelArgument,
    /// Share of the tokens to predict
    #[arg(long, default_value_t = 0.15)]
    probability: f64,
    /// Select each token independently, as the course does, so that a text may have none to predict; BERT selects 15 % of
    /// the tokens in a text, rounded, but at least one
    #[arg(long)]
    course: bool,
    /// Select whole words instead of pieces of words
    #[arg(long)]
    whole_word: bool,
    /// How many times to mask each text for the counts
    #[arg(long, default_value_t = 10_000)]
    draws: u32,
    /// Random seed
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Also write the results to this file, as JSON
    #[arg(long)]
    json: Option<PathBuf>,
}

impl Arguments {
    /// Returns the mean number of tokens to predict in a text with `length` ordinary tokens.
    fn expected(&self, length: f64) -> f64 {
        let share = self.probability * length;
        if self.course { share } else { share.round().max(1.0).min(length) }
    }
}

const TEXTS: [&str; 2] = [
    "O cachorro mordeu o carteiro.",
    "The cat sat on the mat beside the fire. A mouse ran over the mat, but the cat was quick.",
];

/// A masked text.
#[derive(Serialize)]
struct Masked {
    original: Vec<String>,
    now: Vec<String>,
    /// Positions of the tokens to predict, and what happened to them.
    targets: Vec<(u32, &'static str)>,
}

/// Counts over many draws.
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

    /// Compares the counts with the rule. `targets` is the expected number of tokens to predict.
    fn table(&self, probability: f64, targets: f64) -> Table {
        let header = ["", "count", "share", "rule", "expected", "standard deviation"];
        let tokens = ["tokens".to_string(), thousands(self.tokens)];
        // Independent draws have a binomial distribution.
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
        let mut to_predict = row("to predict", self.targets, self.tokens, probability);
        to_predict[4] = thousands(targets.round() as u64);
        Table::new("<>")
            .row(header)
            .row(tokens)
            .row(to_predict.into_iter().take(5))
            .row(row("  replaced by [MASK]", self.masked, self.targets, 0.8))
            .row(row("  replaced by a random token", self.random, self.targets, 0.1))
            .row(row("  unchanged", self.kept, self.targets, 0.1))
    }
}

fn main() -> ExitCode {
    cloze_examples::exit_code(|| run(&Arguments::parse()))
}

fn run(arguments: &Arguments) -> Result {
    let tokenizer = Tokenizer::open(arguments.model.place())?;
    let vocabulary = VocabularyTable::new(&tokenizer)?;
    let selection = if arguments.course { Selection::Bernoulli } else { Selection::Fixed };
    let unit = if arguments.whole_word { MaskingUnit::WholeWord } else { MaskingUnit::Token };
    let masking = Masking::bert().rate(arguments.probability).selection(selection).unit(unit);
    let masking = if arguments.course { masking.without_minimum() } else { masking };
    let texts = cloze_examples::texts(&arguments.texts, &TEXTS);
    let encodings = texts.iter().map(|text| tokenizer.encode(text)).collect::<cloze::bert::Result<Vec<Encoding>>>()?;
    let mask = |index: usize, draw: u32, ids: &mut Vec<u32>| -> Result<Vec<Target>> {
        ids.clone_from(&encodings[index].ids);
        let mut stream = Stream::new(arguments.seed, Purpose::Masking, 0, draw, index as u32);
        Ok(masking.mask(ids, &vocabulary, draw, &mut stream)?)
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
    println!("=== Counts over {} draws ===\n\n{table}", thousands(arguments.draws.into()));
    let of = |(expected, length): (&f64, &usize)| format!("{} of {length}", (expected * 100.0).round() / 100.0);
    let of: Vec<String> = expected.iter().zip(&lengths).map(of).collect();
    match arguments.course {
        true => print!("Each token is selected independently; on average "),
        false => print!("BERT selects its share of each text, rounded, but at least one token: "),
    }
    println!("{}.", of.join(", "));
    cloze_examples::write_json(arguments.json.as_deref(), &json!({"masked": masked, "counts": counts}))
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
    let mut table = Table::new("><").row(["position", "token", "model sees", "kind", "to predict"]);
    for (position, original) in encoding.tokens.iter().enumerate() {
        let target = targets.iter().find(|target| target.position as usize == position);
        let (kind, target) = target.map_or(("", ""), |target| (name(target.kind), original));
        let now = token(tokenizer, ids[position]);
        table = table.row([position.to_string(), original.clone(), now, kind.to_string(), target.to_string()]);
    }
    table
}
