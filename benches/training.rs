//! A step of pre-training (masked words and next sentences, dropout 0.1, clipping, AdamW), repeated on one batch.

mod suite;

use std::time::Duration;

use cloze::prelude::*;
use cloze::train::Optimizer;
use cloze_benches::{EncoderForward, Result, Work, batch, testing, timed};

use suite::Suite;

const VOCABULARY: usize = 30_522;

/// Number of sequences and their length: as the course's sentence pairs, and as BERT's examples.
const BATCHES: [(usize, usize); 2] = [(8, 15), (8, 128)];

fn main() -> Result {
    let mut suite = Suite::new("training")?;
    let shape = |layers, hidden| BertConfig {
        num_hidden_layers: layers,
        hidden_size: hidden,
        num_attention_heads: hidden / 64,
        intermediate_size: 4 * hidden,
        ..BertConfig::base()
    };
    let configs = [("mini", BertConfig::mini(VOCABULARY)), ("small", shape(4, 512)), ("base, 2 layers", shape(2, 768))];
    let (configs, batches) = if testing() { (&configs[..1], &BATCHES[..1]) } else { (&configs[..], &BATCHES[..]) };
    for (name, config) in configs {
        for &(count, length) in batches {
            let tokens = count * length;
            for precision in [Precision::F32, Precision::Bf16] {
                let work = work(precision, config, count, length)?;
                let name = format!("{name}/{tokens} tokens/{precision}");
                suite.bench(name, work, || step(precision, config, count, length));
            }
        }
    }
    suite.finish();
    Ok(())
}

/// Returns the work of a step: forward and backward of the matrix products, then the memory traffic of the gradient
/// norm and of AdamW.
fn work(precision: Precision, config: &BertConfig, count: usize, length: usize) -> Result<Work> {
    let targets = count * batch::masked(length);
    let encoder = EncoderForward::new(config, &vec![length; count], count + targets);
    let (hidden, decoder) = (config.hidden_size as f64, (config.hidden_size * config.vocab_size) as f64);
    let linear = encoder.linear + 2.0 * targets as f64 * (hidden * hidden + decoder);
    let parameters = BertForPreTraining::new(config, &Device::Cpu, 7)?.parameter_count() as f64;
    // The backward of a linear layer is two products, and that of attention five for two in the forward. Weights are
    // read twice, and their gradients are written once.
    let bytes = 3.0 * 4.0 * (encoder.weights + decoder);
    let products = Work::new(precision, 3.0 * linear + 3.5 * encoder.attention, bytes);
    Ok(products.then(Work::moving(32.0 * parameters)).of(count * length, "tokens"))
}

fn step(
    precision: Precision,
    config: &BertConfig,
    count: usize,
    length: usize,
) -> Result<impl FnMut() -> Result<Duration>> {
    let mut model = BertForPreTraining::new(config, &Device::Cpu, 7)?;
    let mut optimizer = Optimizer::new(AdamW::new(1e-4), &mut model, |_| true)?;
    let ((batch, targets), mut step) = (batch::of(config, count, length)?, 0);
    Ok(move || {
        step += 1;
        timed(|| -> Result<f64> {
            let mode = Mode::Train { seed: 7, step };
            let loss = precision.scope(|| model.loss(&batch, &targets, mode))?.loss;
            optimizer.backward(&loss)?;
            drop(loss);
            Ok(optimizer.step_at(&mut model, 1e-5, Some(1.0))?)
        })
    })
}
