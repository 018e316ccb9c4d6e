//! Rounding to 8 bits, for products in [`Precision::Int8`](crate::Precision::Int8).
//!
//! A row `x` of activations or weights becomes integers `q` from -127 to 127 and one scale, `x = scale q`, chosen such that
//! the largest magnitude is 127. A product is then the exact product of the integers, times both scales.

use crate::cpu::lanes::max;
use crate::cpu::simd::simd;

simd! {
    /// Rounds a row to integers and returns its scale, or NaN if an element is not finite.
    pub(super) fn quantize(x: &[f32], q: &mut [i8]) -> f32 {
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
        let factor = if largest > 0.0 { 127.0 / largest } else { 0.0 };
        for (q, &x) in q.iter_mut().zip(x) {
            // Adding 1.5 * 2^23 rounds to an integer, whose lowest byte is then the lowest byte of the sum.
            *q = x.mul_add(factor, 12_582_912.0).to_bits() as i8;
        }
        largest / 127.0 + taint.iter().sum::<f32>()
    }
}

/// Returns `rows` rows of `k` elements, `stride` apart, after rounding: for processors that do not multiply int8.
pub(super) fn rounded(x: &[f32], rows: usize, k: usize, stride: usize) -> Vec<f32> {
    let (mut q, mut out) = (vec![0i8; k], Vec::with_capacity(rows * k));
    for row in 0..rows {
        let scale = quantize(&x[row * stride..][..k], &mut q);
        out.extend(q.iter().map(|&q| scale * f32::from(q)));
    }
    out
}
