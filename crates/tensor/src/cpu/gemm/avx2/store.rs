//! Writing tiles with AVX2, and their epilogues.

#![allow(clippy::needless_range_loop, reason = "loops over a tile use its coordinates")]

use std::arch::x86_64::*;

use super::super::epilogue::{Finish, Tile};
use super::super::kernel::TileStore;
use crate::cpu::real::Real;
use crate::cpu::simd::prefetch;

/// Columns of a tile.
pub(super) const NR: usize = 16;

/// Prefetches the rows of C that a tile is about to write.
#[inline(always)]
pub(super) fn prefetch_rows(to: &TileStore<f32>) {
    if !to.stream {
        for i in 0..to.rows {
            let row = to.c.wrapping_add(i * to.stride);
            prefetch::<1, _>(row);
            prefetch::<1, _>(row.wrapping_add(NR - 1));
        }
    }
}

/// Writes the rows of a tile.
///
/// # Safety
/// The destination must be valid as for [`Multiply`](super::super::kernel::Multiply).
#[target_feature(enable = "avx2,fma")]
#[inline]
pub(super) unsafe fn write<const R: usize>(sums: &[[__m256; 2]; R], to: &TileStore<f32>) {
    debug_assert!(to.rows <= R);
    let is_whole = to.cols == NR;
    let lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    let masks = [0, 8].map(|from| _mm256_cmpgt_epi32(_mm256_set1_epi32(to.cols as i32 - from), lanes));
    for i in 0..R {
        if i >= to.rows {
            break;
        }
        for half in 0..2 {
            let sum = sums[i][half];
            // SAFETY: this is half a row of the tile, valid by this function's contract; the masks keep accesses within its
            // columns.
            unsafe {
                let c = to.c.wrapping_add(i * to.stride + 8 * half);
                if to.stream {
                    _mm256_stream_ps(c, sum);
                } else if is_whole {
                    let sum = if to.accumulate { _mm256_add_ps(sum, _mm256_loadu_ps(c)) } else { sum };
                    _mm256_storeu_ps(c, sum);
                } else {
                    let before = if to.accumulate { _mm256_maskload_ps(c, masks[half]) } else { _mm256_setzero_ps() };
                    let sum = if to.accumulate { _mm256_add_ps(sum, before) } else { sum };
                    _mm256_maskstore_ps(c, masks[half], sum);
                }
            }
        }
    }
}

/// [`Finish::tile`] for AVX2.
///
/// # Safety
/// As for [`FinishTile`](super::super::kernel::FinishTile).
#[target_feature(enable = "avx2,fma")]
pub(super) unsafe fn finish<T: Real, const N: usize>(finish: Finish<T>, c: *mut T, stride: usize, tile: Tile) {
    // SAFETY: this function's contract includes that of `tile`.
    unsafe { finish.tile::<N>(c, stride, tile) };
}
