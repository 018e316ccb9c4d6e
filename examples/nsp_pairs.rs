//! Which sentence comes next (section 5.2.2 of the course)? Pairs as pre-training draws them, how they are laid out for
//! the model, and what it says of them.

mod common;

use std::ops::Range;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use cloze::prelude::*;
use cloze::train::{IS_NEXT, PairExample, TokenizedCorpus};
use common::{ModelArgument, Result, Table, thousands};
use serde::Serialize;
use serde_json::json;

/// Draws pairs of sentences as pre-training does, and asks the model whether the second follows the first.
#[derive(Parser)]
struct Arguments {
    /// Two sentences to ask about, in the place of pairs that are drawn
    #[arg(num_args = 2, value_names = ["FIRST", "SECOND"])]
    pair: Vec<String>,
    #[command(flatten)]
    model: ModelArgument,
    /// A file (a sentence a line, a blank line between documents) or a folder of prose files [default: a small
    /// corpus that comes with the examples]
    #[arg(long)]
    corpus: Option<PathBuf>,
    /// Pairs to show of each way
    #[arg(long, default_value_t = 3)]
    show: usize,
    /// Pairs to count of each way
    #[arg(long, default_value_t = 10_000)]
    draws: usize,
    /// Most tokens of a pair
    #[arg(long, default_value_t = 40)]
    seq_len: usize,
    /// Seed of everything random
    #[arg(long, default_value_t = 7)]
    seed: u64,
    /// Also write what is printed to this file, as JSON
    #[arg(long)]
    json: Option<PathBuf>,
}

/// A pair, and what the model says of it.
#[derive(Serialize)]
struct Asked {
    a: String,
    b: String,
    label: &'static str,
    is_next: f64,
}

/// How pairs come about.
#[derive(Serialize)]
struct Way {
    name: &'static str,
    shown: Vec<Asked>,
    pairs: usize,
    is_next: usize,
    tokens: usize,
    /// How often the model is right, of those that it was asked.
    right: usize,
    asked: usize,
}

/// Most pairs of which the model is asked for the counts.
const ASKED: usize = 500;

fn main() -> ExitCode {
    common::exit::code(|| run(&Arguments::parse()))
}

fn run(arguments: &Arguments) -> Result {
    let tokenizer = Tokenizer::open(arguments.model.place())?;
    let model: NextSentence = arguments.model.pipeline()?;
    if let [a, b] = &arguments.pair[..] {
        let is_next = model.probability(a, b)?;
        println!("{}", layout(&tokenizer, a, b)?);
        println!("P(IsNext)={is_next:.3}  |  P(NotNext)={:.3}", 1.0 - is_next);
        return common::write_json(arguments.json.as_deref(), &json!({"a": a, "b": b, "is_next": is_next}));
    }

    let corpus = match &arguments.corpus {
        Some(path) => Corpus::open(path)?,
        None => common::mini_corpus()?,
    };
    let corpus = TokenizedCorpus::new(&corpus, &tokenizer)?;
    // An epoch of the course's way has as many pairs as are asked for; one of BERT's goes once through the corpus.
    let course = PairSampler::course(arguments.draws.clamp(1, 10_000));
    let ways = [
        ("the course's way: two sentences", course),
        ("BERT's way: as much as there is room for", PairSampler::bert()),
    ];
    let way = |(name, sampler): (&'static str, PairSampler)| {
        Way::new(name, &sampler.seq_len(arguments.seq_len), arguments, &corpus, &tokenizer, &model)
    };
    let ways = ways.into_iter().map(way).collect::<Result<Vec<_>>>()?;

    for way in &ways {
        println!("=== Pairs {} ===\n", way.name);
        for pair in &way.shown {
            println!("{}: the model says P(IsNext)={:.3}", pair.label, pair.is_next);
            println!("  A: {}\n  B: {}\n", wrapped(&pair.a), wrapped(&pair.b));
        }
    }
    if let Some(pair) = ways[0].shown.first() {
        println!("=== The first of them, as the model gets it ===\n\n{}", layout(&tokenizer, &pair.a, &pair.b)?);
    }
    let mut table = Table::new("<>").row(["", "pairs", "IsNext", "NotNext", "tokens a pair", "model is right"]);
    for (name, way) in ["the course's", "BERT's"].into_iter().zip(&ways) {
        let of = |count: usize, all: usize| 100.0 * count as f64 / all.max(1) as f64;
        let is_next = of(way.is_next, way.pairs);
        table = table.row([
            name.to_string(),
            thousands(way.pairs as u64),
            format!("{is_next:.1} %"),
            format!("{:.1} %", 100.0 - is_next),
            format!("{:.1}", way.tokens as f64 / way.pairs.max(1) as f64),
            format!("{:.1} % of {}", of(way.right, way.asked), way.asked),
        ]);
    }
    println!("=== Many of them ===\n\n{table}");
    println!(
        "The rule is half and half. BERT's way has more NotNext, the more the shorter documents are: the last\n\
         sentence of one has none that follows it, so that another document must give it."
    );
    if arguments.model.is_small() {
        println!("The small model was pre-trained on the course's pairs: it knows those, but no longer ones.");
    }
    common::write_json(arguments.json.as_deref(), &ways)
}

