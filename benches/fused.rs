//! The operations of a training step other than plain matrix products, in BERT-base's width of 768: forward with a
//! graph, and backward. At 1,024 tokens most operands fit into the caches and can exceed the ceiling of memory; at
//! 8,192 they do not.

mod suite;

use std::time::Duration;

use cloze::prelude::*;
use cloze::tensor::optim::AdamWStep;
use cloze::tensor::{Dropout, EmbeddingIds, Gelu, Sequences, module};
use cloze::train::Optimizer;
use cloze_benches::{Result, Work, leaf, linear_backward, linear_forward, noise, testing, timed};

use suite::Suite;

const HIDDEN: usize = 768;
const INNER: usize = 3072;
const VOCABULARY: usize = 30_522;
const LENGTH: usize = 128;
const EPS: f64 = 1e-12;

/// An operation with its operands.
type Op = Box<dyn Fn() -> cloze::tensor::Result<Tensor>>;

fn main() -> Result {
    let mut suite = Suite::new("fused")?;
    for tokens in if testing() { vec![LENGTH] } else { vec![1024, 8192] } {
        for precision in [Precision::F32, Precision::Bf16] {
            feed_forward(&mut suite, tokens, precision);
        }
        normalisations(&mut suite, tokens);
        pointwise(&mut suite, tokens);
        cross_entropy(&mut suite, tokens);
    }
    let parameters = if testing() { 1 << 16 } else { 1 << 25 };
    // Parameters and both moments are read and written, gradients read.
    suite.bench("adamw step", Work::moving(28.0 * parameters as f64), || adamw_step(parameters));
    suite.bench("gradient norm", Work::moving(4.0 * parameters as f64), || gradient_norm(parameters));
    suite.finish();
    Ok(())
}

/// Returns the work of a forward and a backward that read or write hidden states this many times.
fn moving(tokens: usize, forward: f64, backward: f64) -> [Work; 2] {
    let hidden = (4 * tokens * HIDDEN) as f64;
    [Work::moving(forward * hidden), Work::moving(backward * hidden)]
}

fn feed_forward(suite: &mut Suite, tokens: usize, precision: Precision) {
    let sizes = [tokens, INNER, HIDDEN];
    let works = [linear_forward(precision, sizes), linear_backward(precision, sizes)];
    both(suite, &format!("{tokens}/linear and gelu/{precision}"), works, &|| {
        let (x, w, b) = (leaf(&[tokens, HIDDEN], 1.0)?, leaf(&[INNER, HIDDEN], 0.05)?, leaf(&[INNER], 0.05)?);
        Ok(Box::new(move || precision.scope(|| x.linear_gelu(&w, &b, Gelu::Erf))))
    });
    both(suite, &format!("{tokens}/feed forward/{precision}"), feed_forward_work(precision, tokens), &|| {
        let (x, w1, b1) = (leaf(&[tokens, HIDDEN], 1.0)?, leaf(&[INNER, HIDDEN], 0.05)?, leaf(&[INNER], 0.05)?);
        let (w2, b2) = (leaf(&[HIDDEN, INNER], 0.05)?, leaf(&[HIDDEN], 0.05)?);
        Ok(Box::new(move || precision.scope(|| x.feed_forward((&w1, &b1), Gelu::Erf, (&w2, &b2)))))
    });
}

/// LayerNorm alone, and with the additions that are fused into it.
fn normalisations(suite: &mut Suite, tokens: usize) {
    let shape = [tokens, HIDDEN];
    // Forward moves x, the residual, their sum for the backward, and the output; backward moves dy, the sum, and two
    // gradients.
    let works = moving(tokens, 4.0, 4.0);
    both(suite, &format!("{tokens}/residual, dropout, layer norm"), works, &|| {
        let (x, residual) = (leaf(&shape, 1.0)?, leaf(&shape, 0.9)?);
        let ([gamma, beta], (dropout, rows)) = (norm()?, dropped(tokens)?);
        Ok(Box::new(move || x.residual_layer_norm(&residual, &gamma, &beta, EPS, &dropout, rows.rows())))
    });
    both(suite, &format!("{tokens}/layer norm"), moving(tokens, 2.0, 3.0), &|| {
        let (x, [gamma, beta]) = (leaf(&shape, 1.0)?, norm()?);
        Ok(Box::new(move || x.layer_norm(&gamma, &beta, EPS)))
    });
    // Forward moves the looked-up rows, their sum for the backward, and the output; backward moves dy, the sum, and the
    // gradients of the rows.
    both(suite, &format!("{tokens}/embeddings, layer norm"), moving(tokens, 3.0, 3.0), &|| {
        let table = |entries| leaf(&[entries, HIDDEN], 0.05);
        let (words, positions, types, [gamma, beta]) = (table(VOCABULARY)?, table(512)?, table(2)?, norm()?);
        let at = |count: usize, step: usize| (0..tokens).map(|token| (token * step % count) as u32).collect::<Vec<_>>();
        let (ids, at_positions, at_types) = (at(VOCABULARY, 7919), at(LENGTH, 1), at(2, 1));
        Ok(Box::new(move || {
            let ids = EmbeddingIds { words: &ids, positions: &at_positions, token_types: &at_types };
            words.embeddings_layer_norm(&positions, &types, &gamma, &beta, EPS, ids)
        }))
    });
}

