//! Fine-tunes BERT to find names in text: reads CoNLL files, trains, and prints precision, recall and F1 of the names
//! after every epoch, and of each kind of name at the end.
//!
//! Without arguments, uses invented sentences and the small model of this repository. To use your own data, pass
//! `--train FILE` (one word and its tag per line) with `--validation FILE` or `--split FRACTION`; to use a real model, `--model DIR_OR_NAME`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;
use cloze::prelude::*;
use cloze::tensor::random::Stream;
use cloze::train::metrics::{PrecisionRecall, SpanMode};
use cloze::train::{
    BadRows, ConllFormat, TaggedSentence, TokenClassificationEvaluation, read_conll, split_rows, tag_names,
};
use cloze_examples::{
    ClassLossArguments, HELD_OUT, HeldOutArgument, Recipe, Result, Table, TrainingArguments, built_in,
};
use serde::Serialize;
use serde_json::{Value, json};

/// Fine-tunes BERT to find names in text.
#[derive(Parser, Serialize)]
struct Arguments {
    /// CoNLL file to train on [default: invented sentences]
    #[arg(long, value_name = "FILE", requires = HELD_OUT)]
    train: Option<PathBuf>,
    #[command(flatten)]
    held_out: HeldOutArgument,
    /// CoNLL file to evaluate on at the end
    #[arg(long, requires = "train")]
    test: Option<PathBuf>,
    /// Column with the words, counted from 1 [default: the first, or the second of CoNLL-U]
    #[arg(long)]
    word_column: Option<usize>,
    /// Column with the tags [default: the last, or the fourth of CoNLL-U]
    #[arg(long)]
    tag_column: Option<usize>,
    /// Drop sentences with a line that cannot be read, instead of failing at the first
    #[arg(long)]
    drop_bad: bool,
    /// Maximum number of tokens; longer sentences are truncated, and names in the rest count as not found
    #[arg(long, default_value_t = 128, value_parser = clap::value_parser!(u16).range(3..))]
    max_length: u16,
    #[command(flatten)]
    loss: ClassLossArguments,
    #[command(flatten)]
    training: TrainingArguments,
}

fn main() -> ExitCode {
    cloze_examples::exit_code(|| run(&cloze_examples::parse()))
}

fn run(arguments: &Arguments) -> Result {
    arguments.training.check()?;
    let (training, validation, test) = sentences(arguments)?;
    // Tags that only occur outside the training data get a class too, so that names with them count as missed.
    let (tags, seen) = (tag_names(training.iter().chain(&validation).chain(&test)), tag_names(&training));
    let unseen: Vec<&str> = tags.iter().filter(|tag| !seen.contains(tag)).map(String::as_str).collect();
    if !unseen.is_empty() {
        println!("tags missing from the training data, which the model cannot find: {}", unseen.join(", "));
    }
    let options = arguments.training.open_options().labels(&tags);
    let mut model: BertForTokenClassification = arguments.training.open(&options)?;
    let tokenizer = Tokenizer::open(arguments.training.model.place())?;
    let max_length = usize::from(arguments.max_length).min(model.config().max_position_embeddings);
    let (data, report) = LabelledData::of_words(&training, &tags, &tokenizer, max_length)?;
    println!("{report}");

    let evaluate = |model: &BertForTokenClassification, sentences: &[TaggedSentence]| {
        let evaluate = || TokenClassificationEvaluation::run(model, sentences, &tokenizer, max_length, 32);
        arguments.training.precision.scope(evaluate)
    };
    let recipe = match arguments.training.model.is_tiny() {
        true => Recipe { epochs: 2, batch: 16, lr: 1e-3 },
        false => Recipe { epochs: 3, batch: 16, lr: 5e-5 },
    };
    let data = arguments.loss.apply(data.seed(arguments.training.seed), &tags)?;
    let epochs =
        arguments.training.train("finetune_ner", &mut model, &data, &recipe, &arguments.held_out, |model| {
            let found = evaluate(model, &validation)?;
            let scores = found.spans(SpanMode::Lenient)?.micro;
            let evaluation = Evaluation::maximize("F1", scores.f1).and("precision", scores.precision);
            Ok(evaluation.and("recall", scores.recall).and("accuracy", found.accuracy()).and("loss", found.loss))
        })?;
    let Some(epochs) = epochs else { return Ok(()) };

    let (name, last) = if test.is_empty() { ("validation", &validation) } else { ("test", &test) };
    let by_kind = print_by_kind(name, &evaluate(&model, last)?)?;
    arguments.training.save(&model, &tokenizer)?;
    arguments.training.write_json(&json!({"arguments": arguments, "tags": tags, "epochs": epochs, name: by_kind}))
}

/// Prints the scores of each kind of name, and their averages. Returns them for `--json`.
fn print_by_kind(name: &str, found: &TokenClassificationEvaluation) -> Result<Vec<Value>> {
    let scores = found.spans(SpanMode::Lenient)?;
    println!("\nnames in the {name} sentences ({} word(s) without a prediction)\n", found.lost_words);
    let kinds = scores.by_kind.iter().map(|(kind, scores)| (kind.as_str(), scores));
    let averages = [("all", &scores.micro), ("mean of kinds", &scores.macro_average), ("weighted", &scores.weighted)];
    let header = Table::new("<>").row(["", "precision", "recall", "F1", "names"]);
    println!("{}", kinds.clone().chain(averages).fold(header, |table, (kind, scores)| table.row(cells(kind, scores))));
    let numbers = |scores: &PrecisionRecall| json!([scores.precision, scores.recall, scores.f1, scores.support]);
    Ok(kinds.chain(averages).map(|(kind, scores)| json!([kind, numbers(scores)])).collect())
}

fn cells(kind: &str, scores: &PrecisionRecall) -> [String; 5] {
    let [precision, recall, f1] = [scores.precision, scores.recall, scores.f1].map(|part| format!("{part:.4}"));
    [kind.to_string(), precision, recall, f1, scores.support.to_string()]
}

type Sentences = Vec<TaggedSentence>;

/// Returns the sentences to train on, to evaluate on, and to evaluate on at the end.
fn sentences(arguments: &Arguments) -> Result<(Sentences, Sentences, Sentences)> {
    let Some(train) = &arguments.train else {
        println!("No --train: using invented sentences.");
        let mut random = Stream::seeded(arguments.training.seed);
        let mut invent = |count| (0..count).map(|_| built_in::tagged_sentence(&mut random)).collect();
        return Ok((invent(1500), invent(200), Vec::new()));
    };
    let bad = if arguments.drop_bad { BadRows::Drop } else { BadRows::Fail };
    let format = ConllFormat::new().bad_rows(bad);
    let format = arguments.word_column.map_or(format.clone(), |number| format.word_column(number));
    let format = arguments.tag_column.map_or(format.clone(), |number| format.tag_column(number));
    let read = |path: &Path| -> Result<Sentences> {
        let (sentences, report) = read_conll(path, &format)?;
        println!("{}: {report}", path.display());
        Ok(sentences)
    };
    let split = |sentences, fraction| split_rows(sentences, fraction, arguments.training.seed);
    let (training, validation) = arguments.held_out.read(train, read, split)?;
    Ok((training, validation, arguments.test.as_deref().map_or_else(|| Ok(Vec::new()), read)?))
}
