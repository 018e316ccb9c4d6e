//! Fine-tunes BERT to answer questions from a text: reads files of SQuAD 1.1 or 2.0, trains, and says exact match and F1
//! after every epoch, as SQuAD's own script counts them.
//!
//! With no arguments, on questions about invented voyages and the small model of this repository. On data of your own:
//! `--train FILE --validation FILE`, or one file and `--split-at ARTICLES`; on a real model: `--model DIR_OR_NAME`.

mod common;

use std::collections::HashSet;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use cloze::prelude::*;
use cloze::train::metrics::SquadVersion;
use cloze::train::{BadRows, QuestionAnsweringEvaluation, Squad, read_squad};
use common::{Recipe, Result, TrainingArguments, invented};
use serde::Serialize;
use serde_json::{Map, json};

/// Fine-tunes BERT to answer questions from a text.
#[derive(Parser, Serialize)]
struct Arguments {
    /// Questions to train on: a JSON file of SQuAD [default: about invented voyages]
    #[arg(long)]
    train: Option<PathBuf>,
    /// Questions to evaluate on
    #[arg(long, requires = "train")]
    validation: Option<PathBuf>,
    /// Train on so many articles of the file, from its beginning, and evaluate on the others
    #[arg(long, requires = "train", conflicts_with = "validation", value_name = "ARTICLES")]
    split_at: Option<usize>,
    /// Leave out questions that are blank or whose answer does not stand where the file says; else the first is an error
    #[arg(long)]
    drop_bad: bool,
    /// Tokens of a window over a text, question included
    #[arg(long, default_value_t = 384)]
    max_length: usize,
    /// Tokens that neighbouring windows share
    #[arg(long, default_value_t = 128)]
    stride: usize,
    /// Most tokens of an answer
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u16).range(1..))]
    max_answer_length: u16,
    /// Write the answers to this file, as SQuAD's own script reads them: {"ID": "ANSWER", ...}
    #[arg(long)]
    predictions: Option<PathBuf>,
    #[command(flatten)]
    training: TrainingArguments,
}

fn main() -> ExitCode {
    common::exit::code(|| run(&Arguments::parse()))
}

fn run(arguments: &Arguments) -> Result {
    arguments.training.check()?;
    common::check_json(arguments.predictions.as_deref())?;
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
    println!("{} questions to train on, {} to evaluate on", questions.len(), validation.examples.len());

    let (place, seed) = (arguments.training.model.place(), arguments.training.seed);
    let options = arguments.training.open_options();
    let (mut model, report) = BertForQuestionAnswering::open_with(&place, arguments.training.model.device(), &options)?;
    println!("{}: {report}", arguments.training.model.name());
    let tokenizer = Tokenizer::open(&place)?;
    let max_length = arguments.max_length.min(model.config().max_position_embeddings);
    let (data, report) = LabelledData::of_questions(&questions, &tokenizer, max_length, arguments.stride)?;
    println!("{report}");

    let has_impossible = validation.version == SquadVersion::V2_0;
    let evaluate = |model: &BertForQuestionAnswering| {
        let pipeline = QuestionAnswering::new(model.clone(), tokenizer.clone())?
            .precision(arguments.training.precision)
            .max_length(max_length)
            .stride(arguments.stride)
            .max_answer_length(usize::from(arguments.max_answer_length))
            .no_answer(has_impossible);
        QuestionAnsweringEvaluation::run(&pipeline, &validation)
    };
    let recipe = match arguments.training.model.is_small() {
        true => Recipe { epochs: 6, batch: 16, lr: 1e-3 },
        false => Recipe { epochs: 2, batch: 16, lr: 3e-5 },
    };
    let epochs = arguments.training.train("finetune_qa", &mut model, &data.seed(seed), &recipe, |model| {
        let scores = evaluate(model)?.scores;
        Ok(Evaluation::maximize("F1", scores.f1).and("exact match", scores.exact_match))
    })?;
    let Some(epochs) = epochs else { return Ok(()) };

    let found = evaluate(&model)?;
    if has_impossible {
        let (some, none) = (found.scores.has_answer_f1, found.scores.no_answer_exact_match);
        println!("\nF1 of questions with an answer {some:.4}, of questions without one {none:.4}");
    }
    println!("\n=== Answers ===");
    for (example, answer) in validation.examples.iter().zip(&found.predictions).take(5) {
        let right = example.answer_texts().into_iter().next().unwrap_or("(none)");
        println!("- {}\n  -> {answer:?}, right is {right:?}", example.question);
    }
    arguments.training.save(&model, &tokenizer)?;
    let ids = validation.examples.iter().map(|example| example.id.clone());
    let predictions: Map<_, _> = ids.zip(found.predictions.into_iter().map(Into::into)).collect();
    common::write_json(arguments.predictions.as_deref(), &predictions)?;
    arguments.training.write_json(&json!({"arguments": arguments, "epochs": epochs}))
}

/// Fails where two questions would have one place among the predictions.
fn check_ids(squad: &Squad) -> Result {
    let mut ids = HashSet::new();
    match squad.examples.iter().find(|example| !ids.insert(example.id.as_str())) {
        Some(example) => Err(format!("--predictions: two questions have the id {:?}", example.id).into()),
        None => Ok(()),
    }
}

/// To train on and to evaluate on.
fn questions(arguments: &Arguments) -> Result<(Squad, Squad)> {
    let Some(training) = &arguments.train else {
        println!("No --train: on questions about invented voyages.");
        let squad = |count, seed| Squad::of_questions(invented::voyages(count, seed));
        return Ok((squad(1500, arguments.training.seed), squad(200, arguments.training.seed + 1)));
    };
    let training = read_squad(training)?;
    match (&arguments.validation, arguments.split_at) {
        (Some(validation), _) => Ok((training, read_squad(validation)?)),
        (None, Some(articles)) => Ok(training.split_at_article(articles)?),
        (None, None) => {
            Err("--train without --validation: name a file, or split this one (--split-at ARTICLES)".into())
        }
    }
}
