//! Memory of a training step of BERT-base, 8 sequences of 128 tokens: its peak, and that a step asks the system for
//! none. Alone in its process, because both are counted by process.

use cloze::prelude::*;
use cloze::train::Optimizer;

type Result<T = ()> = std::result::Result<T, Box<dyn std::error::Error>>;

/// The most memory that this process ever had, in bytes; `None` where the system does not say.
fn peak() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    Some(line.split_whitespace().nth(1)?.parse::<u64>().ok()? * 1024)
}

/// Pages that the system had to find for this process so far; `None` where it does not say.
fn page_faults() -> Option<u64> {
    std::fs::read_to_string("/proc/self/stat").ok()?.split_whitespace().nth(9)?.parse().ok()
}

/// PyTorch with transformers takes 3.7 GiB for the same.
#[test]
fn base_pre_training_fits_into_2_2_gib_and_reuses_them() -> Result {
    let config = BertConfig::base();
    let mut model = BertForPreTraining::new(&config, &Device::Cpu, 1)?;
    let mut optimizer = Optimizer::new(AdamW::new(1e-4), &mut model, |_| true)?;
    let ids: Vec<u32> = (0..8 * 128).map(|i| 1000 + i * 7919 % 29_000).collect();
    let batch = Batch::packed(ids, vec![0; 8 * 128], cloze::tensor::Sequences::new(&[128; 8])?)?;
    let rows: Vec<u32> = (0..8 * 128).step_by(7).collect();
    let targets = cloze::bert::PreTrainingTargets {
        labels: rows.iter().map(|&row| 1000 + i64::from(row)).collect(),
        rows,
        next_sentence: vec![0, 1, 0, 1, 0, 1, 0, 1],
    };
    for step in 0..4 {
        let before = page_faults();
        let loss = model.loss(&batch, &targets, Mode::Train { seed: 1, step })?.loss;
        optimizer.backward(&loss)?;
        let value = loss.item()?;
        drop(loss);
        optimizer.step(&mut model, 1e-4, Some(1.0))?;
        if let (3, Some(before), Some(after)) = (step, before, page_faults()) {
            assert!(after - before < 200, "{} page faults in a step: it maps memory", after - before);
        }
        println!("step {step}: loss {value:.3}, peak {:.2} GiB", peak().unwrap_or(0) as f64 / (1u64 << 30) as f64);
    }
    match peak() {
        Some(peak) => assert!(peak <= (2.2 * (1u64 << 30) as f64) as u64, "peak {peak} bytes"),
        None => println!("SKIPPED: the system does not say how much memory a process had"),
    }
    Ok(())
}
