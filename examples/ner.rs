//! Finds names of people, places and organisations in a text, with their offsets (section 5.5 (b) of the course).
//!
//! Without arguments, trains the small model of this repository for some seconds on invented sentences, and evaluates
//! it on sentences with other names. With `--model DIR_OR_NAME`, uses a real model.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, ValueEnum};
use cloze::bert::Aggregation;
use cloze::prelude::*;
use cloze::tensor::random::Stream;
use cloze::train::metrics::Average;
use cloze::train::tag_names;
use cloze_examples::{DeviceArgument, Result, built_in};

/// Finds names of people, places and organisations in a text.
#[derive(Parser)]
struct Arguments {
    /// Token classification model, a folder or a name on the Hugging Face Hub [default: train the small model]
    #[arg(long, value_name = "DIR_OR_NAME")]
    model: Option<PathBuf>,
    /// How the label of a word is chosen from those of its pieces
    #[arg(long, value_enum, default_value = "first")]
    aggregation: Pieces,
    /// Also print the label of every word
    #[arg(long)]
    words: bool,
    /// Optimizer steps to train the small model for
    #[arg(long, default_value_t = 300)]
    steps: u32,
    #[command(flatten)]
    device: DeviceArgument,
    /// Random seed
    #[arg(long, default_value_t = 7)]
    seed: u64,
    /// Also write the results to this file, as JSON
    #[arg(long)]
    json: Option<PathBuf>,
    /// Texts to find names in [default: some built-in texts]
    texts: Vec<String>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Pieces {
    First,
    Average,
    Max,
}

const TEXTS: [&str; 3] = [
    "Beatriz Moura works for Delta Norte in Coimbra.",
    "Yesterday Hugo Leal took the train to Aveiro.",
    "A Beatriz mora em Viseu e trabalha na Delta Norte.",
];

fn main() -> ExitCode {
    cloze_examples::exit_code(|| run(&Arguments::parse()))
}

fn run(arguments: &Arguments) -> Result {
    cloze_examples::check_json(arguments.json.as_deref())?;
    let pipeline = match &arguments.model {
        Some(place) => arguments.device.pipeline(place)?,
        None => small(arguments)?,
    };
    let pipeline = pipeline.aggregation(match arguments.aggregation {
        Pieces::First => Aggregation::First,
        Pieces::Average => Aggregation::Average,
        Pieces::Max => Aggregation::Max,
    });
    let texts: Vec<&str> = match arguments.texts.is_empty() {
        true => TEXTS.to_vec(),
        false => arguments.texts.iter().map(String::as_str).collect(),
    };
    let mut report = Vec::new();
    for (text, found) in texts.iter().zip(cloze_examples::print_report(pipeline.entities(&texts)?)) {
        println!("{text}");
        if arguments.words {
            for word in pipeline.words(&[text])?.concat() {
                println!("  {:<16} {:<8} {:.4}", word.text, word.label, word.score);
            }
        }
        for entity in &found {
            let (start, end) = (entity.start, entity.end);
            println!(
                "  {:<6} {:<24} characters {start} to {end}, score {:.4}",
                entity.label, entity.text, entity.score
            );
        }
        let found = found.iter().map(|e| serde_json::json!([e.label, e.text, e.start, e.end, e.score]));
        report.push(serde_json::json!({"text": text, "entities": found.collect::<Vec<_>>()}));
    }
    cloze_examples::write_json(arguments.json.as_deref(), &report)
}

/// Trains the small model on invented sentences.
fn small(arguments: &Arguments) -> Result<TokenClassification> {
    let place = cloze_examples::tiny_model();
    let mut random = Stream::seeded(arguments.seed);
    let mut sentences = |count| (0..count).map(|_| built_in::tagged_sentence(&mut random)).collect::<Vec<_>>();
    let (training, held_out) = (sentences(3000), sentences(200));
    let tags = tag_names(&training);
    let options = OpenOptions::new().labels(&tags).fresh_head().seed(arguments.seed);
    let mut model = BertForTokenClassification::open_with(&place, arguments.device.open()?, &options)?;
    let tokenizer = Tokenizer::open(&place)?;
    let (data, report) = LabelledData::of_words(&training, &tags, &tokenizer, 128)?;
    println!("No --model: training for {} steps on invented sentences, {report}", arguments.steps);
    let trainer = Trainer::new(&mut model).optimizer(AdamW::new(1e-3)).batch_size(16).steps(arguments.steps);
    let report = trainer.seed(arguments.seed).run(&data.seed(arguments.seed))?;
    let first = report.losses.first().ok_or("--steps is 0: must be at least 1")?;
    println!("loss {:.4} in the first step, {:.4} on average in the last 20", first, report.mean_of_last(20));
    let (held_out, report) = LabelledData::of_words(&held_out, &tags, &tokenizer, 128)?;
    println!("evaluating on {report}");
    let found = ClassificationEvaluation::run(&model, &held_out, 32)?;
    println!(
        "sentences with other names: word accuracy {:.4}, macro F1 of the tags {:.4}\n",
        found.accuracy()?,
        found.f1(Average::Macro)?
    );
    Ok(TokenClassification::new(model, tokenizer)?)
}
