//! Memory of a training step on 8 sequences of 128 tokens: its peak, and that a step maps no new memory.
//!
//! Both are counted per process, so this binary runs one test at a time: by default one with a third of BERT-base's
//! layers, and BERT-base itself with `cargo test --release --test memory -- --ignored`.

use cloze::prelude::*;
use cloze::train::Optimizer;

type Result<T = ()> = std::result::Result<T, Box<dyn std::error::Error>>;

const GIB: f64 = (1u64 << 30) as f64;

/// Returns the peak memory of this process in bytes, or `None` if the system does not report it.
fn peak() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    Some(line.split_whitespace().nth(1)?.parse::<u64>().ok()? * 1024)
}

/// Returns the number of minor page faults of this process, or `None` if the system does not report it.
fn page_faults() -> Option<u64> {
    std::fs::read_to_string("/proc/self/stat").ok()?.split_whitespace().nth(9)?.parse().ok()
}

fn batch() -> Result<(Batch, cloze::bert::PreTrainingTargets)> {
    let ids: Vec<u32> = (0..8 * 128).map(|i| 1000 + i * 7919 % 29_000).collect();
    let batch = Batch::packed(ids, vec![0; 8 * 128], cloze::tensor::Sequences::new(&[128; 8])?)?;
    let rows: Vec<u32> = (0..8 * 128).step_by(7).collect();
    let targets = cloze::bert::PreTrainingTargets {
        labels: rows.iter().map(|&row| 1000 + i64::from(row)).collect(),
        rows,
        next_sentence: vec![0, 1, 0, 1, 0, 1, 0, 1],
    };
    Ok((batch, targets))
}

fn pre_trains_within(config: &BertConfig, gib: f64) -> Result {
    let mut model = BertForPreTraining::new(config, &Device::Cpu, 1)?;
    let mut optimizer = Optimizer::new(AdamW::new(1e-4), &mut model, |_| true)?;
    let (batch, targets) = batch()?;
    for step in 0..4 {
        let before = page_faults();
        let loss = model.loss(&batch, &targets, Mode::Train { seed: 1, step })?.loss;
        optimizer.backward(&loss)?;
        let value = loss.item()?;
        drop(loss);
        optimizer.step_at(&mut model, 1e-4, Some(1.0))?;
        println!("step {step}: loss {value:.3}, peak {:.2} GiB", peak().unwrap_or(0) as f64 / GIB);
        if let (3, Some(before), Some(after)) = (step, before, page_faults()) {
            println!("{} page faults in this step", after - before);
            assert!(after - before < 200, "{} page faults in a step: it maps memory", after - before);
        }
    }
    match peak() {
        Some(peak) => assert!(peak as f64 <= gib * GIB, "peak {peak} bytes, the limit is {gib} GiB"),
        None => println!("SKIPPED: the system does not report the memory of a process"),
    }
    Ok(())
}

#[test]
fn four_layers_of_base_fit_into_1_1_gib_and_reuse_them() -> Result {
    pre_trains_within(&BertConfig { num_hidden_layers: 4, ..BertConfig::base() }, 1.1)
}

/// PyTorch with transformers takes 3.7 GiB for the same.
#[test]
#[ignore = "takes minutes without optimisation: run it with --release"]
fn base_fits_into_2_2_gib_and_reuses_them() -> Result {
    pre_trains_within(&BertConfig::base(), 2.2)
}
