//! The innermost loops: the product of two packed panels, accumulated in registers.
//!
//! A panel is a sequence of units, one per step along k. A unit of A holds [`MR`] words of 32 bits, one per row; a unit of
//! B holds [`NR`] words, one per column. A word is one f32, or two bf16 or four int8 that are consecutive along k, so one
//! shape of tile serves all types.
//!
//! A tile of 12 x 32 takes 24 of the 32 vector registers for sums. That is enough independent multiply-adds to hide their
//! latency, and they need only 14 loads: two vectors of B and twelve broadcast words of A for 24 multiply-adds.

#![allow(clippy::needless_range_loop, reason = "loops over a tile use its coordinates")]

use std::arch::x86_64::*;

/// Rows of a tile.
pub(super) const MR: usize = 12;
/// Columns of a tile.
pub(super) const NR: usize = 32;

/// The destination of a tile of C.
#[derive(Clone, Copy)]
pub(super) struct TileStore {
    pub(super) c: *mut f32,
    /// Elements from one row to the next.
    pub(super) stride: usize,
    pub(super) rows: usize,
    pub(super) cols: usize,
    /// Whether to add to the present elements.
    pub(super) accumulate: bool,
    /// Whether to bypass the caches, which then do not read the memory that is overwritten. Only for tiles of [`NR`]
    /// columns that do not accumulate and are aligned to cache lines.
    pub(super) stream: bool,
}

/// Returns the mask of the first `n` of 16 lanes.
#[inline(always)]
pub(super) fn first(n: usize) -> __mmask16 {
    if n >= 16 { !0 } else { (1 << n) - 1 }
}

