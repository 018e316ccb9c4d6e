//! The kernels in plain Rust. They run on every processor, and LLVM vectorises them: on aarch64 for NEON, elsewhere for the
//! instructions that the caller enables.

#![allow(
    clippy::multiple_unsafe_ops_per_block,
    reason = "the accesses of a loop over a tile or panel have one contract"
)]
#![allow(clippy::needless_range_loop, reason = "loops over a tile use its coordinates")]

use super::epilogue::{Finish, Tile};
use super::kernel::{Ahead, Kernel, Multiply, Pack, Packing, SUMS, TOGETHER, TileStore};
use super::operand::{Operand, Part};
use crate::cpu::real::Real;
use crate::cpu::simd::{BASELINE_IS_FUSED, prefetch};
use crate::dtype::DType;
use crate::precision::Precision;

/// Rows of a tile. On aarch64, the sums of a tile take 24 of the 32 registers of 4 words, elsewhere 8 of 16.
pub(super) const MR: usize = if cfg!(target_arch = "aarch64") { 8 } else { 4 };
/// Columns of a tile.
pub(super) const NR: usize = if cfg!(target_arch = "aarch64") { 12 } else { 8 };

static F32: Kernel<f32> = kernel(pack::<f32, MR, 0>, pack::<f32, NR, 0>);
static BF16: Kernel<f32> = Kernel {
    multiply_bf16: Some(multiply::<f32, MR, NR, BASELINE_IS_FUSED, true>),
    ..kernel(pack::<f32, MR, 16>, pack::<f32, NR, 16>)
};
static F16: Kernel<f32> = kernel(pack::<f32, MR, 13>, pack::<f32, NR, 13>);
static INT8: Kernel<f32> = Kernel {
    elements: 4,
    packing: Packing::Quantize { is_offset: false },
    multiply: multiply_int8::<MR, NR>,
    ..kernel(pack::<f32, MR, 0>, pack::<f32, NR, 0>)
};
pub(super) static F64: Kernel<f64> = kernel(pack::<f64, MR, 0>, pack::<f64, NR, 0>);

const fn kernel<T: Real>(a: Pack<T>, b: Pack<T>) -> Kernel<T> {
    Kernel {
        mr: MR,
        nr: NR,
        elements: 1,
        packing: Packing::Convert { a, b },
        multiply_bf16: None,
        streams: false,
        multiply: multiply::<T, MR, NR, BASELINE_IS_FUSED, false> as Multiply<T>,
        finish: finish::<T, NR>,
    }
}

/// Returns the kernel for products in `precision`.
pub(super) fn kernel_for(precision: Precision) -> &'static Kernel<f32> {
    match precision {
        Precision::F32 => &F32,
        Precision::Bf16 => &BF16,
        Precision::F16 => &F16,
        Precision::Int8 => &INT8,
    }
}

/// A [`Pack`] function for panels of `P` rows or columns, which clears the lowest `BITS` bits of f32.
///
/// # Safety
/// As for [`Pack`].
#[inline(always)]
pub(super) unsafe fn pack<T: Real, const P: usize, const BITS: u32>(part: Part<T>, to: *mut T, sums: *mut T) {
    let Part { operand, count, from, units } = part;
    debug_assert!(from + units <= operand.k);
    // SAFETY: both have the contract of this function.
    unsafe {
        if operand.outer == 1 {
            pack_across::<T, P, BITS>(part, to, sums);
        } else {
            for panel in 0..count.div_ceil(P) {
                let (start, to) = (panel * P, to.add(panel * units * P));
                pack_along::<T, P, BITS>(operand.from(start), P.min(count - start), from, 0..units, to);
            }
        }
    }
}

/// The prefetch distance in steps along k, for operands with contiguous rows (A) or columns (B).
const AHEAD: usize = 24;

