//! Runs measurements with criterion, which stores and compares them, and prints their medians in a table next to the
//! ceilings of the machine.

use std::collections::VecDeque;
use std::time::Duration;

use cloze_benches::{Ceilings, Memory, Result, Work, median, testing};
use cloze_examples::Table;
use criterion::{Criterion, SamplingMode};

/// Samples in a measurement: the minimum that criterion allows, because some take seconds.
const SAMPLES: usize = 10;

/// The measurements of one bench program.
pub struct Suite {
    name: &'static str,
    criterion: Criterion,
    memory: Option<Memory>,
    ceilings: Ceilings,
    /// Memory bandwidth when it was last measured, in bytes per second.
    last_memory: f64,
    measurements: Vec<Measurement>,
}

/// One line of the table.
struct Measurement {
    name: String,
    work: Work,
    /// Seconds.
    median: f64,
    /// Memory bandwidth at the time, in bytes per second.
    memory: f64,
}

impl Suite {
    /// Measures the ceilings of the machine and prints them, unless the program runs as a test.
    pub fn new(name: &'static str) -> Result<Suite> {
        let criterion =
            Criterion::default().without_plots().sample_size(SAMPLES).nresamples(10_000).configure_from_args();
        let mut memory = if testing() { None } else { Some(Memory::new()?) };
        let ceilings = memory.as_mut().map_or_else(Ceilings::default, Ceilings::measure);
        if memory.is_some() {
            println!("{ceilings}\n");
        }
        Ok(Suite { name, criterion, memory, ceilings, last_memory: ceilings.memory, measurements: Vec::new() })
    }

    /// Measures the closure that `setup` returns. Each call does `work` once, and returns how long that took. The setup
    /// runs only if the command line selects this measurement.
    pub fn bench<R: FnMut() -> Result<Duration>>(
        &mut self,
        name: impl Into<String>,
        work: Work,
        setup: impl FnOnce() -> Result<R>,
    ) {
        let (name, mut setup, mut run) = (name.into(), Some(setup), None);
        let fail = |error| -> ! { panic!("{name}: {error}") };
        // Criterion warms up first, so its samples are the last ones.
        let mut samples: VecDeque<f64> = VecDeque::new();
        let mut group = self.criterion.benchmark_group(self.name);
        let floor = Duration::from_secs_f64(work.floor(&self.ceilings));
        group.warm_up_time(Duration::from_millis(100));
        group.measurement_time(Duration::from_millis(300).max(floor * 2 * SAMPLES as u32));
        group.sampling_mode(SamplingMode::Flat);
        group.bench_function(&name, |bencher| {
            // Criterion calls this for each sample, but the setup must run only once.
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
        let median = median(samples.make_contiguous());
        // The bandwidth of a virtual machine may rise by half within a minute, so each line is compared with its own:
        // the higher of the values before and after.
        let before = std::mem::replace(&mut self.last_memory, memory.measure());
        self.measurements.push(Measurement { name, work, median, memory: before.max(self.last_memory) });
    }

    /// Prints the table.
    pub fn finish(mut self) {
        let Some(memory) = self.memory.as_mut().filter(|_| !self.measurements.is_empty()) else { return };
        // Measuring again excludes what else may have run on the machine at the start.
        let ceilings = self.ceilings.max(Ceilings::measure(memory));
        let measured = || self.measurements.iter().map(|measurement| measurement.memory / 1e9);
        let (slowest, fastest) = (measured().fold(f64::INFINITY, f64::min), measured().fold(0.0, f64::max));
        println!("{ceilings}; during the measurements below, memory {slowest:.1} to {fastest:.1} GB/s\n");
        let rows = self.measurements.iter().map(|Measurement { name, work, median, memory }| {
            let [items, arithmetic, bytes, ceiling] = work.rates(*median, &ceilings.with_memory(*memory));
            [name.clone(), time(*median), items, arithmetic, bytes, ceiling]
        });
        let rows: Vec<_> = rows.collect();
        // Columns that are empty everywhere are left out.
        let head = [self.name, "median", "items", "arithmetic", "bytes", "of the ceiling"].map(String::from);
        let columns: Vec<usize> = (0..head.len()).filter(|&at| rows.iter().any(|row| !row[at].is_empty())).collect();
        let table = std::iter::once(&head)
            .chain(&rows)
            .fold(Table::new("<>"), |table, row| table.row(columns.iter().map(|&column| row[column].clone())));
        println!("{table}");
    }
}

fn time(seconds: f64) -> String {
    match seconds {
        1.0.. => format!("{seconds:.3} s"),
        1e-3.. => format!("{:.3} ms", seconds * 1e3),
        _ => format!("{:.1} us", seconds * 1e6),
    }
}
