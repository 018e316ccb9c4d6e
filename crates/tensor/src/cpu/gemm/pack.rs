//! Copying strided matrices of f32 into panels (see [`super::kernels`]), rounded to a smaller type on the way.
//!
//! An operand is packed once for each time it is multiplied, so this is where it is read, where its rows are summed for
//! the gradient of a bias, and where memory is asked for ahead of time: a panel reads from more places at once than the
//! processor's own prefetchers follow.

// Loops over 16 registers count them.
#![allow(clippy::needless_range_loop)]

use std::arch::x86_64::*;

use super::kernels::first;

/// What a word of a panel holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    F32,
    /// An f32 that is rounded to the precision of bf16: where the processor cannot multiply those.
    Bf16AsF32,
    /// An f32 that is rounded to the precision of f16.
    F16AsF32,
    /// Two bf16.
    Bf16Pair,
    /// Four int8; see [`super::pack_int8`].
    Int8Quad,
}

impl Format {
    /// Elements along k in a word.
    pub(super) fn elements(self) -> usize {
        match self {
            Format::F32 | Format::Bf16AsF32 | Format::F16AsF32 => 1,
            Format::Bf16Pair => 2,
            Format::Int8Quad => 4,
        }
    }
}

/// A strided operand: element (i, l), for row i of A or column i of B and l along k, is at `i * outer + l * inner`. One
/// of the strides is 1.
#[derive(Clone, Copy)]
pub(super) struct Operand {
    pub(super) data: *const f32,
    pub(super) outer: usize,
    pub(super) inner: usize,
    /// Length along k.
    pub(super) k: usize,
}

// SAFETY: only read, while the slice that it points into is borrowed.
unsafe impl Send for Operand {}
// SAFETY: as above.
unsafe impl Sync for Operand {}

/// How many steps along k ahead memory is asked for, where columns lie side by side.
const AHEAD: usize = 24;

/// Most panels that are packed together.
pub(super) const TOGETHER: usize = 4;

impl Operand {
    /// Packs `units` units from unit `from` on of the rows or columns `start..start + count`, `P` to a panel, zeros
    /// beyond `count` and k: to `to [panels, units, P]`, at most [`TOGETHER`] panels. Adds the rows' elements to
    /// `sums [panels, 16]`, if those are not null: for operands whose `outer` is 1, and P of at most 16.
    ///
    /// Where columns lie side by side, the panels together take whole cache lines: rows that are a power of two apart
    /// push one another out of the caches before the next panel comes to the rest of a line.
    ///
    /// # Safety
    /// The operand must be readable there, `to` writable, and the processor have AVX-512 (for pairs, AVX512-BF16).
    pub(super) unsafe fn pack<const P: usize>(
        self,
        format: Format,
        start: usize,
        count: usize,
        from: usize,
        units: usize,
        to: *mut u32,
        sums: *mut f32,
    ) {
        debug_assert!(count <= TOGETHER * P && (sums.is_null() || P <= 16));
        let operand = Operand { data: self.data.wrapping_add(start * self.outer), ..self };
        // SAFETY: the caller's promises.
        unsafe {
            match format {
                Format::F32 => pack_f32::<P>(operand, count, from, units, to, sums),
                Format::Bf16AsF32 => pack_bf16_as_f32::<P>(operand, count, from, units, to, sums),
                Format::F16AsF32 => pack_f16_as_f32::<P>(operand, count, from, units, to, sums),
                Format::Bf16Pair => pack_bf16::<P>(operand, count, from, units, to, sums),
                Format::Int8Quad => unreachable!("scales come first"),
            }
        }
    }
}

macro_rules! pack {
    ($name:ident, $features:literal, $elements:literal, $along:expr, $across:expr) => {
        #[target_feature(enable = $features)]
        unsafe fn $name<const P: usize>(
            operand: Operand,
            count: usize,
            from: usize,
            units: usize,
            to: *mut u32,
            sums: *mut f32,
        ) {
            let Operand { data, outer, inner, k } = operand;
            // Up to 16 rows or columns of a panel: where they begin, how many words there are room for and how many
            // there are.
            let groups = (0..count.div_ceil(P)).flat_map(|panel| {
                (0..P).step_by(16).map(move |group| {
                    let start = panel * P + group;
                    let width = (P - group).min(16);
                    (start, to.wrapping_add(panel * units * P + group), width, count.saturating_sub(start).min(width))
                })
            });
            // SAFETY: the caller's promises: rows beyond `count` and elements beyond k are masked out.
            unsafe {
                if outer != 1 {
                    for (start, to, width, rows) in groups {
                        for unit in (0..units).step_by(16) {
                            let l = (from + unit) * $elements;
                            let mut words = [_mm512_setzero_si512(); 16];
                            for i in 0..rows {
                                let left = (k - l).min((units - unit) * $elements);
                                words[i] = $along(data.add((start + i) * outer + l), left);
                                // The next 16 rows, which come 16 rows later.
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
                } else {
                    let mut all = [(0, to, 0, 0); 2 * TOGETHER];
                    let mut used = 0;
                    for (start, to, width, rows) in groups {
                        all[used] = (start, to, first(width), first(rows));
                        used += 1;
                    }
                    let mut totals = [_mm512_setzero_ps(); 2 * TOGETHER];
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
                            let to = sums.add(16 * panel);
                            _mm512_storeu_ps(to, _mm512_add_ps(total, _mm512_loadu_ps(to)));
                        }
                    }
                }
            }
        }
    };
}

pack!(
    pack_f32,
    "avx512f,avx512bw",
    1,
    |p, left| _mm512_castps_si512(_mm512_maskz_loadu_ps(first(left), p)),
    |p, mask, _, _, sum: &mut __m512| {
        let x = _mm512_maskz_loadu_ps(mask, p);
        *sum = _mm512_add_ps(*sum, x);
        _mm512_castps_si512(x)
    }
);
/// Without the lowest bits of an f32, so many.
macro_rules! pack_without {
    ($name:ident, $bits:literal) => {
        pack!(
            $name,
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

pack_without!(pack_bf16_as_f32, 16);
pack_without!(pack_f16_as_f32, 13);
pack!(
    pack_bf16,
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

/// Without the lowest `BITS` bits: rounded to the nearest, ties to even. NaN stays NaN.
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
    // Now lane group q of rows[4 i + c] holds column 4 q + c of rows 4 i to 4 i + 3.
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
