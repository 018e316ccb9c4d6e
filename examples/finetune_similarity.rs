//! Fine-tunes BERT to say how similar two sentences are, in one of three ways, and says both correlations of its numbers
//! with the right ones after every epoch:
//!
//! - `--objective cosine`: a vector for each sentence, whose cosine is to be the score.
//! - `--objective contrastive`: a vector for each sentence, nearer to that of its partner than to all others of the batch;
//!   of the pairs, those with a high score are partners.
//! - `--objective regression`: both sentences read together, and a number said.
//!
//! With no arguments, on a few built-in pairs and the small model of this repository. On data of your own:
//! `--train FILE --validation FILE`, as those of STS-B; on a real model: `--model DIR_OR_NAME`.

mod common;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, ValueEnum};
use cloze::prelude::*;
use cloze::tensor::random::{Purpose, Stream};
use cloze::train::{BadRows, Regress, RegressionEvaluation, Row, Sanitized, sanitize_scores};
use common::{Recipe, Result, TrainingArguments};
use serde::Serialize;
use serde_json::json;

/// Fine-tunes BERT to say how similar two sentences are.
#[derive(Parser, Serialize)]
struct Arguments {
    /// Pairs to train on: .tsv, .csv, .jsonl or .parquet [default: built-in ones]
    #[arg(long, requires = "validation")]
    train: Option<PathBuf>,
    /// Pairs to evaluate on
    #[arg(long, requires = "train")]
    validation: Option<PathBuf>,
    /// The files have no header: columns are called 1, 2, 3
    #[arg(long)]
    no_header: bool,
    /// Columns of the sentences and of the score [default: sentence1,sentence2,score; or 1,2,3]
    #[arg(long, value_delimiter = ',', num_args = 1..=3)]
    columns: Vec<String>,
    /// The score of sentences that say the same; that of others is 0
    #[arg(long, default_value_t = 5.0, value_parser = common::positive)]
    highest: f32,
    /// What is learned
    #[arg(long, value_enum, default_value = "cosine")]
    objective: Objective,
    /// Part of the highest score from which on sentences are partners, for `contrastive`
    #[arg(long, default_value_t = 0.8)]
    partners_from: f32,
    /// Leave out rows that are not fit to use; else the first is an error
    #[arg(long)]
    drop_bad: bool,
    /// Most tokens of a sentence, or of two read together; longer ones are cut
    #[arg(long, default_value_t = 128, value_parser = clap::value_parser!(u16).range(3..))]
    max_length: u16,
    #[command(flatten)]
    training: TrainingArguments,
}

#[derive(Clone, Copy, PartialEq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
enum Objective {
    Cosine,
    Contrastive,
    Regression,
}

fn main() -> ExitCode {
    common::exit::code(|| run(&Arguments::parse()))
}

fn run(arguments: &Arguments) -> Result {
    arguments.training.check()?;
    let (training, validation) = match (&arguments.train, &arguments.validation) {
        (Some(training), Some(validation)) => (rows(training, arguments)?, rows(validation, arguments)?),
        _ => {
            println!("No --train and --validation: on built-in pairs.");
            (built_in(400, arguments), built_in(100, arguments))
        }
    };
    let training = scaled("train", training, arguments)?;
    let validation = scaled("validation", validation, arguments)?;
    println!("{} pairs to train on, {} to evaluate on", training.texts.len(), validation.texts.len());

    let (place, seed) = (arguments.training.model.place(), arguments.training.seed);
    let device = arguments.training.model.device();
    let epochs = if arguments.objective == Objective::Regression {
        let options = arguments.training.open_options().labels(["similarity"]);
        let (mut model, report) = BertForSequenceClassification::open_with(&place, device, &options)?;
        println!("{}: {report}", arguments.training.model.name());
        let tokenizer = Tokenizer::open(&place)?;
        let max_length = usize::from(arguments.max_length).min(model.config().max_position_embeddings);
        let (data, report) = training.encode(&tokenizer, max_length)?;
        println!("{report}");
        let (validation, _) = validation.encode(&tokenizer, max_length)?;
        let epochs = arguments.training.train(
            "finetune_similarity",
            &mut model,
            &data.seed(seed),
            &recipe(arguments),
            |model| measures(model, &validation),
        )?;
        if epochs.is_some() {
            arguments.training.save(&model, &tokenizer)?;
        }
        epochs
    } else {
        let (mut model, report) = SentenceEncoder::open_with(&place, device, &arguments.training.open_options())?;
        println!("{}: {report}", arguments.training.model.name());
        let tokenizer = SentenceEncoder::tokenizer(&place)?;
        let max_length = usize::from(arguments.max_length).min(tokenizer.max_length());
        let encode = |clean: &Sanitized<f32>| {
            LabelledData::of_sentences(&clean.texts, &clean.second_texts, clean.labels.clone(), &tokenizer, max_length)
        };
        let (validation, _) = encode(&validation)?;
        let evaluate = |model: &SentenceEncoder| measures(model, &validation);
        let recipe = recipe(arguments);
        let epochs = if arguments.objective == Objective::Cosine {
            let (data, report) = encode(&training)?;
            println!("{report}");
            arguments.training.train("finetune_similarity", &mut model, &data.seed(seed), &recipe, evaluate)?
        } else {
            let is_partner = |&pair: &usize| training.labels[pair] >= arguments.partners_from;
            let partners: Vec<usize> = (0..training.texts.len()).filter(is_partner).collect();
            let texts = |of: &[String]| partners.iter().map(|&pair| of[pair].clone()).collect::<Vec<_>>();
            if partners.len() < 2 {
                let (count, from) = (partners.len(), arguments.partners_from * arguments.highest);
                return Err(format!(
                    "train: {count} pair(s) have a score of {from} or more, --partners-from of \
                    --highest: to tell partners from others takes at least two"
                )
                .into());
            }
            let (first, second) = (texts(&training.texts), texts(&training.second_texts));
            let labels = vec![(); partners.len()];
            let (data, report) = LabelledData::of_sentences(&first, &second, labels, &tokenizer, max_length)?;
            println!("partners: {report}");
            arguments.training.train("finetune_similarity", &mut model, &data.seed(seed), &recipe, evaluate)?
        };
        if epochs.is_some() {
            arguments.training.save(&model, &tokenizer)?;
        }
        epochs
    };
    let Some(epochs) = epochs else { return Ok(()) };
    arguments.training.write_json(&json!({"arguments": arguments, "epochs": epochs}))
}

