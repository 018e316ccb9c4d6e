//! What a token costs in steps of different sizes: it should be the same.

use std::path::Path;

use crate::Result;
use crate::contestants::{Contestant, Kind, Programs};
use crate::protocol::Dtype;
use crate::race::{Lane, PAUSE, ready};
use crate::stats::{Spread, median};
use crate::table;
use crate::workloads::{Texts, Workload};

/// Sequences of 128 tokens in a step.
const SEQUENCES: [usize; 3] = [8, 32, 128];
/// Rounds that do not count.
const WARM_UP: usize = 1;

/// Runs our dense step in all sizes in turns; a table.
///
/// # Errors
/// When a process fails.
pub fn measure(programs: &Programs, folder: &Path, dtype: Dtype, rounds: usize) -> Result<String> {
    let files = Workload::Dense.write(folder, &Texts::default(), None, false)?;
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
    let head = ["tokens in a step", "type", "step", "for each token", "of the first", "peak memory"];
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
