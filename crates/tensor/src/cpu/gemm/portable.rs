//! Products by the crate `gemm`, for every processor, type and layout.
//!
//! It computes f32 and f64, so operands are rounded beforehand if a smaller precision is asked for, and the epilogue and
//! the row sums are separate passes.

use std::ops::Range;

use super::epilogue::{self, Epilogue};
use super::int8;
use super::product::Gemm;
use super::view::{View, ViewMut, extent};
use crate::cpu::column_sums::column_sums;
use crate::cpu::real::Real;
use crate::cpu::target::Target;
use crate::dtype::DType;
use crate::memory::Scratch;
use crate::precision::Precision;

/// Computes a product that has elements.
pub(super) fn run<T: Real>(gemm: Gemm<'_, T>, c: ViewMut<'_, T>) {
    let Gemm { a, b, precision, accumulate, epilogue, row_sums, .. } = gemm;
    match precision {
        Precision::Bf16 | Precision::F16 if T::DTYPE == DType::F32 => {
            let (mut a_data, mut b_data) = (rounded(a, precision), rounded(b, precision));
            let (a, b) = (View { data: a_data.slice_mut(), ..a }, View { data: b_data.slice_mut(), ..b });
            multiply(a, b, accumulate, c, epilogue);
        }
        Precision::Int8 if T::DTYPE == DType::F32 => {
            assert!(a.col_stride == 1 && b.row_stride == 1, "the rows of A and the columns of B are contiguous");
            let a_data = int8::rounded(a.cast::<f32>().data, a.rows, a.cols, a.row_stride);
            let b_data = int8::rounded(b.cast::<f32>().data, b.cols, b.rows, b.col_stride);
            let a = View::rows(&a_data, a.rows, a.cols).cast();
            let b = View::rows(&b_data, b.cols, b.rows).transposed().cast();
            multiply(a, b, accumulate, c, epilogue);
        }
        _ => multiply(a, b, accumulate, c, epilogue),
    }
    if let Some(sums) = row_sums {
        sum_rows(a, sums);
    }
}

/// Writes the sums of the rows of a column-major matrix.
pub(super) fn sum_rows<T: Real>(a: View<'_, T>, sums: Target<'_, T>) {
    column_sums(a.data, a.cols, a.col_stride, sums);
}

/// Copies the elements that a matrix reaches over; if they are f32, rounds them to `precision`, bf16 or f16.
pub(super) fn rounded<T: Real>(matrix: View<'_, T>, precision: Precision) -> Scratch {
    let View { data, rows, cols, row_stride, col_stride } = matrix;
    let from = &data[..extent(rows, cols, row_stride, col_stride)];
    let mut memory = Scratch::new(size_of_val(from));
    if T::DTYPE == DType::F32 {
        let pairs = memory.slice_mut::<f32>().iter_mut().zip(bytemuck::cast_slice::<T, f32>(from));
        match precision {
            Precision::F16 => pairs.for_each(|(to, &x)| *to = round::<13>(x)),
            _ => pairs.for_each(|(to, &x)| *to = round::<16>(x)),
        }
    } else {
        memory.slice_mut::<T>().copy_from_slice(from);
    }
    memory
}

/// Clears the lowest `BITS` bits of `x`, rounding to the nearest, ties to even. NaN stays NaN.
fn round<const BITS: u32>(x: f32) -> f32 {
    let bits = x.to_bits();
    let rounded = bits.wrapping_add((1 << (BITS - 1)) - 1 + (bits >> BITS & 1));
    f32::from_bits(if x.is_nan() { bits } else { rounded >> BITS << BITS })
}

/// Most bytes of an operand that the crate packs in one call.
///
/// The crate packs one operand, up to [`BLOCK_K`] of k at a time but of the other dimension the whole, into memory that it
/// allocates at each call and frees again. A system allocator keeps small blocks, but maps large ones afresh each time: the
/// gradient of a table of 30,522 embeddings then costs thousands of page faults. So a long operand is multiplied in parts.
const PACKED: usize = 4 << 20;
/// The longest block of k that the crate packs.
const BLOCK_K: usize = 1024;

/// The parts that a dimension of `length` is cut into, for products of inner dimension `k`.
///
/// The crate sums the elements of a part as it sums those of the whole: it chooses its blocks of k by k alone. Only for
/// products of very few rows or columns does it take another path, so no part is short.
fn parts(length: usize, k: usize, element: usize) -> impl Iterator<Item = Range<usize>> {
    let count = length.div_ceil(PACKED / (k.clamp(1, BLOCK_K) * element)).max(1);
    // All parts but the last are multiples of the crate's tile sizes.
    let bound = move |part| if part == count { length } else { length * part / count / 24 * 24 };
    (0..count).map(move |part| bound(part)..bound(part + 1))
}

/// Computes a product and applies its epilogue.
fn multiply<T: Real>(
    a: View<'_, T>,
    b: View<'_, T>,
    accumulate: bool,
    mut c: ViewMut<'_, T>,
    epilogue: Epilogue<'_, T>,
) {
    // The crate packs A if C is row-major, B if it is column-major.
    let by_rows = c.col_stride < c.row_stride;
    let length = if by_rows { c.rows } else { c.cols };
    for range in parts(length, a.cols, size_of::<T>()) {
        if by_rows {
            by_crate(a.row_range(range.clone()), b, accumulate, c.row_range(range));
        } else {
            by_crate(a, b.col_range(range.clone()), accumulate, c.col_range(range));
        }
    }
    epilogue::apply(epilogue, c);
}

/// Computes `C (+)= A B` with the crate `gemm`.
pub(super) fn by_crate<T: Real>(a: View<'_, T>, b: View<'_, T>, accumulate: bool, c: ViewMut<'_, T>) {
    let parallelism = match rayon::current_num_threads() {
        1 => gemm::Parallelism::None,
        threads => gemm::Parallelism::Rayon(threads),
    };
    // The crate computes C = scale C + factor A B.
    let scale = if accumulate { T::ONE } else { T::ZERO };
    // SAFETY: `View::new` and `ViewMut::new` checked that the elements are within their slices and that no two elements
    // of C coincide; C is borrowed mutably, so it overlaps neither A nor B. T is f32 or f64, which the crate accepts.
    unsafe {
        gemm::gemm(
            c.rows,
            c.cols,
            a.cols,
            c.data.as_mut_ptr(),
            c.col_stride as isize,
            c.row_stride as isize,
            accumulate,
            a.data.as_ptr(),
            a.col_stride as isize,
            a.row_stride as isize,
            b.data.as_ptr(),
            b.col_stride as isize,
            b.row_stride as isize,
            scale,
            T::ONE,
            false,
            false,
            false,
            parallelism,
        );
    }
}
