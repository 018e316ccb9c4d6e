//! Examples as several processes under an MPI: they train as one process does, and end together. `tests/mpi/run.sh` runs
//! these tests with each MPI; `CLOZE_MPIRUN` is its launcher with options.
#![cfg(all(feature = "mpi", target_os = "linux"))]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use cloze::tensor::random::{Purpose, Stream};
use cloze_examples::{Result, program};
use serde_json::Value;

/// The longest time that a job may take to end after one of its ranks is lost.
const END: Duration = Duration::from_secs(10);

/// A launcher with a number of processes.
fn launcher(ranks: usize) -> Command {
    let launcher = std::env::var("CLOZE_MPIRUN").unwrap_or_else(|_| "mpirun".into());
    let mut words = launcher.split_whitespace();
    let mut command = Command::new(words.next().unwrap_or("mpirun"));
    command.args(words).args(["-n", &ranks.to_string()]);
    // Containers run as root, which Open MPI otherwise refuses.
    command.envs([("OMPI_ALLOW_RUN_AS_ROOT", "1"), ("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1")]);
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).stdin(Stdio::null());
    command
}

/// An example as `ranks` processes, or as one without a launcher.
fn example(name: &str, ranks: usize, arguments: &str) -> Result<Command> {
    let program = program(name)?;
    let mut command = match ranks {
        1 => Command::new(program),
        _ => {
            let mut command = launcher(ranks);
            command.arg(program);
            command
        }
    };
    command.args(["--threads", "1"]).args(arguments.split_whitespace());
    Ok(command)
}

fn output(mut command: Command) -> Result<Output> {
    Ok(command.stdout(Stdio::piped()).stderr(Stdio::piped()).output()?)
}

fn printed(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn weights(folder: &Path) -> Result<Vec<u8>> {
    Ok(fs::read(folder.join("model.safetensors"))?)
}

/// A run of 60 steps on a small corpus with dropout, and a checkpoint every five steps.
fn pretrain(folder: &Path, ranks: usize) -> Result<Command> {
    let settings =
        "--steps 60 --pairs 200 --batch 8 --seq-len 32 --vocab-size 300 --checkpoint-every 5 --resume --timeout 60";
    let (out, json) = (folder.display(), folder.with_extension("json"));
    example("pretrain", ranks, &format!("{settings} --out {out} --json {}", json.display()))
}

fn losses(folder: &Path) -> Result<Vec<f64>> {
    let report: Value = serde_json::from_slice(&fs::read(folder.with_extension("json"))?)?;
    Ok(report["losses"].as_array().ok_or("no losses")?.iter().filter_map(Value::as_f64).collect())
}

fn assert_close(a: &[f64], b: &[f64]) {
    assert_eq!(a.len(), b.len());
    let farthest = a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
    assert!(farthest < 1e-5, "losses differ by {farthest}");
}

/// Makes a run that is not interrupted.
fn uninterrupted(folder: &Path, name: &str, ranks: usize) -> Result<PathBuf> {
    let out = folder.join(name);
    let output = output(pretrain(&out, ranks)?)?;
    assert!(output.status.success(), "{ranks} ranks: {}", printed(&output));
    let saved = printed(&output).matches("saved to").count();
    assert_eq!(saved, 1, "{ranks} ranks: one prints and saves");
    Ok(out)
}

#[test]
fn pre_training_has_the_losses_of_one_process() -> Result {
    let folder = tempfile::tempdir()?;
    let one = uninterrupted(folder.path(), "one", 1)?;
    for ranks in [2, 4] {
        let first = uninterrupted(folder.path(), &format!("{ranks}-first"), ranks)?;
        let second = uninterrupted(folder.path(), &format!("{ranks}-second"), ranks)?;
        assert_close(&losses(&one)?, &losses(&first)?);
        assert!(weights(&first)? == weights(&second)?, "{ranks} ranks give other bits each time");
    }
    Ok(())
}

#[test]
fn fine_tuning_runs_unchanged() -> Result {
    let folder = tempfile::tempdir()?;
    for name in ["finetune", "finetune_ner", "finetune_qa", "finetune_similarity", "finetune_reranker"] {
        let results = |ranks: usize| -> Result<Value> {
            let json = folder.path().join(format!("{name}-{ranks}.json"));
            let output = output(example(name, ranks, &format!("--epochs 2 --json {}", json.display()))?)?;
            assert!(output.status.success(), "{name}: {}", printed(&output));
            Ok(serde_json::from_slice::<Value>(&fs::read(json)?)?["epochs"].take())
        };
        let loss = |epochs: &Value| -> Vec<f64> {
            epochs.as_array().into_iter().flatten().filter_map(|epoch| epoch["training_loss"].as_f64()).collect()
        };
        let (one, two) = (loss(&results(1)?), loss(&results(2)?));
        assert_eq!(one.len(), 2, "{name}");
        assert_close(&one, &two);
    }
    Ok(())
}

/// Returns the process ids of the ranks of a run in `out`, in rank order.
fn ranks_of(example: &str, out: &Path) -> Vec<u32> {
    let read = |pid: u32, file: &str| fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
    let mut found: Vec<(usize, u32)> = Vec::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        let arguments = String::from_utf8_lossy(&read(pid, "cmdline")).into_owned();
        let mut arguments = arguments.split('\0');
        let is_program = arguments.next().is_some_and(|program| program.ends_with(&format!("/{example}")));
        if is_program && arguments.any(|argument| Path::new(argument) == out) {
            let environment = String::from_utf8_lossy(&read(pid, "environ")).into_owned();
            let rank = environment.split('\0').find_map(|line| {
                line.strip_prefix("OMPI_COMM_WORLD_RANK=").or(line.strip_prefix("PMI_RANK="))?.parse().ok()
            });
            found.extend(rank.map(|rank| (rank, pid)));
        }
    }
    found.sort_unstable();
    found.into_iter().map(|(_, pid)| pid).collect()
}

