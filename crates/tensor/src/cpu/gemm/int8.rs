//! Rounding to 8 bits, for products in [`Precision::Int8`](crate::Precision::Int8).
//!
//! A row `x` becomes integers `q` and one scale, `x = scale q`, chosen such that the largest magnitude is [`ACTIVATION`] or
//! [`WEIGHT`]. A product is then the exact product of the integers, times both scales.

use crate::cpu::lanes::max;
use crate::cpu::simd::{is_fused, simd};

/// The largest integer of activations.
pub(super) const ACTIVATION: f32 = 127.0;
/// The largest integer of weights. With one bit less than activations, the sum of two products fits into 16 bits, which doubles
/// the speed of processors with AVX2 alone. Every processor rounds like this, so that all compute the same bits.
pub(super) const WEIGHT: f32 = 64.0;

simd! {
    /// Rounds a row to integers up to `limit` and returns its scale, or NaN if an element is not finite.
    pub(super) fn quantize(x: &[f32], limit: f32, q: &mut [i8]) -> f32 {
        let mut magnitudes = [0f32; 32];
        let mut taint = [0f32; 32];
        let (chunks, rest) = x.as_chunks::<32>();
        for chunk in chunks {
            for ((largest, taint), x) in magnitudes.iter_mut().zip(&mut taint).zip(chunk) {
                *taint += x * 0.0;
                let x = x.abs();
                *largest = if x > *largest { x } else { *largest };
            }
        }
        for ((largest, taint), x) in magnitudes.iter_mut().zip(&mut taint).zip(rest) {
            *taint += x * 0.0;
            *largest = largest.max(x.abs());
        }
        let largest = max(&magnitudes);
        let factor = if largest > 0.0 { limit / largest } else { 0.0 };
        // Adding 1.5 * 2^23 rounds to an integer, whose lowest byte is then the lowest byte of the sum.
        if is_fused() {
            for (q, &x) in q.iter_mut().zip(x) {
                *q = x.mul_add(factor, 12_582_912.0).to_bits() as i8;
            }
        } else {
            // The same in f64, where the product is exact, as in a fused multiply-add.
            for (q, &x) in q.iter_mut().zip(x) {
                *q = (f64::from(x) * f64::from(factor) + 6_755_399_441_055_744.0).to_bits() as i8;
            }
        }
        largest / limit + taint.iter().sum::<f32>()
    }
}
