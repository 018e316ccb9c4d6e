//! Contextual vectors (section 5.1 of the course): the vector of "bank" or "banco" depends on the sentence around it.
//! Two occurrences with the same sense should be more similar than two with different senses.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use cloze::bert::cosine_similarity;
use cloze::prelude::*;
use cloze_examples::{ModelArgument, Result, Table};
use serde::Serialize;

/// Compares the vectors of one word in several sentences.
#[derive(Parser)]
struct Arguments {
    #[command(flatten)]
    model: ModelArgument,
    /// Word to compare [default: bank and banco, with built-in sentences]
    #[arg(long)]
    word: Option<String>,
    /// Sentences with the word in one sense
    #[arg(long, value_name = "SENTENCES", num_args = 1.., requires = "word")]
    sense: Vec<String>,
    /// Sentences with the word in another sense
    #[arg(long, value_name = "SENTENCES", num_args = 1.., requires = "sense")]
    other_sense: Vec<String>,
    /// Layer whose cosines are printed; 0 is the input of the encoder [default: the last]
    #[arg(long)]
    layer: Option<usize>,
    /// Also write the results to this file, as JSON
    #[arg(long)]
    json: Option<PathBuf>,
}

/// Words with sentences in two senses. A word is at the same position in all of its sentences, so that its vectors
/// differ only because of the words around it.
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

/// A word, and sentences that use it in two senses.
type Word<'a> = (&'a str, [Vec<&'a str>; 2]);

/// The results for a word.
#[derive(Serialize)]
struct Report<'a> {
    word: &'a str,
    /// The number of the sense (1 or 2), and the sentence.
    sentences: Vec<(usize, &'a str)>,
    layer: usize,
    /// Pairwise cosines of the vectors after `layer`.
    cosines: Vec<Vec<f64>>,
    /// Mean cosines of the token embeddings, before position and segment are added.
    token_embedding: Means,
    /// Mean cosines of the input, then of the output of each layer.
    layers: Vec<Means>,
}

/// Mean cosines of pairs of sentences, or `None` if there is no such pair.
#[derive(Serialize)]
struct Means {
    same_sense: Option<f64>,
    other_sense: Option<f64>,
}

fn main() -> ExitCode {
    cloze_examples::exit_code(|| run(&Arguments::parse()))
}

fn run(arguments: &Arguments) -> Result {
    let (model, tokenizer) = arguments.model.open()?;
    let layers = model.config().num_hidden_layers;
    let layer = arguments.layer.unwrap_or(layers);
    if layer > layers {
        return Err(format!("--layer is {layer}: {} has layers 0 to {layers}", arguments.model.name()).into());
    }
    let compare = |word| compare(&model, &tokenizer, word, layer);
    let reports = words(arguments)?.into_iter().map(compare).collect::<Result<Vec<_>>>()?;
    reports.iter().for_each(print);
    cloze_examples::write_json(arguments.json.as_deref(), &reports)
}

/// Returns the words to compare, with their sentences.
fn words(arguments: &Arguments) -> Result<Vec<Word<'_>>> {
    let mut known = WORDS.iter().map(|(word, senses)| (*word, senses.each_ref().map(|sense| sense.to_vec())));
    let Some(word) = arguments.word.as_deref() else { return Ok(known.collect()) };
    if arguments.sense.is_empty() {
        let unknown = || format!("no built-in sentences with {word:?}: pass some with --sense and --other-sense");
        return Ok(vec![known.find(|(known, _)| *known == word).ok_or_else(unknown)?]);
    }
    let senses = [&arguments.sense, &arguments.other_sense];
    Ok(vec![(word, senses.map(|sentences| sentences.iter().map(String::as_str).collect()))])
}

