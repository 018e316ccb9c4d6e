//! AdamW over flat arenas, and the sum of squares that clipping by norm needs: each is one pass over memory.
//!
//! A step reads and writes a parameter, its gradient and two moments once: 28 bytes for a dozen operations. It is bound by
//! memory, so clipping, weight decay and both bias corrections are folded into the one loop as constants that are computed
//! beforehand. With the corrections `c1 = 1 - beta1^t` and `c2 = 1 - beta2^t` the loop computes
//!
//! ```text
//! g = scale g,  m += (1 - beta1) (g - m),  v = beta2 v + (1 - beta2) g^2
//! p = (1 - lr decay) p - lr / c1 * m / (sqrt(v) / sqrt(c2) + eps)
//! ```
//!
//! I. Loshchilov and F. Hutter, "Decoupled Weight Decay Regularization", 2019; details as in PyTorch's `AdamW`.

use super::lanes::sum_lanes;
use super::parallel::for_blocks;
use super::real::Real;
use super::simd::simd;

/// Elements in a block.
const BLOCK: usize = if cfg!(miri) { 1 << 7 } else { 1 << 16 };

/// One step of AdamW (I. Loshchilov, F. Hutter, "Decoupled weight decay regularization", 2017) with bias
/// correction (D. P. Kingma, J. Ba, 2014), as PyTorch computes it.
#[derive(Clone, Copy, Debug)]
pub struct AdamWStep {
    /// The learning rate.
    pub learning_rate: f64,
    /// The weight decay: parameters shrink by `learning_rate * weight_decay` first.
    pub weight_decay: f64,
    /// The decay of the mean of gradients.
    pub beta1: f64,
    /// The decay of the mean of squared gradients.
    pub beta2: f64,
    /// The number added to the root of the mean of squared gradients.
    pub eps: f64,
    /// The number of this step, from 1.
    pub step: u32,
}

impl AdamWStep {
    /// The divisors of the two means, which start at zero: `1 - beta1^step` and `1 - beta2^step`.
    pub(crate) fn corrections(&self) -> (f64, f64) {
        let correction = |beta: f64| 1.0 - beta.powi(self.step.min(i32::MAX as u32) as i32);
        (correction(self.beta1), correction(self.beta2))
    }
}

simd! {
    fn step_block<T: Real>(
        p: &mut [T],
        g: &[T],
        m: &mut [T],
        v: &mut [T],
        scale: f64,
        adamw: &AdamWStep,
        corrections: (f64, f64),
    ) {
        let scale = T::from_f64(scale);
        let keep = T::from_f64(1.0 - adamw.learning_rate * adamw.weight_decay);
        let (new1, beta2, new2) =
            (T::from_f64(1.0 - adamw.beta1), T::from_f64(adamw.beta2), T::from_f64(1.0 - adamw.beta2));
        let rate = T::from_f64(-adamw.learning_rate / corrections.0);
        let (root, eps) = (T::from_f64(1.0 / corrections.1.sqrt()), T::from_f64(adamw.eps));
        for (((p, &g), m), v) in p.iter_mut().zip(g).zip(m).zip(v) {
            let g = g * scale;
            *m = (g - *m).mul_add(new1, *m);
            *v = (*v).mul_add(beta2, new2 * g * g);
            *p = (*p).mul_add(keep, rate * *m / v.sqrt().mul_add(root, eps));
        }
    }

    /// Sums squares in f64, in which the squares of f32 neither overflow nor vanish.
    fn squares_block<T: Real>(x: &[T]) -> f64 {
        let mut lanes = [0f64; 32];
        let (chunks, rest) = x.as_chunks::<32>();
        for chunk in chunks {
            for (lane, x) in lanes.iter_mut().zip(chunk) {
                let x = x.to_f64();
                *lane = x.mul_add(x, *lane);
            }
        }
        for (lane, x) in lanes.iter_mut().zip(rest) {
            let x = x.to_f64();
            *lane = x.mul_add(x, *lane);
        }
        sum_lanes(lanes)
    }
}

