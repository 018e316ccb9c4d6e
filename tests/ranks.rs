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
fn ranks_of(out: &Path) -> Vec<u32> {
    let read = |pid: u32, file: &str| fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
    let mut found: Vec<(usize, u32)> = Vec::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        let arguments = String::from_utf8_lossy(&read(pid, "cmdline")).into_owned();
        let mut arguments = arguments.split('\0');
        let is_program = arguments.next().is_some_and(|program| program.ends_with("/pretrain"));
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

#[test]
fn killed_ranks_end_the_job_which_resumes() -> Result {
    let folder = tempfile::tempdir()?;
    let expected = uninterrupted(folder.path(), "expected", 3)?;
    let mut stream = Stream::new(5, Purpose::User, 0, 0, 0);
    let out = folder.path().join("killed");
    for kill in 0..5 {
        let child = started(&out, &mut pretrain(&out, 3)?, 5 + 10 * kill)?;
        std::thread::sleep(Duration::from_millis(stream.below(40) as u64));
        let ranks = ranks_of(&out);
        assert_eq!(ranks.len(), 3, "kill {kill}: the job has ended already");
        signal(ranks[stream.below(3)], "KILL")?;
        failed(child, "kill")?;
    }
    let on_two = folder.path().join("on-two");
    copy(&out, &on_two)?;
    for (out, ranks) in [(&out, 3), (&on_two, 2)] {
        let output = output(pretrain(out, ranks)?)?;
        assert!(output.status.success(), "{}", printed(&output));
        assert_close(&losses(&expected)?, &losses(out)?);
    }
    assert!(weights(&out)? == weights(&expected)?);
    Ok(())
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
    signal(ranks_of(&out)[1], "STOP")?;
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
    signal(ranks_of(&out)[1], "TERM")?;
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

    let said = failed(example("pretrain", 3, "--steps 5 --batch 2")?.spawn()?, "batch")?;
    assert!(said.contains("error: ranks: there are 3, but 2 examples in a step"), "{said}");

    let said = failed(example("pretrain", 2, "--steps 5 --corpus missing.txt")?.spawn()?, "corpus")?;
    assert!(said.contains("error: rank 0 on ") && said.contains("missing.txt: cannot read"), "{said}");
    assert_eq!(said.matches("error: ").count(), 1, "{said}");
    Ok(())
}
