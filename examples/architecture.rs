//! The sizes of BERT (section 5.1 of the course): shapes, and the exact number of parameters of each part.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use cloze::bert::ParameterCounts;
use cloze::prelude::*;
use cloze_examples::{ModelArgument, Result, Table, thousands};
use serde_json::{Value, json};

/// Prints the shapes of BERT, and the exact number of parameters of each part.
#[derive(Parser)]
struct Arguments {
    #[command(flatten)]
    model: ModelArgument,
    /// Also write the results to this file, as JSON
    #[arg(long)]
    json: Option<PathBuf>,
}

/// The name of a size, its letter, and its value in a configuration.
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

/// The name of a part, its formula, and its number of parameters.
type Part = (&'static str, &'static str, fn(&ParameterCounts) -> u64);

const PARTS: [Part; 8] = [
    ("embeddings", "(V + P + S + 2) H", |counts| counts.embeddings),
    ("one layer", "4 H² + 2 H I + 9 H + I", |counts| counts.layer),
    ("all layers", "L times one layer", |counts| counts.encoder),
    ("pooler", "H² + H", |counts| counts.pooler),
    ("bare model", "", |counts| counts.model()),
    ("masked-word head", "H² + 3 H + V", |counts| counts.mlm_head),
    ("next-sentence head", "2 H + 2", |counts| counts.nsp_head),
    ("with both heads", "", |counts| counts.pre_training()),
];

fn main() -> ExitCode {
    cloze_examples::exit_code(|| run(&Arguments::parse()))
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
        "\nThe course quotes the rounded numbers of the paper. Base has 110M parameters with or without its\n\
         heads. Large has 335M without them and 336M with them, not 340M. The masked-word head has no output\n\
         matrix: it shares the token embeddings. DistilBERT has no segments, pooler or next-sentence head."
    );

    let report = |((name, config), counts): (&(String, BertConfig), &ParameterCounts)| -> Value {
        let parts = PARTS.iter().map(|(part, _, count)| (part.to_string(), json!(count(counts))));
        json!({
            "model": name, "config": serde_json::from_str::<Value>(&config.to_json()).unwrap_or_default(),
            "parameters": parts.collect::<serde_json::Map<_, _>>(),
        })
    };
    let report: Vec<Value> = models.iter().zip(&counts).map(report).collect();
    cloze_examples::write_json(arguments.json.as_deref(), &report)
}
