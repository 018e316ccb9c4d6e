//! Dropout of rows of hidden states, with the masks that [`Dropout`] defines.
//!
//! A mask takes one Philox call per 16 columns. The calls of several groups of columns run side by side, one per vector
//! lane, and their bytes are then put in column order. A row of multipliers (0 or the scale) is written to a buffer in the
//! first-level cache, from which fused kernels read it too ([`multipliers`]).
//!
//! Dropout multiplies by a diagonal matrix, so its backward is [`apply`] on the gradient.

use crate::dropout::{Dropout, RowCoordinate};
use crate::random::philox;

use super::parallel::{RowsMut, for_rows};
use super::real::Real;
use super::simd::simd;
use super::target::Target;

/// Returns the random words of `N` consecutive counters, which differ in their last word: `[word][counter]`.
#[inline(always)]
#[allow(clippy::needless_range_loop, reason = "the index is the counter")]
pub(crate) fn philox_lanes<const N: usize>(counter: [u32; 4], key: [u32; 2]) -> [[u32; N]; 4] {
    let mut words = [[0; N]; 4];
    for i in 0..N {
        let last = counter[3].wrapping_add(i as u32);
        let w = philox::<7>([counter[0], counter[1], counter[2], last], key);
        words[0][i] = w[0];
        words[1][i] = w[1];
        words[2][i] = w[2];
        words[3][i] = w[3];
    }
    words
}

/// Writes the multipliers of up to `16 N` columns, from group `group` on.
#[inline(always)]
fn multiplier_groups<T: Real, const N: usize>(dropout: &Dropout, sequence: u32, group: u32, out: &mut [T]) {
    let (counter, key) = dropout.hidden_counter(sequence, group);
    let words = philox_lanes::<N>(counter, key);
    let mut ordered = [[0u32; 4]; N];
    for (i, group) in ordered.iter_mut().enumerate() {
        *group = [words[0][i].to_le(), words[1][i].to_le(), words[2][i].to_le(), words[3][i].to_le()];
    }
    let (threshold, scale) = (dropout.threshold(), T::from_f64(dropout.scale()));
    for (out, &byte) in out.iter_mut().zip(bytemuck::cast_slice::<[u32; 4], u8>(&ordered)) {
        *out = if (byte as u32) < threshold { T::ZERO } else { scale };
    }
}

/// Writes the multipliers of a row of `out.len()` columns: 0 or the scale. For use inside `simd!`.
#[inline(always)]
pub(crate) fn multipliers<T: Real>(dropout: &Dropout, at: RowCoordinate, out: &mut [T]) {
    let mut group = at.position.wrapping_mul(out.len().div_ceil(16) as u32);
    let mut out = out;
    while out.len() > 64 {
        let (now, later) = out.split_at_mut(out.len().min(256));
        multiplier_groups::<T, 16>(dropout, at.sequence, group, now);
        group = group.wrapping_add(16);
        out = later;
    }
    if !out.is_empty() {
        multiplier_groups::<T, 4>(dropout, at.sequence, group, out);
    }
}

simd! {
    fn apply_block<T: Real>(
        x: &[T],
        rows: &[RowCoordinate],
        dropout: &Dropout,
        out: &mut [T],
        width: usize,
        accumulate: bool,
    ) {
        let mut row = vec![T::ZERO; width];
        for ((x, out), &at) in x.chunks_exact(width).zip(out.chunks_exact_mut(width)).zip(rows) {
            multipliers(dropout, at, &mut row);
            if accumulate {
                for ((out, &x), &m) in out.iter_mut().zip(x).zip(&row) {
                    *out += x * m;
                }
            } else {
                for ((out, &x), &m) in out.iter_mut().zip(x).zip(&row) {
                    *out = x * m;
                }
            }
        }
    }

    fn add_block<T: Real>(x: &[T], out: &mut [T]) {
        for (out, &x) in out.iter_mut().zip(x) {
            *out += x;
        }
    }
}