/// Packs an operand with an `outer` stride of 1. The panels are packed side by side and use whole cache lines. Steps
/// along k that lie a power of two apart in memory share a set of the cache, so a line would be evicted before a second pass
/// reads the rest of it.
///
/// # Safety
/// As for [`Pack`].
#[inline(always)]
pub(super) unsafe fn pack_across<T: Real, const P: usize, const BITS: u32>(part: Part<T>, to: *mut T, sums: *mut T) {
    let Part { operand, count, from, units } = part;
    debug_assert!(count <= TOGETHER * P && (sums.is_null() || P <= SUMS));
    let mut totals = [[T::ZERO; P]; TOGETHER];
    for unit in 0..units {
        let row = operand.data.wrapping_add((from + unit) * operand.inner);
        prefetch::<1, _>(row.wrapping_add(AHEAD * operand.inner));
        prefetch::<1, _>(row.wrapping_add(AHEAD * operand.inner + count - 1));
        for (panel, total) in totals.iter_mut().enumerate().take(count.div_ceil(P)) {
            let width = P.min(count - panel * P);
            // SAFETY: these are `width` elements of step `from + unit` along k, and the words of this unit of this panel; both
            // are valid by this function's contract.
            unsafe {
                let (row, to) = (row.add(panel * P), to.add((panel * units + unit) * P).cast::<[T; P]>());
                let mut words = [T::ZERO; P];
                if width == P {
                    words = row.cast::<[T; P]>().read();
                } else {
                    for i in 0..width {
                        words[i] = *row.add(i);
                    }
                }
                if !sums.is_null() {
                    for i in 0..P {
                        total[i] += words[i];
                    }
                }
                for word in &mut words {
                    *word = rounded::<T, BITS>(*word);
                }
                to.write(words);
            }
        }
    }
    if !sums.is_null() {
        for (panel, total) in totals.iter().enumerate().take(count.div_ceil(P)) {
            for i in 0..P {
                // SAFETY: the panel has `SUMS` sums, at least `P`, by this function's contract.
                unsafe { *sums.add(panel * SUMS + i) += total[i] };
            }
        }
    }
}

/// Packs the given units of one panel of an operand with an `inner` stride of 1.
///
/// # Safety
/// As for [`Pack`]; `to` is where the first unit of the panel begins, and `count` is at most `P`.
#[inline(always)]
pub(super) unsafe fn pack_along<T: Real, const P: usize, const BITS: u32>(
    operand: Operand<T>,
    count: usize,
    from: usize,
    units: std::ops::Range<usize>,
    to: *mut T,
) {
    /// Steps along k that are transposed together.
    const STEPS: usize = 4;
    let mut first = units.start;
    while first < units.end {
        let steps = STEPS.min(units.end - first);
        let mut block = [[T::ZERO; STEPS]; P];
        for (i, row) in block.iter_mut().enumerate().take(count) {
            // SAFETY: these are steps of a row or column of the operand, valid by this function's contract.
            unsafe {
                let at = operand.data.add(i * operand.outer + from + first);
                if steps == STEPS {
                    *row = at.cast::<[T; STEPS]>().read();
                } else {
                    for l in 0..steps {
                        row[l] = *at.add(l);
                    }
                }
            }
        }
        for l in 0..STEPS {
            if l < steps {
                let mut words = [T::ZERO; P];
                for i in 0..P {
                    words[i] = rounded::<T, BITS>(block[i][l]);
                }
                // SAFETY: this is a unit of the panel, valid by this function's contract.
                unsafe { to.add((first + l) * P).cast::<[T; P]>().write(words) };
            }
        }
        first += steps;
    }
}

/// Clears the lowest `BITS` bits of an f32, rounding to the nearest, ties to even. NaN stays NaN.
#[inline(always)]
pub(super) fn rounded<T: Real, const BITS: u32>(x: T) -> T {
    if BITS == 0 || T::DTYPE != DType::F32 {
        return x;
    }
    let x: f32 = bytemuck::cast(x);
    let bits = x.to_bits();
    let rounded = bits.wrapping_add((1 << (BITS - 1)) - 1 + (bits >> BITS & 1));
    bytemuck::cast(if x.is_nan() { bits } else { rounded >> BITS << BITS })
}

/// A [`Multiply`] function for tiles of `M` rows and `N` columns. With `BF16`, the panel of B is bf16.
///
/// # Safety
/// As for [`Multiply`].
#[inline(always)]
pub(super) unsafe fn multiply<T: Real, const M: usize, const N: usize, const FUSED: bool, const BF16: bool>(
    units: usize,
    a: *const T,
    b: *const T,
    to: TileStore<T>,
) {
    // SAFETY: the contract is the same, and each call computes at least the rows of the tile.
    unsafe {
        match to.rows {
            1 => multiply_rows::<T, 1, M, N, FUSED, BF16>(units, a, b, to),
            2 => multiply_rows::<T, 2, M, N, FUSED, BF16>(units, a, b, to),
            3 | 4 => multiply_rows::<T, 4, M, N, FUSED, BF16>(units, a, b, to),
            _ => multiply_rows::<T, M, M, N, FUSED, BF16>(units, a, b, to),
        }
    }
}

/// Computes the first `R` rows of a tile, at least `to.rows` and at most `M`.
///
/// # Safety
/// As for [`Multiply`].
#[inline(always)]
unsafe fn multiply_rows<
    T: Real,
    const R: usize,
    const M: usize,
    const N: usize,
    const FUSED: bool,
    const BF16: bool,
