//! An operand of a product as the packing functions read it.

use super::view::View;

/// A strided operand. The element (i, l), for row i of A or column i of B and l along k, is at `i * outer + l * inner`; at
/// least one of the strides is 1.
#[derive(Clone, Copy)]
pub(super) struct Operand<T> {
    pub(super) data: *const T,
    pub(super) outer: usize,
    pub(super) inner: usize,
    /// Length along k.
    pub(super) k: usize,
}

/// The part of an operand that one call packs: its first `count` rows (of A) or columns (of B), and of each the units `from` to
/// `from + units` along k.
#[derive(Clone, Copy)]
pub(super) struct Part<T> {
    pub(super) operand: Operand<T>,
    pub(super) count: usize,
    pub(super) from: usize,
    pub(super) units: usize,
}

// SAFETY: the data is only read, and the driver borrows the slice that it points into for as long as it uses the operand.
unsafe impl<T: Sync> Send for Operand<T> {}
// SAFETY: as above.
unsafe impl<T: Sync> Sync for Operand<T> {}

impl<T> Operand<T> {
    /// The operand A, whose rows are packed.
    pub(super) fn rows(a: View<'_, T>) -> Operand<T> {
        Operand { data: a.data.as_ptr(), outer: a.row_stride, inner: a.col_stride, k: a.cols }
    }

    /// The operand B, whose columns are packed.
    pub(super) fn columns(b: View<'_, T>) -> Operand<T> {
        Operand::rows(b.transposed())
    }

    /// The operand from its row or column `start` on.
    pub(super) fn from(self, start: usize) -> Operand<T> {
        Operand { data: self.data.wrapping_add(start * self.outer), ..self }
    }
}
