//! Runs contestants on one workload, in turns.

use std::collections::BTreeMap;
use std::time::Duration;

use cloze_benches::{Spread, median, peak_now};
use serde::Serialize;

use crate::Result;
use crate::agreement::{Agreement, compare};
use crate::contestants::{Contestant, Kind, Programs};
use crate::process::Process;
use crate::products::gflop;
use crate::protocol::{Dtype, Preparation, Reply, Request};
use crate::workloads::{Files, Workload};

/// Rounds that are not counted, in which caches fill and models compile.
const WARM_UP: usize = 3;
/// Number of timed forward passes in a turn of inference; their median counts. An untimed pass before them wakes the
/// threads. In training, a turn is an untimed step followed by a timed one.
const FORWARDS: usize = 3;
/// Pause before each turn, in which the threads of the previous contestant go to sleep.
pub const PAUSE: Duration = Duration::from_millis(300);

/// The results of a race.
#[derive(Serialize)]
pub struct Race {
    pub workload: Workload,
    pub dtype: Dtype,
    pub lanes: Vec<Lane>,
    /// GFLOP of the matrix products of cloze, for each round.
    pub gflop: Vec<f64>,
    /// GFLOP/s that the machine reached after each round. Empty for int8, where attention is f32.
    pub peak: Vec<f64>,
    /// Mean number of tokens in a batch, without padding.
    pub tokens: f64,
    /// Mean number of tokens in a batch, with padding.
    pub padded_tokens: f64,
    /// Size of the model's weights in f32.
    pub weight_bytes: u64,
}

/// The results of one contestant.
#[derive(Serialize)]
pub struct Lane {
    #[serde(flatten)]
    pub contestant: Contestant,
    /// Why it did not run, if it did not.
    pub not_run: Option<String>,
    pub agreement: Option<Agreement>,
    /// Times of the counted rounds.
    pub seconds: Vec<f64>,
    /// Peak memory of its process.
    pub peak_bytes: Option<u64>,
    pub versions: BTreeMap<String, String>,
    #[serde(skip)]
    process: Option<Process>,
}

impl Lane {
    /// Returns median and range of the times, if there are any.
    pub fn spread(&self) -> Option<Spread> {
        (!self.seconds.is_empty()).then(|| Spread::of(self.seconds.iter().copied()))
    }
}

impl Race {
    /// Returns the lane of a contestant, if it ran.
    pub fn lane(&self, kind: Kind, dtype: Dtype) -> Option<&Lane> {
        let contestant = Contestant { kind, dtype };
        self.lanes.iter().find(|lane| lane.contestant == contestant && !lane.seconds.is_empty())
    }

    /// Returns the time of `lane` divided by that of cloze. It is the median of the ratios in each round, in which both
    /// ran the same batch within seconds.
    pub fn ratio(&self, lane: &Lane) -> Option<f64> {
        let ours = self.lane(Kind::Ours, self.dtype)?;
        let mut ratios: Vec<f64> = lane.seconds.iter().zip(&ours.seconds).map(|(theirs, ours)| theirs / ours).collect();
        (!ratios.is_empty()).then(|| median(&mut ratios))
    }

    /// Returns the share of the arithmetic ceiling that cloze reaches, if only its matrix products count as work.
    pub fn fraction_of_peak(&self) -> Option<f64> {
        let ours = self.lane(Kind::Ours, self.dtype)?;
        let rounds = self.gflop.iter().zip(&self.peak).zip(&ours.seconds);
        let mut fractions: Vec<f64> = rounds.map(|((gflop, peak), seconds)| gflop / seconds / peak).collect();
        (!fractions.is_empty()).then(|| median(&mut fractions))
    }
}

/// Starts a contestant and prepares it.
///
/// # Errors
/// Returns the reason if it cannot run.
pub fn ready(programs: &Programs, contestant: Contestant, workload: Workload, files: &Files) -> Result<Lane, String> {
    let refused = |error: Box<dyn std::error::Error>| error.to_string();
    let mut process = programs.start(contestant).map_err(refused)?;
    let preparation = Preparation {
        task: workload.task(),
        model: files.model.clone(),
        batches: files.batches.clone(),
        dtype: contestant.dtype,
        compile: contestant.kind == Kind::TorchCompile,
        unpadded: contestant.kind == Kind::TorchUnpadded,
        threads: programs.threads,
        learning_rate: workload.learning_rate(),
    };
    match process.ask(&Request::Prepare(preparation)).map_err(refused)? {
        Reply::Ready(versions) => Ok(Lane { versions, process: Some(process), ..idle(contestant) }),
        Reply::Unable(why) => Err(why),
        reply => Err(format!("unexpected reply to `prepare`: {reply:?}")),
    }
}

