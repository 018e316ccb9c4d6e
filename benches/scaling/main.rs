//! Measures pre-training steps on several ranks, part by part: alone, with the gradients exchanged during backward, and with
//! the gradients exchanged after it. `benches/scaling/run.sh` measures what `docs/src/scaling.md` shows.

mod link;
mod steps;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use cloze::prelude::*;
use cloze::train::communicator::{self, Alone};
use cloze_benches::Result;
use serde::Serialize;

use link::{Link, Rate};

/// Measures pre-training steps on the ranks of a job, part by part, and prints one line of JSON.
#[derive(Clone, Parser, Serialize)]
struct Arguments {
    /// Size of the model: tiny, mini, base, large
    #[arg(long, default_value = "mini")]
    config: String,
    /// Number of layers [default: from --config]
    #[arg(long)]
    layers: Option<usize>,
    /// Number of tokens in the vocabulary
    #[arg(long, default_value_t = 30_522)]
    vocab_size: usize,
    /// Sequences in a step, of all ranks together
    #[arg(long, default_value_t = 16)]
    sequences: usize,
    /// Tokens in a sequence
    #[arg(long, default_value_t = 128)]
    length: usize,
    /// Type in which gradients are exchanged
    #[arg(long, default_value = "f32")]
    reduce: Reduce,
    /// Type of matrix products
    #[arg(long, default_value = "f32")]
    #[serde(serialize_with = "by_name")]
    precision: Precision,
    /// Threads of each rank
    #[arg(long, default_value_t = 1)]
    threads: usize,
    /// Steps that are measured, of each kind
    #[arg(long, default_value_t = 8)]
    steps: u32,
    /// What the ranks do: train together, train separately without exchanging anything, or only exchange
    #[arg(long, default_value = "together")]
    kind: Kind,
    /// Emulate ports of this rate, in Gbit/s: exchanges last at least as long as they would take
    #[arg(long, value_name = "GBIT/S")]
    bandwidth: Option<f64>,
    /// The latency of the emulated network, in microseconds
    #[arg(long, value_name = "US", default_value_t = 50, requires = "bandwidth")]
    latency: u64,
    /// A name for the network, which the output repeats
    #[arg(long, default_value = "memory")]
    network: String,
}

#[derive(Clone, Copy, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
enum Reduce {
    F32,
    Bf16,
}

#[derive(Clone, Copy, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
enum Kind {
    Together,
    Alone,
    Exchange,
}

fn by_name<S: serde::Serializer>(precision: &Precision, serializer: S) -> std::result::Result<S::Ok, S::Error> {
    serializer.collect_str(precision)
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result {
    rayon::ThreadPoolBuilder::new().num_threads(arguments.threads).build_global()?;
    let job = communicator::open(Duration::from_secs(120))?;
    let (rank, size) = (job.rank(), job.size());
    if !arguments.sequences.is_multiple_of(size) {
        return Err(format!("--sequences is {}: must be a multiple of the {size} ranks", arguments.sequences).into());
    }
    let rate = arguments.bandwidth.map(|gigabits| Rate {
        latency: Duration::from_micros(arguments.latency),
        bytes_per_second: gigabits * 1e9 / 8.0,
    });
    if rate.is_some() {
        // Linux wakes a sleeping thread up to 50 us late unless it is asked not to. Threads inherit this; other systems do without.
        let _ = std::fs::write("/proc/self/timerslack_ns", "1");
    }
    let link = Arc::new(Link::new(job.clone(), rate));
    let measured = match arguments.kind {
        Kind::Exchange => steps::exchange(&link)?,
        Kind::Together => steps::measure(arguments, &job, link.clone(), &link)?,
        Kind::Alone => steps::measure(arguments, &job, Arc::new(Alone), &link)?,
    };
    let measured = steps::over_ranks(&*job, &measured)?;
    if rank == 0 {
        let mut line = serde_json::to_value(arguments)?;
        line["ranks"] = size.into();
        line["measured"] = serde_json::to_value(measured)?;
        println!("{line}");
    }
    // Nobody leaves before all have what they need.
    job.barrier()?;
    Ok(())
}
