//! The innermost loops: products of two packed panels, kept in registers.
//!
//! A panel is a sequence of units, one for each step along k; a unit of A holds [`MR`] words of 32 bits, one for each
//! row, a unit of B [`NR`], one for each column. A word is an f32, or two bf16 or four int8 that follow one another along
//! k. So one shape of tile serves all. 12 by 32 takes 24 of the 32 registers for sums, enough to hide the
//! latency of a multiply-add, and 14 loads for 24 of them.

// Loops over a tile count its coordinates.
#![allow(clippy::needless_range_loop)]

use std::arch::x86_64::*;

/// Rows of a tile.
pub(super) const MR: usize = 12;
/// Columns of a tile.
pub(super) const NR: usize = 32;

/// Where a tile of C goes.
#[derive(Clone, Copy)]
pub(super) struct Destination {
    pub(super) c: *mut f32,
    /// From one row to the next.
    pub(super) stride: usize,
    pub(super) rows: usize,
    pub(super) cols: usize,
    /// Whether to add to what is there.
    pub(super) accumulate: bool,
    /// Whether to write past the caches, which then need not read what is overwritten. For whole tiles that are not
    /// added to, aligned to cache lines.
    pub(super) stream: bool,
}

/// Memory that is asked for while a tile is computed, a cache line with every unit: `lines` of them `step` bytes apart, then
/// as many from `stride` bytes after the first on, and so on.
#[derive(Clone, Copy)]
pub(super) struct Ahead {
    pub(super) start: *const i8,
    pub(super) step: usize,
    pub(super) lines: usize,
    pub(super) stride: usize,
}

impl Ahead {
    /// Nothing but the line at `start`, which is there.
    pub(super) fn nothing(start: *const u32) -> Ahead {
        Ahead { start: start.cast(), step: 0, lines: usize::MAX, stride: 0 }
    }
}

/// The mask of the first `n` of 16 lanes.
#[inline(always)]
pub(super) fn first(n: usize) -> __mmask16 {
    if n >= 16 { !0 } else { (1 << n) - 1 }
}

macro_rules! kernel {
    ($(#[$doc:meta])* $name:ident, $rows:ident, $features:literal, $multiply_add:expr) => {
        $(#[$doc])*
        ///
        /// # Safety
        /// The processor must have the features; `a` and `b` must be readable at `units` units, and the destination
        /// writable.
        #[target_feature(enable = $features)]
        pub(super) unsafe fn $name(units: usize, a: *const u32, b: *const u32, to: Destination, ahead: Ahead) {
            // SAFETY: the caller's promises.
            unsafe {
                match to.rows {
                    0..=4 => $rows::<4>(units, a, b, to, ahead),
                    5..=8 => $rows::<8>(units, a, b, to, ahead),
                    _ => $rows::<MR>(units, a, b, to, ahead),
                }
            }
        }

        /// Of the first R rows.
        ///
        /// # Safety
        /// As above.
        #[target_feature(enable = $features)]
        unsafe fn $rows<const R: usize>(units: usize, a: *const u32, b: *const u32, to: Destination, ahead: Ahead) {
            // SAFETY: the caller's promises. Rows and columns that the destination has not are neither read nor
            // written.
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
                let (mut left, mut row) = (units, ahead.start);
                while left > 0 {
                    let now = left.min(ahead.lines);
                    let mut line = row;
                    for _ in 0..now {
                        _mm_prefetch::<_MM_HINT_T1>(line);
                        line = line.wrapping_add(ahead.step);
                        let (b0, b1) = (_mm512_loadu_ps(b), _mm512_loadu_ps(b.add(16)));
                        for i in 0..R {
                            let a = _mm512_set1_ps(*a.add(i));
                            sums[i][0] = $multiply_add(a, b0, sums[i][0]);
                            sums[i][1] = $multiply_add(a, b1, sums[i][1]);
                        }
                        a = a.add(MR);
                        b = b.add(NR);
                    }
                    row = row.wrapping_add(ahead.stride);
                    left -= now;
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

/// A tile of a product of int8 in quads, unsigned by signed, added to `starts`; an element of C is its sum times
/// both scales.
///
/// # Safety
/// As [`f32_tile`]; there must be a scale for each row, and one for each of 32 columns.
#[target_feature(enable = "avx512f,avx512vnni")]
pub(super) unsafe fn int8_tile(
    units: usize,
    a: *const u32,
    b: *const u32,
    starts: &[i32; NR],
    row_scales: *const f32,
    column_scales: *const f32,
    to: Destination,
) {
    // SAFETY: the caller's promises.
    unsafe {
        match to.rows {
            0..=4 => int8_rows::<4>(units, a, b, starts, row_scales, column_scales, to),
            5..=8 => int8_rows::<8>(units, a, b, starts, row_scales, column_scales, to),
            _ => int8_rows::<MR>(units, a, b, starts, row_scales, column_scales, to),
        }
    }
}

/// Of the first R rows.
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
    to: Destination,
) {
    // SAFETY: the caller's promises. Rows and columns that the destination has not are neither read nor written.
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
    /// A tile of a product of f32.
    f32_tile,
    f32_rows,
    "avx512f",
    |a, b, sum| _mm512_fmadd_ps(a, b, sum)
);
kernel!(
    /// A tile of a product of pairs of bf16.
    bf16_tile,
    bf16_rows,
    "avx512f,avx512bf16",
    |a, b, sum| {
        let [a, b] = [a, b].map(|pairs| std::mem::transmute::<__m512, __m512bh>(pairs));
        _mm512_dpbf16_ps(sum, a, b)
    }
);
