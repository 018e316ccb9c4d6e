use cloze_bert::BertConfig;
use cloze_tensor::DType;

use super::{Job, Network, RankSpeed};

const SPEED: RankSpeed = RankSpeed { tokens_per_second: 1000.0, overhead: 0.0, parameters_per_second: 1e9 };

fn job(ranks: usize) -> Job {
    Job { sequences: 64, length: 128, ranks, ..Job::new(BertConfig::base()) }
}

#[test]
fn one_rank_computes_and_updates() {
    let time = job(1).step_time(&SPEED, &Network::ethernet(10.0, 50e-6));
    assert!((time.total() - (64.0 * 128.0 / 1000.0 + 110_106_428.0 / 1e9)).abs() < 1e-9);
    assert_eq!((time.visible(), time.hidden_share()), (0.0, 1.0));
}

/// With backward far longer than the exchange, only the last bucket is visible: it ends at the embeddings, whose gradients are
/// final last, so that all of theirs wait.
#[test]
fn backward_hides_all_but_the_embeddings() {
    let network = Network { per_message: 0.0, ..Network::ethernet(8.0, 1e-3) };
    let time = job(2).step_time(&SPEED, &network);
    let buckets = 110_106_428f64 / f64::from(1 << 22);
    assert!((time.gradients_total - (110_106_428.0 * 2.0 / 1e9 + 1e-3 * buckets.ceil())).abs() < 1e-9);
    // 23.8 million elements of the embeddings are in the first six buckets.
    let visible = 6.0 * (f64::from(1 << 22) * 2.0 / 1e9 + 1e-3);
    assert!((time.gradients_wait - visible).abs() < 1e-9, "{time:?}");
}

#[test]
fn without_time_to_hide_in_everything_is_visible() {
    let speed = RankSpeed { tokens_per_second: 1e12, ..SPEED };
    let time = job(4).step_time(&speed, &Network::ethernet(1.0, 50e-6));
    assert!(time.hidden_share() < 1e-3 && time.gradients_wait > 2.0, "{time:?}");
    // Half the bytes take half the time.
    let bf16 = Job { reduce: DType::BF16, ..job(4) }.step_time(&speed, &Network::ethernet(1.0, 50e-6));
    assert!((bf16.gradients_wait / time.gradients_wait - 0.5).abs() < 0.01);
    assert_eq!(bf16.parameters_total, time.parameters_total);
}

/// Measurements of `benches/scaling/run.sh`, the lines of which are those of `cloze-scaling`.
mod measured {
    use std::collections::BTreeMap;

    use super::*;

    const LINES: &str = include_str!("measured.jsonl");

    #[derive(serde::Deserialize)]
    struct Line {
        config: String,
        layers: Option<usize>,
        sequences: usize,
        length: usize,
        reduce: String,
        kind: String,
        network: String,
        ranks: usize,
        measured: BTreeMap<String, f64>,
    }

    impl Line {
        fn job(&self) -> Job {
            let mut config = BertConfig::by_name(&self.config, 30_522).unwrap();
            config.num_hidden_layers = self.layers.unwrap_or(config.num_hidden_layers);
            let reduce = if self.reduce == "bf16" { DType::BF16 } else { DType::F32 };
            let (sequences, length, ranks) = (self.sequences, self.length, self.ranks);
            Job { sequences, length, ranks, reduce, ..Job::new(config) }
        }

        fn has_model_of(&self, other: &Line) -> bool {
            self.config == other.config && self.layers == other.layers && self.ranks == other.ranks
        }

        /// The time of forward and backward.
        fn compute(&self) -> f64 {
            self.measured["forward"] + self.measured["backward"]
        }
    }

    fn lines() -> Vec<Line> {
        LINES.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// The speed of ranks that train for themselves, as many at the same time as in the job: with few and with many tokens.
    fn speed(lines: &[Line], of: &Line) -> RankSpeed {
        let mut alone: Vec<&Line> = lines.iter().filter(|line| line.kind == "alone" && line.has_model_of(of)).collect();
        alone.sort_by_key(|line| line.sequences);
        let [few, many] = alone[..] else { panic!("{} of two measurements alone", alone.len()) };
        let tokens = |line: &Line| (line.sequences / line.ranks * line.length) as f64;
        let per_token = (many.compute() - few.compute()) / (tokens(many) - tokens(few));
        RankSpeed {
            tokens_per_second: 1.0 / per_token,
            overhead: many.compute() - tokens(many) * per_token,
            parameters_per_second: many.job().parameters() as f64 / many.measured["update"],
        }
    }

    /// The speed of the network, from exchanges without anything else.
    fn network(lines: &[Line], of: &Line) -> Network {
        let alone = |line: &&Line| line.kind == "exchange" && line.network == of.network && line.ranks == of.ranks;
        let measured = &lines.iter().find(alone).unwrap().measured;
        let (latency, bytes) = (measured["latency"], f64::from(16 << 20) * (1.0 - 1.0 / of.ranks as f64));
        Network {
            latency,
            per_message: 0.0,
            bytes_per_second: bytes / (measured["bucket"] - latency),
            core_per_byte: measured["bucket_processor"] / bytes,
            core_per_gradient: CORE_PER_GRADIENT,
        }
    }

    /// The time to add the gradients of all ranks, measured.
    const CORE_PER_GRADIENT: f64 = 0.5e-9;

    #[test]
    fn predictions_are_within_a_tenth() {
        let lines = lines();
        let mut wrong = Vec::new();
        for line in lines.iter().filter(|line| line.kind == "together") {
            let time = line.job().step_time(&speed(&lines, line), &network(&lines, line));
            let (predicted, step) = (time.total(), line.measured["step"]);
            let name = format!("{} {:?} {} {} {}", line.config, line.layers, line.network, line.ranks, line.reduce);
            println!(
                "{name}: {:.1} ms predicted, {:.1} measured, {:+.1} %; waits {:.1} {:.1}, {:.1} {:.1}",
                1e3 * predicted,
                1e3 * step,
                100.0 * (predicted / step - 1.0),
                1e3 * time.gradients_wait,
                1e3 * line.measured["gradients_wait"],
                1e3 * time.parameters_wait,
                1e3 * line.measured["parameters_wait"],
            );
            if (predicted / step - 1.0).abs() > 0.1 {
                wrong.push(name);
            }
        }
        assert!(wrong.is_empty(), "{wrong:?}");
    }

    /// Besides what the model counts, a process has its program and buffers of the MPI.
    #[test]
    #[cfg_attr(sanitized, ignore = "buffers are not rounded up as those that were measured")]
    fn memory_is_within_a_tenth() {
        const PROGRAM: f64 = 24e6;
        for line in lines().iter().filter(|line| line.kind == "together") {
            let predicted = line.job().memory().unwrap().total() as f64 + PROGRAM;
            let (ratio, name) = (predicted / line.measured["peak_bytes"], format!("{} {:?}", line.config, line.layers));
            println!("{name} on {} ranks: {:+.1} %", line.ranks, 100.0 * (ratio - 1.0));
            assert!((0.9..1.1).contains(&ratio), "{predicted} {} {name}", line.measured["peak_bytes"]);
        }
    }
}
