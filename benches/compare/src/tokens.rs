//! The time per token in steps of different sizes, which should be constant.

use std::path::Path;

use cloze_benches::{Spread, median};

use crate::Result;
use crate::contestants::{Contestant, Kind, Programs};
use crate::protocol::Dtype;
use crate::race::{Lane, PAUSE, ready};
use crate::table;
use crate::workloads::{Tokens, Workload};

/// Numbers of sequences in a step, each of 128 tokens.
const SEQUENCES: [usize; 3] = [8, 32, 128];
/// Rounds that are not counted.
const WARM_UP: usize = 1;

/// Runs the dense step of cloze in all sizes in turns, and returns a table.
///
/// # Errors
/// Returns an error if a process fails.
pub fn measure(programs: &Programs, folder: &Path, dtype: Dtype, rounds: usize) -> Result<String> {
    let files = Workload::Dense.write(folder, &Tokens::default(), None, false)?;
    let mut lanes: Vec<Lane> = Vec::new();
    for sequences in SEQUENCES {
        let files = files.resized(sequences)?;
        lanes.push(ready(programs, Contestant { kind: Kind::Ours, dtype }, Workload::Dense, &files)?);
    }
    for round in 0..WARM_UP + rounds {
        for (lane, sequences) in lanes.iter_mut().zip(SEQUENCES) {
            std::thread::sleep(PAUSE);
            let seconds = lane.turn(true)?;
            eprintln!("{} tokens: {seconds:.2} s", 128 * sequences);
            if round >= WARM_UP {
                lane.seconds.push(seconds / (128 * sequences) as f64);
            }
        }
    }
    let head = ["tokens per step", "type", "step", "per token", "relative to the first", "peak memory"];
    let mut rows = vec![head.map(String::from).to_vec()];
    for (lane, sequences) in lanes.iter().zip(SEQUENCES) {
        let tokens = 128 * sequences;
        let spread = Spread::of(lane.seconds.iter().copied());
        let mut ratios: Vec<f64> = lane.seconds.iter().zip(&lanes[0].seconds).map(|(own, first)| own / first).collect();
        rows.push(vec![
            tokens.to_string(),
            dtype.name().into(),
            table::seconds(spread.median * tokens as f64),
            format!("{:.3} ms", 1e3 * spread.median),
            format!("{:.3}", median(&mut ratios)),
            table::gib(lane.memory()),
        ]);
    }
    Ok(table::table(&rows))
}
