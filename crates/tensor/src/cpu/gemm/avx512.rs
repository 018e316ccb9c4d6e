//! The kernels of AVX-512.
//!
//! A tile of 12 x 32 takes 24 of the 32 vector registers for sums. That is enough independent multiply-adds to hide their
//! latency, and they need only 14 loads: two vectors of B and twelve broadcast words of A for 24 multiply-adds.

#![allow(
    clippy::multiple_unsafe_ops_per_block,
    reason = "the accesses of a loop over a tile or panel have one contract"
)]
#![allow(clippy::needless_range_loop, reason = "loops over a tile use its coordinates")]

mod pack;

use std::arch::x86_64::*;

use self::pack::{first, pack_bf16, pack_bf16_as_f32, pack_f16_as_f32, pack_f32};
use super::avx2;
use super::epilogue::{Finish, Tile};
use super::kernel::{Kernel, Multiply, Packing, TileStore};
use crate::precision::Precision;

/// Rows of a tile.
const MR: usize = 12;
/// Columns of a tile.
const NR: usize = 32;

static F32: Kernel<f32> = kernel(1, Packing::Convert { a: pack_f32::<MR>, b: pack_f32::<NR> }, f32_tile);
/// For processors without products of bf16.
static BF16_AS_F32: Kernel<f32> =
    kernel(1, Packing::Convert { a: pack_bf16_as_f32::<MR>, b: pack_bf16_as_f32::<NR> }, f32_tile);
static F16_AS_F32: Kernel<f32> =
    kernel(1, Packing::Convert { a: pack_f16_as_f32::<MR>, b: pack_f16_as_f32::<NR> }, f32_tile);
/// Pairs of bf16.
static BF16: Kernel<f32> = kernel(2, Packing::Convert { a: pack_bf16::<MR>, b: pack_bf16::<NR> }, bf16_tile);
static INT8: Kernel<f32> = kernel(4, Packing::Quantize { is_offset: true }, int8_tile);

const fn kernel(elements: usize, packing: Packing<f32>, multiply: Multiply<f32>) -> Kernel<f32> {
    Kernel { mr: MR, nr: NR, elements, packing, multiply_bf16: None, streams: true, multiply, finish }
}

/// Returns the kernel for products in `precision`, which this processor has the instructions of.
pub(super) fn kernel_for(precision: Precision) -> &'static Kernel<f32> {
    match precision {
        Precision::F32 => &F32,
        Precision::Bf16 if std::is_x86_feature_detected!("avx512bf16") => &BF16,
        Precision::Bf16 => &BF16_AS_F32,
        Precision::F16 => &F16_AS_F32,
        Precision::Int8 if std::is_x86_feature_detected!("avx512vnni") => &INT8,
        Precision::Int8 => avx2::kernel_for(precision),
    }
}

macro_rules! kernel {
    ($(#[$doc:meta])* $name:ident, $rows:ident, $features:literal, $multiply_add:expr) => {
        $(#[$doc])*
        ///
        /// # Safety
        /// As for [`Multiply`].
        #[target_feature(enable = $features)]
        unsafe fn $name(units: usize, a: *const f32, b: *const f32, to: TileStore<f32>) {
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
        unsafe fn $rows<const R: usize>(units: usize, mut a: *const f32, mut b: *const f32, to: TileStore<f32>) {
            // SAFETY: the panels are valid for `units` units of `MR` and `NR` words, and the destination for its rows and
            // columns, by the contract above; the row check and the masks keep accesses within them.
            unsafe {
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

/// Computes a tile of a product of int8 in quads, unsigned by signed.
///
/// # Safety
/// As for [`Multiply`].
#[target_feature(enable = "avx512f,avx512vnni")]
unsafe fn int8_tile(units: usize, a: *const f32, b: *const f32, to: TileStore<f32>) {
    // SAFETY: the contract of `int8_rows` is this one.
    unsafe {
        match to.rows {
            0..=4 => int8_rows::<4>(units, a, b, to),
            5..=8 => int8_rows::<8>(units, a, b, to),
            _ => int8_rows::<MR>(units, a, b, to),
        }
    }
}

/// The same for the first `R` rows of a tile, at least `to.rows`.
///
/// # Safety
/// As above.
#[target_feature(enable = "avx512f,avx512vnni")]
unsafe fn int8_rows<const R: usize>(units: usize, a: *const f32, b: *const f32, to: TileStore<f32>) {
    // SAFETY: the panels and terms are valid for the sizes given by the contract above, and the destination for its rows
    // and columns; the row check and the masks keep accesses within them.
    unsafe {
        let (mut a, mut b) = (a.cast::<i32>(), b.cast::<i32>());
        let starts = to.int8.starts;
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
        let (s0, s1) = (_mm512_loadu_ps(to.int8.columns), _mm512_loadu_ps(to.int8.columns.add(16)));
        let (low, high) = (first(to.cols), first(to.cols.saturating_sub(16)));
        for i in 0..R {
            if i < to.rows {
                let c = to.c.add(i * to.stride);
                let scale = _mm512_set1_ps(*to.int8.rows.add(i));
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

/// [`Finish::tile`] for AVX-512.
///
/// # Safety
/// As for [`FinishTile`](super::kernel::FinishTile).
#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl,avx2,fma")]
unsafe fn finish(finish: Finish<f32>, c: *mut f32, stride: usize, tile: Tile) {
    // SAFETY: this function's contract includes that of `tile`.
    unsafe { finish.tile::<NR>(c, stride, tile) };
}
