//! Fine-tunes BERT to re-rank documents: a cross-encoder reads a query together with a document, and predicts the
//! probability that the document answers the query. Prints NDCG@10, MRR@10 and MAP over the queries after every epoch,
//! and then ranks some documents.
//!
//! Without arguments, uses built-in queries and the small model of this repository. To use your own data, pass `--train
//! FILE --validation FILE` with a query, a document and a label in each row: 1 if the document answers the query, 0 if
//! not, or a number in between. To use a real model, pass `--model DIR_OR_NAME`. The folder of `--out` opens as a
//! `CrossEncoder` here and in `sentence-transformers`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;
use cloze::prelude::*;
use cloze::tensor::random::{Purpose, Stream};
use cloze::train::metrics::ranking;
use cloze::train::{BadRows, RegressionEvaluation, Row, Sanitized, sanitize_scores};
use cloze_examples::{Recipe, Result, TrainingArguments, say_decimal_commas};
use serde::Serialize;
use serde_json::json;

/// Fine-tunes BERT to re-rank documents.
#[derive(Parser, Serialize)]
struct Arguments {
    /// Pairs to train on, .tsv, .csv, .jsonl or .parquet [default: built-in pairs]
    #[arg(long, requires = "validation")]
    train: Option<PathBuf>,
    /// Pairs to evaluate on
    #[arg(long, requires = "train")]
    validation: Option<PathBuf>,
    /// The files have no header; columns are named 1, 2, 3
    #[arg(long)]
    no_header: bool,
    /// Character between the columns of .tsv and .csv files [default: found out]
    #[arg(long, value_name = "CHARACTER")]
    separator: Option<char>,
    /// Columns with the query, the document and the label [default: query,document,label, or 1,2,3 with --no-header]
    #[arg(long, value_delimiter = ',', num_args = 1..=3)]
    columns: Vec<String>,
    /// Drop unusable rows, instead of failing at the first
    #[arg(long)]
    drop_bad: bool,
    /// Maximum number of tokens of a query and a document together; the longer of the two is truncated
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u16).range(3..))]
    max_length: u16,
    #[command(flatten)]
    training: TrainingArguments,
}

/// Queries with documents, and the probability that each answers its query.
type Pairs = Sanitized<f32>;

/// The number of documents that count for NDCG and MRR, and that are ranked at the end.
const TOP: usize = 10;

fn main() -> ExitCode {
    cloze_examples::exit_code(|| run(&cloze_examples::parse()))
}

fn run(arguments: &Arguments) -> Result {
    arguments.training.check()?;
    let (training, validation) = match (&arguments.train, &arguments.validation) {
        (Some(training), Some(validation)) => (rows(training, arguments)?, rows(validation, arguments)?),
        _ => {
            println!("No --train and --validation: using built-in pairs.");
            (built_in(120, false, arguments.training.seed), built_in(10, true, arguments.training.seed))
        }
    };
    let (training, validation) = (clean("train", training, arguments)?, clean("validation", validation, arguments)?);
    println!("{} pairs to train on, {} to evaluate on", training.texts.len(), validation.texts.len());

    // One label that may apply or not: the score is a probability, and the loss is binary cross-entropy.
    let options = arguments.training.open_options().labels(["relevance"]).problem_type(ProblemType::MultiLabel);
    let mut model: BertForSequenceClassification = arguments.training.open(&options)?;
    let tokenizer = Tokenizer::open(arguments.training.model.place())?;
    let max_length = usize::from(arguments.max_length).min(model.config().max_position_embeddings);
    let (data, report) = training.encode(&tokenizer, max_length)?;
    println!("training: {report}");
    let (queries, documents) = (validation.texts.clone(), validation.second_texts.clone());
    let (validation, report) = validation.encode(&tokenizer, max_length)?;
    println!("validation: {report}");
    let relevant: Vec<bool> = validation.labels().iter().map(|&label| label > 0.5).collect();

    let recipe = match arguments.training.model.is_tiny() {
        true => Recipe { epochs: 6, batch: 16, lr: 1e-3 },
        false => Recipe { epochs: 1, batch: 16, lr: 2e-5 },
    };
    let data = data.seed(arguments.training.seed);
    let epochs = arguments.training.train("finetune_reranker", &mut model, &data, &recipe, |model| {
        let found = RegressionEvaluation::run(model, &validation, 32)?;
        let scores = ranking(&queries, &relevant, &found.predictions, TOP)?;
        Ok(Evaluation::maximize("NDCG@10", scores.ndcg).and("MRR@10", scores.mrr).and("MAP", scores.map))
    })?;
    let Some(epochs) = epochs else { return Ok(()) };
    arguments.training.save(&model, &tokenizer)?;

    let query = &queries[0];
    let documents: Vec<&str> =
        queries.iter().zip(&documents).filter(|(other, _)| *other == query).map(|(_, document)| &**document).collect();
    println!("\n{query}");
    for (index, score) in CrossEncoder::new(model, tokenizer)?.rank(query, &documents, TOP)? {
        println!("{score:>8.4}  {}", documents[index]);
    }
    arguments.training.write_json(&json!({"arguments": arguments, "epochs": epochs}))
}