/// Applies one step to the parameters `p` with gradients `g`, which are multiplied by `scale` first, and moments `m` and
/// `v`, all of one length.
pub(crate) fn step<T: Real>(p: &mut [T], g: &[T], m: &mut [T], v: &mut [T], scale: f64, adamw: &AdamWStep) {
    let n = p.len();
    assert!(g.len() == n && m.len() == n && v.len() == n);
    let corrections = adamw.corrections();
    for_blocks(n, BLOCK / 4, 2, (p, m, v), |range, (p, m, v)| {
        step_block(p, &g[range], m, v, scale, adamw, corrections);
    });
}

/// Returns the sum of the squares of `x`. Blocks of a fixed size are summed, then their sums in order.
pub(crate) fn sum_of_squares<T: Real>(x: &[T]) -> f64 {
    sums_of_squares(x, BLOCK).iter().sum()
}

/// Returns the sum of the squares of each block of `block` elements of `x`; the last block may be shorter.
pub(crate) fn sums_of_squares<T: Real>(x: &[T], block: usize) -> Vec<f64> {
    let mut sums = vec![0.0; x.len().div_ceil(block)];
    for_blocks(sums.len(), (BLOCK / block).max(1), block / 2, &mut sums[..], |range, sums| {
        for (sum, at) in sums.iter_mut().zip(range) {
            *sum = squares_block(&x[at * block..((at + 1) * block).min(x.len())]);
        }
    });
    sums
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::parallel::testing::with_threads;
    use crate::cpu::simd::testing::{at_each_level, steady_level};
    use crate::cpu::testing::{SIZES, close, random_in, small_for_miri, wide};

    /// The algorithm as PyTorch's documentation states it, line by line.
    fn reference(p: &mut [f64], gradients: &[Vec<f64>], lr: f64, decay: f64, clip: f64) {
        let (beta1, beta2, eps) = (0.9f64, 0.999f64, 1e-8);
        for (i, p) in p.iter_mut().enumerate() {
            let (mut m, mut v) = (0.0, 0.0);
            for (t, g) in gradients.iter().enumerate() {
                let (g, t) = (g[i] * clip, t as i32 + 1);
                *p -= lr * decay * *p;
                m = beta1 * m + (1.0 - beta1) * g;
                v = beta2 * v + (1.0 - beta2) * g * g;
                let (m_hat, v_hat) = (m / (1.0 - beta1.powi(t)), v / (1.0 - beta2.powi(t)));
                *p -= lr * m_hat / (v_hat.sqrt() + eps);
            }
        }
    }

    fn check<T: Real>(n: usize, tolerance: f64) {
        let mut p = random_in::<T>(n, 1);
        let gradients: Vec<Vec<T>> = (2..7).map(|seed| random_in(n, seed)).collect();
        let mut want = wide(&p);
        reference(&mut want, &gradients.iter().map(|g| wide(g)).collect::<Vec<_>>(), 0.01, 0.1, 0.5);
        let (mut m, mut v) = (vec![T::ZERO; n], vec![T::ZERO; n]);
        for (t, g) in gradients.iter().enumerate() {
            let adamw = AdamWStep {
                learning_rate: 0.01,
                weight_decay: 0.1,
                beta1: 0.9,
                beta2: 0.999,
                eps: 1e-8,
                step: t as u32 + 1,
            };
            step(&mut p, g, &mut m, &mut v, 0.5, &adamw);
        }
        close(&p, &want, tolerance, "AdamW");
    }

    #[test]
    fn steps_equal_the_algorithm() {
        at_each_level(|_| {
            for n in SIZES {
                check::<f32>(n, 1e-6);
                check::<f64>(n, 1e-14);
            }
        });
        check::<f32>(small_for_miri(100_000, 300), 1e-6);
    }

    #[test]
    fn squares() {
        at_each_level(|_| {
            for n in SIZES.into_iter().chain([BLOCK - 1, BLOCK, BLOCK + 1]) {
                let x = random_in::<f32>(n, 3);
                let want: f64 = wide(&x).iter().map(|x| x * x).sum();
                assert!((sum_of_squares(&x) - want).abs() <= 1e-12 * want);
            }
            assert_eq!(sum_of_squares(&[1e30f32, 1e30]), 2.0 * (1e30f32 as f64).powi(2));
        });
    }

    #[test]
    fn squares_do_not_depend_on_the_number_of_threads() {
        let _steady = steady_level();
        let x = random_in::<f32>(small_for_miri(300_000, 500), 3);
        let [one, two, five, team] = with_threads(|| sum_of_squares(&x));
        assert!(one == two && one == five && one == team);
    }
}
