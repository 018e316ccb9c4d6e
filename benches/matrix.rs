//! Linear layers in BERT's shapes: y = x Wᵀ + b for m tokens, and its backward.

mod common;

use std::time::Duration;

use cloze::prelude::*;
use cloze::tensor::Gradients;
use common::{Peak, Result, Suite, leaf, linear_backward, linear_forward, noise, testing, timed};

/// Outputs and inputs of the layers of BERT-base: attention's output, its projections, the two layers of the
/// feed-forward block, the decoder.
const LAYERS: [[usize; 2]; 5] = [[768, 768], [2304, 768], [3072, 768], [768, 3072], [30_522, 768]];
const TOKENS: [usize; 5] = [20, 120, 384, 1024, 4096];

/// Bytes of the weights that take turns. A layer of a model finds its weights in memory: since they were last used, those
/// of all the other layers went through the caches.
const WEIGHTS: usize = 1 << 27;

fn main() -> Result {
    let mut suite = Suite::new("matrix")?;
    let tokens = if testing() { &TOKENS[..1] } else { &TOKENS };
    for [n, k] in LAYERS {
        for &m in tokens {
            let name = |what: &str| format!("{m} x {k} to {n}/{what}");
            suite.bench(name("forward/f32"), linear_forward(Peak::F32, [m, n, k]), || forward([m, n, k]));
            suite.bench(name("backward/f32"), linear_backward(Peak::F32, [m, n, k]), || backward([m, n, k]));
        }
    }
    suite.finish();
    Ok(())
}

fn layers(n: usize, k: usize) -> Result<Vec<(Tensor, Tensor)>> {
    let count = if testing() { 1 } else { WEIGHTS / (4 * n * k) + 1 };
    (0..count).map(|_| Ok((leaf(&[n, k], 0.05)?, leaf(&[n], 0.05)?))).collect()
}

fn forward([m, n, k]: [usize; 3]) -> Result<impl FnMut() -> Result<Duration>> {
    let (x, mut layers) = (leaf(&[m, k], 1.0)?, layers(n, k)?);
    Ok(move || {
        layers.rotate_left(1);
        let (weight, bias) = &layers[0];
        timed(|| x.linear(weight, bias))
    })
}

fn backward([m, n, k]: [usize; 3]) -> Result<impl FnMut() -> Result<Duration>> {
    let (x, dy, mut layers) = (leaf(&[m, k], 1.0)?, noise(&[m, n], 1.0)?, layers(n, k)?);
    let mut outputs = layers.iter().map(|(weight, bias)| x.linear(weight, bias)).collect::<Result<Vec<_>, _>>()?;
    Ok(move || {
        layers.rotate_left(1);
        outputs.rotate_left(1);
        let ((weight, bias), y, mut gradients) = (&layers[0], &mut outputs[0], Gradients::new());
        let elapsed = timed(|| y.backward_with(&dy, &mut gradients))?;
        *y = x.linear(weight, bias)?;
        Ok(elapsed)
    })
}
