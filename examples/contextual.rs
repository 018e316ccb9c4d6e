//! One word, many vectors (section 5.1 of the course): the vector of "bank" or "banco" depends on the sentence
//! around it. Where it means the same, vectors should be more alike than where it does not.

mod common;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use cloze::bert::cosine_similarity;
use cloze::prelude::*;
use common::{ModelArgument, Result, Table};
use serde::Serialize;

/// Compares the vectors of one word in several sentences.
#[derive(Parser)]
struct Arguments {
    #[command(flatten)]
    model: ModelArgument,
    /// The word [default: bank, then banco, each with sentences that come with the example]
    #[arg(long)]
    word: Option<String>,
    /// Sentences with the word in one sense
    #[arg(long, value_name = "SENTENCES", num_args = 1.., requires = "word")]
    sense: Vec<String>,
    /// Sentences with the word in another sense
    #[arg(long, value_name = "SENTENCES", num_args = 1.., requires = "sense")]
    other_sense: Vec<String>,
    /// The layer of the cosine table, from 0, which is the input [default: the last]
    #[arg(long)]
    layer: Option<usize>,
    /// Also write what is printed to this file, as JSON
    #[arg(long)]
    json: Option<PathBuf>,
}

/// Words with sentences in two senses. A word stands at the same position in all of its sentences, so that its vectors
/// differ by what is around it alone.
const WORDS: [(&str, [[&str; 4]; 2]); 2] = [
    (
        "bank",
        [
            [
                "She goes to the bank with her coins.",
                "The clerk of the bank counts the money.",
                "The money from the bank is in her coat.",
                "Tom goes to the bank for a loan.",
            ],
            [
                "The grass on the bank is green and wet.",
                "Flowers grow on the bank of the river.",
                "He sits on the bank in the sun.",
                "We sleep on the bank beside the water.",
            ],
        ],
    ),
    (
        "banco",
        [
            [
                "Ele foi ao banco sacar dinheiro.",
                "O gerente do banco contou o dinheiro.",
                "Ele voltou ao banco com um papel.",
                "O dinheiro do banco está no casaco.",
            ],
            [
                "Ela sentou no banco do parque.",
                "Ele descansou no banco à sombra.",
                "O cachorro no banco dormiu ao sol.",
                "O menino no banco viu um pássaro.",
            ],
        ],
    ),
];

/// What was found of a word.
#[derive(Serialize)]
struct Report {
    word: String,
    sentences: Vec<(usize, String)>,
    layer: usize,
    cosines: Vec<Vec<f64>>,
    layers: Vec<Means>,
}

/// Mean cosines of the pairs of sentences.
#[derive(Serialize)]
struct Means {
    within: f64,
    across: f64,
}

fn main() -> ExitCode {
    common::exit::code(run(&Arguments::parse()))
}

fn run(arguments: &Arguments) -> Result {
    let (model, tokenizer) = arguments.model.open()?;
    let layers = model.config().num_hidden_layers;
    let layer = arguments.layer.unwrap_or(layers);
    if layer > layers {
        return Err(format!("--layer is {layer}: {} has layers 0 to {layers}", arguments.model.name()).into());
    }
    let mut reports = Vec::new();
    for (word, senses) in words(arguments)? {
        let report = look(&model, &tokenizer, word, &senses, layer)?;
        print(&report, layers);
        reports.push(report);
    }
    common::write_json(arguments.json.as_deref(), &reports)
}

/// The words to look at, with their sentences by sense.
fn words(arguments: &Arguments) -> Result<Vec<(&str, Vec<Vec<&str>>)>> {
    let mut known = WORDS.iter().map(|(word, senses)| (*word, senses.iter().map(|sense| sense.to_vec()).collect()));
    let Some(word) = arguments.word.as_deref() else { return Ok(known.collect()) };
    if arguments.sense.is_empty() {
        let unknown = || format!("no sentences with {word:?}: give some with --sense and --other-sense");
        return Ok(vec![known.find(|(known, _)| *known == word).ok_or_else(unknown)?]);
    }
    let senses = [&arguments.sense, &arguments.other_sense];
    Ok(vec![(word, senses.map(|sentences| sentences.iter().map(String::as_str).collect()).to_vec())])
}

