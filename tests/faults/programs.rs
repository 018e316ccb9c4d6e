//! The programs whose calls fail: what each is given, and how it is run.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::LazyLock;

use cloze_examples::program;
use twox_hash::XxHash3_128;

use crate::run;
use crate::state::copy;
use crate::sweep::Program;

const CORPUS: &str = include_str!("../../examples/data/mini-corpus.txt");
const TRAIN: &str = include_str!("../../examples/data/reviews-train.tsv");
const VALIDATION: &str = include_str!("../../examples/data/reviews-validation.tsv");

/// The first documents of the small corpus.
fn documents(count: usize) -> String {
    CORPUS.split_inclusive("\n\n").take(count).collect()
}

fn lines(text: &str, count: usize) -> String {
    text.split_inclusive('\n').take(count).collect()
}

fn example(name: &str, arguments: &str, folder: &Path) -> Command {
    let mut command = Command::new(program(name).expect("tests are in a target folder"));
    let root = folder.to_string_lossy();
    command.args(arguments.split_whitespace().map(|word| word.replace("ROOT", &root))).args(["--threads", "1"]);
    command
}

/// Runs a command that must succeed.
fn succeed(mut command: Command) -> io::Result<()> {
    let output = command.stdin(Stdio::null()).output()?;
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// A folder with a corpus, reviews, and a model of three thousand parameters.
fn input(folder: &Path) -> io::Result<()> {
    static INPUT: LazyLock<tempfile::TempDir> = LazyLock::new(|| {
        let place = tempfile::tempdir().expect("there is a temporary folder");
        let write = |name: &str, text: String| fs::write(place.path().join(name), text).expect("it can be written");
        write("corpus.txt", documents(5));
        write("train.tsv", lines(TRAIN, 17));
        write("validation.tsv", lines(VALIDATION, 7));
        let arguments = "--corpus ROOT/corpus.txt --vocab-size 60 --layers 1 --hidden 16 --heads 2 --seq-len 16 --pairs 10 \
                         --steps 1 --out ROOT/model";
        succeed(example("pretrain", arguments, place.path())).expect("it can be started");
        for name in ["lock", "report.html", "metrics.jsonl"] {
            fs::remove_file(place.path().join("model").join(name)).expect("the run has written it");
        }
        for entry in fs::read_dir(place.path().join("model")).expect("it is a folder") {
            let path = entry.expect("it can be read").path();
            if path.is_dir() || path.to_string_lossy().contains("events.") || path.ends_with("best.safetensors") {
                if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) }
                    .expect("it can be removed");
            }
        }
        place
    });
    copy(INPUT.path(), &folder.join("input"))
}

/// Returns what is wrong with the checkpoints of a run: each has all the files of its list, with their checksums.
pub fn damaged_checkpoints(folder: &Path) -> Option<String> {
    let entries = fs::read_dir(folder.join("out")).ok()?.flatten().map(|entry| entry.path());
    let named = |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("checkpoint-"));
    entries.filter(named).find_map(|checkpoint| {
        let damage = damaged_checkpoint(&checkpoint).unwrap_or_else(|error| Some(error.to_string()));
        damage.map(|damage| format!("{}: {damage}", checkpoint.display()))
    })
}

fn damaged_checkpoint(checkpoint: &Path) -> io::Result<Option<String>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(checkpoint)? {
        let entry = entry?;
        let sum = format!("{:032x}", XxHash3_128::oneshot(&fs::read(entry.path())?));
        found.insert(entry.file_name().to_string_lossy().into_owned(), sum);
    }
    let list = fs::read_to_string(checkpoint.join("checksums.xxh128"))?;
    found.remove("checksums.xxh128");
    let listed = list.lines().filter_map(|line| line.split_once("  "));
    let listed: BTreeMap<String, String> = listed.map(|(sum, name)| (name.into(), sum.into())).collect();
    Ok((found != listed || found.len() < 2).then(|| format!("has {found:?}, lists {listed:?}")))
}

/// Pre-training on a corpus that goes through a cache.
pub fn pretrain() -> Program {
    let arguments = "--corpus ROOT/input/corpus.txt --cache ROOT/cache --vocab-size 60 --layers 1 --hidden 16 --heads 2 \
                     --seq-len 16 --pairs 10 --batch 2 --steps 5 --checkpoint-every 2 --resume --out ROOT/out \
                     --write-batches ROOT/batches.jsonl --json ROOT/results.json";
    Program {
        name: "pretrain",
        prepare: Box::new(input),
        command: Box::new(|folder| example("pretrain", arguments, folder)),
        damage: damaged_checkpoints,
        saves_work: |_| false,
    }
}

const FINETUNE: &str = "--model ROOT/input/model --train ROOT/input/train.tsv --validation ROOT/input/validation.tsv \
                        --max-length 12 --epochs 2 --batch 4 --lr 0.02 --checkpoint-every 2 --evaluate-every 1 --patience 9 \
                        --resume --out ROOT/out --json ROOT/results.json";

/// Fine-tuning with the best of the evaluated models, into a folder that has an earlier model.
pub fn finetune() -> Program {
    Program {
        name: "finetune",
        prepare: Box::new(|folder| {
            input(folder)?;
            succeed(example("finetune", &FINETUNE.replace("--resume", "--seed 5"), folder))?;
            fs::rename(folder.join("out"), folder.join("earlier"))?;
            fs::create_dir(folder.join("out"))?;
            for entry in fs::read_dir(folder.join("earlier"))? {
                let (path, name) = (entry.as_ref().map_err(|_| io::ErrorKind::Other)?.path(), entry?.file_name());
                let name = name.to_string_lossy();
                if name.ends_with(".json") || name == "model.safetensors" || name == "vocab.txt" {
                    fs::rename(path, folder.join("out").join(&*name))?;
                }
            }
            fs::remove_dir_all(folder.join("earlier"))
        }),
        command: Box::new(|folder| example("finetune", &format!("{FINETUNE} --accumulate 2"), folder)),
        damage: damaged_checkpoints,
        saves_work: |_| false,
    }
}

/// Fine-tuning of low-rank adapters, which are merged at the end.
pub fn lora() -> Program {
    Program {
        name: "lora",
        prepare: Box::new(input),
        command: Box::new(|folder| example("finetune", &format!("{FINETUNE} --lora 2"), folder)),
        damage: damaged_checkpoints,
        saves_work: |_| false,
    }
}

/// A corpus is prepared again, with another vocabulary.
pub fn prepare_corpus() -> Program {
    let arguments =
        "--corpus ROOT/input/corpus.txt --out ROOT/shards --replace --json ROOT/results.json --shard-tokens 100";
    Program {
        name: "prepare_corpus",
        prepare: Box::new(move |folder| {
            input(folder)?;
            succeed(example("prepare_corpus", &format!("{arguments} --vocab-size 50"), folder))
        }),
        command: Box::new(move |folder| example("prepare_corpus", &format!("{arguments} --vocab-size 60"), folder)),
        damage: |_| None,
        saves_work: |_| false,
    }
}

/// The library, with all that it can write: see `run.rs`.
pub fn library_run() -> Program {
    Program {
        name: "library",
        prepare: Box::new(input),
        command: Box::new(library_command),
        damage: damaged_checkpoints,
        saves_work: |_| false,
    }
}

pub fn library_command(folder: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("this program has a path"));
    command
        .args(["--exact", "process", "--ignored", "--nocapture"])
        .env(run::FOLDER, folder)
        .env("RAYON_NUM_THREADS", "1");
    command
}
