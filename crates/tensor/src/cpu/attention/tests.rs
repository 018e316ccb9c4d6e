//! Forward against the formula, backward against finite differences.

use super::*;
use crate::cpu::parallel::testing::with_threads;
use crate::cpu::simd::testing::{at_each_level, steady_level};
use crate::cpu::target::Target;
use crate::cpu::testing::{close, dot, numeric_gradient, random, random_in, small_for_miri, wide};
use crate::dropout::Dropout;
use crate::precision::Precision;

/// The dropout multiplier of one probability, from the definition in dropout.rs.
fn multiplier(dropout: &Dropout, sequence: u32, head: usize, row: usize, column: usize) -> f64 {
    if dropout.is_none() {
        return 1.0;
    }
    let (i, j) = (row % 16, column % 32);
    let lane = 4 * (i % 8) + (j % 8) / 2;
    let counter = dropout.attention_counter(sequence, head as u32, row as u32 / 16, column as u32 / 32, lane as u32);
    let byte = Dropout::bytes(counter)[4 * (j / 8) + 2 * (i / 8) + j % 2];
    if (byte as u32) < dropout.threshold() { 0.0 } else { dropout.scale() }
}

/// Computes output and log-sum-exp one element at a time.
fn reference(attention: &AttentionProblem<'_>, qkv: &[f64]) -> (Vec<f64>, Vec<f64>) {
    let (hidden, size, heads) = (attention.hidden(), attention.head_size, attention.heads);
    let at =
        |token: usize, part: usize, head: usize, c: usize| qkv[token * 3 * hidden + part * hidden + head * size + c];
    let mut out = vec![0.0; attention.tokens() * hidden];
    let mut lse = vec![0.0; attention.tokens() * heads];
    for s in 0..attention.cu_seqlens.len() - 1 {
        let (start, len) = (attention.start(s), attention.len(s));
        for head in 0..heads {
            for i in 0..len {
                let score = |j: usize| {
                    let product = |c| at(start + i, 0, head, c) * at(start + j, 1, head, c);
                    (0..size).map(product).sum::<f64>() * attention.scale
                };
                let scores: Vec<f64> = (0..len).map(score).collect();
                let largest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let total: f64 = scores.iter().map(|x| (x - largest).exp()).sum();
                lse[(start + i) * heads + head] = largest + total.ln();
                for (j, score) in scores.iter().enumerate() {
                    let m = multiplier(&attention.dropout, attention.number(s), head, i, j);
                    let p = (score - largest).exp() / total * m;
                    for c in 0..size {
                        out[(start + i) * hidden + head * size + c] += p * at(start + j, 2, head, c);
                    }
                }
            }
        }
    }
    (out, lse)
}

fn run<T: Real>(attention: &AttentionProblem<'_>, qkv: &[T], dout: &[T]) -> [Vec<T>; 3] {
    let nan = T::from_f64(f64::NAN);
    let tokens = attention.tokens();
    let (mut out, mut lse) = (vec![nan; tokens * attention.hidden()], vec![nan; tokens * attention.heads]);
    forward(attention, qkv, &mut out, &mut lse);
    let mut dqkv = vec![nan; qkv.len()];
    backward(attention, qkv, &out, &lse, dout, Target::new(&mut dqkv, false));
    let once = dqkv.clone();
    backward(attention, qkv, &out, &lse, dout, Target::new(&mut dqkv, true));
    let twice: Vec<f64> = once.iter().map(|x| 2.0 * x.to_f64()).collect();
    close(&dqkv, &twice, 1e-6, "accumulated");
    [out, lse, once]
}

fn cases() -> Vec<(usize, usize, Vec<u32>, Dropout)> {
    let dropout = Dropout::new(0.3, 11, 12, 13).unwrap();
    let mut cases = vec![
        (1, 1, vec![0, 1], Dropout::NONE),
        (2, 3, vec![0, 1, 1, 6], dropout),
        (3, 8, vec![0, 17, 18, 34], Dropout::NONE),
        (2, 17, vec![0, 15, 31, 64], dropout),
        (2, 32, vec![0, 64, 65, 198], dropout),
        (1, 64, vec![0, 40, 170], Dropout::NONE),
        (1, 80, vec![0, 33], dropout),
    ];
    // Miri takes a minute for each of the others.
    cases.truncate(small_for_miri(cases.len(), 2));
    cases
}

fn sequences(cu: &[u32]) -> Vec<u32> {
    (0..cu.len() as u32 - 1).map(|s| 1000 - 3 * s).collect()
}

#[test]
fn forward_equals_the_formula_and_f32_backward_is_near_f64() {
    at_each_level(|_| {
        for (heads, head_size, cu, dropout) in cases() {
            let numbers = sequences(&cu);
            let scale = 0.3;
            let attention = AttentionProblem {
                heads,
                head_size,
                scale,
                cu_seqlens: &cu,
                sequences: &numbers,
                dropout,
                precision: Precision::F32,
            };
            let qkv = random_in::<f32>(attention.tokens() * 3 * attention.hidden(), 1);
            let dout = random_in::<f32>(attention.tokens() * attention.hidden(), 2);
            let (want, want_lse) = reference(&attention, &wide(&qkv));
            let exact = run(&attention, &wide(&qkv), &wide(&dout));
            close(&exact[0], &want, 1e-13, "out");
            close(&exact[1], &want_lse, 1e-13, "lse");
            let got = run(&attention, &qkv, &dout);
            for (got, want) in got.iter().zip(&exact) {
                close(got, want, 3e-6, "in f32");
            }
        }
    });
}

