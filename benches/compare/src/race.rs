//! Contestants on one workload, in turns.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use crate::Result;
use crate::agreement::{Agreement, compare};
use crate::ceiling::peak_now;
use crate::contestants::{Contestant, Kind, Programs};
use crate::process::Process;
use crate::products::gflop;
use crate::protocol::{Dtype, Preparation, Reply, Request};
use crate::stats::{Spread, median};
use crate::workloads::{Files, Workload};

/// Rounds before the first that counts: caches fill, models compile.
const WARM_UP: usize = 3;
/// Forwards of a turn of inference, after one that is not timed and wakes the threads: the median counts. A turn of
/// training is one step after another.
const FORWARDS: usize = 3;
/// Before each turn, so that the threads of the one before stop waiting for more work.
pub const PAUSE: Duration = Duration::from_millis(300);

/// What came of it.
#[derive(Serialize)]
pub struct Race {
    pub workload: Workload,
    pub dtype: Dtype,
    pub lanes: Vec<Lane>,
    /// In each round: GFLOP of our matrix products, and GFLOP/s that the machine could do then; nothing for int8, where
    /// attention is f32.
    pub gflop: Vec<f64>,
    pub peak: Vec<f64>,
    /// Tokens in a batch, on average, and with padding.
    pub tokens: f64,
    pub padded_tokens: f64,
    /// Of the model's weights in f32.
    pub weight_bytes: u64,
}

/// What one contestant did.
#[derive(Serialize)]
pub struct Lane {
    #[serde(flatten)]
    pub contestant: Contestant,
    /// Why it did nothing.
    pub not_run: Option<String>,
    pub agreement: Option<Agreement>,
    /// Of each round that counts.
    pub seconds: Vec<f64>,
    /// The most memory that its process ever had.
    pub peak_bytes: Option<u64>,
    pub versions: BTreeMap<String, String>,
    #[serde(skip)]
    process: Option<Process>,
}

impl Lane {
    pub fn spread(&self) -> Option<Spread> {
        (!self.seconds.is_empty()).then(|| Spread::of(self.seconds.iter().copied()))
    }
}

impl Race {
    /// The lane of a contestant that ran.
    pub fn lane(&self, kind: Kind, dtype: Dtype) -> Option<&Lane> {
        let contestant = Contestant { kind, dtype };
        self.lanes.iter().find(|lane| lane.contestant == contestant && !lane.seconds.is_empty())
    }

    /// How many times as long as `lane` our own takes: the median of the ratios of the rounds, in which the two had
    /// the same batch within seconds.
    pub fn ratio(&self, lane: &Lane) -> Option<f64> {
        let ours = self.lane(Kind::Ours, self.dtype)?;
        let mut ratios: Vec<f64> = lane.seconds.iter().zip(&ours.seconds).map(|(theirs, ours)| theirs / ours).collect();
        (!ratios.is_empty()).then(|| median(&mut ratios))
    }

    /// Which part of what the machine could do in each round our matrix products did, were the step nothing else.
    pub fn fraction_of_peak(&self) -> Option<f64> {
        let ours = self.lane(Kind::Ours, self.dtype)?;
        let rounds = self.gflop.iter().zip(&self.peak).zip(&ours.seconds);
        let mut fractions: Vec<f64> = rounds.map(|((gflop, peak), seconds)| gflop / seconds / peak).collect();
        (!fractions.is_empty()).then(|| median(&mut fractions))
    }
}

/// A contestant that is ready, or why it is not.
///
/// # Errors
/// Why it is not.
pub fn ready(programs: &Programs, contestant: Contestant, workload: Workload, files: &Files) -> Result<Lane, String> {
    let refused = |error: Box<dyn std::error::Error>| error.to_string();
    let mut process = programs.start(contestant).map_err(refused)?;
    let preparation = Preparation {
        task: workload.task(),
        model: files.model.clone(),
        batches: files.batches.clone(),
        dtype: contestant.dtype,
        compile: contestant.kind == Kind::TorchCompile,
        threads: programs.threads,
        learning_rate: workload.learning_rate(),
    };
    match process.ask(&Request::Prepare(preparation)).map_err(refused)? {
        Reply::Ready(versions) => Ok(Lane { versions, process: Some(process), ..idle(contestant, None) }),
        Reply::Unable(why) => Err(why),
        reply => Err(format!("is asked to get ready and replies {reply:?}")),
    }
}

fn idle(contestant: Contestant, why: Option<String>) -> Lane {
    Lane {
        contestant,
        not_run: why,
        agreement: None,
        seconds: Vec::new(),
        peak_bytes: None,
        versions: BTreeMap::new(),
        process: None,
    }
}

impl Lane {
    /// The lane without its process, for this reason.
    fn stopped(&mut self, why: String) {
        eprintln!("  {} {}: not run: {why}", self.contestant.kind.name(), self.contestant.dtype.name());
        self.not_run = Some(why);
        self.seconds.clear();
        self.process = None;
    }

    /// The most memory that its process had so far.
    pub fn memory(&self) -> Option<u64> {
        self.process.as_ref().and_then(Process::peak_bytes)
    }

    fn numbers(&mut self) -> Result<Vec<f64>> {
        match self.process.as_mut().ok_or("has ended")?.ask(&Request::Check)? {
            Reply::Numbers(numbers) => Ok(numbers),
            reply => Err(format!("is asked for numbers and replies {reply:?}").into()),
        }
    }