impl Way {
    fn new(
        name: &'static str,
        sampler: &PairSampler,
        arguments: &Arguments,
        corpus: &TokenizedCorpus,
        tokenizer: &Tokenizer,
        model: &NextSentence,
    ) -> Result<Way> {
        let (mut pairs, mut is_next, mut tokens) = (0, 0, 0);
        let mut first: Vec<PairExample> = Vec::new();
        for epoch in 0.. {
            if pairs >= arguments.draws {
                break;
            }
            let mut examples = sampler.sample(corpus, arguments.seed, epoch)?;
            examples.truncate(arguments.draws - pairs);
            pairs += examples.len();
            is_next += examples.iter().filter(|example| example.label() == Some(IS_NEXT)).count();
            tokens += examples.iter().map(PairExample::token_count).sum::<usize>();
            let room = arguments.show.max(ASKED) - first.len();
            first.extend(examples.into_iter().take(room));
        }

        let texts = |example: &PairExample| -> Result<(String, String)> {
            let text = |range: Range<usize>| tokenizer.decode(&corpus.ids_of(range), false);
            Ok((text(example.first())?, text(example.second().unwrap_or_default())?))
        };
        let texts = first.iter().map(texts).collect::<Result<Vec<_>>>()?;
        let probabilities = model.probabilities(&texts.iter().map(|(a, b)| (&a[..], &b[..])).collect::<Vec<_>>())?;
        let asked = first.iter().zip(texts).zip(probabilities).map(|((example, (a, b)), is_next)| {
            let label = if example.label() == Some(IS_NEXT) { "IsNext" } else { "NotNext" };
            Asked { a, b, label, is_next }
        });
        let asked: Vec<Asked> = asked.collect();
        let right = asked.iter().filter(|pair| (pair.is_next > 0.5) == (pair.label == "IsNext")).count();
        let (asked_count, shown) = (asked.len(), asked.into_iter().take(arguments.show).collect());
        Ok(Way { name, shown, pairs, is_next, tokens, right, asked: asked_count })
    }
}

/// The text in lines of at most 95 characters, to stand after `  A: `.
fn wrapped(text: &str) -> String {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= 95 || line.is_empty() => {
                line.extend([if line.is_empty() { "" } else { " " }, word]);
            }
            _ => lines.push(word.to_string()),
        }
    }
    lines.join("\n     ")
}

fn layout(tokenizer: &Tokenizer, a: &str, b: &str) -> Result<Table> {
    let encoding = tokenizer.encode_pair(a, b)?;
    let mut table = Table::new("><>").row(["position", "token", "id", "token type", "segment"]);
    for (position, (token, token_type)) in encoding.tokens.iter().zip(&encoding.token_types).enumerate() {
        let segment = if *token_type == 0 { "A" } else { "B" };
        let id = encoding.ids[position].to_string();
        table = table.row([position.to_string(), token.clone(), id, token_type.to_string(), segment.to_string()]);
    }
    Ok(table)
}
