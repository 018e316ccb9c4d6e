//! Runs that are killed at random moments.

use std::fs;
use std::process::Stdio;
use std::time::Instant;

use cloze::tensor::random::{Purpose, Stream};
use cloze_examples::Result;

use crate::programs::{damaged_checkpoints, library_command, library_run};
use crate::state::State;

/// Starts runs with accumulated gradients, a best model and a cache, kills each as often as it takes to end, and compares what
/// they leave with a run that is not disturbed, until there were `count` kills.
pub fn kill(count: usize) -> Result {
    let scratch = tempfile::tempdir()?;
    let undisturbed = scratch.path().join("undisturbed");
    let start = |folder: &std::path::Path| {
        let mut command = library_command(folder);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        command.spawn()
    };
    (library_run().prepare)(&undisturbed)?;
    let begun = Instant::now();
    assert!(start(&undisturbed)?.wait()?.success());
    let (time, expected) = (begun.elapsed(), State::of(&undisturbed)?);

    let mut stream = Stream::new(23, Purpose::User, 0, 0, 0);
    let (mut kills, mut runs) = (0, 0);
    while kills < count {
        runs += 1;
        let folder = scratch.path().join(format!("run-{runs}"));
        (library_run().prepare)(&folder)?;
        loop {
            let mut child = start(&folder)?;
            if kills < count {
                std::thread::sleep(time.mul_f64(stream.below(1000) as f64 / 1000.0));
                // SIGKILL, unless it has ended.
                child.kill()?;
            }
            let output = child.wait_with_output()?;
            assert_eq!(damaged_checkpoints(&folder), None, "run {runs}, after {kills} kills in all");
            if output.status.success() {
                break;
            }
            assert_eq!(output.status.code(), None, "{}", String::from_utf8_lossy(&output.stderr));
            kills += 1;
        }
        let difference = State::of(&folder)?.difference(&expected, |_| false);
        assert_eq!(difference, None, "run {runs}, after {kills} kills in all");
        fs::remove_dir_all(&folder)?;
    }
    println!("{kills} kills in {runs} runs of {time:.0?}: 0 lost");
    Ok(())
}
