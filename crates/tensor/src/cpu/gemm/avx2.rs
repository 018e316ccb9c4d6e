//! The kernels of AVX2 with FMA.
//!
//! A tile of 6 x 16 takes 12 of the 16 vector registers for sums; two more hold a unit of B and one a broadcast word of A.

#![allow(
    clippy::multiple_unsafe_ops_per_block,
    reason = "the accesses of a loop over a tile or panel have one contract"
)]
#![allow(clippy::needless_range_loop, reason = "loops over a tile use its coordinates")]

mod int8;
mod pack;
mod store;

use std::arch::x86_64::*;

use self::pack::pack;
use self::store::{NR, finish, prefetch_rows, write};
use super::kernel::{Ahead, Kernel, Multiply, Pack, Packing, TileStore};
use super::operand::Part;
use super::portable;
use crate::cpu::simd::{Level, level};
use crate::precision::Precision;

/// Rows of a tile.
const MR: usize = 6;

static F32: Kernel<f32> = kernel(pack::<MR, 0>, pack::<NR, 0>);
static BF16: Kernel<f32> = Kernel { multiply_bf16: Some(multiply::<true>), ..kernel(pack::<MR, 16>, pack::<NR, 16>) };
static F16: Kernel<f32> = kernel(pack::<MR, 13>, pack::<NR, 13>);

const fn kernel(a: Pack<f32>, b: Pack<f32>) -> Kernel<f32> {
    let packing = Packing::Convert { a, b };
    Kernel {
        mr: MR,
        nr: NR,
        elements: 1,
        packing,
        multiply_bf16: None,
        streams: true,
        multiply: multiply::<false>,
        finish: finish::<f32, NR>,
    }
}

/// The portable kernel with a tile of 6 x 8: gradients are checked in f64, and nothing else is.
pub(super) static F64: Kernel<f64> = Kernel {
    mr: 6,
    nr: 8,
    elements: 1,
    packing: Packing::Convert { a: pack_f64::<6>, b: pack_f64::<8> },
    multiply_bf16: None,
    streams: false,
    multiply: multiply_f64 as Multiply<f64>,
    finish: finish::<f64, 8>,
};

/// Returns the kernel for products in `precision`, on a processor with AVX2 and FMA.
pub(super) fn kernel_for(precision: Precision) -> &'static Kernel<f32> {
    match precision {
        Precision::F32 => &F32,
        Precision::Bf16 => &BF16,
        Precision::F16 => &F16,
        Precision::Int8 => int8::kernel_for(level() > Level::Avx2 && std::is_x86_feature_detected!("avxvnni")),
    }
}

/// Computes a tile of f32. With `BF16`, the panel of B is bf16.
///
/// # Safety
/// As for [`Multiply`].
#[target_feature(enable = "avx2,fma")]
unsafe fn multiply<const BF16: bool>(units: usize, a: *const f32, b: *const f32, to: TileStore<f32>) {
    // SAFETY: the contract is the same.
    unsafe {
        match to.rows {
            1 => multiply_rows::<1, BF16>(units, a, b, to),
            2 => multiply_rows::<2, BF16>(units, a, b, to),
            3 => multiply_rows::<3, BF16>(units, a, b, to),
            4 => multiply_rows::<4, BF16>(units, a, b, to),
            5 => multiply_rows::<5, BF16>(units, a, b, to),
            _ => multiply_rows::<MR, BF16>(units, a, b, to),
        }
    }
}

/// Computes a tile of `R` rows.
///
/// # Safety
/// As for [`Multiply`]; `to.rows` is `R`.
#[target_feature(enable = "avx2,fma")]
unsafe fn multiply_rows<const R: usize, const BF16: bool>(
    units: usize,
    mut a: *const f32,
    mut b: *const f32,
    to: TileStore<f32>,
) {
    /// Words of f32 that a unit of B takes.
    const fn width(is_bf16: bool) -> usize {
        if is_bf16 { NR / 2 } else { NR }
    }
    /// Units of one iteration: the counters and addresses of the loop take slots that multiply-adds need.
    const UNROLLED: usize = Ahead::UNITS;
    let mut ahead = to.ahead;
    prefetch_rows(&to);
    let mut sums = [[_mm256_setzero_ps(); 2]; R];
    // SAFETY: the panels have `units` units of `MR` and `NR` words, and the destination is valid by this function's contract.
    unsafe {
        for _ in 0..units / UNROLLED {
            for unit in 0..UNROLLED {
                add_unit::<R, BF16>(&mut sums, a.add(unit * MR), b.add(unit * width(BF16)));
            }
            a = a.add(UNROLLED * MR);
            b = b.add(UNROLLED * width(BF16));
            ahead.next();
        }
        for unit in 0..units % UNROLLED {
            add_unit::<R, BF16>(&mut sums, a.add(unit * MR), b.add(unit * width(BF16)));
        }
        write(&sums, &to);
    }
}

/// Adds the products of one unit of each panel.
///
/// # Safety
/// The units must be valid for reads of `R` and `NR` words.
#[target_feature(enable = "avx2,fma")]
#[inline]
unsafe fn add_unit<const R: usize, const BF16: bool>(sums: &mut [[__m256; 2]; R], a: *const f32, b: *const f32) {
    // SAFETY: this function's contract.
    unsafe {
        let (b0, b1) = if BF16 {
            let halves = |at: *const f32| _mm256_cvtepu16_epi32(_mm_loadu_si128(at.cast()));
            let widened = |at| _mm256_castsi256_ps(_mm256_slli_epi32::<16>(halves(at)));
            (widened(b), widened(b.add(4)))
        } else {
            (_mm256_loadu_ps(b), _mm256_loadu_ps(b.add(8)))
        };
        for i in 0..R {
            let a = _mm256_broadcast_ss(&*a.add(i));
            sums[i][0] = _mm256_fmadd_ps(a, b0, sums[i][0]);
            sums[i][1] = _mm256_fmadd_ps(a, b1, sums[i][1]);
        }
    }
}

/// Packs f64.
///
/// # Safety
/// As for [`Pack`].
#[target_feature(enable = "avx2,fma")]
unsafe fn pack_f64<const P: usize>(part: Part<f64>, to: *mut f64, sums: *mut f64) {
    // SAFETY: the contract is the same.
    unsafe { portable::pack::<f64, P, 0>(part, to, sums) };
}

/// Computes a tile of f64.
///
/// # Safety
/// As for [`Multiply`].
#[target_feature(enable = "avx2,fma")]
unsafe fn multiply_f64(units: usize, a: *const f64, b: *const f64, to: TileStore<f64>) {
    // SAFETY: the contract is the same.
    unsafe { portable::multiply::<f64, 6, 8, true, false>(units, a, b, to) };
}