/// Computes the vectors of a word in all its sentences, layer by layer, and compares them.
fn compare<'a>(model: &BertModel, tokenizer: &Tokenizer, (word, senses): Word<'a>, layer: usize) -> Result<Report<'a>> {
    let of_sense = |(sense, all): (usize, &Vec<&'a str>)| all.iter().map(|s| (sense + 1, *s)).collect::<Vec<_>>();
    let sentences: Vec<(usize, &str)> = senses.iter().enumerate().flat_map(of_sense).collect();
    let pieces = tokenizer.ids(word)?;
    let (mut encodings, mut places) = (Vec::new(), Vec::new());
    for (_, sentence) in &sentences {
        let encoding = tokenizer.encode(sentence)?;
        let place = find(tokenizer, &pieces, &encoding.ids)
            .ok_or_else(|| format!("the word {word:?} is not in {sentence:?}"))?;
        places.push(place);
        encodings.push(encoding);
    }
    let batch = Batch::from_encodings(&encodings)?;
    let rows: Vec<usize> = batch.sequences().starts().iter().zip(places).map(|(&row, at)| row as usize + at).collect();

    let cosines = |states: &Tensor| -> Result<Vec<Vec<f64>>> {
        let vector = |&row: &usize| states.narrow(0, row, pieces.len())?.mean(0)?.to_vec::<f32>();
        let vectors = rows.iter().map(vector).collect::<cloze::tensor::Result<Vec<_>>>()?;
        Ok(vectors.iter().map(|a| vectors.iter().map(|b| cosine_similarity(a, b)).collect()).collect())
    };
    let means = |cosines: &[Vec<f64>]| {
        let mean = |same: bool| {
            let pairs = (0..sentences.len()).flat_map(|i| (0..i).map(move |j| (i, j)));
            let pairs = pairs.filter(|&(i, j)| (sentences[i].0 == sentences[j].0) == same);
            let wanted: Vec<f64> = pairs.map(|(i, j)| cosines[i][j]).collect();
            (!wanted.is_empty()).then(|| wanted.iter().sum::<f64>() / wanted.len() as f64)
        };
        Means { same_sense: mean(true), other_sense: mean(false) }
    };
    let tokens = model.embeddings.word_embeddings.weight.embedding(batch.ids())?;
    let mut layers =
        no_grad(|| model.hidden_states(&batch, Mode::Eval))?.iter().map(cosines).collect::<Result<Vec<_>>>()?;
    Ok(Report {
        word,
        layer,
        token_embedding: means(&cosines(&tokens)?),
        layers: layers.iter().map(|cosines| means(cosines)).collect(),
        cosines: layers.swap_remove(layer),
        sentences,
    })
}

/// Returns the position of the word with these pieces in a sentence.
fn find(tokenizer: &Tokenizer, pieces: &[u32], ids: &[u32]) -> Option<usize> {
    let continues = |end: usize| ids.get(end).is_some_and(|&id| tokenizer.continues_word(id));
    (0..ids.len()).find(|&at| ids[at..].starts_with(pieces) && !pieces.is_empty() && !continues(at + pieces.len()))
}

fn print(report: &Report) {
    println!("=== {:?} in {} sentences ===\n", report.word, report.sentences.len());
    let mut table = Table::new("><<").row(["", "sense", "sentence"]);
    for (index, (sense, sentence)) in report.sentences.iter().enumerate() {
        table = table.row([(index + 1).to_string(), sense.to_string(), sentence.to_string()]);
    }
    println!("{table}");

    let name = |layer: usize| if layer == 0 { "input (layer 0)".to_string() } else { format!("after layer {layer}") };
    println!("cosines of its vectors, {}\n\n{}", name(report.layer), Table::square(&report.cosines));

    println!("mean cosine between two sentences\n");
    let mut table = Table::new("<>").row(["", "same sense", "different senses", "difference"]);
    let layers = report.layers.iter().enumerate().map(|(layer, means)| (name(layer), means));
    for (name, means) in std::iter::once(("token embedding".to_string(), &report.token_embedding)).chain(layers) {
        let difference = means.same_sense.zip(means.other_sense).map(|(same, other)| same - other);
        let number = |number: Option<f64>| number.map_or_else(|| "-".to_string(), |number| format!("{number:.3}"));
        table = table.row([name, number(means.same_sense), number(means.other_sense), number(difference)]);
    }
    println!("{table}");
}