fn pointwise(suite: &mut Suite, tokens: usize) {
    let shape = [tokens, HIDDEN];
    both(suite, &format!("{tokens}/softmax"), moving(tokens, 2.0, 3.0), &|| {
        let x = leaf(&shape, 1.0)?;
        Ok(Box::new(move || x.softmax()))
    });
    both(suite, &format!("{tokens}/dropout"), moving(tokens, 2.0, 2.0), &|| {
        let (x, (dropout, rows)) = (leaf(&shape, 1.0)?, dropped(tokens)?);
        Ok(Box::new(move || x.dropout(&dropout, rows.rows())))
    });
    both(suite, &format!("{tokens}/gelu"), moving(tokens, 2.0, 3.0), &|| {
        let x = leaf(&shape, 1.0)?;
        Ok(Box::new(move || x.gelu(Gelu::Erf)))
    });
}

/// Cross-entropy of the masked tokens, 15 % of all.
fn cross_entropy(suite: &mut Suite, tokens: usize) {
    let masked = tokens * 15 / 100;
    let logits = (4 * masked * VOCABULARY) as f64;
    both(suite, &format!("{tokens}/cross-entropy"), [Work::moving(logits), Work::moving(2.0 * logits)], &|| {
        let x = leaf(&[masked, VOCABULARY], 1.0)?;
        let targets: Vec<i64> = (0..masked).map(|row| (row * 7919 % VOCABULARY) as i64).collect();
        Ok(Box::new(move || x.cross_entropy(&targets)))
    });
}

/// Returns the work of two linear layers with GELU between them. The input of GELU is stored for the backward.
fn feed_forward_work(precision: Precision, tokens: usize) -> [Work; 2] {
    let (product, weights) = ((2 * tokens * HIDDEN * INNER) as f64, (8 * HIDDEN * INNER) as f64);
    let [hidden, inner] = [HIDDEN, INNER].map(|width| (4 * tokens * width) as f64);
    let forward = Work::new(precision, 2.0 * product, 2.0 * hidden + inner + weights);
    [forward, Work::new(precision, 4.0 * product, 3.0 * hidden + inner + 2.0 * weights)]
}

fn norm() -> Result<[Tensor; 2]> {
    Ok([leaf(&[HIDDEN], 1.0)?, leaf(&[HIDDEN], 0.5)?])
}

fn dropped(tokens: usize) -> Result<(Dropout, Sequences)> {
    Ok((Dropout::new(0.1, 7, 0, 0)?, Sequences::new(&vec![LENGTH; tokens / LENGTH])?))
}

/// Measures forward and backward of an operation.
fn both(suite: &mut Suite, name: &str, [forward, backward]: [Work; 2], build: &dyn Fn() -> Result<Op>) {
    suite.bench(format!("{name}/forward"), forward, || {
        let op = build()?;
        Ok(move || timed(&op))
    });
    suite.bench(format!("{name}/backward"), backward, || {
        let op = build()?;
        let y = op()?;
        let dy = if y.rank() == 0 { Tensor::new(1f32, &Device::Cpu)? } else { noise(y.shape(), 1.0)? };
        Ok(move || {
            let (y, mut gradients) = (op()?, Gradients::new());
            timed(|| y.backward_with(&dy, &mut gradients))
        })
    });
}

fn adamw_step(parameters: usize) -> Result<impl FnMut() -> Result<Duration>> {
    let [mut values, gradients, mut first, mut second] = std::array::from_fn(|_| vec![1e-3f32; parameters]);
    let mut step = 0;
    Ok(move || {
        step += 1;
        let (learning_rate, weight_decay, eps) = (1e-4, 0.01, 1e-8);
        let adamw = AdamWStep { learning_rate, weight_decay, beta1: 0.9, beta2: 0.999, eps, step };
        timed(|| {
            adamw.apply(&mut values, &gradients, 0.5, (&mut first, &mut second));
            Ok::<_, String>(())
        })
    })
}

fn gradient_norm(parameters: usize) -> Result<impl FnMut() -> Result<Duration>> {
    struct Model {
        weight: Tensor,
    }
    module!(Model { weight });
    let mut model = Model { weight: leaf(&[parameters], 1.0)? };
    let mut optimizer = Optimizer::new(AdamW::new(1e-4), &mut model, |_| true)?;
    optimizer.backward(&model.weight.mean_all()?)?;
    Ok(move || timed(|| optimizer.gradients().norm()))
}
