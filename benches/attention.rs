//! Attention in BERT-base (12 heads of size 64) over about 4,096 tokens, by the length of the longest sequence: packed,
//! and padded to the longest sequence. For both, only the work of the real tokens is counted.

mod suite;

use std::time::Duration;

use cloze::prelude::*;
use cloze::tensor::{Dropout, Sequences};
use cloze_benches::{Result, Work, leaf, lengths, noise, testing, timed};

use suite::Suite;

const HIDDEN: usize = 768;
const HEADS: usize = 12;
const LENGTHS: [usize; 6] = [16, 32, 64, 128, 256, 512];

fn main() -> Result {
    let mut suite = Suite::new("attention")?;
    let tokens = if testing() { 512 } else { 4096 };
    for longest in LENGTHS {
        let packed = lengths(longest, tokens);
        let padded = vec![longest; packed.len()];
        for precision in [Precision::F32, Precision::Bf16] {
            let works = work(precision, &packed);
            let mut both = |form: &str, lengths: &[usize], p: f64| {
                let (name, [forward_work, backward_work]) = (format!("{longest}/{form}"), works.clone());
                suite.bench(format!("{name}/forward/{precision}"), forward_work, || forward(precision, lengths, p));
                suite.bench(format!("{name}/backward/{precision}"), backward_work, || backward(precision, lengths, p));
            };
            both("packed", &packed, 0.0);
            both("padded", &padded, 0.0);
            both("packed with dropout", &packed, 0.1);
        }
    }
    suite.finish();
    Ok(())
}

/// Returns the work of forward and backward. Per head, the forward pass has two products of size L x L x D, the backward
/// pass five: it recomputes the scores instead of storing them (T. Dao et al., 2022).
fn work(precision: Precision, lengths: &[usize]) -> [Work; 2] {
    let tokens: usize = lengths.iter().sum();
    let squares: usize = lengths.iter().map(|length| length * length).sum();
    let (product, hidden) = ((2 * squares * HIDDEN) as f64, (4 * tokens * HIDDEN) as f64);
    // Forward moves queries, keys, values and the output; backward moves these and their gradients.
    [Work::new(precision, 2.0 * product, 4.0 * hidden), Work::new(precision, 5.0 * product, 8.0 * hidden)]
}

/// Returns attention with dropout of probability `p` that records a graph, and the number of tokens.
fn attention(precision: Precision, lengths: &[usize], p: f64) -> Result<(impl Fn() -> Result<Tensor>, usize)> {
    let (sequences, dropout) = (Sequences::new(lengths)?, Dropout::new(p, 7, 0, 0)?);
    let tokens = sequences.tokens();
    let qkv = leaf(&[tokens, 3 * HIDDEN], 1.0)?;
    Ok((move || Ok(precision.scope(|| qkv.attention(&sequences, HEADS, &dropout))?), tokens))
}

fn forward(precision: Precision, lengths: &[usize], p: f64) -> Result<impl FnMut() -> Result<Duration>> {
    let (attend, _) = attention(precision, lengths, p)?;
    Ok(move || timed(&attend))
}

fn backward(precision: Precision, lengths: &[usize], p: f64) -> Result<impl FnMut() -> Result<Duration>> {
    let (attend, tokens) = attention(precision, lengths, p)?;
    let dy = noise(&[tokens, HIDDEN], 1.0)?;
    Ok(move || {
        let (y, mut gradients) = (attend()?, Gradients::new());
        timed(|| y.backward_with(&dy, &mut gradients))
    })
}
