//! Matrix products.
//!
//! There are three engines. On x86-64 with AVX-512 the [`driver`] computes the f32 products whose operands have a unit
//! stride: it reads each operand once, rounds it to a smaller type on the way if that is asked for, and applies the
//! [`Epilogue`] to each element of the result while it is in the first-level cache. Everything else goes to the crate
//! `gemm` ([`portable`]), with the epilogue as a separate pass. The third is a
//! loop for the small products of attention on processors that the driver does not run on ([`small`]).
//!
//! All of them give the same bits for any number of threads. The tests hold them to that, and the version of the crate is
//! pinned exactly.

#[cfg(target_arch = "x86_64")]
mod blocks;
#[cfg(target_arch = "x86_64")]
mod driver;
mod epilogue;
#[cfg(target_arch = "x86_64")]
mod format;
mod int8;
#[cfg(target_arch = "x86_64")]
mod kernels;
#[cfg(target_arch = "x86_64")]
mod pack;
#[cfg(target_arch = "x86_64")]
mod pack_int8;
#[cfg_attr(not(target_arch = "x86_64"), path = "gemm/unpacked.rs")]
mod packed;
mod portable;
mod product;
mod small;
#[cfg(test)]
mod tests;
mod view;

use super::real::Real;
use crate::precision::Precision;
pub(crate) use epilogue::Epilogue;
pub(crate) use packed::PackedMatrix;
pub(crate) use product::Gemm;
pub(crate) use view::{View, ViewMut};

/// Working memory for [`Gemm::serial`], kept from one product to the next.
#[derive(Default)]
pub(crate) struct Workspace<T> {
    small: Vec<T>,
    #[cfg(target_arch = "x86_64")]
    driver: driver::PackingSpace,
}

impl<T: Real> Gemm<'_, T> {
    /// Computes the product. Without [`accumulate`](Gemm::accumulate), `c` is overwritten without being read.
    ///
    /// # Panics
    /// Panics if the sizes of C, the epilogue or the row sums do not fit the product.
    pub(crate) fn write_to(self, c: ViewMut<'_, T>) {
        assert!(self.a.rows == c.rows && self.b.cols == c.cols, "sizes of a matrix product");
        self.epilogue.check(&c);
        let (rows, is_column_major) = (self.a.rows, self.a.row_stride == 1);
        assert!(self.row_sums.as_ref().is_none_or(|sums| sums.data.len() == rows && is_column_major));
        if rows == 0 || c.cols == 0 {
            if let Some(sums) = self.row_sums {
                portable::sum_rows(self.a, sums);
            }
            return;
        }
        #[cfg(target_arch = "x86_64")]
        if driver::takes(&self, &c) {
            return driver::run(self.cast(), c.cast());
        }
        portable::run(self, c);
    }

    /// Computes the product on the calling thread and writes it to `c`, whose rows are `stride` elements apart: for the
    /// many small products of one task. Only the precision and `accumulate` are taken into account.
    ///
    /// # Safety
    /// The elements of C must be valid for writes, and for reads if the product accumulates. Nothing else may access them
    /// during the call.
    #[inline]
    pub(crate) unsafe fn serial(self, c: *mut T, stride: usize, space: &mut Workspace<T>) {
        if self.a.rows == 0 || self.b.cols == 0 {
            return;
        }
        #[cfg(target_arch = "x86_64")]
        if driver::multiplies(&self) {
            // SAFETY: C is valid by this function's contract; T is f32, as `multiplies` checked.
            return unsafe { driver::run_serially(self.cast(), c.cast(), stride, &mut space.driver) };
        }
        let (a, b) = (self.a, self.b);
        if matches!(self.precision, Precision::Bf16 | Precision::F16) {
            let (mut a_data, mut b_data) = (portable::rounded(a, self.precision), portable::rounded(b, self.precision));
            let (a, b) = (View { data: a_data.slice_mut(), ..a }, View { data: b_data.slice_mut(), ..b });
            return small::multiply(a, b, c, stride, self.accumulate, &mut space.small);
        }
        small::multiply(a, b, c, stride, self.accumulate, &mut space.small);
    }
}