fn look(model: &BertModel, tokenizer: &Tokenizer, word: &str, senses: &[Vec<&str>], layer: usize) -> Result<Report> {
    let numbered = senses.iter().enumerate();
    let sentences: Vec<(usize, &str)> =
        numbered.flat_map(|(sense, all)| all.iter().map(move |s| (sense, *s))).collect();
    let encodings =
        sentences.iter().map(|(_, sentence)| tokenizer.encode(sentence)).collect::<cloze::bert::Result<Vec<_>>>()?;
    let batch = Batch::from_encodings(&encodings)?;
    let pieces = tokenizer.ids(word)?;
    let mut rows = Vec::new();
    for (((_, sentence), encoding), start) in sentences.iter().zip(&encodings).zip(batch.sequences().starts()) {
        let first =
            find(tokenizer, &pieces, &encoding.ids).ok_or_else(|| format!("{word:?} is not in {sentence:?}"))?;
        rows.push(start + first as u32);
    }

    let hidden = model.hidden(&batch)?;
    let mut layers = Vec::new();
    let mut cosines = Vec::new();
    for (index, states) in hidden.states.iter().enumerate() {
        let vectors = vectors(states, &rows, pieces.len())?;
        let table: Vec<Vec<f64>> =
            vectors.iter().map(|a| vectors.iter().map(|b| cosine_similarity(a, b)).collect()).collect();
        let mean = |same: bool| {
            let pairs = (0..rows.len()).flat_map(|i| (0..i).map(move |j| (i, j)));
            let wanted: Vec<f64> =
                pairs.filter(|&(i, j)| (sentences[i].0 == sentences[j].0) == same).map(|(i, j)| table[i][j]).collect();
            wanted.iter().sum::<f64>() / wanted.len() as f64
        };
        layers.push(Means { within: mean(true), across: mean(false) });
        if index == layer {
            cosines = table;
        }
    }
    let sentences = sentences.into_iter().map(|(sense, sentence)| (sense + 1, sentence.to_string())).collect();
    Ok(Report { word: word.to_string(), sentences, layer, cosines, layers })
}

/// Where in a sentence the word of these pieces is.
fn find(tokenizer: &Tokenizer, pieces: &[u32], ids: &[u32]) -> Option<usize> {
    let goes_on = |end: usize| ids.get(end).is_some_and(|&id| tokenizer.continues_word(id));
    (0..ids.len()).find(|&at| ids[at..].starts_with(pieces) && !pieces.is_empty() && !goes_on(at + pieces.len()))
}

/// The mean of the vectors of each word's pieces, which begin at `rows` of `states`.
fn vectors(states: &Tensor, rows: &[u32], pieces: usize) -> Result<Vec<Vec<f32>>> {
    let vector = |&row: &u32| Ok(states.narrow(0, row as usize, pieces)?.mean(0)?.to_vec::<f32>()?);
    rows.iter().map(vector).collect()
}

fn print(report: &Report, layers: usize) {
    println!("=== {:?} in {} sentences ===\n", report.word, report.sentences.len());
    let header = ["", "sense", "sentence"];
    let row = |table: Table, (index, (sense, sentence)): (usize, &(usize, String))| {
        table.row([(index + 1).to_string(), sense.to_string(), sentence.clone()])
    };
    println!("{}", report.sentences.iter().enumerate().fold(Table::new("><<", header), row));

    println!("cosine of its vectors after layer {} of {layers}\n", report.layer);
    let numbers = (1..=report.sentences.len()).map(|number| number.to_string());
    let header = std::iter::once(String::new()).chain(numbers);
    let row = |table: Table, (index, cosines): (usize, &Vec<f64>)| {
        table.row(std::iter::once((index + 1).to_string()).chain(cosines.iter().map(|cosine| format!("{cosine:.3}"))))
    };
    println!("{}", report.cosines.iter().enumerate().fold(Table::new(">", header), row));

    println!("mean cosine of two sentences\n");
    let mut table = Table::new("<>", ["", "same sense", "other sense", "difference"]);
    table = table.row(["token embedding", "1.000", "1.000", "0.000"]);
    for (layer, means) in report.layers.iter().enumerate() {
        let name = if layer == 0 { "input (layer 0)".to_string() } else { format!("after layer {layer}") };
        let numbers = [means.within, means.across, means.within - means.across].map(|number| format!("{number:.3}"));
        table = table.row(std::iter::once(name).chain(numbers));
    }
    println!("{table}");
}
