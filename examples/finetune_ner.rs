//! Fine-tunes BERT to find names in text: reads CoNLL files, trains, and says precision, recall and F1 of the names after
//! every epoch; at the end, of each kind of name.
//!
//! With no arguments, on invented sentences and the small model of this repository. On data of your own:
//! `--train FILE --validation FILE`, a word and its tag a line; on a real model: `--model DIR_OR_NAME`.

mod common;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;
use cloze::prelude::*;
use cloze::tensor::random::{Purpose, Stream};
use cloze::train::metrics::{PrecisionRecall, SpanMode};
use cloze::train::{ConllFormat, TaggedSentence, TokenClassificationEvaluation, read_conll, tag_names};
use common::{Recipe, Result, Table, TrainingArguments, invented};
use serde::Serialize;
use serde_json::json;

/// Fine-tunes BERT to find names in text.
#[derive(Parser, Serialize)]
struct Arguments {
    /// Sentences to train on: a CoNLL file [default: invented ones]
    #[arg(long, requires = "validation")]
    train: Option<PathBuf>,
    /// Sentences to evaluate on after every epoch
    #[arg(long, requires = "train")]
    validation: Option<PathBuf>,
    /// Sentences to evaluate on at the end
    #[arg(long, requires = "train")]
    test: Option<PathBuf>,
    /// Column of the words, from 1
    #[arg(long, default_value_t = 1)]
    word_column: usize,
    /// Column of the tags [default: the last]
    #[arg(long)]
    tag_column: Option<usize>,
    /// Most tokens of a sentence; longer ones are cut, and what is cut off counts as not found
    #[arg(long, default_value_t = 128, value_parser = clap::value_parser!(u16).range(3..))]
    max_length: u16,
    #[command(flatten)]
    training: TrainingArguments,
}

fn main() -> ExitCode {
    common::exit::code(|| run(&Arguments::parse()))
}

fn run(arguments: &Arguments) -> Result {
    arguments.training.check()?;
    let (training, validation, test) = sentences(arguments)?;
    // A model cannot find what it was not shown, but it must have a class for it: then that counts as missed.
    let (tags, seen) = (tag_names(training.iter().chain(&validation).chain(&test)), tag_names(&training));
    let unseen: Vec<&str> = tags.iter().filter(|tag| !seen.contains(tag)).map(String::as_str).collect();
    if !unseen.is_empty() {
        println!("not among the tags to train on, so never found: {}", unseen.join(", "));
    }
    let (place, seed) = (arguments.training.model.place(), arguments.training.seed);
    let options = arguments.training.open_options().labels(&tags);
    let (mut model, report) =
        BertForTokenClassification::open_with(&place, arguments.training.model.device(), &options)?;
    println!("{}: {report}", arguments.training.model.name());
    let tokenizer = Tokenizer::open(&place)?;
    let max_length = usize::from(arguments.max_length).min(model.config().max_position_embeddings);
    let (data, report) = LabelledData::of_words(&training, &tags, &tokenizer, max_length)?;
    println!("{report}");

    let evaluate = |model: &BertForTokenClassification, sentences: &[TaggedSentence]| {
        let evaluate = || TokenClassificationEvaluation::run(model, sentences, &tokenizer, max_length, 32);
        arguments.training.precision.scope(evaluate)
    };
    let recipe = match arguments.training.model.is_small() {
        true => Recipe { epochs: 2, batch: 16, lr: 1e-3 },
        false => Recipe { epochs: 3, batch: 16, lr: 5e-5 },
    };
    let epochs = arguments.training.train("finetune_ner", &mut model, &data.seed(seed), &recipe, |model| {
        let found = evaluate(model, &validation)?;
        let scores = found.spans(SpanMode::Lenient)?.micro;
        let evaluation = Evaluation::maximize("F1", scores.f1).and("precision", scores.precision);
        Ok(evaluation.and("recall", scores.recall).and("accuracy", found.accuracy()).and("loss", found.loss))
    })?;
    let Some(epochs) = epochs else { return Ok(()) };

    let (name, last) = if test.is_empty() { ("validation", &validation) } else { ("test", &test) };
    let found = evaluate(&model, last)?;
    let scores = found.spans(SpanMode::Lenient)?;
    println!("\nnames of the {name} sentences ({} word(s) without a prediction)\n", found.lost_words);
    let kinds = scores.by_kind.iter().map(|(kind, scores)| (kind.as_str(), scores));
    let averages = [("all", &scores.micro), ("mean of kinds", &scores.macro_average), ("weighted", &scores.weighted)];
    let header = Table::new("<>").row(["", "precision", "recall", "F1", "names"]);
    println!("{}", kinds.clone().chain(averages).fold(header, |table, (kind, scores)| table.row(cells(kind, scores))));
    arguments.training.save(&model, &tokenizer)?;
    let numbers = |scores: &PrecisionRecall| json!([scores.precision, scores.recall, scores.f1, scores.support]);
    let by_kind: Vec<_> = kinds.chain(averages).map(|(kind, scores)| json!([kind, numbers(scores)])).collect();
    arguments.training.write_json(&json!({"arguments": arguments, "tags": tags, "epochs": epochs, name: by_kind}))
}

fn cells(kind: &str, scores: &PrecisionRecall) -> [String; 5] {
    let [precision, recall, f1] = [scores.precision, scores.recall, scores.f1].map(|part| format!("{part:.4}"));
    [kind.to_string(), precision, recall, f1, scores.support.to_string()]
}

type Sentences = Vec<TaggedSentence>;

/// To train on, to evaluate on, and to evaluate on at the end.
fn sentences(arguments: &Arguments) -> Result<(Sentences, Sentences, Sentences)> {
    let (Some(training), Some(validation)) = (&arguments.train, &arguments.validation) else {
        println!("No --train and --validation: on invented sentences.");
        let mut random = Stream::new(arguments.training.seed, Purpose::User, 0, 0, 0);
        let mut invent = |count| (0..count).map(|_| invented::tagged_sentence(&mut random)).collect();
        return Ok((invent(1500), invent(200), Vec::new()));
    };
    let format = ConllFormat::new().word_column(arguments.word_column);
    let format = arguments.tag_column.map_or(format.clone(), |number| format.tag_column(number));
    let read = |path: &Path| -> Result<Sentences> {
        let (sentences, report) = read_conll(path, &format)?;
        println!("{}: {report}", path.display());
        Ok(sentences)
    };
    Ok((read(training)?, read(validation)?, arguments.test.as_deref().map_or_else(|| Ok(Vec::new()), read)?))
}
