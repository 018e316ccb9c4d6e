//! From the start of a process to its first sentence vector, the file cache being warm.

use std::path::Path;
use std::time::{Duration, Instant};

use cloze::prelude::*;

use crate::Result;
use crate::agreement::compare;
use crate::contestants::Programs;
use crate::process::Process;
use crate::protocol::{Dtype, Task};
use crate::stats::{Spread, median};
use crate::table;

const SENTENCE: &str = "A man is eating a piece of bread.";

/// Runs that do not count: they warm the file cache.
const WARM_UP: usize = 1;

/// Prints the vector of a sentence, as JSON: what the process that is measured does.
///
/// # Errors
/// When the model in `folder` cannot be opened or asked.
pub fn answer(folder: &Path, sentence: &str) -> Result {
    let vectors = SentenceEmbedder::open(folder)?.embed(&[sentence])?;
    println!("{}", serde_json::to_string(&vectors[0])?);
    Ok(())
}

/// Starts a process of ours and one of PyTorch's in turns; a table.
///
/// # Errors
/// When a process fails, or the two say different things.
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
                compare(Task::Embedding, Dtype::F32, &vector, first).map_err(|error| format!("{name} {error}"))?;
            }
            first.get_or_insert(vector);
            eprintln!("{name}: {took:.3} s");
            if round >= WARM_UP {
                seconds.push(took);
            }
        }
    }
    let mut rows = vec![
        ["first answer of a fresh process", "median", "smallest to largest", "times cloze"].map(String::from).to_vec(),
    ];
    for (name, _, seconds) in &lanes {
        let spread = Spread::of(seconds.iter().copied());
        let mut ratios: Vec<f64> = seconds.iter().zip(&lanes[0].2).map(|(theirs, ours)| theirs / ours).collect();
        let range = format!("{} to {}", table::seconds(spread.min), table::seconds(spread.max));
        rows.push(vec![name.to_string(), table::seconds(spread.median), range, format!("{:.1}", median(&mut ratios))]);
    }
    Ok(table::table(&rows))
}
