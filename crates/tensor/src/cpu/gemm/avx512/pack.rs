//! Packing: copying strided matrices of f32 into panels, rounding to a smaller type on the way.
//!
//! A product reads each operand here and nowhere else, so this is also where the rows of A are summed for the gradient of a
//! bias, and where memory is prefetched: a panel reads from more places at a time than the hardware prefetchers follow.
//!
//! If the elements along k are contiguous, 16 rows of 16 words are loaded and transposed in registers. If the rows (of A) or
//! columns (of B) are contiguous, a unit is one load and one store.

#![allow(clippy::needless_range_loop, reason = "loops over 16 registers use their numbers")]

use std::arch::x86_64::*;

use super::super::kernel::{SUMS, TOGETHER};
use super::super::operand::{Operand, Part};

/// The prefetch distance in steps along k, for operands with contiguous rows (A) or columns (B).
const AHEAD: usize = 24;

/// Returns the mask of the first `n` of 16 lanes.
#[inline(always)]
pub(super) fn first(n: usize) -> __mmask16 {
    if n >= 16 { !0 } else { (1 << n) - 1 }
}

/// Up to 16 rows or columns of a panel, which a vector holds.
struct Group {
    /// The first row or column.
    start: usize,
    /// The address of its first word.
    to: *mut f32,
    /// The width of the group in the panel.
    width: usize,
    /// How many of its rows or columns exist.
    rows: usize,
}

/// The groups of `count` rows or columns that are packed into `to [panels, units, P]`.
fn groups<const P: usize>(count: usize, units: usize, to: *mut f32) -> impl Iterator<Item = Group> {
    (0..count.div_ceil(P)).flat_map(move |panel| {
        (0..P).step_by(16).map(move |group| {
            let start = panel * P + group;
            let width = (P - group).min(16);
            let to = to.wrapping_add(panel * units * P + group);
            Group { start, to, width, rows: count.saturating_sub(start).min(width) }
        })
    })
}

/// Defines the packing function of one format. `$along` loads a word each of 16 steps along k, `$across` a word each of 16
/// rows or columns.
macro_rules! pack {
    ($name:ident, $along_name:ident, $features:literal, $elements:literal, $along:expr, $across:expr) => {
        /// The same for an operand whose elements along k are contiguous: transposes 16 x 16 words at a time.
        ///
        /// # Safety
        /// As for [`Pack`](super::super::kernel::Pack).
        #[target_feature(enable = $features)]
        unsafe fn $along_name<const P: usize>(part: Part<f32>, to: *mut f32) {
            let Part { operand: Operand { data, outer, k, .. }, count, from, units } = part;
            for Group { start, to, width, rows } in groups::<P>(count, units, to) {
                for unit in (0..units).step_by(16) {
                    let l = (from + unit) * $elements;
                    let mut words = [_mm512_setzero_si512(); 16];
                    // SAFETY: by the contract of `Pack`; elements beyond k are masked out.
                    unsafe {
                        for i in 0..rows {
                            let left = (k - l).min((units - unit) * $elements);
                            words[i] = $along(data.add((start + i) * outer + l), left);
                            // The next group, 16 rows further on.
                            let next = data.wrapping_add((start + 16 + i) * outer + l);
                            for line in 0..$elements {
                                _mm_prefetch::<_MM_HINT_T1>(next.wrapping_add(16 * line).cast());
                            }
                        }
                        transpose(&mut words);
                        let to = to.add(unit * P);
                        for j in 0..16.min(units - unit) {
                            _mm512_mask_storeu_epi32(to.add(j * P).cast(), first(width), words[j]);
                        }
                    }
                }
            }
        }

        /// A [`Pack`](super::super::kernel::Pack) function. With an `outer` stride of 1 the panels are packed side by side and
        /// use whole cache lines. Steps along k that lie a power of two apart in memory share a set of the cache, so a line
        /// would be evicted before a second pass reads the rest of it.
        ///
        /// # Safety
        /// As for [`Pack`](super::super::kernel::Pack).
        #[target_feature(enable = $features)]
        pub(super) unsafe fn $name<const P: usize>(part: Part<f32>, to: *mut f32, sums: *mut f32) {
            let Part { operand: Operand { data, outer, inner, k }, count, from, units } = part;
            debug_assert!(count <= TOGETHER * P && (sums.is_null() || P <= SUMS));
            if outer != 1 {
                // SAFETY: the contract is the same.
                return unsafe { $along_name::<P>(part, to) };
            }
            let mut all = [(0, to, 0, 0); 2 * TOGETHER];
            let mut used = 0;
            for Group { start, to, width, rows } in groups::<P>(count, units, to) {
                all[used] = (start, to, first(width), first(rows));
                used += 1;
            }
            let mut totals = [_mm512_setzero_ps(); 2 * TOGETHER];
            // SAFETY: by the contract of `Pack`; rows beyond `count` and elements beyond k are masked out.
            unsafe {
                for unit in 0..units {
                    let l = (from + unit) * $elements;
                    for (&(start, to, width, rows), total) in all[..used].iter().zip(&mut totals) {
                        for line in 0..$elements {
                            let ahead = data.wrapping_add((l + AHEAD + line) * inner + start);
                            _mm_prefetch::<_MM_HINT_T0>(ahead.cast());
                        }
                        let at = data.wrapping_add(l * inner + start);
                        let word = $across(at, rows, inner, l + 1 < k, total);
                        _mm512_mask_storeu_epi32(to.add(unit * P).cast(), width, word);
                    }
                }
                if !sums.is_null() {
                    for (panel, &total) in totals[..used].iter().enumerate() {
                        let to = sums.add(SUMS * panel);
                        _mm512_storeu_ps(to, _mm512_add_ps(total, _mm512_loadu_ps(to)));
                    }
                }
            }
        }
    };
}

