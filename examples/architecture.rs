//! How large is BERT (section 5.1 of the course)? Shapes and exact numbers of parameters, part by part.

mod common;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use cloze::bert::ParameterCounts;
use cloze::prelude::*;
use common::{ModelArgument, Result, Table, thousands};
use serde_json::{Value, json};

/// Shapes of BERT and exact numbers of its parameters, part by part.
#[derive(Parser)]
struct Arguments {
    #[command(flatten)]
    model: ModelArgument,
    /// Also write what is printed to this file, as JSON
    #[arg(long)]
    json: Option<PathBuf>,
}

/// A size's name, its letter, and where it is.
type Size = (&'static str, &'static str, fn(&BertConfig) -> usize);

const SIZES: [Size; 7] = [
    ("tokens", "V", |config| config.vocab_size),
    ("positions", "P", |config| config.max_position_embeddings),
    ("segments", "S", |config| config.type_vocab_size),
    ("layers", "L", |config| config.num_hidden_layers),
    ("attention heads", "", |config| config.num_attention_heads),
    ("hidden size", "H", |config| config.hidden_size),
    ("feed-forward size", "I", |config| config.intermediate_size),
];

/// A part's name, its formula, and its number of parameters.
type Part = (&'static str, &'static str, fn(&ParameterCounts) -> u64);

const PARTS: [Part; 8] = [
    ("embeddings", "(V + P + S + 2) H", |counts| counts.embeddings),
    ("one layer", "4 H² + 2 H I + 9 H + I", |counts| counts.layer),
    ("all layers", "L times that", |counts| counts.encoder),
    ("pooler", "H² + H", |counts| counts.pooler),
    ("bare model", "", |counts| counts.model()),
    ("masked-word head", "H² + 3 H + V", |counts| counts.mlm_head),
    ("next-sentence head", "2 H + 2", |counts| counts.nsp_head),
    ("with both heads", "", |counts| counts.pre_training()),
];

fn main() -> ExitCode {
    common::exit::code(|| run(&Arguments::parse()))
}

fn run(arguments: &Arguments) -> Result {
    let models = [
        ("BERT-Base".to_string(), BertConfig::base()),
        ("BERT-Large".to_string(), BertConfig::large()),
        ("DistilBERT".to_string(), BertConfig::distilbert()),
        (arguments.model.name(), BertConfig::open(arguments.model.place())?),
    ];
    let counts: Vec<ParameterCounts> = models.iter().map(|(_, config)| config.parameter_counts()).collect();

    let header = ["", ""].into_iter().chain(models.iter().map(|(name, _)| name.as_str()));
    let mut table = Table::new("<<>").row(header);
    for (name, letter, size) in SIZES {
        let numbers = models.iter().map(|(_, config)| thousands(size(config) as u64));
        table = table.row([name.to_string(), letter.to_string()].into_iter().chain(numbers));
    }
    table = table.row([""; 0]).row(["parameters"]);
    for (name, formula, count) in PARTS {
        let numbers = counts.iter().map(|counts| thousands(count(counts)));
        table = table.row([name.to_string(), formula.to_string()].into_iter().chain(numbers));
    }
    print!("{}", table.row([""; 0]).row(["the course", "", "110M", "340M"]));
    println!(
        "\nThe course rounds as the paper does. Base has 110M with its heads or without; Large has 335M without\n\
         and 336M with them, not 340M. The masked-word head has no matrix of its own: it shares the table of\n\
         the tokens. DistilBERT has no segments, no pooler and no next sentences."
    );

    let report = |((name, config), counts): (&(String, BertConfig), &ParameterCounts)| -> Value {
        let parts = PARTS.iter().map(|(part, _, count)| (part.to_string(), json!(count(counts))));
        json!({
            "model": name, "config": serde_json::from_str::<Value>(&config.to_json()).unwrap_or_default(),
            "parameters": parts.collect::<serde_json::Map<_, _>>(),
        })
    };
    let report: Vec<Value> = models.iter().zip(&counts).map(report).collect();
    common::write_json(arguments.json.as_deref(), &report)
}
