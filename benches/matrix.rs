//! Linear layers in BERT's shapes: y = x Wᵀ + b for m tokens, and its backward.

mod common;

use std::time::Duration;

use cloze::prelude::*;
use cloze::tensor::Gradients;
use common::{Result, Suite, leaf, linear_backward, linear_forward, noise, testing, timed};

const VOCABULARY: usize = 30_522;

/// Outputs and inputs of the layers of BERT-base: attention's output, its projections, the two layers of the
/// feed-forward block, the decoder.
const LAYERS: [[usize; 2]; 5] = [[768, 768], [2304, 768], [3072, 768], [768, 3072], [VOCABULARY, 768]];
const TOKENS: [usize; 5] = [20, 120, 384, 1024, 4096];

/// Bytes of the weights that take turns. A layer of a model finds its weights in memory: since they were last used, those
/// of all the other layers went through the caches.
const WEIGHTS: usize = 1 << 27;

fn main() -> Result {
    let mut suite = Suite::new("matrix")?;
    let tokens = if testing() { &TOKENS[..1] } else { &TOKENS };
    for [n, k] in LAYERS {
        // Logits are computed for masked tokens alone.
        for &m in tokens.iter().filter(|&&m| n < VOCABULARY || m <= 1024) {
            for precision in [Precision::F32, Precision::Bf16, Precision::Int8] {
                let (name, size) = (|what| format!("{m} x {k} to {n}/{what}/{precision}"), [m, n, k]);
                suite.bench(name("forward"), linear_forward(precision, size), || forward(precision, size));
                if precision != Precision::Int8 {
                    suite.bench(name("backward"), linear_backward(precision, size), || backward(precision, size));
                }
            }
        }
    }
    suite.finish();
    Ok(())
}

fn layers(n: usize, k: usize) -> Result<Vec<(Tensor, Tensor)>> {
    let count = if testing() { 1 } else { WEIGHTS / (4 * n * k) + 1 };
    (0..count).map(|_| Ok((leaf(&[n, k], 0.05)?, leaf(&[n], 0.05)?))).collect()
}

fn forward(precision: Precision, [m, n, k]: [usize; 3]) -> Result<impl FnMut() -> Result<Duration>> {
    let (x, mut layers) = (noise(&[m, k], 1.0)?, layers(n, k)?);
    Ok(move || {
        layers.rotate_left(1);
        let (weight, bias) = &layers[0];
        timed(|| precision.scope(|| no_grad(|| x.linear(weight, bias))))
    })
}

fn backward(precision: Precision, [m, n, k]: [usize; 3]) -> Result<impl FnMut() -> Result<Duration>> {
    let (x, dy, mut layers) = (leaf(&[m, k], 1.0)?, noise(&[m, n], 1.0)?, layers(n, k)?);
    let forward = move |(weight, bias): &(Tensor, Tensor)| precision.scope(|| x.linear(weight, bias));
    let mut outputs = layers.iter().map(&forward).collect::<Result<Vec<_>, _>>()?;
    Ok(move || {
        layers.rotate_left(1);
        outputs.rotate_left(1);
        let mut gradients = Gradients::new();
        let elapsed = timed(|| outputs[0].backward_with(&dy, &mut gradients))?;
        outputs[0] = forward(&layers[0])?;
        Ok(elapsed)
    })
}
