//! Packing f32 for AVX2, rounding to a smaller type on the way.

#![allow(clippy::needless_range_loop, reason = "loops over 8 registers use their numbers")]

use std::arch::x86_64::*;

use super::super::operand::{Operand, Part};
use super::super::portable;
use crate::cpu::simd::prefetch;

/// A [`Pack`](super::super::kernel::Pack) function for panels of `P` rows or columns, 6 or 16, which clears the lowest `BITS`
/// bits.
///
/// # Safety
/// As for [`Pack`](super::super::kernel::Pack).
#[target_feature(enable = "avx2,fma")]
pub(super) unsafe fn pack<const P: usize, const BITS: u32>(part: Part<f32>, to: *mut f32, sums: *mut f32) {
    let Part { operand, count, from, units } = part;
    // SAFETY: the contracts are the same, or those of parts of this panel.
    unsafe {
        if operand.outer == 1 {
            return portable::pack_across::<f32, P, BITS>(part, to, sums);
        }
        let whole = units / 8 * 8;
        for start in (0..count).step_by(P) {
            let (operand, count, to) = (operand.from(start), P.min(count - start), to.add(start * units));
            for first in (0..P).step_by(8) {
                let rows = count.saturating_sub(first).min(8);
                let width = (P - first).min(8);
                let (part, to) = (operand.from(first), to.add(first));
                for unit in (0..whole).step_by(8) {
                    transpose::<P, BITS>(part, rows, from + unit, to.add(unit * P), width);
                }
            }
            portable::pack_along::<f32, P, BITS>(operand, count, from, whole..units, to);
        }
    }
}

/// Packs 8 units of up to 8 rows, of which `rows` exist, to `width` words of units of `P` words.
///
/// # Safety
/// The operand must be valid for reads of 8 elements of these rows from element `l` on, `to` for writes.
#[target_feature(enable = "avx2,fma")]
#[inline]
unsafe fn transpose<const P: usize, const BITS: u32>(
    operand: Operand<f32>,
    rows: usize,
    l: usize,
    to: *mut f32,
    width: usize,
) {
    for half in [0, 4] {
        // Row i in the lower half of a register, row i + 4 in the upper half.
        let mut quads = [_mm256_setzero_ps(); 4];
        for i in 0..4 {
            let row = |i: usize| operand.data.wrapping_add(i * operand.outer + l + half);
            let (mut low, mut high) = (_mm_setzero_ps(), _mm_setzero_ps());
            if i < rows {
                // SAFETY: these are 4 elements of a row that exists, valid by this function's contract.
                low = unsafe { _mm_loadu_ps(row(i)) };
            }
            if i + 4 < rows {
                // SAFETY: as above.
                high = unsafe { _mm_loadu_ps(row(i + 4)) };
            }
            quads[i] = round::<BITS>(_mm256_set_m128(high, low));
            // The next group, 8 rows further on.
            prefetch::<1, _>(row(i + 8));
            prefetch::<1, _>(row(i + 12));
        }
        let (low01, high01) = (_mm256_unpacklo_ps(quads[0], quads[1]), _mm256_unpackhi_ps(quads[0], quads[1]));
        let (low23, high23) = (_mm256_unpacklo_ps(quads[2], quads[3]), _mm256_unpackhi_ps(quads[2], quads[3]));
        let columns = [
            _mm256_shuffle_ps::<0x44>(low01, low23),
            _mm256_shuffle_ps::<0xee>(low01, low23),
            _mm256_shuffle_ps::<0x44>(high01, high23),
            _mm256_shuffle_ps::<0xee>(high01, high23),
        ];
        for (unit, column) in columns.into_iter().enumerate() {
            // SAFETY: these are `width` words, 6 or 8, of a unit, by this function's contract.
            unsafe {
                let to = to.add((half + unit) * P);
                if width == 8 {
                    _mm256_storeu_ps(to, column);
                } else {
                    _mm_storeu_ps(to, _mm256_castps256_ps128(column));
                    _mm_storel_pd(to.add(4).cast(), _mm_castps_pd(_mm256_extractf128_ps::<1>(column)));
                }
            }
        }
    }
}

/// Clears the lowest `BITS` bits, rounding to the nearest, ties to even. NaN stays NaN.
///
/// # Safety
/// The processor must have AVX2.
#[target_feature(enable = "avx2,fma")]
#[inline]
fn round<const BITS: u32>(x: __m256) -> __m256 {
    if BITS == 0 {
        return x;
    }
    let (bits, shift) = (_mm256_castps_si256(x), _mm_cvtsi32_si128(BITS as i32));
    let odd = _mm256_and_si256(_mm256_srl_epi32(bits, shift), _mm256_set1_epi32(1));
    let rounded = _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32((1 << (BITS - 1)) - 1)));
    let rounded = _mm256_castsi256_ps(_mm256_and_si256(rounded, _mm256_set1_epi32(-1 << BITS)));
    _mm256_blendv_ps(rounded, x, _mm256_cmp_ps::<_CMP_UNORD_Q>(x, x))
}