/// Returns the usable pairs, and prints how many were dropped.
fn clean(name: &str, rows: Vec<Row>, arguments: &Arguments) -> Result<Pairs> {
    let bad = if arguments.drop_bad { BadRows::Drop } else { BadRows::Fail };
    let clean = sanitize_scores(name, rows).check(bad)?;
    say_decimal_commas(&clean);
    if clean.dropped.total() > 0 {
        println!("{}", clean.dropped);
    }
    match clean.labels.iter().find(|label| !(0.0..=1.0).contains(*label)) {
        Some(label) => Err(format!("{name}: label {label} is out of range: 0 is irrelevant, 1 is relevant").into()),
        None => Ok(clean),
    }
}

fn rows(path: &Path, arguments: &Arguments) -> Result<Vec<Row>> {
    let columns = if arguments.no_header { Columns::numbered() } else { Columns::new() };
    let names = match (arguments.columns.as_slice(), arguments.no_header) {
        ([query, document, label], _) => [query, document, label].map(String::as_str),
        ([], true) => ["1", "2", "3"],
        ([], false) => ["query", "document", "label"],
        (columns, _) => return Err(format!("--columns has {} names, it takes three", columns.len()).into()),
    };
    let columns = columns.text(names[0]).second_text(names[1]).label(names[2]);
    cloze_examples::rows(path, columns, arguments.separator)
}

const WHO: [&str; 6] = ["The dog", "The cat", "Rosa", "The baker", "The boat", "The teacher"];
const DOES: [&str; 6] = ["sleeps", "runs", "sings", "waits", "eats bread", "looks back"];
const WHERE: [&str; 4] = ["in the garden", "by the river", "in the house", "at night"];

/// Returns questions, each with documents of which about a third answer it. The documents to evaluate on are about
/// others than those to train on.
fn built_in(documents: usize, is_validation: bool, seed: u64) -> Vec<Row> {
    let mut random = Stream::new(seed, Purpose::User, u32::from(is_validation), 0, 0);
    let who = if is_validation { &WHO[4..] } else { &WHO[..4] };
    let mut rows = Vec::new();
    for (asked, name) in WHERE.iter().enumerate() {
        let query = format!("Who is {name}?");
        for _ in 0..documents {
            let is_relevant = random.below(3) == 0;
            let place = if is_relevant { asked } else { (asked + 1 + random.below(WHERE.len() - 1)) % WHERE.len() };
            let text = format!("{} {} {}.", who[random.below(who.len())], DOES[random.below(DOES.len())], WHERE[place]);
            let label = f64::from(u8::from(is_relevant));
            rows.push(Row { second_text: Some(text.into()), ..Row::new(rows.len() + 1, query.clone(), label) });
        }
    }
    rows
}