#[test]
#[cfg_attr(miri, ignore = "runs the forward hundreds of times")]
fn backward_equals_finite_differences() {
    at_each_level(|_| {
        for (heads, head_size, cu) in [(2, 3, vec![0, 1, 6, 6, 23]), (1, 2, vec![0, 66])] {
            for dropout in [Dropout::NONE, Dropout::new(0.3, 1, 2, 3).unwrap()] {
                let numbers = sequences(&cu);
                let attention = AttentionProblem {
                    heads,
                    head_size,
                    scale: 0.7,
                    cu_seqlens: &cu,
                    sequences: &numbers,
                    dropout,
                    precision: Precision::F32,
                };
                let qkv = random(attention.tokens() * 3 * attention.hidden(), 1);
                let dout = random(attention.tokens() * attention.hidden(), 2);
                let got = run(&attention, &qkv, &dout);
                // The forward may stand in for the reference: the first test shows that they are equal.
                let loss = |qkv: &[f64]| {
                    let (mut out, mut lse) = (dout.clone(), vec![0.0; attention.tokens() * heads]);
                    forward(&attention, qkv, &mut out, &mut lse);
                    dot(&out, &dout)
                };
                close(&got[2], &numeric_gradient(&qkv, loss), 1e-7, "dqkv");
            }
        }
    });
}

#[test]
fn same_bits_for_any_number_of_threads() {
    let _steady = steady_level();
    let cu = if cfg!(miri) { [0, 5, 8, 10, 11, 19] } else { [0, 128, 143, 150, 400, 401] };
    let numbers = sequences(&cu);
    let dropout = Dropout::new(0.1, 1, 2, 3).unwrap();
    let attention = AttentionProblem {
        heads: 4,
        head_size: small_for_miri(64, 8),
        scale: 0.125,
        cu_seqlens: &cu,
        sequences: &numbers,
        dropout,
        precision: Precision::F32,
    };
    let qkv = random_in::<f32>(cu[5] as usize * 3 * attention.hidden(), 1);
    let dout = random_in::<f32>(cu[5] as usize * attention.hidden(), 2);
    let [one, two, five, team] = with_threads(|| run(&attention, &qkv, &dout));
    assert!(one == two && one == five && one == team);
}

#[test]
fn extremes_are_finite() {
    at_each_level(|_| {
        let cu = [0, 20, 21];
        let attention = AttentionProblem {
            heads: 1,
            head_size: 16,
            scale: 0.25,
            cu_seqlens: &cu,
            sequences: &[],
            dropout: Dropout::NONE,
            precision: Precision::F32,
        };
        let qkv: Vec<f32> = random(21 * 48, 1).iter().map(|x| 1e4 * x.signum() as f32).collect();
        let [out, lse, dqkv] = run(&attention, &qkv, &vec![1.0; 21 * 16]);
        assert!(out.iter().chain(&lse).chain(&dqkv).all(|x| x.is_finite()));
        // A sequence of one token attends only to itself.
        assert_eq!(out[20 * 16..], qkv[20 * 48 + 32..]);
    });
}

#[test]
fn weights_are_what_attention_multiplies_values_with() {
    let (len, heads, size) = (small_for_miri(70, 9), 2, 16);
    let mut qkv = random(len * 3 * heads * size, 1);
    let mut p = vec![f64::NAN; heads * len * len];
    weights(&qkv, heads, size, 0.25, &mut p);
    // With values that name their token in one column, the output holds one column of the weights.
    let cu = [0, len as u32];
    for token in [0, len / 2, len - 1] {
        for (i, row) in qkv.chunks_mut(3 * heads * size).enumerate() {
            row[2 * heads * size..].fill(if i == token { 1.0 } else { 0.0 });
        }
        let attention = AttentionProblem {
            heads,
            head_size: size,
            scale: 0.25,
            cu_seqlens: &cu,
            sequences: &[],
            dropout: Dropout::NONE,
            precision: Precision::F32,
        };
        let out = reference(&attention, &qkv).0;
        for head in 0..heads {
            let want: Vec<f64> = (0..len).map(|i| out[i * heads * size + head * size]).collect();
            let got: Vec<f64> = (0..len).map(|i| p[(head * len + i) * len + token]).collect();
            close(&got, &want, 1e-13, "weights");
        }
    }
}

#[test]
fn no_tokens() {
    for cu in [&[][..], &[0], &[0, 0]] {
        let attention = AttentionProblem {
            heads: 2,
            head_size: 4,
            scale: 1.0,
            cu_seqlens: cu,
            sequences: &[],
            dropout: Dropout::NONE,
            precision: Precision::F32,
        };
        forward::<f32>(&attention, &[], &mut [], &mut []);
        backward::<f32>(&attention, &[], &[], &[], &[], Target::new(&mut [], false));
    }
}
