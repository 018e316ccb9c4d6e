//! Pre-training as several processes under an MPI, each with a GPU: they exchange the memory of their GPUs over NCCL, and end
//! together. `tests/nccl/run.sh` runs these tests on emulated GPUs; `CLOZE_MPIRUN` is the launcher with options.
#![cfg(all(feature = "nccl", target_os = "linux"))]

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use cloze_examples::{Result, program};
use serde_json::Value;

/// The longest time that a job may take to end after one of its ranks is lost.
const END: Duration = Duration::from_secs(10);

/// A run of a few steps on a small corpus with dropout, as `ranks` processes, or as one without a launcher.
fn pretrain(out: &Path, ranks: usize, arguments: &str) -> Result<Command> {
    let launcher = std::env::var("CLOZE_MPIRUN").unwrap_or_else(|_| "mpirun".into());
    let mut words = launcher.split_whitespace();
    let mut command = match ranks {
        1 => Command::new(program("pretrain")?),
        _ => {
            let mut command = Command::new(words.next().unwrap_or("mpirun"));
            command.args(words).args(["-n", &ranks.to_string()]).arg(program("pretrain")?);
            command
        }
    };
    let settings = "--threads 1 --pairs 60 --batch 6 --seq-len 32 --vocab-size 300 --layers 1 --hidden 32 --heads 2";
    command.args(settings.split(' ')).args(arguments.split_whitespace());
    if !arguments.contains("--device") {
        command.args(["--device", "cuda"]);
    }
    command.arg("--out").arg(out).arg("--json").arg(out.with_extension("json"));
    // Containers run as root, which Open MPI otherwise refuses.
    command.envs([("OMPI_ALLOW_RUN_AS_ROOT", "1"), ("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1")]);
    command.envs([("CLOZE_EMU_DEVICES", "3"), ("CLOZE_EMU_WORKERS", "1")]);
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).stdin(Stdio::null());
    Ok(command)
}

