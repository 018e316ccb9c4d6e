//! Runs cloze and its peers on the same work, in turns, and prints the tables of `docs/src/benchmarks/cpu.md`.

mod agreement;
// The benches use the rest of it.
#[allow(dead_code)]
#[path = "../../common/ceiling.rs"]
mod ceiling;
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
mod stats;
mod table;
mod tokens;
mod workloads;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use contestants::{Contestant, Kind, Programs};
use machine::Machine;
use protocol::Dtype;
use race::Race;
use workloads::{Texts, Workload};

/// Any error is one line.
type Result<T = (), E = Box<dyn std::error::Error>> = std::result::Result<T, E>;

/// Runs cloze and its peers on the same work, in turns, after comparing their numbers. Prints Markdown.
#[derive(Parser)]
#[command(args_conflicts_with_subcommands = true)]
struct Arguments {
    #[command(subcommand)]
    role: Option<Role>,
    /// What to run [default: all]
    #[arg(long, value_enum, value_delimiter = ',')]
    workload: Vec<Workload>,
    /// What matrix products are computed in [default: all]
    #[arg(long, value_enum, value_delimiter = ',')]
    dtype: Vec<Dtype>,
    /// Who takes part [default: all]
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Kind>,
    /// Rounds that count
    #[arg(long, default_value_t = 9, value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,
    /// Threads of each contestant [default: one a core]
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,
    /// A Python with the packages of requirements.txt [default: one is made and they are installed]
    #[arg(long)]
    python: Option<PathBuf>,
    /// Folder with the vocabulary of BERT [default: vocab in the folder that CLOZE_DATA names]
    #[arg(long, value_name = "DIR")]
    vocab: Option<PathBuf>,
    /// Folder of all-MiniLM-L6-v2 [default: random weights of its shape]
    #[arg(long, value_name = "DIR")]
    minilm: Option<PathBuf>,
    /// Tiny models for some seconds, to see that everything works; of the peers, torch alone and only with --python
    #[arg(long)]
    smoke: bool,
    /// What a token costs in our dense step of 1,024, 4,096 and 16,384 tokens, and nothing else
    #[arg(long, conflicts_with = "smoke")]
    tokens: bool,
    /// Time from the start of a process to the first vector of the sentence encoder in this folder, and nothing else
    #[arg(long, value_name = "FOLDER", conflicts_with_all = ["smoke", "tokens"])]
    first_answer: Option<PathBuf>,
}

#[derive(Subcommand)]
enum Role {
    /// Our contestant: answers the driver
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
    // What the machine can do is measured with as many.
    rayon::ThreadPoolBuilder::new().num_threads(threads).build_global()?;
    let data = std::env::var_os("CLOZE_DATA").map(PathBuf::from).filter(|_| !arguments.smoke);
    let texts = Texts::new(data, arguments.vocab.as_deref())?;
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

/// The file of all times.
const TIMES: &str = "times.json";

/// Where everything is written: `compare` in the target folder.
fn folder() -> Result<PathBuf> {
    let program = std::env::current_exe()?;
    let target = program.parent().and_then(Path::parent).ok_or("this program is in no target folder")?;
    let folder = target.join("compare");
    std::fs::create_dir_all(folder.join("logs")).map_err(|error| format!("{}: {error}", folder.display()))?;
    Ok(folder)
}

fn rounds(arguments: &Arguments) -> usize {
    usize::from(if arguments.smoke { 2 } else { arguments.rounds })
}

/// The types that were asked for.
fn dtypes(arguments: &Arguments) -> impl Iterator<Item = Dtype> {
    let all = [Dtype::F32, Dtype::Bf16, Dtype::Int8].into_iter();
    all.filter(|dtype| arguments.dtype.is_empty() || arguments.dtype.contains(dtype))
}

fn takes_part(arguments: &Arguments, kind: Kind) -> bool {
    arguments.only.is_empty() || arguments.only.contains(&kind)
}

fn programs(arguments: &Arguments, folder: &Path, threads: usize) -> Result<Programs> {
    let nobody = arguments.tokens;
    let wanted = |kinds: &[Kind]| !nobody && kinds.iter().any(|&kind| takes_part(arguments, kind));
    let python = match &arguments.python {
        Some(python) => Ok(python.clone()),
        None if arguments.smoke => Err("no --python given".into()),
        None if wanted(&[Kind::Torch, Kind::TorchCompile, Kind::Onnx]) => peers::python(folder),
        None => Err("not asked for".into()),
    };
    let candle = match wanted(&[Kind::Candle]) && !arguments.smoke && arguments.first_answer.is_none() {
        true => peers::candle(folder),
        false => Err("not asked for".into()),
    };
    Ok(Programs { python, candle, threads, logs: folder.join("logs") })
}

/// Who takes part in a race.
fn contestants(arguments: &Arguments, dtype: Dtype) -> Vec<Contestant> {
    let smoke = |kind: &Kind| match kind {
        Kind::Ours => true,
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
    texts: &Texts,
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
        eprintln!("  compared with the numbers of {} in f32", kind.name());
        for dtype in dtypes(arguments) {
            if dtype == Dtype::Int8 && workload.task().trains() {
                continue;
            }
            eprintln!("  {}", dtype.name());
            let contestants = contestants(arguments, dtype);
            let rounds = rounds(arguments);
            races.push(race::race(programs, (workload, dtype), &contestants, &files, &reference, rounds)?);
            // What was measured stays, whatever happens later.
            std::fs::write(folder.join(TIMES), serde_json::to_string_pretty(&(machine, &races))?)?;
        }
    }
    Ok(races)
}
