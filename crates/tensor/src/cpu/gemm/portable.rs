//! Products by the crate `gemm`, for every processor, type and layout.
//!
//! Its kernels are called directly: the crate in front of them would also compile those for complex numbers. They
//! compute f32 and f64, so operands are rounded beforehand if a smaller precision is asked for, and the epilogue and
//! the row sums are separate passes.

use std::ops::Range;

use gemm_common::Parallelism;

use super::epilogue::{self, Epilogue};
use super::int8;
use super::product::Gemm;
use super::view::{View, ViewMut, extent};
use crate::cpu::column_sums::column_sums;
use crate::cpu::parallel::{RowsMut, for_rows};
use crate::cpu::real::Real;
use crate::cpu::simd::simd;
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

/// The most bytes of A that are made contiguous along k at a time.
const CONTIGUOUS: usize = 4 << 20;
/// The widest part of C, in bytes of a row, for which the crate multiplies an A that is contiguous along k without packing
/// it: 128 tiles of two AVX2 registers.
const UNPACKED: usize = 128 * 64;
/// Both dimensions of C are above this in products that are cut into parts. The crate computes smaller ones on other paths,
/// which may differ in the last bits.
const SMALL: usize = 64;

/// Computes a product and applies its epilogue.
///
/// The crate packs A, if C is row-major, into memory that it allocates at each call and frees again. An allocator maps large
/// blocks afresh each time: the gradient of a table of 30,522 embeddings then costs thousands of page faults. The crate does
/// not pack an A that is contiguous along k if C is not too wide. So large products are cut into such parts, with a copy of A
/// in memory of the pool if it is not contiguous. The crate reads the same numbers and adds them in the same order, because
/// it chooses its blocks of k by k alone.
fn multiply<T: Real>(
    a: View<'_, T>,
    b: View<'_, T>,
    accumulate: bool,
    mut c: ViewMut<'_, T>,
    epilogue: Epilogue<'_, T>,
) {
    let is_cut = c.col_stride < c.row_stride && c.rows > SMALL && c.cols > SMALL;
    // On other processors the crate packs in any case.
    if !is_cut || !cfg!(target_arch = "x86_64") {
        by_crate(a, b, accumulate, c.reborrow());
    } else if a.col_stride == 1 {
        by_columns(a, b, accumulate, c.reborrow());
    } else {
        // An odd number of cache lines from row to row, so that rows do not compete for the same sets of the caches.
        let line = 64 / size_of::<T>();
        let stride = (a.cols.div_ceil(line) | 1) * line;
        let most = (CONTIGUOUS / (stride * size_of::<T>())).max(2 * SMALL);
        let mut memory = Scratch::new(most.min(a.rows) * stride * size_of::<T>());
        for rows in parts(a.rows, most) {
            let copy = &mut memory.slice_mut::<T>()[..rows.len() * stride];
            contiguous(a.row_range(rows.clone()), copy, stride);
            let a = View::new(copy, rows.len(), a.cols, stride, 1);
            by_columns(a, b, accumulate, c.row_range(rows));
        }
    }
    epilogue::apply(epilogue, c);
}

/// Computes `C (+)= A B` in parts of columns that are narrow enough for the crate not to pack A.
fn by_columns<T: Real>(a: View<'_, T>, b: View<'_, T>, accumulate: bool, mut c: ViewMut<'_, T>) {
    for columns in parts(c.cols, UNPACKED / size_of::<T>()) {
        by_crate(a, b.col_range(columns.clone()), accumulate, c.col_range(columns));
    }
}

/// Cuts a dimension of `length` into parts of nearly equal size, at most `most`. Parts start at multiples of the crate's tiles.
fn parts(length: usize, most: usize) -> impl Iterator<Item = Range<usize>> {
    const TILE: usize = 16;
    // Rounding the bounds makes a part longer by up to `TILE - 1`.
    let count = if length <= most { 1 } else { length.div_ceil(most - (TILE - 1)) };
    let bound = move |part| if part == count { length } else { length * part / count / TILE * TILE };
    (0..count).map(move |part| bound(part)..bound(part + 1))
}

/// Copies a matrix to rows that are contiguous and `stride` elements apart.
fn contiguous<T: Real>(matrix: View<'_, T>, to: &mut [T], stride: usize) {
    for_rows(matrix.rows, matrix.cols, RowsMut::new(to, stride), |rows, to| {
        copy_rows(matrix.row_range(rows), to.data, stride);
    });
}

/// Rows and columns that are copied together: 16 reads of a cache line, 16 writes of another.
const BLOCK: usize = 16;

simd! {
    fn copy_rows<T: Real>(from: View<'_, T>, to: &mut [T], stride: usize) {
        let View { data, rows, cols, row_stride, col_stride } = from;
        for row in (0..rows).step_by(BLOCK) {
            for col in (0..cols).step_by(BLOCK) {
                let (height, width) = (BLOCK.min(rows - row), BLOCK.min(cols - col));
                if row_stride == 1 && height == BLOCK {
                    let mut block = [[T::ZERO; BLOCK]; BLOCK];
                    for (j, column) in block.iter_mut().enumerate().take(width) {
                        column.copy_from_slice(&data[row + (col + j) * col_stride..][..BLOCK]);
                    }
                    for i in 0..BLOCK {
                        let to = &mut to[(row + i) * stride + col..][..width];
                        for (to, column) in to.iter_mut().zip(&block) {
                            *to = column[i];
                        }
                    }
                } else {
                    for i in row..row + height {
                        for j in col..col + width {
                            to[i * stride + j] = data[i * row_stride + j * col_stride];
                        }
                    }
                }
            }
        }
    }
}

/// Computes `C (+)= A B` with the kernels of the crate `gemm`.
pub(super) fn by_crate<T: Real>(a: View<'_, T>, b: View<'_, T>, accumulate: bool, c: ViewMut<'_, T>) {
    if T::DTYPE == DType::F32 {
        let kernel = gemm_f32::gemm::f32::get_gemm_fn();
        by_kernel::<f32>(kernel, a.cast(), b.cast(), accumulate, c.cast());
    } else {
        let kernel = gemm_f64::gemm::f64::get_gemm_fn();
        by_kernel::<f64>(kernel, a.cast(), b.cast(), accumulate, c.cast());
    }
}

/// A kernel of the crate: `C = scale C + factor A B`, with the strides of columns before those of rows. The flags
/// conjugate complex numbers.
type Kernel<T> = unsafe fn(
    usize,
    usize,
    usize,
    *mut T,
    isize,
    isize,
    bool,
    *const T,
    isize,
    isize,
    *const T,
    isize,
    isize,
    T,
    T,
    bool,
    bool,
    bool,
    Parallelism,
);

fn by_kernel<T: Real>(kernel: Kernel<T>, a: View<'_, T>, b: View<'_, T>, accumulate: bool, c: ViewMut<'_, T>) {
    let parallelism = match rayon::current_num_threads() {
        1 => Parallelism::None,
        threads => Parallelism::Rayon(threads),
    };
    // The kernels write columns of C. If its rows are contiguous, its transpose is computed: C' = B' A'.
    let (a, b, c) =
        if c.col_stride < c.row_stride { (b.transposed(), a.transposed(), c.transposed()) } else { (a, b, c) };
    let scale = if accumulate { T::ONE } else { T::ZERO };
    // SAFETY: `View::new` and `ViewMut::new` checked that the elements are within their slices and that no two elements
    // of C coincide; C is borrowed mutably, so it overlaps neither A nor B.
    unsafe {
        kernel(
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
