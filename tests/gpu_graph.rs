//! Compares a training step run as a CUDA graph with the same step launched kernel by kernel. It is the only test in
//! its program because it counts the graphs of the whole device. The GPU is found as in `gpu.rs`.
#![cfg(feature = "cuda")]

mod on_gpu;

use cloze::prelude::*;
use cloze::tensor::Sequences;
use cloze::train::Optimizer;

type Result<T = ()> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// Runs steps of a custom training loop, launched or as graphs. Returns losses and norms, and the parameters.
fn steps(gpu: &Device, as_graph: bool, precision: Precision, is_varied: bool) -> Result<(Vec<f64>, Vec<f32>)> {
    let mut model = BertForPreTraining::new(&BertConfig::tiny(60), gpu, 5)?;
    let mut optimizer = Optimizer::new(AdamW::new(1e-3), &mut model, |name| name.starts_with("bert.e"))?;
    optimizer = optimizer.with_average(0.9)?;
    let mut found = Vec::new();
    for step in 0..6 {
        let lengths = [3 + if is_varied { step as usize } else { 0 }, 9, 5];
        let tokens: usize = lengths.iter().sum();
        let ids = (0..tokens as u32).map(|at| (at * 7 + step) % 60).collect();
        let batch = Batch::packed(ids, vec![0; tokens], Sequences::new(&lengths)?)?;
        let mode = Mode::Train { seed: 5, step };
        let mut work = || -> Result<_> {
            let output = precision.scope(|| model.bert.forward(&batch, mode))?;
            let loss = output.mul(&output)?.mean_all()?.add_scalar(f64::from(step))?;
            optimizer.backward(&loss)?;
            let norm = optimizer.step_at(&mut model, 1e-3 / f64::from(1 + step), Some(0.5))?;
            Ok([loss.item()?, norm])
        };
        found.extend(if as_graph { gpu.as_graph(work)?? } else { work()? });
    }
    optimizer.swap_average(&mut model)?;
    let mut values = Vec::new();
    for (_, parameter) in model.named_parameters() {
        values.extend(parameter.to_vec::<f32>()?);
    }
    Ok((found, values))
}

#[test]
fn a_graph_computes_the_same_bits() -> Result {
    let Some(gpu) = on_gpu::gpu() else { return Ok(()) };
    let Device::Cuda(device) = &gpu else { return Ok(()) };
    let narrow = if gpu.supports(Precision::Bf16) { Precision::Bf16 } else { Precision::F16 };
    for (precision, is_varied) in [(Precision::F32, false), (Precision::F32, true), (narrow, true)] {
        let launched = steps(&gpu, false, precision, is_varied)?;
        let before = device.graph_use();
        assert!(steps(&gpu, true, precision, is_varied)? == launched, "{precision}: different bits");
        let now = device.graph_use();
        let (built, launches) = (now.built - before.built, now.launched - before.launched);
        let (replayed, changed) = (now.replayed - before.replayed, now.changed - before.changed);
        let lengths = if is_varied { "other lengths" } else { "the same lengths" };
        println!(
            "{precision}, {lengths}: {launches} graphs, {built} built; {changed} of {replayed} nodes changed in the others"
        );
        // The first step in bf16 also rounds the weights, which AdamW does in the others.
        let most = if precision == Precision::Bf16 { 2 } else { 1 };
        assert!(launches == 6 && built <= most && changed > 0, "{launches} {built} {changed}");
        // Only the step of dropout changes, and the staging buffers, which alternate.
        assert!(is_varied || changed * 3 < replayed, "{changed} of {replayed}");
    }
    Ok(())
}
