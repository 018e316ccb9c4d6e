//! Finds the answer to a question in a text (section 5.7 of the course): prints the best span with its start and end,
//! and the five best spans with their scores.
//!
//! Without arguments, trains a tiny model from scratch for some seconds on questions about invented voyages (who, what,
//! when), and then answers a new one. With `--model DIR_OR_NAME`, uses a real model.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use cloze::bert::Answer;
use cloze::prelude::*;
use cloze_examples::{DeviceArgument, Result, built_in};
use serde::{Deserialize, Serialize};

/// Finds the answer to a question in a text.
#[derive(Parser)]
struct Arguments {
    /// Question
    #[arg(long, requires = "context")]
    question: Option<String>,
    /// Text that contains the answer
    #[arg(long, requires = "question")]
    context: Option<String>,
    /// Read question and context from a JSON file: {"question": "..", "context": ".."}
    #[arg(long, conflicts_with = "question")]
    input: Option<PathBuf>,
    /// Question answering model, a folder or a name on the Hugging Face Hub [default: train a tiny model]
    #[arg(long, value_name = "DIR_OR_NAME")]
    model: Option<PathBuf>,
    /// Precision of matrix products: f32, bf16 or int8, from most accurate to fastest
    #[arg(long, default_value_t = Precision::F32)]
    precision: Precision,
    /// Choose the best start and the best end independently, as the course does, instead of the best pair
    #[arg(long)]
    independent: bool,
    /// Allow "no answer", for models trained on SQuAD 2.0
    #[arg(long)]
    no_answer: bool,
    /// Maximum number of tokens in an answer
    #[arg(long, default_value_t = 30)]
    max_answer_length: usize,
    /// Tokens in a window over the text, including the question
    #[arg(long, default_value_t = 384)]
    max_length: usize,
    /// Number of spans to print
    #[arg(long, default_value_t = 5)]
    top: usize,
    /// Also print the tokens with their positions
    #[arg(long)]
    tokens: bool,
    /// Optimizer steps to train the tiny model for
    #[arg(long, default_value_t = 400)]
    steps: u32,
    #[command(flatten)]
    device: DeviceArgument,
    /// Random seed
    #[arg(long, default_value_t = 7)]
    seed: u64,
    /// Also write the results to this file, as JSON
    #[arg(long)]
    json: Option<PathBuf>,
}

/// A question and its context.
#[derive(Deserialize, Serialize)]
struct Question {
    question: String,
    context: String,
}

fn main() -> ExitCode {
    cloze_examples::exit_code(|| run(&Arguments::parse()))
}

fn run(arguments: &Arguments) -> Result {
    cloze_examples::check_json(arguments.json.as_deref())?;
    let asked = question(arguments)?;
    let pipeline = match &arguments.model {
        Some(place) => arguments.device.pipeline(place)?,
        None => small(arguments)?,
    };
    let pipeline = pipeline
        .precision(arguments.precision)
        .max_length(arguments.max_length)
        .max_answer_length(arguments.max_answer_length)
        .no_answer(arguments.no_answer)
        // The course's code does not complete words.
        .align_to_words(!arguments.independent);
    if arguments.tokens {
        for (number, window) in pipeline.encode(&asked.question, &asked.context)?.iter().enumerate() {
            println!("window {number}:");
            window.tokens.iter().enumerate().for_each(|(at, token)| println!("{at:5}  {token}"));
        }
    }
    let top = pipeline.top_k(&asked.question, &asked.context, arguments.top)?;
    let best = match arguments.independent {
        true => pipeline.independent(&asked.question, &asked.context)?,
        false => pipeline.answer(&asked.question, &asked.context)?,
    };
    println!("Question: {}\nContext: {}\n", asked.question, asked.context);
    println!("Best answer: {}", shown(&best));
    println!("(start={}, end={}, probability {:.4})", best.tokens.0, best.tokens.1, best.probability);
    println!("\nThe {} best spans:", top.len());
    top.iter().for_each(|answer| println!("score={:6.2} | {}", answer.score, shown(answer)));
    let spans: Vec<(f64, &str)> = top.iter().map(|answer| (answer.score, answer.text.as_str())).collect();
    let report = serde_json::json!({
        "question": asked.question, "context": asked.context, "answer": best.text, "start": best.tokens.0,
        "end": best.tokens.1, "probability": best.probability, "top": spans,
    });
    cloze_examples::write_json(arguments.json.as_deref(), &report)
}

fn shown(answer: &Answer) -> &str {
    if answer.is_none() { "(no answer)" } else { &answer.text }
}

fn question(arguments: &Arguments) -> Result<Question> {
    if let (Some(question), Some(context)) = (arguments.question.clone(), arguments.context.clone()) {
        return Ok(Question { question, context });
    }
    let Some(path) = &arguments.input else {
        return Ok(Question {
            question: "Who discovered the golden island?".into(),
            context:
                "Nobody knows why. In the year 1511, during the second journey, Pedro Costa discovered the golden \
                      island. Many people know the story."
                    .into(),
        });
    };
    let text = std::fs::read_to_string(path).map_err(|error| format!("{}: cannot read: {error}", path.display()))?;
    serde_json::from_str(&text).map_err(|error| format!("{}: {error}", path.display()).into())
}

/// Trains a tiny model from scratch on invented voyages.
fn small(arguments: &Arguments) -> Result<QuestionAnswering> {
    let voyages = built_in::voyages(4000, arguments.seed);
    let texts = voyages.iter().flat_map(|voyage| [&*voyage.question, &*voyage.context]);
    let tokenizer = Tokenizer::train(texts, 1000, &TrainOptions::new())?;
    let config = BertConfig {
        hidden_dropout_prob: 0.0,
        attention_probs_dropout_prob: 0.0,
        ..BertConfig::tiny(tokenizer.vocab_size())
    };
    let mut model = BertForQuestionAnswering::new(&config, arguments.device.open()?, arguments.seed)?;
    let (data, report) = LabelledData::of_questions(&voyages, &tokenizer, 384, 128)?;
    println!("No --model: training for {} steps on invented voyages, {report}", arguments.steps);
    let report = Trainer::new(&mut model)
        .optimizer(AdamW::new(1e-3))
        .batch_size(16)
        .steps(arguments.steps)
        .seed(arguments.seed)
        .run(&data.seed(arguments.seed))?;
    let first = report.losses.first().ok_or("--steps is 0: must be at least 1")?;
    println!("loss {:.4} in the first step, {:.4} on average in the last 20\n", first, report.mean_of_last(20));
    Ok(QuestionAnswering::new(model, tokenizer)?)
}
