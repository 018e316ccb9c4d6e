//! Matrix products.
//!
//! One [`driver`] computes all of them: it reads each operand once, rounds it to a smaller type on the way if that is asked
//! for, and applies the [`Epilogue`] to each element of the result while it is in the first-level cache. A [`kernel`] gives
//! it the instructions of the processor: `avx512`, `avx2`, `neon`, or plain Rust ([`portable`]), which is also f32 for NEON.
//!
//! A product has the same bits for any number of threads.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod blocks;
mod choice;
mod driver;
mod epilogue;
mod int8;
mod kernel;
#[cfg(target_arch = "aarch64")]
mod neon;
mod operand;
mod pack_int8;
mod packed;
mod portable;
mod product;
#[cfg(test)]
mod tests;
mod view;

use self::kernel::Kernel;
use super::column_sums::column_sums;
use super::real::Real;
use crate::dtype::DType;
use crate::precision::Precision;
pub(crate) use driver::PackingSpace;
pub(crate) use epilogue::Epilogue;
pub(crate) use packed::PackedMatrix;
pub(crate) use product::Gemm;
pub(crate) use view::{View, ViewMut};

impl<T: Real> Gemm<'_, T> {
    /// Computes the product. Without [`accumulate`](Gemm::accumulate), `c` is overwritten without being read.
    ///
    /// # Panics
    /// Panics if the sizes of C, the epilogue or the row sums do not fit the product. Panics in
    /// [`Precision::Int8`] if the rows of A have gaps between their elements, or the columns of B anywhere.
    pub(crate) fn write_to(self, c: ViewMut<'_, T>) {
        assert!(self.a.rows == c.rows && self.b.cols == c.cols, "sizes of a matrix product");
        self.epilogue.check(&c);
        let (rows, is_column_major) = (self.a.rows, self.a.row_stride == 1);
        assert!(self.row_sums.as_ref().is_none_or(|sums| sums.data.len() == rows && is_column_major));
        if rows == 0 || c.cols == 0 {
            if let Some(sums) = self.row_sums {
                column_sums(self.a.data, self.a.cols, self.a.col_stride, sums);
            }
            return;
        }
        if T::DTYPE != DType::F32 {
            return with_units(self.cast::<f64>(), |gemm| driver::run(gemm, c.cast(), Kernel::of_f64()));
        }
        if self.precision == Precision::Int8 {
            let (a, b) = (&self.a, &self.b);
            assert!(
                a.col_stride == 1 && b.row_stride == 1 && b.col_stride == b.rows,
                "operands of int8 are contiguous"
            );
        }
        // An empty sum needs no rounding.
        let kernel = Kernel::of(if self.a.cols == 0 { Precision::F32 } else { self.precision });
        with_units(self.cast::<f32>(), |gemm| driver::run(gemm, c.cast(), kernel));
    }

    /// Computes the product on the calling thread and writes it to `c`, whose rows are `stride` elements apart: for the
    /// many small products of one task. Only the precision, not int8, and `accumulate` are taken into account. The rows or the
    /// columns of each operand must be contiguous.
    ///
    /// # Safety
    /// The elements of C must be valid for writes, and for reads if the product accumulates. Nothing else may access them
    /// during the call.
    #[inline]
    pub(crate) unsafe fn serial(self, c: *mut T, stride: usize, space: &mut PackingSpace) {
        if self.a.rows == 0 || self.b.cols == 0 {
            return;
        }
        if T::DTYPE == DType::F32 {
            let kernel = Kernel::of(self.precision);
            // SAFETY: C is valid by this function's contract, and is cast to its own type.
            unsafe { driver::run_serially(self.cast(), c.cast(), stride, kernel, space) };
        } else {
            // SAFETY: as above.
            unsafe { driver::run_serially(self.cast(), c.cast(), stride, Kernel::of_f64(), space) };
        }
    }
}

/// Calls `f` with a product whose operands have a unit stride, as packing requires.
fn with_units<T: Real>(gemm: Gemm<'_, T>, f: impl FnOnce(Gemm<'_, T>)) {
    let (mut a, mut b) = (Vec::new(), Vec::new());
    f(Gemm { a: gemm.a.with_unit(&mut a), b: gemm.b.with_unit(&mut b), ..gemm });
}
