//! The kernels for the matrix instructions of aarch64: `sdot` for int8, and `smmla` and `bfmmla`, which multiply 2 rows by 2
//! columns, for int8 and bf16. Products of f32 have the [`portable`] kernels, which LLVM vectorises for NEON.
//!
//! The panels are those of the portable kernels, in words of two bf16 or four int8. An `mmla` instruction takes twice as
//! many elements along k as a word has, so the words of two units are interleaved in registers.
//!
//! The instructions are written in assembly, because not all of their intrinsics are stable.

#![allow(
    clippy::multiple_unsafe_ops_per_block,
    reason = "the accesses of a loop over a tile or panel have one contract"
)]
#![allow(clippy::needless_range_loop, reason = "loops over a tile use its coordinates")]

mod pack;

use std::arch::aarch64::*;
use std::arch::asm;

use super::kernel::{Kernel, Multiply, Packing, TileStore};
use super::portable::{self, MR, NR, write};
use crate::precision::Precision;

static DOTPROD: Kernel<f32> = int8(multiply_sdot);
static I8MM: Kernel<f32> = int8(multiply_mmla::<false>);
static BF16: Kernel<f32> = Kernel {
    elements: 2,
    packing: Packing::Convert { a: pack::pack::<MR>, b: pack::pack::<NR> },
    ..int8(multiply_mmla::<true>)
};

const fn int8(multiply: Multiply<f32>) -> Kernel<f32> {
    Kernel {
        mr: MR,
        nr: NR,
        elements: 4,
        packing: Packing::Quantize { is_offset: false },
        multiply_bf16: None,
        streams: false,
        multiply,
        finish: portable::finish::<f32, NR>,
    }
}

/// Returns the kernel for products in `precision`, on a processor with `dotprod`, and perhaps `i8mm` and `bf16`.
pub(super) fn kernel_for(precision: Precision, has_mmla: bool) -> &'static Kernel<f32> {
    match precision {
        Precision::Int8 if has_mmla => &I8MM,
        Precision::Int8 => &DOTPROD,
        Precision::Bf16 if has_mmla => &BF16,
        _ => portable::kernel_for(precision),
    }
}

/// A [`Multiply`] function for int8 in quads.
///
/// # Safety
/// As for [`Multiply`].
#[target_feature(enable = "neon,dotprod")]
unsafe fn multiply_sdot(units: usize, a: *const f32, b: *const f32, to: TileStore<f32>) {
    // SAFETY: the contract is the same, and each call computes at least the rows of the tile.
    unsafe {
        match to.rows {
            1 => sdot_rows::<1>(units, a, b, to),
            2 => sdot_rows::<2>(units, a, b, to),
            3 | 4 => sdot_rows::<4>(units, a, b, to),
            _ => sdot_rows::<MR>(units, a, b, to),
        }
    }
}

/// Computes the first `R` rows of a tile, at least `to.rows`.
///
/// # Safety
/// As for [`Multiply`].
#[target_feature(enable = "neon,dotprod")]
unsafe fn sdot_rows<const R: usize>(units: usize, a: *const f32, b: *const f32, to: TileStore<f32>) {
    // SAFETY: the panels have `units` units of `MR` and `NR` words, and the terms are valid for `NR` columns.
    unsafe {
        let mut sums = [std::array::from_fn::<_, { NR / 4 }, _>(|j| vld1q_s32(to.int8.starts.add(4 * j))); R];
        for unit in 0..units {
            let (a, b) = (a.add(unit * MR), b.add(unit * NR));
            let b: [_; NR / 4] = std::array::from_fn(|j| vld1q_s8(b.add(4 * j).cast()));
            for i in 0..R {
                let quad = vld1q_s8(a.add(i / 4 * 4).cast());
                for j in 0..NR / 4 {
                    sums[i][j] = match i % 4 {
                        0 => sdot::<0>(sums[i][j], b[j], quad),
                        1 => sdot::<1>(sums[i][j], b[j], quad),
                        2 => sdot::<2>(sums[i][j], b[j], quad),
                        _ => sdot::<3>(sums[i][j], b[j], quad),
                    };
                }
            }
        }
        let mut rows = [[0i32; NR]; R];
        for i in 0..R {
            for j in 0..NR / 4 {
                vst1q_s32(rows[i].as_mut_ptr().add(4 * j), sums[i][j]);
            }
        }
        write_int8(&rows, to);
    }
}

/// A [`Multiply`] function for bf16 in pairs or int8 in quads.
///
/// # Safety
/// As for [`Multiply`].
#[target_feature(enable = "neon,i8mm,bf16")]
unsafe fn multiply_mmla<const IS_BF16: bool>(units: usize, a: *const f32, b: *const f32, to: TileStore<f32>) {
    // SAFETY: the contract is the same, and each call computes at least the rows of the tile.
    unsafe {
        match to.rows {
            1 | 2 => mmla_rows::<2, 1, IS_BF16>(units, a, b, to),
            3 | 4 => mmla_rows::<4, 2, IS_BF16>(units, a, b, to),
            _ => mmla_rows::<MR, { MR / 2 }, IS_BF16>(units, a, b, to),
        }
    }
}

