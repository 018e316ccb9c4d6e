//! Memory that does not grow: over training steps and answers, and after a graph is dropped.
//!
//! Memory is counted per process, so this binary runs one test at a time: by default a short one, and a long one with
//! `cargo test --release --test memory_growth -- --ignored`. `CLOZE_TEST_DEVICE=cuda` puts the models on the GPU.

use cloze::bert::PreTrainingTargets;
use cloze::prelude::*;
use cloze::tensor::Sequences;
use cloze::train::Optimizer;

type Result<T = ()> = std::result::Result<T, Box<dyn std::error::Error>>;

fn device() -> Result<Device> {
    Ok(std::env::var("CLOZE_TEST_DEVICE").unwrap_or_else(|_| "cpu".into()).parse()?)
}

/// Returns the memory of this process in bytes, or `None` if the system does not report it.
fn resident() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:"))?;
    Some(line.split_whitespace().nth(1)?.parse::<u64>().ok()? * 1024)
}

/// Calls `work` with 0 to `count - 1`, and checks that after a fifth of the calls neither the memory of the process nor that of
/// tensors grows any more.
fn stays_flat(what: &str, device: &Device, count: usize, mut work: impl FnMut(usize) -> Result) -> Result {
    let (mut warm, mut tensors) = (0, 0);
    for number in 0..count {
        work(number)?;
        if number == count / 5 {
            (warm, tensors) = (resident().unwrap_or(0), device.memory_use().used);
        }
    }
    let (used, now) = (device.memory_use().used, resident().unwrap_or(0));
    let growth = 100.0 * (now as f64 / warm.max(1) as f64 - 1.0);
    println!(
        "{what}: {count} calls, {:.1} MB after a fifth, {growth:+.2} % since; tensors {tensors} and {used} bytes",
        warm as f64 / 1e6
    );
    assert_eq!(used, tensors, "tensors of {what} stay in memory");
    assert!(now <= warm + warm / 100, "{what} takes {growth:.2} % more memory than after a fifth of {count} calls");
    Ok(())
}

/// Returns a batch whose lengths depend on `number`, and targets for a seventh of its tokens.
fn batch(number: usize, vocabulary: usize) -> Result<(Batch, PreTrainingTargets)> {
    let lengths: Vec<usize> = (0..4).map(|sequence| 2 + (number * 7919 + sequence * 31) % 30).collect();
    let tokens: usize = lengths.iter().sum();
    let ids = (0..tokens).map(|at| ((number * 131 + at * 7919) % vocabulary) as u32).collect();
    let rows: Vec<u32> = (0..tokens as u32).step_by(7).collect();
    let labels = rows.iter().map(|&row| i64::from(row) % vocabulary as i64).collect();
    let targets = PreTrainingTargets { rows, labels, next_sentence: vec![0, 1, 1, 0] };
    Ok((Batch::packed(ids, vec![0; tokens], Sequences::new(&lengths)?)?, targets))
}

fn grows_nowhere(steps: usize, answers: usize) -> Result {
    let device = device()?;
    let config = BertConfig::tiny(500);
    let mut model = BertForPreTraining::new(&config, &device, 1)?;

    // A graph is freed with its loss, and with its backward.
    let (batch_0, targets) = batch(0, 500)?;
    let before = device.memory_use().used;
    let loss = model.loss(&batch_0, &targets, Mode::Train { seed: 1, step: 0 })?.loss;
    let with_graph = device.memory_use().used;
    assert!(with_graph > before + 100_000, "a graph of {} bytes", with_graph - before);
    drop(loss);
    assert_eq!(device.memory_use().used, before, "a dropped loss leaves its graph");
    let loss = model.loss(&batch_0, &targets, Mode::Train { seed: 1, step: 0 })?.loss;
    let gradients = loss.backward()?;
    drop((loss, gradients));
    assert_eq!(device.memory_use().used, before, "a backward leaves parts of its graph");

    let mut optimizer = Optimizer::new(AdamW::new(1e-3), &mut model, |_| true)?;
    stays_flat("training", &device, steps, |step| {
        let (batch, targets) = batch(step, 500)?;
        let loss = model.loss(&batch, &targets, Mode::Train { seed: 1, step: step as u32 })?.loss;
        optimizer.backward(&loss)?;
        drop(loss);
        optimizer.step_at(&mut model, 1e-3, Some(1.0))?;
        Ok(())
    })?;
    let classifier = BertForSequenceClassification::new(&config, &device, 1)?;
    stays_flat("answering", &device, answers, |number| {
        let (batch, _) = batch(number, 500)?;
        let logits = no_grad(|| classifier.forward(&batch, Mode::Eval))?;
        assert!(logits.to_vec::<f32>()?.iter().all(|x| x.is_finite()));
        Ok(())
    })
}

#[test]
fn memory_is_flat_over_400_steps_and_1_000_answers() -> Result {
    grows_nowhere(400, 1_000)
}

#[test]
#[ignore = "takes minutes without optimisation: run it with --release"]
fn memory_is_flat_over_10_000_steps_and_100_000_answers() -> Result {
    grows_nowhere(10_000, 100_000)
}
