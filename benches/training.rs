//! A step of pre-training (masked words and next sentences, dropout 0.1, clipping, AdamW): the same batch again and again.

mod common;

use std::time::Duration;

use cloze::bert::{Batch, PreTrainingTargets};
use cloze::prelude::*;
use cloze::tensor::Sequences;
use cloze::train::Optimizer;
use common::{Peak, Result, Suite, Work, encoder_forward, testing, timed};

const VOCABULARY: usize = 30_522;

/// Sequences and their length: the course's sentence pairs, and BERT's examples.
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
            let work = work(Peak::F32, config, count, length)?;
            suite.bench(format!("{name}/{tokens} tokens/f32"), work, || step(config, count, length));
        }
    }
    suite.finish();
    Ok(())
}

/// Rows that are predicted: 15 %.
fn masked(length: usize) -> usize {
    (length * 15).div_ceil(100)
}

/// Forward and backward of the matrix products, and after that what AdamW reads and writes, and the norm before it reads.
fn work(peak: Peak, config: &BertConfig, count: usize, length: usize) -> Result<Work> {
    let (lengths, targets) = (vec![length; count], (count * masked(length)) as f64);
    let [encoder, weights] = encoder_forward(config, &lengths, count + count * masked(length));
    let (hidden, vocabulary) = (config.hidden_size as f64, config.vocab_size as f64);
    let head = 2.0 * targets * (hidden * hidden + hidden * vocabulary);
    // The backward computes the scores of attention again.
    let scores = (2 * count * length * length * config.hidden_size * config.num_hidden_layers) as f64;
    let parameters = BertForPreTraining::new(config, &Device::Cpu, 7)?.parameter_count() as f64;
    let products = Work::new(peak, 3.0 * (encoder + head) + scores, 3.0 * (weights + 4.0 * hidden * vocabulary));
    Ok(products.then(Work::moving(32.0 * parameters)).of(count * length, "tokens"))
}

fn batch(config: &BertConfig, count: usize, length: usize) -> Result<(Batch, PreTrainingTargets)> {
    let id = |token: usize| (5 + token * 7919 % (config.vocab_size - 5)) as u32;
    let tokens = count * length;
    let token_types = (0..tokens).map(|token| u32::from(token % length > length / 2)).collect();
    let batch = Batch::packed((0..tokens).map(id).collect(), token_types, Sequences::new(&vec![length; count])?)?;
    let rows = (0..count).flat_map(|sequence| (1..=masked(length)).map(move |at| (sequence * length + at) as u32));
    let rows: Vec<u32> = rows.collect();
    let labels = rows.iter().map(|&row| i64::from(id(row as usize))).collect();
    let next_sentence = (0..count).map(|sequence| (sequence % 2) as i64).collect();
    Ok((batch, PreTrainingTargets { rows, labels, next_sentence, divisors: None }))
}

fn step(config: &BertConfig, count: usize, length: usize) -> Result<impl FnMut() -> Result<Duration>> {
    let mut model = BertForPreTraining::new(config, &Device::Cpu, 7)?;
    let mut optimizer = Optimizer::new(AdamW::new(1e-4), &mut model, |_| true)?;
    let ((batch, targets), mut step) = (batch(config, count, length)?, 0);
    Ok(move || {
        step += 1;
        timed(|| -> Result<f64> {
            let loss = model.loss(&batch, &targets, Mode::Train { seed: 7, step })?.loss;
            optimizer.backward(&loss)?;
            drop(loss);
            Ok(optimizer.step(&mut model, 1e-5, Some(1.0))?)
        })
    })
}
