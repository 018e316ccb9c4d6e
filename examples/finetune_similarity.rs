//! Fine-tunes BERT to predict how similar two sentences are, and prints the correlations of its predictions with the
//! true scores after every epoch. There are three objectives:
//!
//! - `--objective cosine`: embeds each sentence; the cosine of the two vectors approaches the score.
//! - `--objective contrastive`: embeds each sentence; its vector moves closer to that of its partner than to all others
//!   in the batch. Pairs with a high score are partners.
//! - `--objective regression`: reads both sentences together and predicts the score.
//!
//! Without arguments, uses a few built-in pairs and the small model of this repository. To use your own data, pass
//! `--train FILE` (for example STS-B) with `--validation FILE` or `--split FRACTION`; to use a real model, `--model DIR_OR_NAME`.

use std::process::ExitCode;

use clap::{Parser, ValueEnum};
use cloze::prelude::*;
use cloze::tensor::random::{Purpose, Stream};
use cloze::train::{LabelledBatch, Learn, Regress, RegressionEvaluation, Row, split_rows};
use cloze_examples::{Epoch, Pairs, PairsArgument, Recipe, Result, TrainingArguments};
use serde::Serialize;
use serde_json::json;

/// Fine-tunes BERT to predict how similar two sentences are.
#[derive(Parser, Serialize)]
struct Arguments {
    #[command(flatten)]
    pairs: PairsArgument,
    /// Columns with the two sentences and the score [default: sentence1,sentence2,score, or 1,2,3 with --no-header]
    #[arg(long, value_delimiter = ',', num_args = 1..=3)]
    columns: Vec<String>,
    /// Highest score, given to sentences of the same meaning; the lowest is 0
    #[arg(long, default_value_t = 5.0, value_parser = cloze_examples::positive)]
    highest: f32,
    /// Training objective
    #[arg(long, value_enum, default_value = "cosine")]
    objective: Objective,
    /// For --objective contrastive: fraction of the highest score that makes sentences partners
    #[arg(long, default_value_t = 0.8)]
    partners_from: f32,
    /// Maximum number of tokens in a sentence, or in both when read together; longer ones are truncated
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
    cloze_examples::exit_code(|| run(&cloze_examples::parse()))
}

fn run(arguments: &Arguments) -> Result {
    arguments.training.check()?;
    let built_in = || (built_in(400, arguments), built_in(100, arguments));
    let split = |rows, fraction| split_rows(rows, fraction, arguments.training.seed);
    let names = ["sentence1", "sentence2", "score"];
    let [training, validation] = arguments.pairs.read(&arguments.columns, names, split, built_in)?;
    let training = scaled("train", training, arguments.highest)?;
    let validation = scaled("validation", validation, arguments.highest)?;
    let epochs = match arguments.objective {
        Objective::Regression => regression(arguments, training, validation)?,
        Objective::Cosine | Objective::Contrastive => embeddings(arguments, &training, &validation)?,
    };
    let Some(epochs) = epochs else { return Ok(()) };
    arguments.training.write_json(&json!({"arguments": arguments, "epochs": epochs}))
}

/// Trains a model that reads both sentences together and predicts the score.
fn regression(arguments: &Arguments, training: Pairs, validation: Pairs) -> Result<Option<Vec<Epoch>>> {
    let options = arguments.training.open_options().labels(["similarity"]).problem_type(ProblemType::Regression);
    let model: BertForSequenceClassification = arguments.training.open(&options)?;
    let tokenizer = Tokenizer::open(arguments.training.model.place())?;
    let max_length = usize::from(arguments.max_length).min(model.config().max_position_embeddings);
    let (data, report) = training.encode(&tokenizer, max_length)?;
    println!("training: {report}");
    let (validation, report) = validation.encode(&tokenizer, max_length)?;
    println!("validation: {report}");
    train(arguments, model, &tokenizer, data, &validation)
}

