//! Input embeddings (section 5.3 of the course): each token starts as the sum of three vectors, for the token, its
//! segment and its position. The example also shows why positions matter: without them, the model cannot see the order
//! of words.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use cloze::bert::{Rows, cosine_similarity};
use cloze::prelude::*;
use cloze_examples::{ModelArgument, Result, Table};
use serde::Serialize;
use serde_json::json;

/// Prints the three embeddings of each token in a pair, and what the order of words changes.
#[derive(Parser)]
struct Arguments {
    /// First segment
    #[arg(long, default_value = "O filme foi ótimo.")]
    first: String,
    /// Second segment
    #[arg(long, default_value = "O fim do filme foi péssimo.")]
    second: String,
    /// Two sentences with the same words in different orders
    #[arg(long, num_args = 2, value_names = ["SENTENCE", "SENTENCE"],
        default_values = ["O cachorro mordeu o homem.", "O homem mordeu o cachorro."])]
    orders: Vec<String>,
    #[command(flatten)]
    model: ModelArgument,
    /// How many numbers of each vector to print
    #[arg(long, default_value_t = 4)]
    numbers: usize,
    /// Also write the results to this file, as JSON
    #[arg(long)]
    json: Option<PathBuf>,
}

/// A token of the pair, and its vectors.
#[derive(Serialize)]
struct TokenVectors {
    token: String,
    segment: u32,
    position: u32,
    token_embedding: Vec<f32>,
    segment_embedding: Vec<f32>,
    position_embedding: Vec<f32>,
    sum: Vec<f32>,
}

/// A token in two sentences, and the cosines of its vectors.
#[derive(Serialize)]
struct Word {
    token: String,
    positions: [usize; 2],
    token_embedding: f64,
    sum: f64,
    output: f64,
    output_without_positions: f64,
}

fn main() -> ExitCode {
    cloze_examples::exit_code(|| run(&Arguments::parse()))
}

fn run(arguments: &Arguments) -> Result {
    let (model, tokenizer) = arguments.model.open()?;
    let encoding = tokenizer.encode_pair(&arguments.first, &arguments.second)?;
    let batch = Batch::from_encodings(std::slice::from_ref(&encoding))?;
    let [tokens, segments, positions, sum] = parts(&model, &batch)?;
    let normalised = model.embeddings.layer_norm.forward(&sum)?;
    let rows = rows(&encoding, &batch, [&tokens, &segments, &positions, &sum])?;
    print_rows(&rows, arguments.numbers);

    let input = model.embeddings.forward(&batch, Mode::Eval)?;
    let difference = input.sub(&normalised)?.to_vec::<f32>()?.into_iter().fold(0.0, |most: f32, x| most.max(x.abs()));
    let agreement = if difference == 0.0 { "exactly".to_string() } else { format!("to within {difference:.1e}") };
    println!("LayerNorm of the sum is the input of the first layer. The model computes the same, {agreement}.");
    let (positions, width) = (model.config().max_position_embeddings, model.config().hidden_size);
    println!(
        "The position embeddings are a table of learned parameters, [{positions}, {width}]. The course calls\n\
         positions fixed; that is true of the original Transformer, but not of BERT.\n"
    );

    let words = words(&model, &tokenizer, &arguments.orders)?;
    print_words(&arguments.orders, &words);
    cloze_examples::write_json(arguments.json.as_deref(), &json!({"pair": rows, "orders": words}))
}

/// Returns the token, segment and position embeddings of a batch, and their sum: `[T, H]` each.
fn parts(model: &BertModel, batch: &Batch) -> Result<[Tensor; 4]> {
    let embeddings = &model.embeddings;
    let tokens = embeddings.word_embeddings.weight.embedding(batch.ids())?;
    let positions = embeddings.position_embeddings.weight.embedding(batch.positions())?;
    let segments = match &embeddings.token_type_embeddings {
        Some(table) => table.weight.embedding(batch.token_types())?,
        None => Tensor::zeros(tokens.shape(), DType::F32, &tokens.device())?, // DistilBERT
    };
    let sum = tokens.add(&segments)?.add(&positions)?;
    Ok([tokens, segments, positions, sum])
}

fn rows(encoding: &Encoding, batch: &Batch, parts: [&Tensor; 4]) -> Result<Vec<TokenVectors>> {
    let row = |(at, token): (usize, &String)| {
        let vector = |part: &Tensor| part.narrow(0, at, 1)?.to_vec::<f32>();
        Ok(TokenVectors {
            token: token.clone(),
            segment: batch.token_types()[at],
            position: batch.positions()[at],
            token_embedding: vector(parts[0])?,
            segment_embedding: vector(parts[1])?,
            position_embedding: vector(parts[2])?,
            sum: vector(parts[3])?,
        })
    };
    encoding.tokens.iter().enumerate().map(row).collect()
}

