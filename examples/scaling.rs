//! How far pre-training scales: predicts time and memory of a step on several ranks, from the speed of one rank and of the
//! network.
//!
//! Without `--speed`, the speed of one rank is measured on this machine, with one and with two layers of the model.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;
use cloze::bert::PreTrainingTargets;
use cloze::prelude::*;
use cloze::tensor::Sequences;
use cloze::train::scaling::{Job, Network, RankSpeed, StepTime};
use cloze::train::{Optimizer, RankMemory};
use cloze_examples::{Result, Table, thousands};
use serde_json::{Value, json};

/// Predicts time and memory of pre-training on several ranks.
#[derive(Parser)]
struct Arguments {
    /// Size of the model: tiny, mini, base, large, or the path of a config.json
    #[arg(long, default_value = "base")]
    config: String,
    /// Sequences in a step, of all ranks together
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..))]
    sequences: u32,
    /// Tokens in a sequence
    #[arg(long, default_value_t = 128, value_parser = clap::value_parser!(u32).range(1..))]
    length: u32,
    /// Batches that a rank divides its sequences into, to save memory
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    accumulate: u32,
    /// Tokens of the corpus; BERT's has about 4.3 billion
    #[arg(long, default_value_t = 4.3e9, value_parser = positive)]
    corpus_tokens: f64,
    /// Numbers of ranks
    #[arg(long, value_delimiter = ',', default_value = "1,2,4,8,16,32,64", value_parser = clap::value_parser!(u32).range(1..))]
    ranks: Vec<u32>,
    /// Tokens per second of forward and backward of one rank [default: measured]
    #[arg(long, value_parser = positive)]
    speed: Option<f64>,
    /// Parameters per second that one rank updates [default: measured, or a billion with --speed]
    #[arg(long, value_parser = positive)]
    update_speed: Option<f64>,
    /// Bandwidth of the network for each rank, in Gbit/s
    #[arg(long, default_value_t = 10.0, value_parser = positive, value_name = "GBIT/S")]
    bandwidth: f64,
    /// Latency of an exchange, in microseconds
    #[arg(long, default_value_t = 50.0, value_parser = positive, value_name = "US")]
    latency: f64,
    /// Type in which gradients are exchanged, f32 or bf16
    #[arg(long, default_value = "f32", value_parser = ["f32", "bf16"])]
    reduce: String,
    /// Threads of the measurement
    #[arg(long)]
    threads: Option<usize>,
    /// Also write the results to this file, as JSON
    #[arg(long)]
    json: Option<PathBuf>,
}

/// Parses a number above 0.
fn positive(text: &str) -> std::result::Result<f64, String> {
    let number: f64 = text.parse().map_err(|error| format!("{error}"))?;
    if number > 0.0 && number.is_finite() { Ok(number) } else { Err("must be above 0, and finite".into()) }
}

fn main() -> ExitCode {
    cloze_examples::exit_code(|| run(&Arguments::parse()))
}