macro_rules! kernel {
    ($(#[$doc:meta])* $name:ident, $rows:ident, $features:literal, $multiply_add:expr) => {
        $(#[$doc])*
        ///
        /// # Safety
        /// The processor must have the features. `a` and `b` must be valid for reads of `units` units, the destination for
        /// writes, and for reads if it accumulates.
        #[target_feature(enable = $features)]
        pub(super) unsafe fn $name(units: usize, a: *const u32, b: *const u32, to: TileStore) {
            // SAFETY: the contract of `$rows` is this one.
            unsafe {
                match to.rows {
                    0..=4 => $rows::<4>(units, a, b, to),
                    5..=8 => $rows::<8>(units, a, b, to),
                    _ => $rows::<MR>(units, a, b, to),
                }
            }
        }

        /// The same for the first `R` rows of a tile, at least `to.rows`.
        ///
        /// # Safety
        /// As above.
        #[target_feature(enable = $features)]
        unsafe fn $rows<const R: usize>(units: usize, a: *const u32, b: *const u32, to: TileStore) {
            // SAFETY: the panels are valid for `units` units of `MR` and `NR` words, and the destination for its rows and
            // columns, by the contract above; the row check and the masks keep accesses within them.
            unsafe {
                let (mut a, mut b) = (a.cast::<f32>(), b.cast::<f32>());
                if !to.stream {
                    for i in 0..to.rows {
                        let row = to.c.wrapping_add(i * to.stride).cast::<i8>();
                        _mm_prefetch::<_MM_HINT_T0>(row);
                        _mm_prefetch::<_MM_HINT_T0>(row.wrapping_add(64));
                    }
                }
                let mut sums = [[_mm512_setzero_ps(); 2]; R];
                for _ in 0..units {
                    let (b0, b1) = (_mm512_loadu_ps(b), _mm512_loadu_ps(b.add(16)));
                    for i in 0..R {
                        let a = _mm512_set1_ps(*a.add(i));
                        sums[i][0] = $multiply_add(a, b0, sums[i][0]);
                        sums[i][1] = $multiply_add(a, b1, sums[i][1]);
                    }
                    a = a.add(MR);
                    b = b.add(NR);
                }
                let (low, high) = (first(to.cols), first(to.cols.saturating_sub(16)));
                for i in 0..R {
                    if i < to.rows {
                        let c = to.c.add(i * to.stride);
                        if to.stream {
                            _mm512_stream_ps(c, sums[i][0]);
                            _mm512_stream_ps(c.add(16), sums[i][1]);
                            continue;
                        }
                        if to.accumulate {
                            sums[i][0] = _mm512_add_ps(sums[i][0], _mm512_maskz_loadu_ps(low, c));
                            sums[i][1] = _mm512_add_ps(sums[i][1], _mm512_maskz_loadu_ps(high, c.wrapping_add(16)));
                        }
                        _mm512_mask_storeu_ps(c, low, sums[i][0]);
                        _mm512_mask_storeu_ps(c.wrapping_add(16), high, sums[i][1]);
                    }
                }
            }
        }
    };
}

/// Computes a tile of a product of int8 in quads, unsigned by signed. The sums begin with `starts`; an element of C is its
/// sum times the scales of its row and column.
///
/// # Safety
/// As for [`f32_tile`]. There must be a scale for each row of the tile, and for each of [`NR`] columns.
#[target_feature(enable = "avx512f,avx512vnni")]
pub(super) unsafe fn int8_tile(
    units: usize,
    a: *const u32,
    b: *const u32,
    starts: &[i32; NR],
    row_scales: *const f32,
    column_scales: *const f32,
    to: TileStore,
) {
    // SAFETY: the contract of `int8_rows` is this one.
    unsafe {
        match to.rows {
            0..=4 => int8_rows::<4>(units, a, b, starts, row_scales, column_scales, to),
            5..=8 => int8_rows::<8>(units, a, b, starts, row_scales, column_scales, to),
            _ => int8_rows::<MR>(units, a, b, starts, row_scales, column_scales, to),
        }
    }
}

/// The same for the first `R` rows of a tile, at least `to.rows`.
///
/// # Safety
/// As above.
#[target_feature(enable = "avx512f,avx512vnni")]
unsafe fn int8_rows<const R: usize>(
    units: usize,
    a: *const u32,
    b: *const u32,
    starts: &[i32; NR],
    row_scales: *const f32,
    column_scales: *const f32,
    to: TileStore,
) {
    // SAFETY: the panels and scales are valid for the sizes given by the contract above, and the destination for its rows
    // and columns; the row check and the masks keep accesses within them.
    unsafe {
        let (mut a, mut b) = (a.cast::<i32>(), b.cast::<i32>());
        let starts = starts.as_ptr();
        let mut sums = [[_mm512_loadu_epi32(starts), _mm512_loadu_epi32(starts.add(16))]; R];
        for _ in 0..units {
            let (b0, b1) = (_mm512_loadu_epi32(b), _mm512_loadu_epi32(b.add(16)));
            for i in 0..R {
                let a = _mm512_set1_epi32(*a.add(i));
                sums[i][0] = _mm512_dpbusd_epi32(sums[i][0], a, b0);
                sums[i][1] = _mm512_dpbusd_epi32(sums[i][1], a, b1);
            }
            a = a.add(MR);
            b = b.add(NR);
        }
        let (s0, s1) = (_mm512_loadu_ps(column_scales), _mm512_loadu_ps(column_scales.add(16)));
        let (low, high) = (first(to.cols), first(to.cols.saturating_sub(16)));
        for i in 0..R {
            if i < to.rows {
                let c = to.c.add(i * to.stride);
                let scale = _mm512_set1_ps(*row_scales.add(i));
                let mut x0 = _mm512_mul_ps(_mm512_cvtepi32_ps(sums[i][0]), _mm512_mul_ps(scale, s0));
                let mut x1 = _mm512_mul_ps(_mm512_cvtepi32_ps(sums[i][1]), _mm512_mul_ps(scale, s1));
                if to.accumulate {
                    x0 = _mm512_add_ps(x0, _mm512_maskz_loadu_ps(low, c));
                    x1 = _mm512_add_ps(x1, _mm512_maskz_loadu_ps(high, c.wrapping_add(16)));
                }
                _mm512_mask_storeu_ps(c, low, x0);
                _mm512_mask_storeu_ps(c.wrapping_add(16), high, x1);
            }
        }
    }
}

kernel!(
    /// Computes a tile of a product of f32.
    f32_tile,
    f32_rows,
    "avx512f",
    |a, b, sum| _mm512_fmadd_ps(a, b, sum)
);
kernel!(
    /// Computes a tile of a product of pairs of bf16.
    bf16_tile,
    bf16_rows,
    "avx512f,avx512bf16",
    |a, b, sum| {
        let [a, b] = [a, b].map(|pairs| std::mem::transmute::<__m512, __m512bh>(pairs));
        _mm512_dpbf16_ps(sum, a, b)
    }
);