/// Returns a lane without a process or results.
fn idle(contestant: Contestant) -> Lane {
    Lane {
        contestant,
        not_run: None,
        agreement: None,
        seconds: Vec::new(),
        peak_bytes: None,
        versions: BTreeMap::new(),
        process: None,
    }
}

impl Lane {
    /// Ends the process and drops the results, for a reason that the table shows.
    fn stop(&mut self, why: String) {
        eprintln!("  {} {}: not run: {why}", self.contestant.kind.name(), self.contestant.dtype.name());
        self.not_run = Some(why);
        self.seconds.clear();
        self.process = None;
    }

    /// Returns the peak memory of its process so far.
    pub fn memory(&self) -> Option<u64> {
        self.process.as_ref().and_then(Process::peak_bytes)
    }

    fn numbers(&mut self) -> Result<Vec<f64>> {
        match self.process.as_mut().ok_or("has ended")?.ask(&Request::Check)? {
            Reply::Numbers(numbers) => Ok(numbers),
            reply => Err(format!("unexpected reply to `check`: {reply:?}").into()),
        }
    }

    /// Runs a turn and returns its time in seconds.
    pub fn turn(&mut self, trains: bool) -> Result<f64> {
        self.run()?;
        let counted = if trains { 1 } else { FORWARDS };
        let mut seconds = (0..counted).map(|_| self.run()).collect::<Result<Vec<_>>>()?;
        Ok(median(&mut seconds))
    }

    fn run(&mut self) -> Result<f64> {
        match self.process.as_mut().ok_or("has ended")?.ask(&Request::Run)? {
            Reply::Seconds(seconds) => Ok(seconds),
            reply => Err(format!("unexpected reply to `run`: {reply:?}").into()),
        }
    }
}

/// Returns the reference numbers and the contestant that computed them: PyTorch in f32, or another process of cloze
/// without PyTorch.
///
/// # Errors
/// Returns an error if neither can compute them.
pub fn reference(programs: &Programs, workload: Workload, files: &Files) -> Result<(Kind, Vec<f64>)> {
    let of = |kind| -> Result<_> {
        let contestant = Contestant { kind, dtype: Dtype::F32 };
        Ok((kind, ready(programs, contestant, workload, files)?.numbers()?))
    };
    match programs.python {
        Ok(_) => of(Kind::Torch).or_else(|why| {
            eprintln!("  no reference from torch: {why}");
            of(Kind::Ours)
        }),
        Err(_) => of(Kind::Ours),
    }
}

/// Prepares all contestants, compares their numbers with the reference, and lets them take turns. In every round all
/// run the same batch, and another contestant is first.
///
/// # Errors
/// Returns an error if the numbers of a contestant differ from the reference, or if cloze fails.
pub fn race(
    programs: &Programs,
    (workload, dtype): (Workload, Dtype),
    contestants: &[Contestant],
    files: &Files,
    reference: &[f64],
    rounds: usize,
) -> Result<Race> {
    let enter = |&contestant| enter(programs, contestant, workload, files, reference);
    let mut race = Race {
        workload,
        dtype,
        lanes: contestants.iter().map(enter).collect::<Result<_>>()?,
        gflop: Vec::new(),
        peak: Vec::new(),
        tokens: files.mean(|batch| batch.lengths().iter().sum()),
        padded_tokens: files.mean(|batch| batch.ids.len()),
        weight_bytes: std::fs::metadata(files.model.join("model.safetensors")).map_or(0, |file| file.len()),
    };
    for round in 0..WARM_UP + rounds {
        if race.lanes.iter().all(|lane| lane.process.is_none()) {
            break;
        }
        race.turns(round)?;
        if round >= WARM_UP {
            race.record_machine(round, files);
            race.print_round(&format!("round {} of {rounds}", round + 1 - WARM_UP));
        }
    }
    for lane in &mut race.lanes {
        lane.peak_bytes = lane.memory();
        lane.process = None;
    }
    Ok(race)
}

