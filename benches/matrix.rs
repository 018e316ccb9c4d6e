//! Linear layers in BERT's shapes: y = x Wᵀ + b for m tokens. *Forward* and *backward* are measured as in training.
//! *Inference* records no graph and uses packed weights.

mod suite;

use std::time::Duration;

use cloze::prelude::*;
use cloze::tensor::Gradients;
use cloze_benches::{Result, Work, leaf, linear_backward, linear_forward, noise, testing, timed, weight_bytes};

use suite::Suite;

const VOCABULARY: usize = 30_522;

/// Outputs and inputs of the layers of BERT-base: attention output, attention projections, the two feed-forward layers,
/// and the decoder.
const LAYERS: [[usize; 2]; 5] = [[768, 768], [2304, 768], [3072, 768], [768, 3072], [VOCABULARY, 768]];
const TOKENS: [usize; 5] = [20, 120, 384, 1024, 4096];

/// Bytes of weights to rotate through. In a model, the weights of all other layers pass through the caches between two
/// uses of a layer, so its own weights come from memory.
const WEIGHTS: usize = 1 << 27;

fn main() -> Result {
    let mut suite = Suite::new("matrix")?;
    let tokens = if testing() { &TOKENS[..1] } else { &TOKENS };
    for [n, k] in LAYERS {
        // Logits are only computed for masked tokens, which are few.
        for &m in tokens.iter().filter(|&&m| n < VOCABULARY || m <= 1024) {
            let (name, size) = (|what, precision| format!("{m} x {k} to {n}/{what}/{precision}"), [m, n, k]);
            for precision in [Precision::F32, Precision::Bf16] {
                let (forward_work, backward_work) = (linear_forward(precision, size), linear_backward(precision, size));
                suite.bench(name("forward", precision), forward_work, || forward(precision, size));
                suite.bench(name("backward", precision), backward_work, || backward(precision, size));
            }
            let answering = if m <= 1024 { &[Precision::F32, Precision::Bf16, Precision::Int8][..] } else { &[] };
            for &precision in answering {
                suite.bench(name("inference", precision), inference_work(precision, size), || {
                    inference(precision, size)
                });
            }
        }
    }
    suite.finish();
    Ok(())
}

/// Returns enough layers to fill [`WEIGHTS`] if each weight has `bytes` bytes per element.
fn layers(n: usize, k: usize, bytes: usize) -> Result<Vec<(Tensor, Tensor)>> {
    let count = if testing() { 1 } else { WEIGHTS / (bytes * n * k) + 1 };
    (0..count).map(|_| Ok((leaf(&[n, k], 0.05)?, leaf(&[n], 0.05)?))).collect()
}

fn forward(precision: Precision, [m, n, k]: [usize; 3]) -> Result<impl FnMut() -> Result<Duration>> {
    let (x, mut layers) = (leaf(&[m, k], 1.0)?, layers(n, k, 4)?);
    Ok(move || {
        layers.rotate_left(1);
        let (weight, bias) = &layers[0];
        timed(|| precision.scope(|| x.linear(weight, bias)))
    })
}

fn inference_work(precision: Precision, [m, n, k]: [usize; 3]) -> Work {
    let bytes = 4 * (m * k + m * n + n) + weight_bytes(precision) * n * k;
    Work::new(precision, (2 * m * n * k) as f64, bytes as f64)
}

fn inference(precision: Precision, [m, n, k]: [usize; 3]) -> Result<impl FnMut() -> Result<Duration>> {
    let (x, mut layers) = (noise(&[m, k], 1.0)?, layers(n, k, weight_bytes(precision))?);
    let count = layers.len();
    let mut answer = move || {
        layers.rotate_left(1);
        let (weight, bias) = &layers[0];
        timed(|| no_grad(|| precision.scope(|| x.linear(weight, bias))))
    };
    // A weight is packed when it is first used.
    (0..count).try_for_each(|_| answer().map(drop))?;
    Ok(answer)
}

fn backward(precision: Precision, [m, n, k]: [usize; 3]) -> Result<impl FnMut() -> Result<Duration>> {
    let (x, dy, mut layers) = (leaf(&[m, k], 1.0)?, noise(&[m, n], 1.0)?, layers(n, k, 4)?);
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
