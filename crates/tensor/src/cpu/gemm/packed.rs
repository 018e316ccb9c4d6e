//! The packed form of B: made once for weights that do not change.

use super::blocks::blocks;
use super::format::Format;
use super::kernels::NR;
use super::pack::Operand;
use super::pack_int8::pack_weights;
use crate::cpu::parallel::for_tasks;
use crate::cpu::simd::{Level, level};
use crate::memory::Scratch;
use crate::precision::Precision;

/// The transpose of a row-major matrix `[n, k]` in panels: for each block of k, one panel after the other.
pub(crate) struct PackedMatrix {
    pub(super) format: Format,
    pub(super) n: usize,
    pub(super) k: usize,
    panels: Scratch,
    /// The scale of each column, for int8.
    pub(super) scales: Vec<f32>,
    /// The initial sums of each block and panel, for int8: see [`super::pack_int8`].
    starts: Vec<[i32; NR]>,
}

impl PackedMatrix {
    /// Packs `matrix`. Returns `None` if the driver does not run on this processor, or if the matrix is empty.
    pub(crate) fn new(matrix: &[f32], n: usize, k: usize, precision: Precision) -> Option<PackedMatrix> {
        assert_eq!(matrix.len(), n * k);
        let format = Format::of(precision).filter(|_| level() == Level::Avx512 && n * k > 0)?;
        let (units, panels) = (k.div_ceil(format.elements()), n.div_ceil(NR));
        let mut packed = PackedMatrix {
            format,
            n,
            k,
            panels: Scratch::new(panels * NR * units * 4),
            scales: Vec::new(),
            starts: Vec::new(),
        };
        if format == Format::Int8Quad {
            (packed.scales, packed.starts) =
                pack_weights(matrix, n, k, |panel, from, units| packed.panel(panel, from, units).cast());
            return Some(packed);
        }
        let operand = Operand { data: matrix.as_ptr(), outer: k, inner: 1, k };
        for_tasks(
            panels,
            n * k,
            || (),
            |(), panel| {
                let (start, count) = (panel * NR, NR.min(n - panel * NR));
                for (from, units) in blocks(units) {
                    // SAFETY: these are rows of `matrix`, whose length was asserted; no other task has this panel; the
                    // processor has AVX-512 by `level`, and the instructions of the format by `Format::of`.
                    unsafe {
                        let to = packed.panel(panel, from, units);
                        operand.pack::<NR>(format, start, count, from, units, to, std::ptr::null_mut());
                    }
                }
            },
        );
        Some(packed)
    }

    /// Whether products in `precision` can use this form.
    pub(crate) fn is_for(&self, precision: Precision) -> bool {
        Format::of(precision) == Some(self.format)
    }

    /// The start of a panel in the block of k that begins at unit `from` and has `units` units.
    pub(super) fn panel(&self, panel: usize, from: usize, units: usize) -> *mut u32 {
        let panels = self.n.div_ceil(NR);
        self.panels.pointer().cast::<u32>().as_ptr().wrapping_add((from * panels + panel * units) * NR)
    }

    /// The initial sums of a tile of int8 in block number `block` of k.
    pub(super) fn start(&self, block: usize, panel: usize) -> &[i32; NR] {
        &self.starts[block * self.n.div_ceil(NR) + panel]
    }
}