/// Computes `out (+)= dropout(x)` for `x [R, W]`, whose rows have the coordinates `rows [R]`. It is its own backward.
pub(crate) fn apply<T: Real>(x: &[T], width: usize, rows: &[RowCoordinate], dropout: &Dropout, out: Target<T>) {
    let Target { data: out, accumulate } = out;
    assert!(x.len() == out.len() && x.len() == rows.len() * width);
    if width == 0 {
        return;
    }
    for_rows(rows.len(), 2 * width, RowsMut::new(out, width), |range, out| {
        let x = &x[range.start * width..range.end * width];
        match (dropout.is_none(), accumulate) {
            (true, false) => out.data.copy_from_slice(x),
            (true, true) => add_block(x, out.data),
            _ => apply_block(x, &rows[range], dropout, out.data, width, accumulate),
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::simd::testing::at_each_level;
    use crate::cpu::testing::{SIZES, random_in};

    /// The multiplier of one element, from the definition in dropout.rs.
    pub(crate) fn multiplier(dropout: &Dropout, width: usize, at: RowCoordinate, column: usize) -> f64 {
        let group = at.position as usize * width.div_ceil(16) + column / 16;
        let bytes = Dropout::bytes(dropout.hidden_counter(at.sequence, group as u32));
        if (bytes[column % 16] as u32) < dropout.threshold() { 0.0 } else { dropout.scale() }
    }

    #[test]
    fn masks_equal_the_definition() {
        let dropout = Dropout::new(0.3, 0x1234_5678_9abc, 77, 5).unwrap();
        at_each_level(|_| {
            for width in SIZES.into_iter().chain([64, 65, 80, 255, 256, 257, 300]) {
                let rows: Vec<RowCoordinate> =
                    (0..5).map(|i| RowCoordinate { sequence: 40 + i / 2, position: 3 * i }).collect();
                let x = random_in::<f32>(5 * width, 3);
                let mut y = vec![f32::NAN; x.len()];
                apply(&x, width, &rows, &dropout, Target::new(&mut y, false));
                let want: Vec<f32> = (0..x.len())
                    .map(|i| x[i] * multiplier(&dropout, width, rows[i / width], i % width) as f32)
                    .collect();
                assert_eq!(y, want);
                apply(&x, width, &rows, &dropout, Target::new(&mut y, true));
                assert_eq!(y, want.iter().map(|x| x + x).collect::<Vec<_>>());
                let mut y = vec![1.0; x.len()];
                apply(&x, width, &rows, &Dropout::NONE, Target::new(&mut y, false));
                assert_eq!(y, x);
            }
        });
    }

    #[test]
    #[cfg_attr(miri, ignore = "statistics of 150,000 elements")]
    fn drops_at_its_rate_and_keeps_the_mean() {
        let (width, count) = (768, 200);
        for p in [0.1, 0.5] {
            let dropout = Dropout::new(p, 9, 1, 2).unwrap();
            let rows: Vec<RowCoordinate> = (0..count).map(|position| RowCoordinate { sequence: 0, position }).collect();
            let ones = vec![1.0f64; width * count as usize];
            let mut y = ones.clone();
            apply(&ones, width, &rows, &dropout, Target::new(&mut y, false));
            let n = ones.len() as f64;
            let dropped = y.iter().filter(|&&y| y == 0.0).count() as f64 / n;
            let rate = dropout.threshold() as f64 / 256.0;
            // Five standard deviations.
            assert!((dropped - rate).abs() < 5.0 * (rate * (1.0 - rate) / n).sqrt(), "{dropped} of {rate}");
            assert!((y.iter().sum::<f64>() / n - 1.0).abs() < 0.02);
            // Neighbours agree as often as independent draws would.
            let equal = y.windows(2).filter(|w| w[0] == w[1]).count() as f64 / (n - 1.0);
            let expected = rate * rate + (1.0 - rate) * (1.0 - rate);
            assert!((equal - expected).abs() < 0.01, "{equal} of {expected}");
        }
    }
}