fn signal(pid: u32, signal: &str) -> Result {
    Command::new("kill").args([format!("-{signal}"), pid.to_string()]).status()?;
    Ok(())
}

/// Starts a run and waits until it has a checkpoint, or has ended.
fn started(out: &Path, command: &mut Command, checkpoint: u32) -> Result<Child> {
    let mut child = command.spawn()?;
    let checkpoint = out.join(format!("checkpoint-{checkpoint:08}"));
    while !checkpoint.exists() && child.try_wait()?.is_none() {
        std::thread::sleep(Duration::from_millis(2));
    }
    Ok(child)
}

/// Waits for a job that must fail soon, and returns what it printed.
fn failed(child: Child, what: &str) -> Result<String> {
    let begun = Instant::now();
    let output = child.wait_with_output()?;
    assert!(begun.elapsed() < END, "{what}: ended after {:?}", begun.elapsed());
    assert!(!output.status.success(), "{what}: {}", printed(&output));
    Ok(printed(&output))
}

/// A run that kills interrupt, on this many ranks.
struct Run {
    example: &'static str,
    arguments: &'static str,
    ranks: usize,
}

/// Runs of which checkpoints and evaluations take a large part.
const RUNS: [Run; 4] = [
    Run { example: "pretrain", arguments: PRETRAIN, ranks: 3 },
    Run { example: "finetune", arguments: FINETUNE, ranks: 2 },
    Run { example: "pretrain", arguments: PRETRAIN, ranks: 2 },
    Run { example: "finetune", arguments: FINETUNE, ranks: 3 },
];
const PRETRAIN: &str = "--steps 80 --pairs 200 --batch 8 --seq-len 32 --vocab-size 300 --checkpoint-every 5";
const FINETUNE: &str = "--epochs 20 --batch 8 --evaluate-every 3 --checkpoint-every 2";

impl Run {
    fn command(&self, out: &Path, ranks: usize) -> Result<Command> {
        let mut command = example(self.example, ranks, self.arguments)?;
        command.args(["--resume", "--timeout", "60", "--out"]).arg(out);
        Ok(command)
    }

    /// Makes the run, or the rest of it.
    fn finish(&self, out: &Path, ranks: usize) -> Result {
        let output = output(self.command(out, ranks)?)?;
        assert!(output.status.success(), "{ranks} ranks: {}", printed(&output));
        Ok(())
    }
}

/// Returns the losses in the log of a run: those of its steps, or those of its evaluations.
fn logged(out: &Path, kind: &str) -> Result<Vec<f64>> {
    let log = fs::read_to_string(out.join("metrics.jsonl"))?;
    let lines = log.lines().map(|line| Ok(serde_json::from_str::<Value>(line)?)).collect::<Result<Vec<_>>>()?;
    Ok(lines.iter().filter(|line| line["kind"] == kind).filter_map(|line| line["loss"].as_f64()).collect())
}

