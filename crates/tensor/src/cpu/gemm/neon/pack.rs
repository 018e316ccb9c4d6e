//! Packing f32 as pairs of bf16 along k.

#![allow(clippy::needless_range_loop, reason = "loops over a tile use its coordinates")]

use super::super::kernel::{SUMS, TOGETHER};
use super::super::operand::{Operand, Part};
use super::super::portable::rounded;

/// A [`Pack`](super::super::kernel::Pack) function for panels of `P` rows or columns.
///
/// # Safety
/// As for [`Pack`](super::super::kernel::Pack).
pub(super) unsafe fn pack<const P: usize>(part: Part<f32>, to: *mut f32, sums: *mut f32) {
    let Part { operand, count, from, units } = part;
    debug_assert!(count <= TOGETHER * P && (sums.is_null() || P <= SUMS));
    for (panel, start) in (0..count).step_by(P).enumerate() {
        let (operand, width) = (operand.from(start), P.min(count - start));
        let mut totals = [0.0; P];
        for unit in 0..units {
            let l = 2 * (from + unit);
            let (mut low, mut high) = ([0.0; P], [0.0; P]);
            // SAFETY: these are elements of rows or columns that exist, of steps below k.
            unsafe {
                read(operand, l, width, &mut low);
                if l + 1 < operand.k {
                    read(operand, l + 1, width, &mut high);
                }
            }
            let mut words = [0; P];
            for i in 0..P {
                totals[i] += low[i] + high[i];
                words[i] = bf16(low[i]) | bf16(high[i]) << 16;
            }
            // SAFETY: this is a unit of the panel, valid by this function's contract.
            unsafe { to.add((panel * units + unit) * P).cast::<[u32; P]>().write(words) };
        }
        if !sums.is_null() {
            for i in 0..P {
                // SAFETY: the panel has `SUMS` sums, at least `P`, by this function's contract.
                unsafe { *sums.add(panel * SUMS + i) += totals[i] };
            }
        }
    }
}

/// Reads `width` elements of step `l` along k.
///
/// # Safety
/// The operand must be valid for reads of them.
#[inline(always)]
unsafe fn read<const P: usize>(operand: Operand<f32>, l: usize, width: usize, to: &mut [f32; P]) {
    let at = operand.data.wrapping_add(l * operand.inner);
    for i in 0..width {
        // SAFETY: by this function's contract.
        to[i] = unsafe { *at.add(i * operand.outer) };
    }
}

/// Rounds to bf16, and returns its bits. NaN stays NaN.
#[inline(always)]
fn bf16(x: f32) -> u32 {
    if x.is_nan() { 0x7fc0 } else { rounded::<f32, 16>(x).to_bits() >> 16 }
}