fn run(arguments: &Arguments) -> Result {
    cloze_examples::set_threads(arguments.threads)?;
    cloze_examples::check_json(arguments.json.as_deref())?;
    let config = match arguments.config.ends_with(".json") {
        true => BertConfig::open(&arguments.config)?,
        false => BertConfig::by_name(&arguments.config, BertConfig::base().vocab_size)?,
    };
    let job = Job {
        sequences: arguments.sequences as usize,
        length: arguments.length as usize,
        accumulate: arguments.accumulate as usize,
        reduce: if arguments.reduce == "bf16" { DType::BF16 } else { DType::F32 },
        ..Job::new(config)
    };
    if job.length > job.config.max_position_embeddings {
        let most = job.config.max_position_embeddings;
        return Err(format!("--length is {}: the model has {most} positions", job.length).into());
    }
    let speed = speed(arguments, &job.config)?;
    let network = Network::ethernet(arguments.bandwidth, arguments.latency * 1e-6);
    println!(
        "{} parameters; {} tokens in a step, gradients in {}; {} Gbit/s, {} us",
        thousands(job.parameters()),
        thousands(job.tokens() as u64),
        arguments.reduce,
        arguments.bandwidth,
        arguments.latency
    );
    println!("one rank: {:.0} tokens/s, {}\n", speed.tokens_per_second, origin(arguments));

    let with = |ranks| Job { ranks, ..job.clone() };
    let one = with(1).step_time(&speed, &network).total();
    let (mut times, mut memory) = (Table::new(">"), Table::new(">"));
    times = times.row(["ranks", "step", "tokens/s", "efficiency", "hidden", "visible wait", "corpus"]);
    memory = memory.row(["ranks", "weights", "gradients", "means", "exchange", "activations", "a rank"]);
    let mut report = Vec::new();
    for &ranks in &arguments.ranks {
        let job = with(ranks as usize);
        if job.ranks > job.sequences {
            println!("{ranks} ranks are left out: a step has {} sequences", job.sequences);
            continue;
        }
        let time = job.step_time(&speed, &network);
        times = times.row(time_row(&job, &time, one, arguments.corpus_tokens));
        let of_rank = job.memory()?;
        memory = memory.row(memory_row(job.ranks, &of_rank));
        report.push(entry(&job, &time, one, &of_rank));
    }
    println!("time\n{times}\nmemory\n{memory}\n{}", end(&job, &speed, &network));
    cloze_examples::write_json(arguments.json.as_deref(), &report)
}

fn time_row(job: &Job, time: &StepTime, one: f64, corpus: f64) -> [String; 7] {
    let tokens = job.tokens() as f64 / time.total();
    [
        job.ranks.to_string(),
        duration(time.total()),
        thousands(tokens as u64),
        format!("{:.0} %", 100.0 * one / time.total() / job.ranks as f64),
        if job.ranks == 1 { "-".into() } else { format!("{:.0} %", 100.0 * time.hidden_share()) },
        duration(time.visible()),
        duration(corpus / tokens),
    ]
}

fn memory_row(ranks: usize, memory: &RankMemory) -> [String; 7] {
    let parts = [memory.weights, memory.gradients, memory.means, memory.exchange, memory.activations, memory.total()];
    let [weights, gradients, means, exchange, activations, all] =
        parts.map(|bytes| format!("{:.2} GiB", bytes as f64 / f64::from(1 << 30)));
    [ranks.to_string(), weights, gradients, means, exchange, activations, all]
}

fn entry(job: &Job, time: &StepTime, one: f64, memory: &RankMemory) -> Value {
    json!({
        "ranks": job.ranks, "seconds": time.total(), "efficiency": one / time.total() / job.ranks as f64,
        "compute": time.compute, "update": time.update, "gradients_wait": time.gradients_wait,
        "norm_wait": time.norm_wait, "parameters_wait": time.parameters_wait, "hidden_share": time.hidden_share(),
        "memory": memory.total(),
    })
}

/// Says where scaling stops: after the last power of two with at least half of the efficiency.
fn end(job: &Job, speed: &RankSpeed, network: &Network) -> String {
    let time = |ranks| Job { ranks, ..job.clone() }.step_time(speed, network);
    let efficiency = |ranks: usize| time(1).total() / time(ranks).total() / ranks as f64;
    let powers = std::iter::successors(Some(1), |ranks| Some(ranks * 2)).take_while(|&ranks| ranks <= job.sequences);
    let last = powers.take_while(|&ranks| efficiency(ranks) >= 0.5).last().unwrap_or(1);
    if last * 2 > job.sequences {
        return format!("Scaling stops at {last} ranks, because a step has {} sequences: enlarge it.", job.sequences);
    }
    let at = time(last * 2);
    let parts = [
        (at.gradients_wait, "gradients that backward does not hide"),
        (at.parameters_wait, "the parameters after the update"),
        (at.norm_wait, "the norm of the gradients"),
    ];
    let (_, what) = parts.into_iter().max_by(|a, b| a.0.total_cmp(&b.0)).unwrap_or(parts[0]);
    format!(
        "Scaling stops at {last} ranks: twice as many would be below half of the efficiency. Most of\n\
         the wait is for {what}."
    )
}