/// Prepares a contestant and compares its numbers with the reference. A contestant that cannot run gets a lane that
/// says why.
fn enter(
    programs: &Programs,
    contestant: Contestant,
    workload: Workload,
    files: &Files,
    reference: &[f64],
) -> Result<Lane> {
    let lacks = contestant.kind.lacks(workload.task(), contestant.dtype).map(str::to_string);
    let mut lane = match lacks.map_or_else(|| ready(programs, contestant, workload, files), Err) {
        Ok(lane) => lane,
        Err(why) => {
            let mut lane = idle(contestant);
            lane.stop(why);
            return Ok(lane);
        }
    };
    let who = format!("{} {} on {}", contestant.kind.name(), contestant.dtype.name(), workload.name());
    match lane.numbers() {
        Ok(numbers) => match compare(workload.task(), contestant.dtype, &numbers, reference) {
            Ok(agreement) => lane.agreement = Some(agreement),
            // The accuracy of int8 depends on how a library quantizes, so a peer that loses too much is left out.
            Err(error) if contestant.dtype == Dtype::Int8 && contestant.kind != Kind::Ours => lane.stop(error),
            Err(error) => return Err(format!("{who}: {error}").into()),
        },
        Err(error) if contestant.kind == Kind::Ours => return Err(format!("{who}: {error}").into()),
        Err(error) => lane.stop(error.to_string()),
    }
    Ok(lane)
}

impl Race {
    /// Gives each contestant a turn, starting with another one in each round.
    fn turns(&mut self, round: usize) -> Result {
        let (count, trains) = (self.lanes.len(), self.workload.task().trains());
        for lane in (0..count).map(|turn| (round + turn) % count) {
            let lane = &mut self.lanes[lane];
            if lane.process.is_none() {
                continue;
            }
            std::thread::sleep(PAUSE);
            match lane.turn(trains) {
                Ok(seconds) if round >= WARM_UP => lane.seconds.push(seconds),
                Ok(_) => {}
                Err(error) if lane.contestant.kind == Kind::Ours => return Err(format!("cloze: {error}").into()),
                Err(error) => lane.stop(error.to_string()),
            }
        }
        Ok(())
    }

    /// Measures the arithmetic ceiling after a round, and counts the operations of its batch.
    fn record_machine(&mut self, round: usize, files: &Files) {
        std::thread::sleep(PAUSE);
        let peak = peak_now(self.dtype.precision()).filter(|_| self.dtype != Dtype::Int8);
        self.peak.extend(peak.map(|rate| rate / 1e9));
        // A turn of training times its second step, on the second of two batches. Batches of inference all have one
        // size.
        let batch = &files.padded[(2 * round + 1) % files.padded.len()];
        self.gflop.push(gflop(self.workload.task(), &files.config, batch));
    }

    fn print_round(&self, name: &str) {
        let times = self.lanes.iter().filter_map(|lane| Some((lane.contestant, lane.seconds.last()?)));
        let times: Vec<String> =
            times.map(|(who, time)| format!("{} {} {time:.4} s", who.kind.name(), who.dtype.name())).collect();
        eprintln!("  {name}: {}", times.join(", "));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lane(kind: Kind, dtype: Dtype, seconds: &[f64]) -> Lane {
        Lane { seconds: seconds.to_vec(), ..idle(Contestant { kind, dtype }) }
    }

    #[test]
    fn ratios_are_of_rounds() {
        let lanes = vec![
            lane(Kind::Ours, Dtype::F32, &[9.0, 9.0, 9.0]),
            lane(Kind::Ours, Dtype::Bf16, &[1.0, 2.0, 4.0]),
            lane(Kind::Torch, Dtype::Bf16, &[3.0, 8.0, 4.0]),
            lane(Kind::Candle, Dtype::Bf16, &[]),
        ];
        let race = Race {
            workload: Workload::Dense,
            dtype: Dtype::Bf16,
            lanes,
            gflop: vec![10.0, 10.0, 40.0],
            peak: vec![20.0, 10.0, 20.0],
            tokens: 1.0,
            padded_tokens: 1.0,
            weight_bytes: 1,
        };
        // 3, 4, 1; the ratio of the medians would be 2.
        assert_eq!(race.ratio(race.lane(Kind::Torch, Dtype::Bf16).unwrap()), Some(3.0));
        assert_eq!(race.ratio(race.lane(Kind::Ours, Dtype::F32).unwrap()), Some(4.5));
        assert!(race.lane(Kind::Candle, Dtype::Bf16).is_none());
        assert_eq!(race.fraction_of_peak(), Some(0.5));
    }
}