>(
    units: usize,
    a: *const T,
    b: *const T,
    to: TileStore<T>,
) {
    debug_assert!(!to.stream);
    let (mut sums, mut ahead) = ([[T::ZERO; N]; R], to.ahead);
    let whole = units / Ahead::UNITS * Ahead::UNITS;
    for first in (0..whole).step_by(Ahead::UNITS) {
        for unit in first..first + Ahead::UNITS {
            // SAFETY: both panels have `units` units.
            unsafe { add_unit::<T, R, M, N, FUSED, BF16>(&mut sums, unit, a, b) };
        }
        ahead.next();
    }
    for unit in whole..units {
        // SAFETY: as above.
        unsafe { add_unit::<T, R, M, N, FUSED, BF16>(&mut sums, unit, a, b) };
    }
    // SAFETY: the destination is valid by this function's contract.
    unsafe { write(&sums, to) };
}

/// Adds the products of unit number `unit` of both panels.
///
/// # Safety
/// The panels must have this unit, of `M` and `N` words; with `BF16` those of B are halves.
#[inline(always)]
unsafe fn add_unit<T: Real, const R: usize, const M: usize, const N: usize, const FUSED: bool, const BF16: bool>(
    sums: &mut [[T; N]; R],
    unit: usize,
    a: *const T,
    b: *const T,
) {
    // SAFETY: this function's contract.
    let (a, b) = unsafe {
        let a = &*a.add(unit * M).cast::<[T; R]>();
        let b = match BF16 {
            true => widened(&*b.cast::<u16>().add(unit * N).cast::<[u16; N]>()),
            false => b.add(unit * N).cast::<[T; N]>().read(),
        };
        (a, b)
    };
    for i in 0..R {
        for j in 0..N {
            sums[i][j] = if FUSED { a[i].mul_add(b[j], sums[i][j]) } else { a[i] * b[j] + sums[i][j] };
        }
    }
}

/// Converts bf16 to f32, which `T` is.
#[inline(always)]
fn widened<T: Real, const N: usize>(halves: &[u16; N]) -> [T; N] {
    let mut words = [T::ZERO; N];
    for (word, &half) in words.iter_mut().zip(halves) {
        if T::DTYPE == DType::F32 {
            *word = bytemuck::cast(u32::from(half) << 16);
        }
    }
    words
}

/// Writes the rows of a tile.
///
/// # Safety
/// The destination must be valid as for [`Multiply`].
#[inline(always)]
pub(super) unsafe fn write<T: Real, const R: usize, const N: usize>(sums: &[[T; N]; R], to: TileStore<T>) {
    for i in 0..R {
        if i >= to.rows {
            continue;
        }
        // SAFETY: this is a row of the tile, of `cols` elements.
        unsafe {
            let row = to.c.add(i * to.stride);
            if to.cols == N {
                let row = &mut *row.cast::<[T; N]>();
                for j in 0..N {
                    row[j] = if to.accumulate { sums[i][j] + row[j] } else { sums[i][j] };
                }
            } else {
                for j in 0..to.cols {
                    *row.add(j) = if to.accumulate { sums[i][j] + *row.add(j) } else { sums[i][j] };
                }
            }
        }
    }
}

/// A [`Multiply`] function for int8 in quads, signed by signed.
///
/// # Safety
/// As for [`Multiply`].
unsafe fn multiply_int8<const M: usize, const N: usize>(
    units: usize,
    a: *const f32,
    b: *const f32,
    to: TileStore<f32>,
) {
    for i in 0..to.rows {
        // SAFETY: the panels have `units` units of `M` and `N` words, the terms are valid for the tile, and this is a row of
        // its destination.
        unsafe {
            let mut sums = to.int8.starts.cast::<[i32; N]>().read();
            for unit in 0..units {
                let a = &*a.add(unit * M + i).cast::<[i8; 4]>();
                let b = &*b.add(unit * N).cast::<[[i8; 4]; N]>();
                for j in 0..N {
                    for l in 0..4 {
                        sums[j] += i32::from(a[l]) * i32::from(b[j][l]);
                    }
                }
            }
            let scale = *to.int8.rows.add(i);
            let mut row = [0.0; N];
            for j in 0..N {
                row[j] = sums[j] as f32 * (scale * *to.int8.columns.add(j));
            }
            write(&[row], TileStore { c: to.c.add(i * to.stride), rows: 1, ..to });
        }
    }
}

/// A [`FinishTile`](super::kernel::FinishTile) function for tiles of `N` columns.
///
/// # Safety
/// As for [`Finish::tile`].
pub(super) unsafe fn finish<T: Real, const N: usize>(finish: Finish<T>, c: *mut T, stride: usize, tile: Tile) {
    // SAFETY: the contract is the same.
    unsafe { finish.tile::<N>(c, stride, tile) };
}