/// Formats seconds with a unit that suits them.
fn duration(seconds: f64) -> String {
    match seconds {
        s if s < 1.0 => format!("{:.1} ms", 1e3 * s),
        s if s < 120.0 => format!("{s:.2} s"),
        s if s < 7200.0 => format!("{:.0} min", s / 60.0),
        s if s < 172_800.0 => format!("{:.1} h", s / 3600.0),
        s if s < 63e6 => format!("{:.1} days", s / 86_400.0),
        s => format!("{:.1} years", s / 31_557_600.0),
    }
}

fn origin(arguments: &Arguments) -> &'static str {
    if arguments.speed.is_some() { "as given" } else { "measured here with one and two layers" }
}

/// Returns the speed of one rank: the given one, or that of this machine.
fn speed(arguments: &Arguments, config: &BertConfig) -> Result<RankSpeed> {
    let speed = match arguments.speed {
        Some(tokens_per_second) => RankSpeed { tokens_per_second, overhead: 0.0, parameters_per_second: 1e9 },
        None => measured_speed(config)?,
    };
    Ok(RankSpeed { parameters_per_second: arguments.update_speed.unwrap_or(speed.parameters_per_second), ..speed })
}

/// Tokens of the measured steps.
const TOKENS: [usize; 2] = [128, 512];

/// Measures steps with one and with two layers. Every further layer takes as long as the second.
fn measured_speed(config: &BertConfig) -> Result<RankSpeed> {
    let (mut computes, mut update) = ([[0.0; 2]; 2], 0.0);
    for (layers, computes) in [1, 2].into_iter().zip(&mut computes) {
        let config = BertConfig { num_hidden_layers: layers, ..config.clone() };
        let mut model = BertForPreTraining::new(&config, &Device::Cpu, 7)?;
        let mut optimizer = Optimizer::new(AdamW::new(1e-4), &mut model, |_| true)?;
        for (tokens, compute) in TOKENS.into_iter().zip(computes) {
            (*compute, update) = measured_step(&mut model, &mut optimizer, tokens)?;
        }
        update /= optimizer.parameter_count() as f64;
    }
    let further = config.num_hidden_layers as f64 - 1.0;
    let [short, long] = [0, 1].map(|at| computes[0][at] + further * (computes[1][at] - computes[0][at]).max(0.0));
    let tokens_per_second = (TOKENS[1] - TOKENS[0]) as f64 / (long - short).max(1e-9);
    let overhead = (short - TOKENS[0] as f64 / tokens_per_second).max(0.0);
    Ok(RankSpeed { tokens_per_second, overhead, parameters_per_second: 1.0 / update })
}

/// Returns the least time of forward and backward, and of an update, in four steps.
fn measured_step(model: &mut BertForPreTraining, optimizer: &mut Optimizer, tokens: usize) -> Result<(f64, f64)> {
    let (length, vocabulary) = (model.config().max_position_embeddings.min(64), model.config().vocab_size);
    let id = |token: usize| token * 7919 % vocabulary;
    let lengths: Vec<usize> = (0..tokens).step_by(length).map(|start| length.min(tokens - start)).collect();
    let batch =
        Batch::packed((0..tokens).map(|token| id(token) as u32).collect(), vec![0; tokens], Sequences::new(&lengths)?)?;
    let rows: Vec<u32> = (0..tokens as u32).filter(|row| row % 20 < 3).collect();
    let labels = rows.iter().map(|&row| id(row as usize) as i64).collect();
    let targets = PreTrainingTargets { rows, labels, next_sentence: vec![0; lengths.len()] };
    let (mut compute, mut update) = (f64::INFINITY, f64::INFINITY);
    for step in 0..4 {
        let start = Instant::now();
        let loss = model.loss(&batch, &targets, Mode::Train { seed: 7, step })?.loss;
        optimizer.backward(&loss)?;
        drop(loss);
        compute = start.elapsed().as_secs_f64().min(compute);
        let start = Instant::now();
        optimizer.step_at(model, 1e-5, Some(1.0))?;
        update = start.elapsed().as_secs_f64().min(update);
    }
    Ok((compute, update))
}
