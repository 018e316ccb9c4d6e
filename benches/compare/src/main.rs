//! Runs cloze and its peers on the same workloads in turns, and prints the tables of `docs/src/benchmarks/cpu.md`.

#![forbid(unsafe_code)]

mod agreement;
mod contestants;
mod first_answer;
mod machine;
mod ours;
mod peers;
mod process;
mod products;
mod protocol;
mod race;
mod report;
mod table;
mod tokens;
mod workloads;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use contestants::{Contestant, Kind, Programs, Simd};
use machine::Machine;
use protocol::Dtype;
use race::Race;
use workloads::{Tokens, Workload};

/// The result of the program: any error ends it with one line.
type Result<T = (), E = Box<dyn std::error::Error>> = std::result::Result<T, E>;

/// Compares the results of cloze and its peers, then runs them on the same workloads in turns. Prints Markdown.
#[derive(Parser)]
#[command(args_conflicts_with_subcommands = true)]
struct Arguments {
    #[command(subcommand)]
    role: Option<Role>,
    /// Workloads to run [default: all]
    #[arg(long, value_enum, value_delimiter = ',')]
    workload: Vec<Workload>,
    /// Data types of matrix products [default: all]
    #[arg(long, value_enum, value_delimiter = ',')]
    dtype: Vec<Dtype>,
    /// Contestants [default: all]
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Kind>,
    /// Number of counted rounds
    #[arg(long, default_value_t = 9, value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,
    /// Number of threads of each contestant [default: one per core]
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,
    /// Lowers the instructions that the contestants use
    #[arg(long, value_enum)]
    simd: Option<Simd>,
    /// Python with the packages of requirements.txt [default: create an environment and install them]
    #[arg(long)]
    python: Option<PathBuf>,
    /// Folder with the vocabulary of BERT [default: `vocab` in the folder of CLOZE_DATA]
    #[arg(long, value_name = "DIR")]
    vocab: Option<PathBuf>,
    /// Folder with all-MiniLM-L6-v2 [default: random weights of its shape]
    #[arg(long, value_name = "DIR")]
    minilm: Option<PathBuf>,
    /// An earlier build of this program, to race against this one
    #[arg(long, value_name = "PROGRAM")]
    before: Option<PathBuf>,
    /// Run tiny models for some seconds to test the program; the only peer is torch, and only with --python
    #[arg(long)]
    smoke: bool,
    /// Only measure the time per token of cloze in steps of 1,024, 4,096 and 16,384 tokens
    #[arg(long, conflicts_with = "smoke")]
    tokens: bool,
    /// Only measure the time from the start of a process to the first vector of the sentence encoder in this folder
    #[arg(long, value_name = "FOLDER", conflicts_with_all = ["smoke", "tokens"])]
    first_answer: Option<PathBuf>,
}

