//! Fine-tunes BERT to answer questions from a text: reads SQuAD 1.1 or 2.0 files, trains, and prints exact match and F1
//! after every epoch, computed as in SQuAD's official script.
//!
//! Without arguments, uses questions about invented voyages and the small model of this repository. To use your own
//! data, pass `--train FILE` with `--validation FILE`, `--split FRACTION` or `--split-at ARTICLES`; to use a real model,
//! `--model DIR_OR_NAME`.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;
use cloze::prelude::*;
use cloze::train::metrics::SquadVersion;
use cloze::train::{BadRows, QuestionAnsweringEvaluation, QuestionExample, Squad, read_squad};
use cloze_examples::{HELD_OUT, HeldOutArgument, Recipe, Result, TrainingArguments, built_in};
use serde::Serialize;
use serde_json::{Map, json};

/// Fine-tunes BERT to answer questions from a text.
#[derive(Parser, Serialize)]
struct Arguments {
    /// SQuAD file to train on, JSON or JSON Lines [default: questions about invented voyages]
    #[arg(long, value_name = "FILE")]
    train: Option<PathBuf>,
    #[command(flatten)]
    held_out: HeldOutArgument,
    /// Train on this many articles from the start of the file, and evaluate on the rest
    #[arg(long, requires = "train", conflicts_with = HELD_OUT, value_name = "ARTICLES")]
    split_at: Option<usize>,
    /// Drop questions that are blank or whose answer is not where the file says, instead of failing at the first
    #[arg(long)]
    drop_bad: bool,
    /// Tokens in a window over the text, including the question
    #[arg(long, default_value_t = 384)]
    max_length: usize,
    /// Tokens shared by neighbouring windows
    #[arg(long, default_value_t = 128)]
    stride: usize,
    /// Maximum number of tokens in an answer
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u16).range(1..))]
    max_answer_length: u16,
    /// Write the answers to this file, in the format of SQuAD's official script: {"ID": "ANSWER", ...}
    #[arg(long)]
    predictions: Option<PathBuf>,
    #[command(flatten)]
    training: TrainingArguments,
}

fn main() -> ExitCode {
    cloze_examples::exit_code(|| run(&cloze_examples::parse()))
}

fn run(arguments: &Arguments) -> Result {
    arguments.training.check()?;
    cloze_examples::check_json(arguments.predictions.as_deref())?;
    let (questions, validation) = clean_questions(arguments)?;
    println!("{} questions to train on, {} to evaluate on", questions.len(), validation.examples.len());

    let mut model: BertForQuestionAnswering = arguments.training.open(&arguments.training.open_options())?;
    let tokenizer = Tokenizer::open(arguments.training.model.place())?;
    let max_length = arguments.max_length.min(model.config().max_position_embeddings);
    let (data, report) = LabelledData::of_questions(&questions, &tokenizer, max_length, arguments.stride)?;
    println!("{report}");
    if data.example_count() > questions.len() {
        println!("{} windows to train on in every epoch", data.example_count());
    }

    let pipeline = |model: &BertForQuestionAnswering| -> cloze::train::Result<QuestionAnswering> {
        Ok(QuestionAnswering::new(model.clone(), tokenizer.clone())?
            .precision(arguments.training.precision)
            .max_length(max_length)
            .stride(arguments.stride)
            .max_answer_length(usize::from(arguments.max_answer_length))
            .no_answer(validation.version == SquadVersion::V2_0))
    };
    QuestionAnsweringEvaluation::check(&pipeline(&model)?, &validation)?;
    let evaluate = |model: &_| QuestionAnsweringEvaluation::run(&pipeline(model)?, &validation);
    let recipe = match arguments.training.model.is_tiny() {
        true => Recipe { epochs: 6, batch: 16, lr: 1e-3 },
        false => Recipe { epochs: 2, batch: 16, lr: 3e-5 },
    };
    let data = data.seed(arguments.training.seed);
    let epochs = arguments.training.train("finetune_qa", &mut model, &data, &recipe, &arguments.held_out, |model| {
        let scores = evaluate(model)?.scores;
        Ok(Evaluation::maximize("F1", scores.f1).and("exact match", scores.exact_match))
    })?;
    let Some(epochs) = epochs else { return Ok(()) };

    let found = evaluate(&model)?;
    print_answers(&validation, &found);
    arguments.training.save(&model, &tokenizer)?;
    let ids = validation.examples.iter().map(|example| example.id.clone());
    let predictions: Map<_, _> = ids.zip(found.predictions.into_iter().map(Into::into)).collect();
    cloze_examples::write_json(arguments.predictions.as_deref(), &predictions)?;
    arguments.training.write_json(&json!({"arguments": arguments, "epochs": epochs}))
}

/// Returns the usable questions to train on and to evaluate on, and prints how many were dropped.
fn clean_questions(arguments: &Arguments) -> Result<(Vec<QuestionExample>, Squad)> {
    let (training, validation) = questions(arguments)?;
    let bad = if arguments.drop_bad { BadRows::Drop } else { BadRows::Fail };
    let (training, blank) = training.without_blank("train", bad)?;
    let (validation, blank_validation) = validation.without_blank("validation", bad)?;
    let (questions, misplaced) = training.questions("train", bad)?;
    for dropped in [blank, misplaced, blank_validation].iter().filter(|dropped| dropped.total() > 0) {
        println!("{dropped}");
    }
    if arguments.predictions.is_some() {
        check_ids(&validation)?;
    }
    Ok((questions, validation))
}

/// Prints the first answers. With SQuAD 2.0, also prints the scores of questions with and without an answer.
fn print_answers(validation: &Squad, found: &QuestionAnsweringEvaluation) {
    if validation.version == SquadVersion::V2_0 {
        let (with, without) = (found.scores.has_answer_f1, found.scores.no_answer_exact_match);
        println!("\nF1 of questions with an answer {with:.4}, of questions without one {without:.4}");
    }
    println!("\n=== Answers ===");
    for (example, answer) in validation.examples.iter().zip(&found.predictions).take(5) {
        let expected = example.answer_texts().into_iter().next().unwrap_or("(none)");
        println!("- {}\n  -> {answer:?}, expected {expected:?}", example.question);
    }
}

/// Checks that no two questions share an id, which would be one entry in the predictions.
fn check_ids(squad: &Squad) -> Result {
    let mut ids = HashSet::new();
    match squad.examples.iter().find(|example| !ids.insert(example.id.as_str())) {
        Some(example) => Err(format!("--predictions: two questions have the id {:?}", example.id).into()),
        None => Ok(()),
    }
}

/// Reads the questions to train on and to evaluate on.
fn questions(arguments: &Arguments) -> Result<(Squad, Squad)> {
    let Some(training) = &arguments.train else {
        println!("No --train: using questions about invented voyages.");
        let squad = |count, seed| Squad::of_questions(built_in::voyages(count, seed));
        return Ok((squad(1500, arguments.training.seed), squad(200, arguments.training.seed + 1)));
    };
    if let Some(articles) = arguments.split_at {
        return Ok(read_squad(training)?.split_at_article(articles)?);
    }
    let read = |path: &Path| Ok(read_squad(path)?);
    arguments.held_out.read(training, read, |squad, fraction| squad.split(fraction, arguments.training.seed))
}
