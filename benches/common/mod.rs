//! What benches share: criterion runs them and keeps what they measured; here the median of each becomes a line of a
//! table, beside what the machine can do at most.

// No bench uses all of it.
#![allow(dead_code, unused_imports)]

pub mod batch;
mod ceiling;
mod data;
#[path = "../../examples/common/table.rs"]
mod table;
mod work;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use ceiling::{Ceilings, Memory};
use criterion::{Criterion, SamplingMode};

pub use data::{Texts, leaf, lengths, noise, tokenizer};
use table::Table;
pub use work::{EncoderForward, Work, linear_backward, linear_forward, weight_bytes};

pub type Result<T = (), E = Box<dyn std::error::Error>> = std::result::Result<T, E>;

/// Samples of a measurement: as few as criterion allows, because some take seconds.
const SAMPLES: usize = 10;

/// The measurements of one program.
pub struct Suite {
    name: &'static str,
    criterion: Criterion,
    memory: Option<Memory>,
    ceilings: Ceilings,
    /// Bytes a second of memory, when it was last measured.
    last_memory: f64,
    rows: Vec<Row>,
}

/// A line of the table.
struct Row {
    name: String,
    work: Work,
    /// Seconds.
    median: f64,
    /// Bytes a second that memory gave then.
    memory: f64,
}

impl Suite {
    /// Measures the machine's ceilings and says what they are, unless nothing is to be measured.
    pub fn new(name: &'static str) -> Result<Suite> {
        let criterion =
            Criterion::default().without_plots().sample_size(SAMPLES).nresamples(10_000).configure_from_args();
        let mut memory = if testing() { None } else { Some(Memory::new()?) };
        let ceilings = memory.as_mut().map_or_else(Ceilings::default, Ceilings::measure);
        if memory.is_some() {
            println!("{ceilings}\n");
        }
        Ok(Suite { name, criterion, memory, ceilings, last_memory: ceilings.memory, rows: Vec::new() })
    }

    /// Measures what `setup` gives: each call does `work` once, and says how long that took. The setup runs only if the
    /// arguments of the program ask for this measurement.
    pub fn bench<R: FnMut() -> Result<Duration>>(
        &mut self,
        name: impl Into<String>,
        work: Work,
        setup: impl FnOnce() -> Result<R>,
    ) {
        let (name, mut setup, mut run) = (name.into(), Some(setup), None);
        let fail = |error| -> ! { panic!("{name}: {error}") };
        // Warm-up comes first, so the last ones are the samples that criterion takes.
        let mut samples: VecDeque<f64> = VecDeque::new();
        let mut group = self.criterion.benchmark_group(self.name);
        let floor = Duration::from_secs_f64(work.floor(&self.ceilings));
        group.warm_up_time(Duration::from_millis(100));
        group.measurement_time(Duration::from_millis(300).max(floor * 2 * SAMPLES as u32));
        group.sampling_mode(SamplingMode::Flat);
        group.bench_function(&name, |bencher| {
            // Called for each sample.
            if let Some(setup) = setup.take() {
                run = Some(setup().unwrap_or_else(|error| fail(error)));
            }
            let Some(run) = &mut run else { return };
            bencher.iter_custom(|iterations| {
                let elapsed = (0..iterations).map(|_| run().unwrap_or_else(|error| fail(error))).sum::<Duration>();
                samples.push_back(elapsed.as_secs_f64() / iterations as f64);
                if samples.len() > SAMPLES {
                    samples.pop_front();
                }
                elapsed
            });
        });
        group.finish();
        let Some(memory) = self.memory.as_mut().filter(|_| !samples.is_empty()) else { return };
        samples.make_contiguous().sort_by(f64::total_cmp);
        let median = (samples[(samples.len() - 1) / 2] + samples[samples.len() / 2]) / 2.0;
        // The memory of a virtual machine may be half as fast again a minute later: each line has its own, the better of
        // before and after.
        let before = std::mem::replace(&mut self.last_memory, memory.measure());
        self.rows.push(Row { name, work, median, memory: before.max(self.last_memory) });
    }

    /// Prints the table.
    pub fn finish(mut self) {
        let Some(memory) = self.memory.as_mut().filter(|_| !self.rows.is_empty()) else { return };
        // Whatever else ran on the machine at the beginning may be gone.
        let ceilings = self.ceilings.max(Ceilings::measure(memory));
        let measured = || self.rows.iter().map(|row| row.memory / 1e9);
        let (slowest, fastest) = (measured().fold(f64::INFINITY, f64::min), measured().fold(0.0, f64::max));
        println!("{ceilings}; beside the lines below memory {slowest:.1} to {fastest:.1} GB/s\n");
        let rows = self.rows.iter().map(|Row { name, work, median, memory }| {
            let [items, arithmetic, bytes, ceiling] = work.rates(*median, &ceilings.with_memory(*memory));
            [name.clone(), time(*median), items, arithmetic, bytes, ceiling]
        });
        let rows: Vec<_> = rows.collect();
        // A column of nothing is left out.
        let head = [self.name, "median", "items", "arithmetic", "bytes", "of the ceiling"].map(String::from);
        let columns: Vec<usize> = (0..head.len()).filter(|&at| rows.iter().any(|row| !row[at].is_empty())).collect();
        let table = std::iter::once(&head)
            .chain(&rows)
            .fold(Table::new("<>"), |table, row| table.row(columns.iter().map(|&column| row[column].clone())));
        println!("{table}");
    }
}

/// Whether benches only show that they run, each once: under `cargo test`, and for `--test` and `--list`. Data should then
/// be small.
pub fn testing() -> bool {
    let given = |argument: &str| std::env::args().any(|given| given == argument);
    !given("--bench") || given("--test") || given("--list")
}

/// How long `f` takes. Dropping what it gives does not count.
pub fn timed<T, E: Into<Box<dyn std::error::Error>>>(
    f: impl FnOnce() -> std::result::Result<T, E>,
) -> Result<Duration> {
    let start = Instant::now();
    let value = std::hint::black_box(f());
    let elapsed = start.elapsed();
    value.map_err(Into::into).map(|_| elapsed)
}

fn time(seconds: f64) -> String {
    match seconds {
        1.0.. => format!("{seconds:.3} s"),
        1e-3.. => format!("{:.3} ms", seconds * 1e3),
        _ => format!("{:.1} us", seconds * 1e6),
    }
}
