//! int8 for AVX2, which multiplies unsigned by signed bytes and adds the products in pairs of 16 bits.
//!
//! A pair cannot saturate, because weights are at most [`WEIGHT`](super::super::int8::WEIGHT) in magnitude, so the sums are
//! exact: 2 * 255 * 64 is below 2^15. On processors with AVX-VNNI one instruction replaces the three.

#![allow(clippy::needless_range_loop, reason = "loops over a tile use its coordinates")]

use std::arch::x86_64::*;

use super::super::kernel::{Kernel, Multiply, Packing, TileStore};
use super::store::{NR, finish, prefetch_rows, write};

/// Rows of a tile without VNNI: 8 sums, so that intermediate products have registers too.
const MR: usize = 4;
/// Rows of a tile with VNNI.
const MR_VNNI: usize = 6;

static PAIRS: Kernel<f32> = kernel(MR, multiply_pairs);
static VNNI: Kernel<f32> = kernel(MR_VNNI, multiply_vnni);

const fn kernel(mr: usize, multiply: Multiply<f32>) -> Kernel<f32> {
    let packing = Packing::Quantize { is_offset: true };
    Kernel {
        mr,
        nr: NR,
        elements: 4,
        packing,
        multiply_bf16: None,
        streams: false,
        multiply,
        finish: finish::<f32, NR>,
    }
}

/// Returns the kernel for int8 on a processor with AVX2 and FMA.
pub(super) fn kernel_for(has_vnni: bool) -> &'static Kernel<f32> {
    if has_vnni { &VNNI } else { &PAIRS }
}

/// Defines a [`Multiply`] function for int8 in quads. `$dot` adds the products of a broadcast word of A and a vector of B.
macro_rules! int8 {
    ($name:ident, $rows:ident, $mr:ident, $features:literal, $dot:expr) => {
        /// # Safety
        /// As for [`Multiply`].
        #[target_feature(enable = $features)]
        unsafe fn $name(units: usize, a: *const f32, b: *const f32, to: TileStore<f32>) {
            // SAFETY: the contract is the same.
            unsafe {
                match to.rows {
                    1 => $rows::<1>(units, a, b, to),
                    2 => $rows::<2>(units, a, b, to),
                    3 | 4 => $rows::<4>(units, a, b, to),
                    _ => $rows::<$mr>(units, a, b, to),
                }
            }
        }

        /// Computes the first `R` rows of a tile, at least `to.rows`.
        ///
        /// # Safety
        /// As for [`Multiply`].
        #[target_feature(enable = $features)]
        unsafe fn $rows<const R: usize>(units: usize, a: *const f32, b: *const f32, to: TileStore<f32>) {
            prefetch_rows(&to);
            // SAFETY: the panels have `units` units of `$mr` and `NR` words, and the terms are valid for the tile, by this
            // function's contract; a row that does not exist is not read.
            unsafe {
                let (mut a, mut b) = (a.cast::<i32>(), b.cast::<__m256i>());
                let starts = to.int8.starts.cast::<__m256i>();
                let mut sums = [[_mm256_loadu_si256(starts), _mm256_loadu_si256(starts.add(1))]; R];
                for _ in 0..units {
                    let (b0, b1) = (_mm256_loadu_si256(b), _mm256_loadu_si256(b.add(1)));
                    for i in 0..R {
                        let a = _mm256_set1_epi32(*a.add(i));
                        sums[i][0] = $dot(sums[i][0], a, b0);
                        sums[i][1] = $dot(sums[i][1], a, b1);
                    }
                    a = a.add($mr);
                    b = b.add(2);
                }
                let columns = [_mm256_loadu_ps(to.int8.columns), _mm256_loadu_ps(to.int8.columns.add(8))];
                let mut products = [[_mm256_setzero_ps(); 2]; R];
                for i in 0..R {
                    if i < to.rows {
                        let scale = _mm256_set1_ps(*to.int8.rows.add(i));
                        for half in 0..2 {
                            let sum = _mm256_cvtepi32_ps(sums[i][half]);
                            products[i][half] = _mm256_mul_ps(sum, _mm256_mul_ps(scale, columns[half]));
                        }
                    }
                }
                write(&products, &to);
            }
        }
    };
}

int8!(multiply_pairs, multiply_pairs_rows, MR, "avx2,fma", |sum, a, b| {
    _mm256_add_epi32(sum, _mm256_madd_epi16(_mm256_maddubs_epi16(a, b), _mm256_set1_epi16(1)))
});
int8!(multiply_vnni, multiply_vnni_rows, MR_VNNI, "avx2,fma,avxvnni", |sum, a, b| _mm256_dpbusd_avx_epi32(sum, a, b));
