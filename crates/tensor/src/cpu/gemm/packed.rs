//! The packed form of B: made once for weights that do not change.

use super::blocks::blocks;
use super::kernel::{Kernel, Packing};
use super::operand::Operand;
use super::pack_int8::pack_weights;
use super::view::View;
use crate::cpu::parallel::for_tasks;
use crate::memory::Scratch;
use crate::precision::Precision;

/// The transpose of a row-major matrix `[n, k]` in panels: for each block of k, one panel after the other.
pub(crate) struct PackedMatrix {
    kernel: &'static Kernel<f32>,
    pub(super) n: usize,
    pub(super) k: usize,
    panels: Scratch,
    /// The scale of each column, for int8.
    pub(super) scales: Vec<f32>,
    /// The initial sums of each column of each block and panel, for int8: see [`super::pack_int8`].
    starts: Vec<i32>,
}

impl PackedMatrix {
    /// Packs `matrix` for products in `precision`. Returns `None` if it is empty.
    pub(crate) fn new(matrix: &[f32], n: usize, k: usize, precision: Precision) -> Option<PackedMatrix> {
        assert_eq!(matrix.len(), n * k);
        (n * k > 0).then(|| PackedMatrix::by(Kernel::of(precision), matrix, n, k))
    }

    /// Packs a matrix with elements for `kernel`.
    pub(super) fn by(kernel: &'static Kernel<f32>, matrix: &[f32], n: usize, k: usize) -> PackedMatrix {
        let (units, panels) = (k.div_ceil(kernel.elements), n.div_ceil(kernel.nr));
        let mut packed = PackedMatrix {
            kernel,
            n,
            k,
            panels: Scratch::new(panels * kernel.nr * units * 4),
            scales: Vec::new(),
            starts: Vec::new(),
        };
        let pack = match kernel.packing {
            Packing::Convert { b, .. } => b,
            Packing::Quantize { is_offset } => {
                let panel = |panel, from, units| packed.panel(panel, from, units).cast();
                (packed.scales, packed.starts) = pack_weights(matrix, n, k, (kernel.nr, is_offset), panel);
                return packed;
            }
        };
        let operand = Operand::rows(View::rows(matrix, n, k));
        for_tasks(
            panels,
            n * k,
            || (),
            |(), panel| {
                let (start, count) = (panel * kernel.nr, kernel.nr.min(n - panel * kernel.nr));
                for (from, units) in blocks(units) {
                    let to = packed.panel(panel, from, units);
                    // SAFETY: these are rows of `matrix`, whose length was asserted; no other task has this panel; the
                    // processor has the instructions of the kernel that `Kernel::of` chose.
                    unsafe { pack(operand.from(start), count, from, units, to, std::ptr::null_mut()) };
                }
            },
        );
        packed
    }

    /// Whether products in `precision` can use this form.
    pub(crate) fn is_in(&self, precision: Precision) -> bool {
        self.is_for(Kernel::of(precision))
    }

    /// Whether the panels are those of `kernel`.
    pub(super) fn is_for<T>(&self, kernel: &'static Kernel<T>) -> bool {
        std::ptr::addr_eq(self.kernel, kernel)
    }

    /// The start of a panel in the block of k that begins at unit `from` and has `units` units.
    pub(super) fn panel(&self, panel: usize, from: usize, units: usize) -> *mut f32 {
        let nr = self.kernel.nr;
        self.panels.pointer().cast::<f32>().as_ptr().wrapping_add((from * self.n.div_ceil(nr) + panel * units) * nr)
    }

    /// The initial sums of a tile of int8 in block number `block` of k.
    pub(super) fn start(&self, block: usize, panel: usize) -> *const i32 {
        let nr = self.kernel.nr;
        self.starts[(block * self.n.div_ceil(nr) + panel) * nr..][..nr].as_ptr()
    }
}
