//! Next-sentence prediction (section 5.2.2 of the course): prints pairs as pre-training draws them, their layout as
//! model input, and the model's predictions.

use std::ops::Range;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use cloze::prelude::*;
use cloze::train::{IS_NEXT, PairExample, TokenizedCorpus};
use cloze_examples::{ModelArgument, Result, Table, built_in, thousands};
use serde::Serialize;
use serde_json::json;

/// Draws sentence pairs as in pre-training, and lets the model predict whether the second follows the first.
#[derive(Parser)]
struct Arguments {
    /// Two sentences to classify, instead of drawing pairs
    #[arg(num_args = 2, value_names = ["FIRST", "SECOND"])]
    pair: Vec<String>,
    #[command(flatten)]
    model: ModelArgument,
    /// File (a sentence per line, a blank line between documents) or folder of prose files [default: a small built-in
    /// corpus]
    #[arg(long)]
    corpus: Option<PathBuf>,
    /// Number of pairs to print for each way of drawing
    #[arg(long, default_value_t = 3)]
    show: usize,
    /// Number of pairs to draw for the counts, for each way of drawing
    #[arg(long, default_value_t = 10_000)]
    draws: usize,
    /// Maximum number of tokens in a pair
    #[arg(long, default_value_t = 40)]
    seq_len: usize,
    /// Random seed
    #[arg(long, default_value_t = 7)]
    seed: u64,
    /// Also write the results to this file, as JSON
    #[arg(long)]
    json: Option<PathBuf>,
}

/// A pair, and the prediction of the model.
#[derive(Serialize)]
struct Classified {
    a: String,
    b: String,
    label: &'static str,
    is_next: f64,
}

/// A way of drawing pairs, and its results.
#[derive(Serialize)]
struct Way {
    name: &'static str,
    shown: Vec<Classified>,
    pairs: usize,
    is_next: usize,
    tokens: usize,
    /// Number of correct predictions among the `asked` ones.
    right: usize,
    asked: usize,
}

/// Maximum number of pairs that the model classifies for the counts.
const ASKED: usize = 500;

fn main() -> ExitCode {
    cloze_examples::exit_code(|| run(&Arguments::parse()))
}

fn run(arguments: &Arguments) -> Result {
    let tokenizer = Tokenizer::open(arguments.model.place())?;
    let model: NextSentence = arguments.model.pipeline()?;
    if let [a, b] = &arguments.pair[..] {
        let is_next = cloze_examples::print_report(model.probability(a, b)?);
        println!("{}", layout(&tokenizer, a, b)?);
        println!("P(IsNext)={is_next:.3}  |  P(NotNext)={:.3}", 1.0 - is_next);
        return cloze_examples::write_json(arguments.json.as_deref(), &json!({"a": a, "b": b, "is_next": is_next}));
    }

    let corpus = match &arguments.corpus {
        Some(path) => Corpus::open(path)?,
        None => built_in::mini_corpus()?,
    };
    let corpus = TokenizedCorpus::new(&corpus, &tokenizer)?;
    // The course draws a fixed number of pairs in an epoch; BERT goes once through the corpus.
    let course = PairSampler::course(arguments.draws.clamp(1, 10_000));
    let ways = [
        ("as the course draws them: two sentences", course),
        ("as BERT draws them: segments of several sentences", PairSampler::bert()),
    ];
    let way = |(name, sampler): (&'static str, PairSampler)| {
        Way::new(name, &sampler.seq_len(arguments.seq_len), arguments, &corpus, &tokenizer, &model)
    };
    let ways = ways.into_iter().map(way).collect::<Result<Vec<_>>>()?;
    ways.iter().for_each(print_pairs);
    if let Some(pair) = ways[0].shown.first() {
        println!("=== The first pair, as the model receives it ===\n\n{}", layout(&tokenizer, &pair.a, &pair.b)?);
    }
    print_counts(&ways);
    if arguments.model.is_tiny() {
        println!("The small model was pre-trained on the course's pairs only, so it is wrong about longer ones.");
    }
    cloze_examples::write_json(arguments.json.as_deref(), &ways)
}

fn print_pairs(way: &Way) {
    println!("=== Pairs {} ===\n", way.name);
    for pair in &way.shown {
        println!("{}: the model predicts P(IsNext)={:.3}", pair.label, pair.is_next);
        println!("  A: {}\n  B: {}\n", wrapped(&pair.a), wrapped(&pair.b));
    }
}

fn print_counts(ways: &[Way]) {
    let mut table = Table::new("<>").row(["", "pairs", "IsNext", "NotNext", "tokens per pair", "model is right"]);
    for (name, way) in ["the course's", "BERT's"].into_iter().zip(ways) {
        let percent = |count: usize, all: usize| 100.0 * count as f64 / all.max(1) as f64;
        let is_next = percent(way.is_next, way.pairs);
        table = table.row([
            name.to_string(),
            thousands(way.pairs as u64),
            format!("{is_next:.1} %"),
            format!("{:.1} %", 100.0 - is_next),
            format!("{:.1}", way.tokens as f64 / way.pairs.max(1) as f64),
            format!("{:.1} % of {}", percent(way.right, way.asked), way.asked),
        ]);
    }
    println!("=== Counts ===\n\n{table}");
    println!(
        "By the rule, half of the pairs are IsNext. BERT draws more NotNext, especially from short\n\
         documents: the last sentence of a document has no next one, so its partner must come from another."
    );
}

impl Way {
    /// Draws pairs, and lets the model classify the first of them.
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
        let of_texts: Vec<(&str, &str)> = texts.iter().map(|(a, b)| (&a[..], &b[..])).collect();
        let probabilities = cloze_examples::print_report(model.probabilities(&of_texts)?);
        let asked = first.iter().zip(texts).zip(probabilities).map(|((example, (a, b)), is_next)| {
            let label = if example.label() == Some(IS_NEXT) { "IsNext" } else { "NotNext" };
            Classified { a, b, label, is_next }
        });
        let asked: Vec<Classified> = asked.collect();
        let right = asked.iter().filter(|pair| (pair.is_next > 0.5) == (pair.label == "IsNext")).count();
        let (asked_count, shown) = (asked.len(), asked.into_iter().take(arguments.show).collect());
        Ok(Way { name, shown, pairs, is_next, tokens, right, asked: asked_count })
    }
}

/// Wraps a text at 95 characters, indented to follow `  A: `.
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

/// Returns a table of the tokens of a pair as the model receives them.
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