/// Returns the largest difference between losses: absolute, or relative for losses above 1.
fn farthest(losses: &[f64], others: &[f64]) -> f64 {
    assert_eq!(losses.len(), others.len());
    losses.iter().zip(others).map(|(a, b)| (a - b).abs() / a.abs().max(1.0)).fold(0.0, f64::max)
}

/// Whom a kill hits. Without their launcher, ranks must not go on.
#[derive(Clone, Copy, Debug)]
enum Victim {
    Rank,
    Job,
    Launcher,
}

/// Kills jobs at random moments, a quarter of them while a checkpoint is written. `CLOZE_KILLS` is how many.
#[test]
fn killed_jobs_end_soon_and_resume() -> Result {
    let kills: usize = std::env::var("CLOZE_KILLS").map_or(Ok(4), |kills| kills.parse())?;
    let folder = tempfile::tempdir()?;
    let mut expected = Vec::new();
    for (number, run) in RUNS.iter().enumerate() {
        let (out, begun) = (folder.path().join(format!("expected-{number}")), Instant::now());
        run.finish(&out, run.ranks)?;
        expected.push((out, begun.elapsed()));
    }
    let mut stream = Stream::new(5, Purpose::User, 0, 0, 0);
    let (mut times, mut named, mut steps, mut evaluations) = (Vec::new(), 0, 0f64, 0f64);
    while times.len() < kills {
        let number = times.len();
        let (run, (expected, duration)) = (&RUNS[number % 4], &expected[number % 4]);
        let victim =
            [Victim::Rank, Victim::Rank, Victim::Job, Victim::Rank, Victim::Rank, Victim::Launcher][number % 6];
        let out = folder.path().join(format!("run-{number}"));
        let moment = duration.mul_f64(stream.below(1000) as f64 / 1000.0);
        let Some((time, said)) = kill(run, &out, victim, moment, &mut stream)? else {
            let _ = fs::remove_dir_all(&out);
            continue;
        };
        println!("kill {number}, of {victim:?} with {} ranks after {moment:?}: ended after {time:?}", run.ranks);
        assert!(time < END, "{said}");
        let messages = said.matches(" died ").count();
        assert!(messages <= 1, "{said}");
        named += if matches!(victim, Victim::Rank) { messages } else { 0 };
        times.push(time);
        let differences = resumed(run, &out, expected)?;
        (steps, evaluations) = (steps.max(differences.0), evaluations.max(differences.1));
    }
    let longest = times.iter().max().ok_or("no kill")?;
    println!("{kills} kills; {named} messages with the rank and the step; the slowest end after {longest:?}");
    println!(
        "on one rank less, losses of steps differ by up to {steps:.1e}, those of evaluations by {evaluations:.1e}"
    );
    Ok(())
}

/// Starts a run and kills it. Returns how long its end took and what it printed, or `None` if it had ended, or not all of its
/// ranks had started.
fn kill(
    run: &Run,
    out: &Path,
    victim: Victim,
    moment: Duration,
    stream: &mut Stream,
) -> Result<Option<(Duration, String)>> {
    let mut child = run.command(out, run.ranks)?.spawn()?;
    std::thread::sleep(moment);
    if stream.below(4) == 0 {
        while child.try_wait()?.is_none() && !writes_checkpoint(out) {}
    }
    let pids = ranks_of(run.example, out);
    let victims = match victim {
        Victim::Rank => pids.get(stream.below(run.ranks)).into_iter().copied().collect(),
        Victim::Job => [&[child.id()], &pids[..]].concat(),
        Victim::Launcher => vec![child.id()],
    };
    let begun = Instant::now();
    victims.iter().try_for_each(|&pid| signal(pid, "KILL"))?;
    let ended = child.wait_with_output()?;
    while !ranks_of(run.example, out).is_empty() && begun.elapsed() < END {
        std::thread::sleep(Duration::from_millis(1));
    }
    let was_running = !ended.status.success() && pids.len() == run.ranks;
    Ok(was_running.then(|| (begun.elapsed(), printed(&ended))))
}