    /// What a turn took.
    pub fn turn(&mut self, trains: bool) -> Result<f64> {
        self.run()?;
        let counted = if trains { 1 } else { FORWARDS };
        let mut seconds = (0..counted).map(|_| self.run()).collect::<Result<Vec<_>>>()?;
        Ok(median(&mut seconds))
    }

    fn run(&mut self) -> Result<f64> {
        match self.process.as_mut().ok_or("has ended")?.ask(&Request::Run)? {
            Reply::Seconds(seconds) => Ok(seconds),
            reply => Err(format!("is asked to run and replies {reply:?}").into()),
        }
    }
}

/// The numbers that everybody is compared with, and whose they are: PyTorch's in f32, or our own of another process
/// where there is no PyTorch.
///
/// # Errors
/// When nobody can compute them.
pub fn reference(programs: &Programs, workload: Workload, files: &Files) -> Result<(Kind, Vec<f64>)> {
    let of = |kind| -> Result<_> {
        let contestant = Contestant { kind, dtype: Dtype::F32 };
        Ok((kind, ready(programs, contestant, workload, files)?.numbers()?))
    };
    match programs.python {
        Ok(_) => of(Kind::Torch).or_else(|why| {
            eprintln!("  no reference of torch: {why}");
            of(Kind::Ours)
        }),
        Err(_) => of(Kind::Ours),
    }
}

/// Gets all ready, compares their numbers with the reference, and lets them take turns. In every round all take the
/// same batch, another one first.
///
/// # Errors
/// When one computes something else than the reference, or ours fails.
pub fn race(
    programs: &Programs,
    (workload, dtype): (Workload, Dtype),
    contestants: &[Contestant],
    files: &Files,
    reference: &[f64],
    rounds: usize,
) -> Result<Race> {
    let mut lanes = Vec::new();
    for &contestant in contestants {
        let lacks = contestant.kind.lacks(workload.task(), contestant.dtype).map(str::to_string);
        let mut lane = match lacks.map_or_else(|| ready(programs, contestant, workload, files), Err) {
            Ok(lane) => lane,
            Err(why) => {
                let mut lane = idle(contestant, None);
                lane.stopped(why);
                lanes.push(lane);
                continue;
            }
        };
        let who = format!("{} {} on {}", contestant.kind.name(), contestant.dtype.name(), workload.name());
        match lane.numbers() {
            Ok(numbers) => match compare(workload.task(), contestant.dtype, &numbers, reference) {
                Ok(agreement) => lane.agreement = Some(agreement),
                // What a peer loses in int8 is its own.
                Err(error) if contestant.dtype == Dtype::Int8 && contestant.kind != Kind::Ours => lane.stopped(error),
                Err(error) => return Err(format!("{who} {error}").into()),
            },
            Err(error) if contestant.kind == Kind::Ours => return Err(format!("{who}: {error}").into()),
            Err(error) => lane.stopped(error.to_string()),
        }
        lanes.push(lane);
    }

    // That of the second step of a turn; batches of forwards are all of one size.
    let batch = |round: usize| &files.padded[(2 * round + 1) % files.padded.len()];
    let (mut peak, mut work) = (Vec::new(), Vec::new());
    for round in 0..WARM_UP + rounds {
        if lanes.iter().all(|lane| lane.process.is_none()) {
            break;
        }
        for turn in 0..lanes.len() {
            let place = (round + turn) % lanes.len();
            let lane = &mut lanes[place];
            if lane.process.is_none() {
                continue;
            }
            std::thread::sleep(PAUSE);
            match lane.turn(workload.task().trains()) {
                Ok(seconds) if round >= WARM_UP => lane.seconds.push(seconds),
                Ok(_) => {}
                Err(error) if lane.contestant.kind == Kind::Ours => return Err(format!("cloze: {error}").into()),
                Err(error) => lane.stopped(error.to_string()),
            }
        }
        if round >= WARM_UP {
            std::thread::sleep(PAUSE);
            peak.extend(peak_now(dtype.precision()).filter(|_| dtype != Dtype::Int8).map(|rate| rate / 1e9));
            work.push(gflop(workload.task(), &files.config, batch(round)));
            let times = lanes.iter().filter_map(|lane| Some((lane.contestant, lane.seconds.last()?)));
            let times: Vec<String> =
                times.map(|(who, time)| format!("{} {} {time:.4} s", who.kind.name(), who.dtype.name())).collect();
            eprintln!("  round {} of {rounds}: {}", round + 1 - WARM_UP, times.join(", "));
        }
    }
    for lane in &mut lanes {
        lane.peak_bytes = lane.memory();
        lane.process = None;
    }
    let mean = |sum: usize| sum as f64 / files.padded.len() as f64;
    let tokens = mean(files.padded.iter().flat_map(|batch| batch.lengths()).sum());
    let padded_tokens = mean(files.padded.iter().map(|batch| batch.ids.len()).sum());
    let weight_bytes = std::fs::metadata(files.model.join("model.safetensors")).map_or(0, |file| file.len());
    Ok(Race { workload, dtype, lanes, gflop: work, peak, tokens, padded_tokens, weight_bytes })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lane(kind: Kind, dtype: Dtype, seconds: &[f64]) -> Lane {
        Lane { seconds: seconds.to_vec(), ..idle(Contestant { kind, dtype }, None) }
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