/// Computes the first `R` rows of a tile, `PAIRS` pairs, at least `to.rows`.
///
/// # Safety
/// As for [`Multiply`].
#[target_feature(enable = "neon,i8mm,bf16")]
unsafe fn mmla_rows<const R: usize, const PAIRS: usize, const IS_BF16: bool>(
    units: usize,
    a: *const f32,
    b: *const f32,
    to: TileStore<f32>,
) {
    let start = |pair: usize| {
        if IS_BF16 {
            return vdupq_n_s32(0);
        }
        // SAFETY: the terms are valid for `NR` columns.
        let columns = unsafe { vld1_s32(to.int8.starts.add(2 * pair)) };
        vcombine_s32(columns, columns)
    };
    // Each vector holds the sums of 2 rows and 2 columns, in row-major order.
    let mut sums = [std::array::from_fn::<_, { NR / 2 }, _>(start); PAIRS];
    for unit in (0..units).step_by(2) {
        let has_second = unit + 1 < units;
        // Words `at` to `at + 3` of two units of a panel, as pairs of rows of two words.
        let words = |panel: *const f32, width: usize, at: usize| {
            let first = panel.wrapping_add(unit * width + at).cast::<i32>();
            // SAFETY: the panels have `units` units of `MR` and `NR` words.
            let (first, second) = unsafe {
                let second = if has_second { vld1q_s32(first.add(width)) } else { vdupq_n_s32(0) };
                (vld1q_s32(first), second)
            };
            [vzip1q_s32(first, second), vzip2q_s32(first, second)]
        };
        let columns: [_; NR / 4] = std::array::from_fn(|quad| words(b, NR, 4 * quad));
        for i in 0..PAIRS {
            let rows = words(a, MR, i / 2 * 4)[i % 2];
            for j in 0..NR / 2 {
                sums[i][j] = mmla::<IS_BF16>(sums[i][j], rows, columns[j / 2][j % 2]);
            }
        }
    }
    let mut rows = [[0i32; NR]; R];
    for i in 0..PAIRS {
        for j in 0..NR / 2 {
            // SAFETY: each is two columns of a row.
            unsafe {
                vst1_s32(rows[2 * i].as_mut_ptr().add(2 * j), vget_low_s32(sums[i][j]));
                vst1_s32(rows[2 * i + 1].as_mut_ptr().add(2 * j), vget_high_s32(sums[i][j]));
            }
        }
    }
    // SAFETY: the contract is the same; these are the bits of f32 for bf16.
    unsafe {
        if IS_BF16 {
            write(&rows.map(|row| row.map(|bits| f32::from_bits(bits as u32))), to);
        } else {
            write_int8(&rows, to);
        }
    }
}

/// Writes sums, times the scales of their rows and columns.
///
/// # Safety
/// As for [`Multiply`].
#[inline(always)]
unsafe fn write_int8<const R: usize>(sums: &[[i32; NR]; R], to: TileStore<f32>) {
    // SAFETY: the terms and the destination are valid for the tile, by this function's contract.
    unsafe {
        let columns = to.int8.columns.cast::<[f32; NR]>().read();
        let mut rows = [[0.0; NR]; R];
        for i in 0..R.min(to.rows) {
            let scale = *to.int8.rows.add(i);
            for j in 0..NR {
                rows[i][j] = sums[i][j] as f32 * (scale * columns[j]);
            }
        }
        write(&rows, to);
    }
}

/// Adds the products of the four quads of `b` and quad `LANE` of `a`.
///
/// # Safety
/// The processor must have `dotprod`.
#[target_feature(enable = "neon,dotprod")]
#[inline]
fn sdot<const LANE: i32>(mut sums: int32x4_t, b: int8x16_t, a: int8x16_t) -> int32x4_t {
    // SAFETY: the instruction only uses these registers.
    unsafe {
        asm!("sdot {sums:v}.4s, {b:v}.16b, {a:v}.4b[{lane}]", sums = inout(vreg) sums, b = in(vreg) b, a = in(vreg) a,
            lane = const LANE, options(pure, nomem, nostack, preserves_flags));
    }
    sums
}

/// Adds the products of 2 rows of `a` and 2 rows of `b`, of 4 bf16 or 8 int8 each.
///
/// # Safety
/// The processor must have `bf16` or `i8mm`.
#[target_feature(enable = "neon,i8mm,bf16")]
#[inline]
fn mmla<const IS_BF16: bool>(mut sums: int32x4_t, a: int32x4_t, b: int32x4_t) -> int32x4_t {
    // SAFETY: the instructions only use these registers.
    unsafe {
        if IS_BF16 {
            asm!("bfmmla {sums:v}.4s, {a:v}.8h, {b:v}.8h", sums = inout(vreg) sums, a = in(vreg) a, b = in(vreg) b,
                options(pure, nomem, nostack, preserves_flags));
        } else {
            asm!("smmla {sums:v}.4s, {a:v}.16b, {b:v}.16b", sums = inout(vreg) sums, a = in(vreg) a, b = in(vreg) b,
                options(pure, nomem, nostack, preserves_flags));
        }
    }
    sums
}