/// Resumes a killed run on as many ranks and on one less, and returns how far the losses of steps and of evaluations of the
/// latter are from those of the run that was not killed.
fn resumed(run: &Run, out: &Path, expected: &Path) -> Result<(f64, f64)> {
    let fewer = out.with_extension("fewer");
    // A run that was killed early has no folder yet.
    if out.exists() {
        copy(out, &fewer)?;
    }
    run.finish(out, run.ranks)?;
    assert!(weights(out)? == weights(expected)?, "other weights than those of a run never stopped");
    run.finish(&fewer, run.ranks - 1)?;
    let steps = farthest(&logged(expected, "step")?, &logged(&fewer, "step")?);
    let evaluations = farthest(&logged(expected, "evaluation")?, &logged(&fewer, "evaluation")?);
    assert!(steps < 1e-5, "losses of steps differ by {steps}");
    // A fine-tuning that is killed before its first checkpoint misses this bound by a fifth: `docs/src/results.md`.
    assert!(evaluations < 1e-5, "losses of evaluations differ by {evaluations}");
    fs::remove_dir_all(out)?;
    fs::remove_dir_all(&fewer)?;
    Ok((steps, evaluations))
}

/// Returns whether a checkpoint is being written.
fn writes_checkpoint(out: &Path) -> bool {
    fs::read_dir(out)
        .into_iter()
        .flatten()
        .flatten()
        .any(|entry| entry.file_name().to_string_lossy().starts_with(".un"))
}

fn copy(from: &Path, to: &Path) -> Result {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let to = to.join(entry.file_name());
        if entry.path().is_dir() { copy(&entry.path(), &to)? } else { fs::copy(entry.path(), to).map(|_| ())? }
    }
    Ok(())
}

#[test]
fn a_rank_that_hangs_is_named() -> Result {
    let folder = tempfile::tempdir()?;
    let out = folder.path().join("hangs");
    let arguments = format!("--steps 100000 --checkpoint-every 5 --timeout 2 --out {}", out.display());
    let mut command = example("pretrain", 3, &arguments)?;
    let child = started(&out, &mut command, 5)?;
    signal(ranks_of("pretrain", &out)[1], "STOP")?;
    let said = failed(child, "hang")?;
    let expected = "error: rank 1 on ";
    assert!(said.contains(expected) && said.contains(" has made no progress for 2s in optimizer step "), "{said}");
    assert_eq!(said.matches("error: ").count(), 1, "{said}");
    Ok(())
}

#[test]
fn a_signal_to_one_rank_stops_all() -> Result {
    let folder = tempfile::tempdir()?;
    let expected = uninterrupted(folder.path(), "expected", 2)?;
    let out = folder.path().join("stopped");
    let child = started(&out, &mut pretrain(&out, 2)?, 5)?;
    signal(ranks_of("pretrain", &out)[1], "TERM")?;
    let stopped = child.wait_with_output()?;
    assert!(stopped.status.success() && printed(&stopped).contains("continue with --resume"), "{}", printed(&stopped));
    let resumed = output(pretrain(&out, 2)?)?;
    assert!(resumed.status.success(), "{}", printed(&resumed));
    assert!(weights(&out)? == weights(&expected)?);
    Ok(())
}

#[test]
fn jobs_that_cannot_work_are_refused() -> Result {
    // Two programs in one job, separated by a colon.
    let mut command = launcher(1);
    command.arg(program("pretrain")?).args(["--steps", "5", "--seed", "1", ":"]);
    command.args(["-n", "1"]).arg(program("pretrain")?).args(["--steps", "5", "--seed", "2"]);
    let said = failed(command.spawn()?, "seeds")?;
    assert!(said.contains("error: ranks: seed is 2 on rank 1 on ") && said.contains(" but 1 on rank 0 on "), "{said}");
    assert_eq!(said.matches("error: ").count(), 1, "{said}");

    let said = failed(example("pretrain", 2, "--steps 5 --corpus missing.txt")?.spawn()?, "corpus")?;
    assert!(said.contains("error: rank 0 on ") && said.contains("missing.txt: cannot read"), "{said}");
    assert_eq!(said.matches("error: ").count(), 1, "{said}");

    for name in ["pretrain", "finetune", "finetune_ner", "finetune_qa", "finetune_similarity", "finetune_reranker"] {
        let said = failed(example(name, 3, "--batch many")?.spawn()?, name)?;
        assert_eq!(said.matches("error: invalid value 'many' for '--batch").count(), 1, "{said}");
        let said = failed(example(name, 3, "--batch 2")?.spawn()?, name)?;
        assert_eq!(said.matches("error: ranks: there are 3, but 2 examples in a step").count(), 1, "{said}");
        let said = failed(example(name, 3, "--model nowhere")?.spawn()?, name)?;
        assert_eq!(said.matches("error: ").count(), 1, "{said}");
        assert!(said.contains("error: rank 0 on ") && said.contains("nowhere: cannot read"), "{said}");
    }
    Ok(())
}
