//! The time from the start of a process to its first sentence vector, with a warm file cache.

use std::path::Path;
use std::time::{Duration, Instant};

use cloze::prelude::*;
use cloze_benches::{Spread, median};

use crate::Result;
use crate::agreement::compare;
use crate::contestants::Programs;
use crate::process::Process;
use crate::protocol::{Dtype, Task};
use crate::table;

const SENTENCE: &str = "A man is eating a piece of bread.";

/// Runs that are not counted, to warm the file cache.
const WARM_UP: usize = 1;

/// Prints the vector of a sentence as JSON. This is what the measured process does.
///
/// # Errors
/// Returns an error if the model in `folder` cannot be opened or run.
pub fn answer(folder: &Path, sentence: &str) -> Result {
    let vectors = SentenceEmbedder::open(folder)?.embed(&[sentence])?;
    println!("{}", serde_json::to_string(&vectors[0])?);
    Ok(())
}

/// Starts a process of cloze and one of PyTorch in turns, and returns a table of their times.
///
/// # Errors
/// Returns an error if a process fails, or if the vectors differ.
pub fn measure(programs: &Programs, folder: &Path, rounds: usize) -> Result<String> {
    let place = folder.to_string_lossy();
    let ours = || programs.ours(&["first-answer", &place, SENTENCE]);
    let torch = || {
        let mut command = programs.script("torch_peer.py")?;
        command.args(["--first-answer", &place, SENTENCE]);
        Ok(command)
    };
    let mut lanes = vec![("cloze", &ours as &dyn Fn() -> Result<std::process::Command>, Vec::new())];
    if programs.python.is_ok() {
        lanes.push(("torch and transformers", &torch, Vec::new()));
    }
    for round in 0..WARM_UP + rounds {
        let mut first: Option<Vec<f64>> = None;
        for (name, command, seconds) in &mut lanes {
            std::thread::sleep(Duration::from_millis(300));
            let (command, start) = (command()?, Instant::now());
            let line = Process::start(command, &programs.logs.join("first-answer.log"))?.line()?;
            let took = start.elapsed().as_secs_f64();
            let vector: Vec<f64> = serde_json::from_str(&line)?;
            if let Some(first) = &first {
                compare(Task::Embedding, Dtype::F32, &vector, first).map_err(|error| format!("{name}: {error}"))?;
            }
            first.get_or_insert(vector);
            eprintln!("{name}: {took:.3} s");
            if round >= WARM_UP {
                seconds.push(took);
            }
        }
    }
    let mut rows = vec![["first answer of a new process", "median", "range", "times cloze"].map(String::from).to_vec()];
    for (name, _, seconds) in &lanes {
        let spread = Spread::of(seconds.iter().copied());
        let mut ratios: Vec<f64> = seconds.iter().zip(&lanes[0].2).map(|(theirs, ours)| theirs / ours).collect();
        let range = format!("{} to {}", table::seconds(spread.min), table::seconds(spread.max));
        rows.push(vec![name.to_string(), table::seconds(spread.median), range, format!("{:.1}", median(&mut ratios))]);
    }
    Ok(table::table(&rows))
}