fn print_rows(rows: &[TokenVectors], numbers: usize) {
    let norm = |vector: &[f32]| vector.iter().map(|x| x * x).sum::<f32>().sqrt();
    println!("=== The three embeddings of each token, by their norms ===\n");
    let header = ["position", "token", "segment", "|token|", "|segment|", "|position|", "|sum|"];
    let mut table = Table::new("><<>").row(header);
    for row in rows {
        let segment = if row.segment == 0 { "A" } else { "B" };
        let norms = [&row.token_embedding, &row.segment_embedding, &row.position_embedding, &row.sum];
        let norms = norms.map(|vector| format!("{:.3}", norm(vector)));
        table = table.row([row.position.to_string(), row.token.clone(), segment.to_string()].into_iter().chain(norms));
    }
    println!("{table}");

    // A token that occurs in both segments shows which part of its vector depends on the token, and which on its place.
    let is_word = |row: &TokenVectors| row.token.chars().all(char::is_alphanumeric);
    let again = |row: &&TokenVectors| {
        is_word(row) && rows.iter().any(|other| other.token == row.token && other.segment != row.segment)
    };
    let longest = rows.iter().filter(again).max_by_key(|row| row.token.chars().count());
    let Some(token) = longest.or(rows.get(1)).map(|row| &row.token) else { return };
    println!("=== The first {numbers} numbers for {token:?} ===\n");
    for row in rows.iter().filter(|row| row.token == *token) {
        let segment = if row.segment == 0 { "A" } else { "B" };
        let names = [format!("token {token}"), format!("segment {segment}"), format!("position {}", row.position)];
        let vectors = [&row.token_embedding, &row.segment_embedding, &row.position_embedding, &row.sum];
        let mut table = Table::new("<>");
        for (name, vector) in names.into_iter().chain(["sum".to_string()]).zip(vectors) {
            let numbers = vector.iter().take(numbers).map(|number| format!("{number:+.4}"));
            table = table.row(std::iter::once(name).chain(numbers).chain(["...".to_string()]));
        }
        println!("{table}");
    }
}

/// Compares each token of one sentence with the same token of the other: the embeddings, and the output of the last
/// layer with and without positions.
fn words(model: &BertModel, tokenizer: &Tokenizer, orders: &[String]) -> Result<Vec<Word>> {
    let encodings = orders.iter().map(|text| tokenizer.encode(text)).collect::<cloze::bert::Result<Vec<_>>>()?;
    let [first, second] = &encodings[..] else { return Err("--orders takes two sentences".into()) };
    // If a token occurs several times, the nth occurrence is compared with the nth.
    let nth = |ids: &[u32], at: usize| ids[..at].iter().filter(|&&id| id == ids[at]).count();
    let partner = |at: usize| {
        (0..second.len())
            .find(|&other| second.ids[other] == first.ids[at] && nth(&second.ids, other) == nth(&first.ids, at))
    };
    let partners: Vec<usize> = (0..first.len()).filter_map(partner).collect();
    if partners.len() != first.len() || first.len() != second.len() {
        return Err(format!("--orders: {:?} and {:?} do not have the same words", orders[0], orders[1]).into());
    }

    let batch = Batch::from_encodings(&encodings)?;
    let [tokens, segments, _, sum] = parts(model, &batch)?;
    let mut unordered = model.embeddings.layer_norm.forward(&tokens.add(&segments)?)?;
    for layer in &model.encoder.layer {
        unordered = layer.forward(&unordered, batch.sequences(), &Rows::all(batch.sequences()), Mode::Eval)?;
    }
    let output = model.forward(&batch, Mode::Eval)?;
    let word = |(at, &other): (usize, &usize)| {
        let cosine = |vectors: &Tensor| -> Result<f64> {
            let vector = |row: usize| vectors.narrow(0, row, 1)?.to_vec::<f32>();
            Ok(cosine_similarity(&vector(at)?, &vector(first.len() + other)?))
        };
        Ok(Word {
            token: first.tokens[at].clone(),
            positions: [at, other],
            token_embedding: cosine(&tokens)?,
            sum: cosine(&sum)?,
            output: cosine(&output)?,
            output_without_positions: cosine(&unordered)?,
        })
    };
    partners.iter().enumerate().map(word).collect()
}

fn print_words(orders: &[String], words: &[Word]) {
    println!("=== The same words in two orders ===\n\n1  {}\n2  {}\n", orders[0], orders[1]);
    println!("cosine of each token's vectors in 1 and in 2\n");
    let mut table =
        Table::new("<>").row(["", "in 1", "in 2", "token embedding", "sum", "output", "output without positions"]);
    for word in words {
        let cosines = [word.token_embedding, word.sum, word.output, word.output_without_positions];
        let positions = word.positions.map(|position| position.to_string());
        let cosines = cosines.map(|cosine| format!("{cosine:.3}"));
        table = table.row([word.token.clone()].into_iter().chain(positions).chain(cosines));
    }
    println!("{table}");
    println!("Without position embeddings the encoder cannot tell one order from the other.");
}
