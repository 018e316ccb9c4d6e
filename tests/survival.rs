//! Runs of the training examples that are killed, asked to stop, or out of disk space, and then resumed.

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use cloze::tensor::random::{Purpose, Stream};
use cloze_examples::{Result, program};

/// A run of 24 steps with two batches each, and a checkpoint every five steps: most checkpoints are within an epoch.
fn finetune(out: &Path) -> Result<Command> {
    let mut command = Command::new(program("finetune")?);
    command.args([
        "--epochs",
        "6",
        "--batch",
        "4",
        "--accumulate",
        "2",
        "--checkpoint-every",
        "5",
        "--resume",
        "--out",
    ]);
    command.arg(out).stdout(Stdio::piped()).stderr(Stdio::piped());
    Ok(command)
}

/// Two ways to pre-train: the course's, and the one for small corpora.
const PRE_TRAINING: [&str; 2] = [
    "--pairs 80 --batch 4",
    "--no-nsp --batch 8 --batch-ramp 0.25 --masking-unit span --masking-rate 0.3 --final-masking-rate 0.15 \
     --schedule cosine --weight-decay 0.1",
];

/// A run of 24 steps on a small corpus, with a checkpoint every five steps.
fn pretrain(way: &str, out: &Path) -> Result<Command> {
    let mut command = Command::new(program("pretrain")?);
    let settings = "--steps 24 --seq-len 32 --vocab-size 300 --checkpoint-every 5 --resume";
    command.args(settings.split(' ').chain(way.split(' '))).arg("--out").arg(out);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    Ok(command)
}

fn weights(out: &Path) -> Result<Vec<u8>> {
    Ok(fs::read(out.join("model.safetensors"))?)
}

fn printed(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// Makes a run that is not interrupted, and returns its weights and its duration.
fn uninterrupted(folder: &Path) -> Result<(Vec<u8>, Duration)> {
    let (out, begun) = (folder.join("uninterrupted"), Instant::now());
    let output = finetune(&out)?.output()?;
    assert!(output.status.success(), "{}", printed(&output));
    Ok((weights(&out)?, begun.elapsed()))
}

#[test]
fn killed_at_twenty_moments_and_resumed() -> Result {
    let folder = tempfile::tempdir()?;
    let (expected, time) = uninterrupted(folder.path())?;
    let mut stream = Stream::new(11, Purpose::User, 0, 0, 0);
    let (mut kills, mut runs) = (0, 0);
    while kills < 20 {
        runs += 1;
        let out = folder.path().join(format!("run-{runs}"));
        loop {
            let mut child = finetune(&out)?.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
            std::thread::sleep(time.mul_f64(stream.below(1000) as f64 / 1000.0));
            let ended = child.try_wait()?;
            // On Unix this is SIGKILL, which a process cannot handle.
            child.kill()?;
            child.wait()?;
            if let Some(status) = ended {
                assert!(status.success());
                break;
            }
            kills += 1;
            if kills >= 20 {
                let output = finetune(&out)?.output()?;
                assert!(output.status.success(), "{}", printed(&output));
                break;
            }
        }
        assert!(weights(&out)? == expected, "run {runs}, after {kills} kills in all");
    }
    println!("{kills} kills in {runs} runs of {time:?}");
    Ok(())
}

#[test]
fn killed_pre_training_resumes() -> Result {
    for way in PRE_TRAINING {
        let folder = tempfile::tempdir()?;
        let (expected, out) = (folder.path().join("uninterrupted"), folder.path().join("killed"));
        let output = pretrain(way, &expected)?.output()?;
        assert!(output.status.success(), "{}", printed(&output));
        for checkpoint in ["checkpoint-00000005", "checkpoint-00000015"] {
            let mut child = pretrain(way, &out)?.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
            while !out.join(checkpoint).exists() && child.try_wait()?.is_none() {
                std::thread::sleep(Duration::from_millis(1));
            }
            child.kill()?;
            child.wait()?;
        }
        let output = pretrain(way, &out)?.output()?;
        assert!(output.status.success(), "{}", printed(&output));
        assert!(weights(&out)? == weights(&expected)?, "{way}");
        assert!(out.join("report.html").exists());
    }
    Ok(())
}

#[cfg(unix)]
#[test]
fn a_signal_saves_a_checkpoint_and_succeeds() -> Result {
    let folder = tempfile::tempdir()?;
    let (expected, time) = uninterrupted(folder.path())?;
    for signal in ["INT", "TERM"] {
        let out = folder.path().join(signal);
        let child = finetune(&out)?.spawn()?;
        // The lock exists once the run has started.
        let begun = Instant::now();
        while !out.join("lock").exists() && begun.elapsed() < 20 * time {
            std::thread::sleep(Duration::from_millis(1));
        }
        std::thread::sleep(time / 10);
        Command::new("kill").args([format!("-{signal}"), child.id().to_string()]).status()?;
        let output = child.wait_with_output()?;
        assert!(output.status.success(), "{signal}: {}", printed(&output));
        if !out.join("model.safetensors").exists() {
            assert!(printed(&output).contains("continue with --resume"), "{}", printed(&output));
        }
        let output = finetune(&out)?.output()?;
        assert!(output.status.success(), "{}", printed(&output));
        assert!(weights(&out)? == expected, "{signal}");
    }
    Ok(())
}

/// A limit on the size of files stands in for a full disk.
#[cfg(unix)]
#[test]
fn a_full_disk_keeps_the_last_checkpoint() -> Result {
    let folder = tempfile::tempdir()?;
    let (expected, _) = uninterrupted(folder.path())?;
    let out = folder.path().join("full");
    let checkpoints = || -> Result<Vec<String>> {
        let names = fs::read_dir(&out)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
        let names: Vec<String> = names.collect::<Result<_>>()?;
        Ok(names.into_iter().filter(|name| name.contains("checkpoint-")).collect())
    };
    // Stop after the first checkpoint.
    let mut first = finetune(&out)?;
    let mut child = first.spawn()?;
    let begun = Instant::now();
    while !out.join("checkpoint-00000005").exists() && begun.elapsed() < Duration::from_secs(60) {
        std::thread::sleep(Duration::from_millis(1));
    }
    child.kill()?;
    child.wait()?;
    let before = checkpoints()?;
    assert!(!before.is_empty());

    let run = finetune(&out)?;
    let arguments: Vec<String> = run.get_args().map(|argument| argument.to_string_lossy().into_owned()).collect();
    let limited = "trap '' XFSZ; ulimit -f 64; exec \"$0\" \"$@\"";
    let output = Command::new("sh").args(["-c", limited]).arg(program("finetune")?).args(&arguments).output()?;
    assert!(!output.status.success());
    assert!(printed(&output).contains("state.safetensors: cannot write"), "{}", printed(&output));
    let unfinished = checkpoints()?.into_iter().find(|name| name.starts_with('.'));
    assert_eq!(unfinished, None);
    assert!(before.iter().all(|name| out.join(name).join("state.safetensors").exists()));

    let output = finetune(&out)?.output()?;
    assert!(output.status.success(), "{}", printed(&output));
    assert!(weights(&out)? == expected);
    Ok(())
}
