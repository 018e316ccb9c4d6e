//! A matrix product as a value: its operands, and how it is to be computed.

use super::epilogue::Epilogue;
use super::packed::PackedMatrix;
use super::view::View;
use crate::cpu::real::Real;
use crate::cpu::target::Target;
use crate::precision::Precision;

/// The matrix product `C = A B`, with A `[m, k]`, B `[k, n]` and C `[m, n]`.
///
/// Built with [`Gemm::new`] and the methods below, computed with [`write_to`](Gemm::write_to) or
/// [`serial`](Gemm::serial).
pub(crate) struct Gemm<'a, T> {
    pub(super) a: View<'a, T>,
    pub(super) b: View<'a, T>,
    pub(super) packed: Option<&'a PackedMatrix>,
    pub(super) precision: Precision,
    pub(super) accumulate: bool,
    pub(super) is_for_later: bool,
    pub(super) epilogue: Epilogue<'a, T>,
    pub(super) row_sums: Option<Target<'a, T>>,
}

impl<'a, T: Real> Gemm<'a, T> {
    /// Describes the product `A B`.
    ///
    /// # Panics
    /// Panics if A does not have as many columns as B has rows.
    pub(crate) fn new(a: View<'a, T>, b: View<'a, T>) -> Self {
        assert_eq!(a.cols, b.rows, "sizes of a matrix product");
        Gemm {
            a,
            b,
            packed: None,
            precision: Precision::F32,
            accumulate: false,
            is_for_later: false,
            epilogue: Epilogue::None,
            row_sums: None,
        }
    }

    /// Gives B in packed form too, which saves packing it again.
    pub(crate) fn packed(self, packed: Option<&'a PackedMatrix>) -> Self {
        Gemm { packed, ..self }
    }

    /// Rounds the operands to `precision`, if they are f32. For int8 the rows of A and the columns of B must be
    /// contiguous.
    pub(crate) fn precision(self, precision: Precision) -> Self {
        Gemm { precision, ..self }
    }

    /// Computes `C += A B` if `accumulate` is true.
    pub(crate) fn accumulate(self, accumulate: bool) -> Self {
        Gemm { accumulate, ..self }
    }

    /// Declares that C is not read soon, so that it may bypass the caches: the gradients of weights.
    pub(crate) fn for_later(self) -> Self {
        Gemm { is_for_later: true, ..self }
    }

    /// Applies `epilogue` to each element of C once its sum is complete.
    pub(crate) fn epilogue(self, epilogue: Epilogue<'a, T>) -> Self {
        Gemm { epilogue, ..self }
    }

    /// Also writes the sums of the rows of A, before any rounding: `[m]`. If A is the transpose of the gradient of a
    /// layer's output, these are the gradient of its bias, at the cost of no further pass over A. A must be column-major.
    pub(crate) fn row_sums(self, sums: Option<Target<'a, T>>) -> Self {
        Gemm { row_sums: sums, ..self }
    }

    /// The same product with elements of type `U`, for an engine that computes in one type only.
    ///
    /// # Panics
    /// Panics if `U` is not the type `T`.
    #[inline]
    pub(super) fn cast<U: Real>(self) -> Gemm<'a, U> {
        assert_eq!(T::DTYPE, U::DTYPE, "a product is cast to its own type");
        Gemm {
            a: self.a.cast(),
            b: self.b.cast(),
            packed: self.packed,
            precision: self.precision,
            accumulate: self.accumulate,
            is_for_later: self.is_for_later,
            epilogue: self.epilogue.cast(),
            row_sums: self.row_sums.map(Target::cast),
        }
    }
}