fn recipe(arguments: &Arguments) -> Recipe {
    match (arguments.training.model.is_small(), arguments.objective) {
        (true, _) => Recipe { epochs: 6, batch: 16, lr: 5e-4 },
        (false, Objective::Contrastive) => Recipe { epochs: 1, batch: 64, lr: 2e-5 },
        (false, _) => Recipe { epochs: 4, batch: 16, lr: 2e-5 },
    }
}

fn measures(model: &impl Regress, data: &LabelledData<f32>) -> cloze::train::Result<Evaluation> {
    let found = RegressionEvaluation::run(model, data, 32)?;
    Ok(Evaluation::maximize("Spearman", found.spearman()?).and("Pearson", found.pearson()?).and("loss", found.loss))
}

/// The pairs that serve, with scores from 0 to 1; says what was dropped.
fn scaled(name: &str, rows: Vec<Row>, arguments: &Arguments) -> Result<Sanitized<f32>> {
    let bad = if arguments.drop_bad { BadRows::Drop } else { BadRows::Fail };
    let mut clean = sanitize_scores(name, rows).check(bad)?;
    if clean.dropped.total() > 0 {
        println!("{}", clean.dropped);
    }
    let highest = arguments.highest;
    if let Some(score) = clean.labels.iter().find(|score| !(0.0..=highest).contains(*score)) {
        return Err(
            format!("{name}: there is a score of {score}, but scores go from 0 to {highest} (--highest)").into()
        );
    }
    clean.labels.iter_mut().for_each(|score| *score /= highest);
    Ok(clean)
}

fn rows(path: &Path, arguments: &Arguments) -> Result<Vec<Row>> {
    let columns = if arguments.no_header { Columns::numbered() } else { Columns::new() };
    let names = match (arguments.columns.as_slice(), arguments.no_header) {
        ([first, second, score], _) => [first, second, score].map(String::as_str),
        ([], true) => ["1", "2", "3"],
        ([], false) => ["sentence1", "sentence2", "score"],
        (columns, _) => return Err(format!("--columns has {} names, it takes three", columns.len()).into()),
    };
    Ok(read_rows(path, &columns.text(names[0]).second_text(names[1]).label(names[2]))?)
}

const WHO: [&str; 6] = ["The dog", "The cat", "Rosa", "The baker", "The boat", "The children"];
const DOES: [&str; 6] = ["sleeps", "runs", "sings", "waits", "eats bread", "looks back"];
const WHERE: [&str; 6] = ["in the garden", "by the river", "in the house", "on the bridge", "in the rain", "at night"];

/// Pairs of sentences of three parts; the score is that of the parts which they share.
fn built_in(count: usize, arguments: &Arguments) -> Vec<Row> {
    let mut random = Stream::new(arguments.training.seed, Purpose::User, 0, count as u32, 0);
    let mut pair = |line: usize| {
        let parts = [WHO, DOES, WHERE];
        let first = parts.map(|words| words[random.below(words.len())]);
        let mut second = first;
        for (part, words) in second.iter_mut().zip(parts) {
            if random.below(2) == 0 {
                *part = words[random.below(words.len())];
            }
        }
        let shared = first.iter().zip(second).filter(|(a, b)| **a == *b).count();
        let score = f64::from(arguments.highest) * shared as f64 / 3.0;
        let text = |parts: [&str; 3]| parts.join(" ") + ".";
        Row { second_text: Some(text(second).into()), ..Row::new(line, text(first), score) }
    };
    (1..=count).map(&mut pair).collect()
}