/// Trains a model that embeds each sentence on its own.
fn embeddings(arguments: &Arguments, training: &Pairs, validation: &Pairs) -> Result<Option<Vec<Epoch>>> {
    let model: SentenceEncoder = arguments.training.open(&arguments.training.open_options())?;
    let tokenizer = SentenceEncoder::tokenizer(arguments.training.model.place())?;
    let max_length = usize::from(arguments.max_length).min(tokenizer.max_length());
    let encode = |pairs: &Pairs| {
        LabelledData::of_sentences(&pairs.texts, &pairs.second_texts, pairs.labels.clone(), &tokenizer, max_length)
    };
    let (validation, report) = encode(validation)?;
    println!("validation: {report}");
    if arguments.objective == Objective::Cosine {
        let (data, report) = encode(training)?;
        println!("training: {report}");
        return train(arguments, model, &tokenizer, data, &validation);
    }
    let (first, second) = partners(arguments, training)?;
    let labels = vec![(); first.len()];
    let (data, report) = LabelledData::of_sentences(&first, &second, labels, &tokenizer, max_length)?;
    println!("partners: {report}");
    train(arguments, model, &tokenizer, data, &validation)
}

/// Returns the pairs whose score makes them partners, as first and second sentences.
fn partners(arguments: &Arguments, pairs: &Pairs) -> Result<(Vec<String>, Vec<String>)> {
    let is_partner = |&pair: &usize| pairs.labels[pair] >= arguments.partners_from;
    let partners: Vec<usize> = (0..pairs.texts.len()).filter(is_partner).collect();
    if partners.len() < 2 {
        let (count, from) = (partners.len(), arguments.partners_from * arguments.highest);
        return Err(format!(
            "train: {count} pair(s) have a score of {from} (--partners-from times --highest) or more: contrastive \
             training needs at least two"
        )
        .into());
    }
    let texts = |texts: &[String]| partners.iter().map(|&pair| texts[pair].clone()).collect();
    Ok((texts(&pairs.texts), texts(&pairs.second_texts)))
}

/// Trains the model and saves it. Returns `None` if a signal stopped the run.
fn train<M, L>(
    arguments: &Arguments,
    mut model: M,
    tokenizer: &Tokenizer,
    data: LabelledData<L>,
    validation: &LabelledData<f32>,
) -> Result<Option<Vec<Epoch>>>
where
    M: PreTrainedModel + Regress + Learn<LabelledBatch<L>>,
    L: Clone,
{
    let data = data.seed(arguments.training.seed);
    let epochs = arguments.training.train(
        "finetune_similarity",
        &mut model,
        &data,
        &recipe(arguments),
        &arguments.pairs.held_out,
        |model| {
            let found = RegressionEvaluation::run(model, validation, 32)?;
            let evaluation = Evaluation::maximize("Spearman", found.spearman()?).and("Pearson", found.pearson()?);
            Ok(evaluation.and("loss", found.loss))
        },
    )?;
    if epochs.is_some() {
        arguments.training.save(&model, tokenizer)?;
    }
    Ok(epochs)
}

fn recipe(arguments: &Arguments) -> Recipe {
    match (arguments.training.model.is_tiny(), arguments.objective) {
        (true, _) => Recipe { epochs: 6, batch: 16, lr: 5e-4 },
        (false, Objective::Contrastive) => Recipe { epochs: 1, batch: 64, lr: 2e-5 },
        (false, _) => Recipe { epochs: 4, batch: 16, lr: 2e-5 },
    }
}

/// Returns the pairs with scores from 0 to 1.
fn scaled(name: &str, mut pairs: Pairs, highest: f32) -> Result<Pairs> {
    if let Some(score) = pairs.labels.iter().find(|score| !(0.0..=highest).contains(*score)) {
        return Err(format!("{name}: score {score} is out of range: scores go from 0 to {highest} (--highest)").into());
    }
    pairs.labels.iter_mut().for_each(|score| *score /= highest);
    Ok(pairs)
}

const WHO: [&str; 6] = ["The dog", "The cat", "Rosa", "The baker", "The boat", "The children"];
const DOES: [&str; 6] = ["sleeps", "runs", "sings", "waits", "eats bread", "looks back"];
const WHERE: [&str; 6] = ["in the garden", "by the river", "in the house", "on the bridge", "in the rain", "at night"];

/// Returns pairs of sentences with three parts each. The score is the share of parts that they have in common.
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