pack!(
    pack_f32,
    pack_f32_along,
    "avx512f,avx512bw",
    1,
    |p, left| _mm512_castps_si512(_mm512_maskz_loadu_ps(first(left), p)),
    |p, mask, _, _, sum: &mut __m512| {
        let x = _mm512_maskz_loadu_ps(mask, p);
        *sum = _mm512_add_ps(*sum, x);
        _mm512_castps_si512(x)
    }
);
/// Packs f32 without their lowest `$bits` bits.
macro_rules! pack_without {
    ($name:ident, $along_name:ident, $bits:literal) => {
        pack!(
            $name,
            $along_name,
            "avx512f,avx512bw",
            1,
            |p, left| round::<$bits>(_mm512_maskz_loadu_ps(first(left), p)),
            |p, mask, _, _, sum: &mut __m512| {
                let x = _mm512_maskz_loadu_ps(mask, p);
                *sum = _mm512_add_ps(*sum, x);
                round::<$bits>(x)
            }
        );
    };
}

pack_without!(pack_bf16_as_f32, pack_bf16_as_f32_along, 16);
pack_without!(pack_f16_as_f32, pack_f16_as_f32_along, 13);
pack!(
    pack_bf16,
    pack_bf16_along,
    "avx512f,avx512bw,avx512bf16",
    2,
    |p: *const f32, left: usize| {
        let low = _mm512_maskz_loadu_ps(first(left), p);
        let high = _mm512_maskz_loadu_ps(first(left.saturating_sub(16)), p.wrapping_add(16));
        std::mem::transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(high, low))
    },
    |p: *const f32, mask, inner: usize, has_second: bool, sum: &mut __m512| {
        let low = _mm512_maskz_loadu_ps(mask, p);
        let mask = if has_second { mask } else { 0 };
        let high = _mm512_maskz_loadu_ps(mask, p.wrapping_add(inner));
        *sum = _mm512_add_ps(*sum, _mm512_add_ps(low, high));
        let halves = std::mem::transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(high, low));
        // (low 0, high 0), (low 1, high 1), ...
        let order = _mm512_add_epi32(
            _mm512_set1_epi32(0x0010_0000),
            _mm512_mullo_epi32(
                _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15),
                _mm512_set1_epi32(0x0001_0001),
            ),
        );
        _mm512_permutexvar_epi16(order, halves)
    }
);

/// Clears the lowest `BITS` bits, rounding to the nearest, ties to even. NaN stays NaN.
///
/// # Safety
/// The processor must have AVX-512 F.
#[target_feature(enable = "avx512f")]
#[inline]
fn round<const BITS: u32>(x: __m512) -> __m512i {
    let bits = _mm512_castps_si512(x);
    let odd = _mm512_and_si512(_mm512_srli_epi32::<BITS>(bits), _mm512_set1_epi32(1));
    let rounded = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32((1 << (BITS - 1)) - 1)));
    let rounded = _mm512_and_si512(rounded, _mm512_set1_epi32(-(1 << BITS)));
    let is_nan = _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(x, x);
    _mm512_mask_mov_epi32(rounded, is_nan, bits)
}

/// Transposes 16 rows of 16 words.
///
/// # Safety
/// The processor must have AVX-512 F.
#[target_feature(enable = "avx512f")]
#[inline]
fn transpose(rows: &mut [__m512i; 16]) {
    let mut t = [_mm512_setzero_si512(); 16];
    for i in 0..8 {
        t[2 * i] = _mm512_unpacklo_epi32(rows[2 * i], rows[2 * i + 1]);
        t[2 * i + 1] = _mm512_unpackhi_epi32(rows[2 * i], rows[2 * i + 1]);
    }
    for i in 0..4 {
        for half in 0..2 {
            rows[4 * i + 2 * half] = _mm512_unpacklo_epi64(t[4 * i + half], t[4 * i + 2 + half]);
            rows[4 * i + 2 * half + 1] = _mm512_unpackhi_epi64(t[4 * i + half], t[4 * i + 2 + half]);
        }
    }
    // The four words of group q in rows[4 i + c] are column 4 q + c of rows 4 i to 4 i + 3.
    for c in 0..4 {
        let (a, b, d, e) = (rows[c], rows[4 + c], rows[8 + c], rows[12 + c]);
        let (x0, x1) = (_mm512_shuffle_i32x4::<0x88>(a, b), _mm512_shuffle_i32x4::<0xdd>(a, b));
        let (y0, y1) = (_mm512_shuffle_i32x4::<0x88>(d, e), _mm512_shuffle_i32x4::<0xdd>(d, e));
        t[c] = _mm512_shuffle_i32x4::<0x88>(x0, y0);
        t[4 + c] = _mm512_shuffle_i32x4::<0x88>(x1, y1);
        t[8 + c] = _mm512_shuffle_i32x4::<0xdd>(x0, y0);
        t[12 + c] = _mm512_shuffle_i32x4::<0xdd>(x1, y1);
    }
    *rows = t;
}