#[derive(Subcommand)]
enum Role {
    /// Runs cloze as a contestant
    #[command(hide = true)]
    Ours,
    /// Prints the vector of a sentence
    #[command(hide = true)]
    FirstAnswer { folder: PathBuf, sentence: String },
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let result = match &arguments.role {
        Some(Role::Ours) => ours::serve(),
        Some(Role::FirstAnswer { folder, sentence }) => first_answer::answer(folder, sentence),
        None => run(&arguments),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result {
    let folder = folder()?;
    let threads = match arguments.threads {
        Some(threads) => usize::from(threads),
        None => std::thread::available_parallelism()?.get(),
    };
    // The ceilings of the machine are measured with the same number of threads.
    rayon::ThreadPoolBuilder::new().num_threads(threads).build_global()?;
    let data = std::env::var_os("CLOZE_DATA").map(PathBuf::from).filter(|_| !arguments.smoke);
    let texts = Tokens::new(data, arguments.vocab.as_deref())?;
    let programs = programs(arguments, &folder, threads)?;
    let machine = Machine::here(threads)?;
    eprintln!("{}", machine.markdown());
    let rounds = rounds(arguments);
    if arguments.tokens {
        println!("{}\n", machine.markdown());
        for dtype in dtypes(arguments).filter(|dtype| *dtype != Dtype::Int8) {
            println!("{}", tokens::measure(&programs, &folder, dtype, rounds)?);
        }
        return Ok(());
    }
    if let Some(model) = &arguments.first_answer {
        println!("{}\n\n{}", machine.markdown(), first_answer::measure(&programs, model, rounds)?);
        return Ok(());
    }
    let races = compare(arguments, &folder, &texts, &programs, &machine)?;
    println!("{}\n{}.\n", machine.markdown(), table::versions(&races));
    print!("{}", report::report(&races, &texts, rounds, arguments.smoke, arguments.minilm.is_some()));
    eprintln!("all times: {}", folder.join(TIMES).display());
    Ok(())
}

/// The file with all times.
const TIMES: &str = "times.json";

/// Returns the output folder: `compare` in the target folder.
fn folder() -> Result<PathBuf> {
    let program = std::env::current_exe()?;
    let target = program.parent().and_then(Path::parent).ok_or("this program is not in a target folder")?;
    let folder = target.join("compare");
    std::fs::create_dir_all(folder.join("logs")).map_err(|error| format!("{}: {error}", folder.display()))?;
    Ok(folder)
}

fn rounds(arguments: &Arguments) -> usize {
    usize::from(if arguments.smoke { 2 } else { arguments.rounds })
}

/// Returns the selected data types.
fn dtypes(arguments: &Arguments) -> impl Iterator<Item = Dtype> {
    let all = [Dtype::F32, Dtype::Bf16, Dtype::Int8].into_iter();
    all.filter(|dtype| arguments.dtype.is_empty() || arguments.dtype.contains(dtype))
}

fn takes_part(arguments: &Arguments, kind: Kind) -> bool {
    let is_there = kind != Kind::Before || arguments.before.is_some();
    is_there && (arguments.only.is_empty() || arguments.only.contains(&kind))
}

fn programs(arguments: &Arguments, folder: &Path, threads: usize) -> Result<Programs> {
    let wanted = |kinds: &[Kind]| !arguments.tokens && kinds.iter().any(|&kind| takes_part(arguments, kind));
    let python = match &arguments.python {
        Some(python) => Ok(python.clone()),
        None if arguments.smoke => Err("--python is missing".into()),
        None if wanted(&[Kind::Torch, Kind::TorchCompile, Kind::TorchUnpadded, Kind::Onnx, Kind::Openvino]) => {
            peers::python(folder)
        }
        None => Err("not selected".into()),
    };
    let candle = match wanted(&[Kind::Candle]) && !arguments.smoke && arguments.first_answer.is_none() {
        true => peers::candle(folder),
        false => Err("not selected".into()),
    };
    let (before, simd) = (arguments.before.clone(), arguments.simd);
    Ok(Programs { before, python, candle, threads, simd, logs: folder.join("logs") })
}

/// Returns the contestants of a race.
fn contestants(arguments: &Arguments, dtype: Dtype) -> Vec<Contestant> {
    let smoke = |kind: &Kind| match kind {
        Kind::Ours | Kind::Before => true,
        Kind::Torch => arguments.python.is_some(),
        _ => false,
    };
    let there = |kind: &Kind| takes_part(arguments, *kind) && (!arguments.smoke || smoke(kind));
    let mut contestants: Vec<Contestant> =
        Kind::ALL.into_iter().filter(there).map(|kind| Contestant { kind, dtype }).collect();
    if dtype == Dtype::Int8 && takes_part(arguments, Kind::Ours) {
        contestants.push(Contestant { kind: Kind::Ours, dtype: Dtype::F32 });
    }
    contestants
}

fn compare(
    arguments: &Arguments,
    folder: &Path,
    texts: &Tokens,
    programs: &Programs,
    machine: &Machine,
) -> Result<Vec<Race>> {
    let mut races = Vec::new();
    let all = |given: &[Workload]| if given.is_empty() { Workload::ALL.to_vec() } else { given.to_vec() };
    for workload in all(&arguments.workload) {
        if let Some(why) = texts.lacks(workload) {
            eprintln!("{}: not run: {why}", workload.name());
            continue;
        }
        let minilm = arguments.minilm.as_deref().filter(|_| workload == Workload::Embed && !arguments.smoke);
        let files = workload.write(folder, texts, minilm, arguments.smoke)?;
        eprintln!("{}: {}; {}", workload.name(), workload.description(), texts.source(workload));
        let (kind, reference) = race::reference(programs, workload, &files)?;
        eprintln!("  reference: {} in f32", kind.name());
        for dtype in dtypes(arguments) {
            if dtype == Dtype::Int8 && workload.task().trains() {
                continue;
            }
            eprintln!("  {}", dtype.name());
            let contestants = contestants(arguments, dtype);
            let rounds = rounds(arguments);
            races.push(race::race(programs, (workload, dtype), &contestants, &files, &reference, rounds)?);
            // Written after each race, so that a later failure does not lose the measurements.
            std::fs::write(folder.join(TIMES), serde_json::to_string_pretty(&(machine, &races))?)?;
        }
    }
    Ok(races)
}
