//! Steps of pre-training, timed part by part.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cloze::prelude::*;
use cloze::train::Optimizer;
use cloze::train::communicator::{Communicator, gather_bytes};
use cloze_benches::{Result, batch, median};

use crate::link::Link;
use crate::{Arguments, Reduce};

/// Measurements by name, each the value of every repetition.
pub type Samples = BTreeMap<&'static str, Vec<f64>>;

/// Steps that are not counted.
const WARM_UP: u32 = 2;

/// Trains, with the gradients exchanged during backward and after it in turns. All ranks begin a step together.
pub fn measure(
    arguments: &Arguments,
    job: &Arc<dyn Communicator>,
    ranks: Arc<dyn Communicator>,
    link: &Link,
) -> Result<Samples> {
    let mut config = BertConfig::by_name(&arguments.config, arguments.vocab_size)?;
    config.num_hidden_layers = arguments.layers.unwrap_or(config.num_hidden_layers);
    let reduce = if arguments.reduce == Reduce::Bf16 { DType::BF16 } else { DType::F32 };
    let mut model = BertForPreTraining::new(&config, &Device::Cpu, 7)?;
    let optimizer = Optimizer::new(AdamW::new(1e-4), &mut model, |_| true)?;
    let mut optimizer = optimizer.with_communicator(ranks.clone(), reduce)?;
    let (batch, targets) = batch::of(&config, arguments.sequences / job.size(), arguments.length)?;

    let mut samples = Samples::new();
    let is_alone = ranks.size() == 1;
    for step in 0..WARM_UP + arguments.steps * if is_alone { 1 } else { 2 } {
        let overlaps = is_alone || step % 2 == 0;
        job.barrier()?;
        let start = Instant::now();
        let mode = Mode::Train { seed: 7, step };
        let loss = arguments.precision.scope(|| model.loss(&batch, &targets, mode))?.loss;
        let loss = loss.mul_scalar(1.0 / ranks.size() as f64)?;
        let forward = start.elapsed();
        if overlaps { optimizer.backward_last(&loss) } else { optimizer.backward(&loss) }?;
        drop(loss);
        let backward = start.elapsed() - forward;
        if !overlaps {
            job.barrier()?;
        }
        link.take_spent();
        let update = Instant::now();
        optimizer.step_at(&mut model, 1e-5, Some(1.0))?;
        let (end, waits, spent) = (start.elapsed(), optimizer.waits(), link.take_spent());
        if step < WARM_UP {
            continue;
        }
        let mut add = |name, time: Duration| samples.entry(name).or_default().push(time.as_secs_f64());
        if overlaps {
            add("step", end);
            add("forward", forward);
            add("backward", backward - waits.gradients);
            add("gradients_wait", waits.gradients);
            add("norm_wait", waits.norm);
            add("update", update.elapsed() - waits.norm - waits.parameters);
            add("parameters_wait", waits.parameters);
            add("parameters_total", spent.all_gather.saturating_sub(waits.norm));
        } else {
            add("serial_step", end);
            // With the additions and conversions, which the exchanging thread does, too.
            add("gradients_total", update.elapsed() - waits.norm - waits.parameters);
            add("gradients_sent", spent.all_to_all);
        }
    }
    // The serial `gradients_total` has the update in it.
    let update = median(&mut samples["update"].clone());
    for total in samples.get_mut("gradients_total").into_iter().flatten() {
        *total -= update;
    }
    samples.insert("parameters", vec![optimizer.parameter_count() as f64]);
    samples.insert("means_bytes", vec![optimizer.means_bytes() as f64]);
    samples.insert("peak_bytes", vec![peak().unwrap_or(0) as f64]);
    Ok(samples)
}

/// Exchanges alone: the time of an all-to-all of eight bytes, and of one of 16 MiB, in which each rank sends all but its own
/// part, with the time of a core that it takes; and the time of an all-gather of 16 MiB.
pub fn exchange(link: &Link) -> Result<Samples> {
    let (size, mut samples) = (link.size(), Samples::new());
    for (name, bytes, times) in [("latency", 8, 200), ("bucket", 16 << 20, 30), ("gather", 16 << 20, 30)] {
        let part = (bytes / size).max(1);
        let (send, mut receive, lengths) = (vec![1; part * size], vec![0; part * size], vec![part; size]);
        link.barrier()?;
        let before = processor_seconds();
        for _ in 0..times {
            let start = Instant::now();
            match name {
                "gather" => link.all_gather(&send[..part], &mut receive, &lengths)?,
                _ => link.all_to_all(&send, &lengths, &mut receive, &lengths)?,
            }
            samples.entry(name).or_default().push(start.elapsed().as_secs_f64());
        }
        if name == "bucket" {
            samples.insert("bucket_processor", vec![(processor_seconds() - before) / f64::from(times)]);
        }
    }
    Ok(samples)
}

/// Returns the medians of each rank's samples: their mean over the ranks, and for memory the most.
pub fn over_ranks(job: &dyn Communicator, samples: &Samples) -> Result<BTreeMap<String, f64>> {
    let medians: BTreeMap<&str, f64> =
        samples.iter().map(|(name, values)| (*name, median(&mut values.clone()))).collect();
    let all = gather_bytes(job, &serde_json::to_vec(&medians)?)?;
    let all: Vec<BTreeMap<String, f64>> =
        all.iter().map(|one| serde_json::from_slice(one)).collect::<Result<_, _>>()?;
    let over = |name: &str| {
        let values = all.iter().map(|medians| medians[name]);
        match name.ends_with("_bytes") {
            true => values.fold(0.0, f64::max),
            false => values.sum::<f64>() / all.len() as f64,
        }
    };
    Ok(medians.keys().map(|name| (name.to_string(), over(name))).collect())
}

/// Returns the peak memory of this process in bytes, or `None` if the system does not report it.
fn peak() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    Some(line.split_whitespace().nth(1)?.parse::<u64>().ok()? * 1024)
}

/// Returns the time for which cores have worked for this process, in the program and in the system; 0 if the system does not
/// report it.
fn processor_seconds() -> f64 {
    let ticks = || {
        let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
        let fields: Vec<&str> = stat.split_whitespace().collect();
        Some(fields.get(13)?.parse::<f64>().ok()? + fields.get(14)?.parse::<f64>().ok()?)
    };
    // Linux reports hundredths of a second.
    ticks().unwrap_or(0.0) / 100.0
}
