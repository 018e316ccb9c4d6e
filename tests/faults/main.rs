//! Every call that touches a file fails, one by one and in every way, and programs are killed: nothing is lost.
//!
//! After each fault:
//! - the program has succeeded, with the bits of a run without faults, or ended with exit status 1 and one line that names the
//!   file and the reason, or was killed by the fault;
//! - what was whole before is whole, and checkpoints are;
//! - nothing is left over, except by a process that was killed or could not remove it;
//! - run again, the program gives the bits of a run without faults, and the folder has the same files.
//!
//! `cargo test` tries a sample. All of it, in about a quarter of an hour:
//!
//! ```sh
//! cargo build --release --examples
//! cargo test --release --test faults -- --ignored --nocapture --test-threads 1
//! ```

#![cfg(unix)]

mod kills;
mod library;
mod programs;
mod run;
mod state;
mod sweep;

use std::path::Path;

use cloze_examples::Result;
use programs::{finetune, library_run, lora, prepare_corpus, pretrain};
use sweep::{Program, Sweep, Tally};

/// The number of faults of each program in the sample.
const SAMPLE: usize = 40;

/// Lets a program meet faults that are spread over all calls and ways.
fn sample(program: &Program) -> Result {
    let Some(library) = sweep::library() else { return Ok(()) };
    let sweep = Sweep::new(program, &library)?;
    let tally = sweep.run(&sweep.sample(SAMPLE), 1);
    println!("{}: {tally}", program.name);
    assert!(tally.lost.is_empty(), "{}", tally.lost.join("\n"));
    Ok(())
}

/// Adds the faults of a program to those of others.
fn add(all: &mut Tally, other: Tally) {
    all.calls += other.calls;
    all.faults += other.faults;
    all.ended.iter_mut().zip(other.ended).for_each(|(sum, count)| *sum += count);
    other.ways.iter().for_each(|(way, count)| *all.ways.entry(way).or_default() += count);
    all.lost.extend(other.lost);
}

#[test]
fn some_calls_of_pretrain_fail() -> Result {
    sample(&pretrain())
}

#[test]
fn some_calls_of_finetune_fail() -> Result {
    sample(&finetune())
}

#[test]
fn some_calls_of_fine_tuning_adapters_fail() -> Result {
    sample(&lora())
}

#[test]
fn some_calls_of_prepare_corpus_fail() -> Result {
    sample(&prepare_corpus())
}

#[test]
fn some_calls_of_the_library_fail() -> Result {
    sample(&library_run())
}

#[test]
#[ignore = "takes about a quarter of an hour"]
fn every_call_fails_in_every_way() -> Result {
    let Some(library) = sweep::library() else { return Ok(()) };
    let threads = std::thread::available_parallelism()?.get();
    let mut all = Tally::default();
    for program in [pretrain(), finetune(), lora(), prepare_corpus(), library_run()] {
        let sweep = Sweep::new(&program, &library)?;
        let tally = sweep.run(&sweep.faults(), threads);
        println!("{}: {tally}", program.name);
        add(&mut all, tally);
    }
    println!("all: {all}");
    assert!(all.lost.is_empty(), "{}", all.lost.join("\n"));
    Ok(())
}

#[test]
fn killed_at_ten_moments() -> Result {
    kills::kill(10)
}

#[test]
#[ignore = "takes a minute"]
fn killed_at_a_hundred_moments() -> Result {
    kills::kill(100)
}

#[test]
#[ignore = "run by the other tests in a separate process"]
fn process() {
    let Some(folder) = std::env::var_os(run::FOLDER) else { return };
    if let Err(error) = run::run(Path::new(&folder)) {
        eprintln!("error: {error}");
        std::process::exit(1);
    }
}