fn printed(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// Makes a run and returns its losses and weights.
fn run(folder: &Path, name: &str, ranks: usize, arguments: &str) -> Result<(Vec<f64>, Vec<u8>)> {
    let out = folder.join(name);
    let output = pretrain(&out, ranks, &format!("--steps 8 {arguments}"))?.output()?;
    assert!(output.status.success(), "{name}: {}", printed(&output));
    let report: Value = serde_json::from_slice(&fs::read(out.with_extension("json"))?)?;
    assert_eq!(report["arguments"]["device"]["device"], "cuda:0", "{name}");
    let losses = report["losses"].as_array().ok_or("no losses")?.iter().filter_map(Value::as_f64).collect();
    Ok((losses, fs::read(out.join("model.safetensors"))?))
}

#[test]
fn gpus_train_as_one_does() -> Result {
    let folder = tempfile::tempdir()?;
    let run = |name: &str, ranks, arguments: &str| run(folder.path(), name, ranks, arguments);
    let one = run("one", 1, "")?;
    // Shares of three ranks have different lengths.
    for (name, ranks, arguments) in [("two", 2, ""), ("three", 3, ""), ("bf16", 2, "--reduce bf16")] {
        let found = run(name, ranks, arguments)?;
        let farthest = one.0.iter().zip(&found.0).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        let most = if name == "bf16" { 1e-2 } else { 1e-5 };
        assert!(one.0.len() == found.0.len() && farthest < most, "{name}: losses differ by {farthest}");
        let again = run(&format!("{name}-again"), ranks, arguments)?;
        assert!(again == found, "{name} gives other bits each time");
        let through_hosts = run(&format!("{name}-hosts"), ranks, &format!("{arguments} --through-hosts"))?;
        assert!(through_hosts == found, "{name}: NCCL and MPI give different bits");
    }
    Ok(())
}

/// Waits for a job that must fail soon, and returns what it printed.
fn failed(child: Child, what: &str) -> Result<String> {
    let begun = Instant::now();
    let output = child.wait_with_output()?;
    assert!(begun.elapsed() < END, "{what}: ended after {:?}", begun.elapsed());
    assert!(!output.status.success(), "{what}: {}", printed(&output));
    let said = printed(&output);
    assert!(said.matches("error: ").count() <= 1, "{what}: {said}");
    Ok(said)
}

/// Returns the process ids of the ranks of a run in `out`.
fn ranks_of(out: &Path) -> Vec<String> {
    let is_rank = |process: &fs::DirEntry| {
        let arguments = fs::read(process.path().join("cmdline")).unwrap_or_default();
        let arguments = String::from_utf8_lossy(&arguments).into_owned();
        let mut arguments = arguments.split('\0');
        arguments.next().is_some_and(|program| program.ends_with("/pretrain"))
            && arguments.any(|argument| Path::new(argument) == out)
    };
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    processes.filter(is_rank).map(|process| process.file_name().to_string_lossy().into_owned()).collect()
}

/// Starts a long run, waits until it has a checkpoint, and sends a signal to one of its ranks.
fn signalled(folder: &Path, signal: &str) -> Result<Child> {
    let out = folder.join(signal);
    let mut child = pretrain(&out, 3, "--steps 100000 --checkpoint-every 2 --timeout 4")?.spawn()?;
    while !out.join("checkpoint-00000002").exists() && child.try_wait()?.is_none() {
        std::thread::sleep(Duration::from_millis(5));
    }
    let ranks = ranks_of(&out);
    assert_eq!(ranks.len(), 3, "the job has ended already");
    Command::new("kill").args([&format!("-{signal}"), &ranks[1]]).status()?;
    Ok(child)
}

#[test]
fn a_rank_that_is_killed_ends_the_job() -> Result {
    let folder = tempfile::tempdir()?;
    failed(signalled(folder.path(), "KILL")?, "kill")?;
    Ok(())
}

#[test]
fn a_rank_that_hangs_is_named() -> Result {
    let folder = tempfile::tempdir()?;
    let said = failed(signalled(folder.path(), "STOP")?, "hang")?;
    assert!(said.contains(" has made no progress for 4s in optimizer step "), "{said}");
    Ok(())
}

#[test]
fn a_failure_of_nccl_is_reported() -> Result {
    let folder = tempfile::tempdir()?;
    let mut command = pretrain(&folder.path().join("run"), 2, "--steps 100000")?;
    // Three groups of exchanges make a step: gradients, squares, parameters.
    command.env("CLOZE_EMU_NCCL_FAILS", "8");
    let said = failed(command.spawn()?, "failure")?;
    assert!(said.contains("error: rank 1 on ") && said.contains(" in optimizer step 3"), "{said}");
    assert!(said.contains("GPUs: NCCL: an exchange: unhandled system error"), "{said}");
    Ok(())
}

#[test]
fn jobs_that_cannot_work_are_refused() -> Result {
    let folder = tempfile::tempdir()?;
    let out = folder.path().join("out");
    let mut command = pretrain(&out, 3, "--steps 2")?;
    let said = failed(command.env("CLOZE_EMU_DEVICES", "2").spawn()?, "GPUs")?;
    assert!(said.contains("error: ranks: 3 ranks share 2 GPU(s), so rank 2 on "), "{said}");

    let said = failed(pretrain(&out, 2, "--steps 2 --device cuda:1")?.spawn()?, "one GPU")?;
    assert!(said.contains("error: ranks: cuda:1 is one GPU for rank 0 on "), "{said}");

    // A folder with the driver alone.
    let folders = std::env::var("LD_LIBRARY_PATH").unwrap_or_default();
    let driver = std::env::split_paths(&folders).map(|folder| folder.join("libcuda.so.1")).find(|file| file.exists());
    std::os::unix::fs::symlink(driver.ok_or("no driver in LD_LIBRARY_PATH")?, folder.path().join("libcuda.so.1"))?;
    let mut command = pretrain(&out, 2, "--steps 2")?;
    let said = failed(command.env("LD_LIBRARY_PATH", folder.path()).spawn()?, "library")?;
    assert!(said.contains("error: ranks: rank 0 on ") && said.contains("NCCL: libnccl.so.2 was not found"), "{said}");
    Ok(())
}
