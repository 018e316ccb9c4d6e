//! B of a product in the form in which the driver multiplies it: made once, for weights that do not change.

use super::driver::{blocks, format};
use super::kernels::NR;
use super::pack::{Format, Operand};
use super::pack_int8::pack_weights;
use crate::Precision;
use crate::cpu::parallel::for_tasks;
use crate::cpu::simd::{Level, level};
use crate::memory::Scratch;

/// The transpose of a row-major matrix `[n, k]`, in panels: for each block of k panel after panel.
pub(crate) struct PackedMatrix {
    pub(super) format: Format,
    pub(super) n: usize,
    pub(super) k: usize,
    panels: Scratch,
    /// Of int8, what a column's integers are multiplied with.
    pub(super) scales: Vec<f32>,
    /// Of int8, for each block and panel, the sums to begin with: see [`super::pack_int8`].
    starts: Vec<[i32; NR]>,
}

impl PackedMatrix {
    /// `None` where the driver does not run, or has nothing to pack.
    pub(crate) fn new(matrix: &[f32], n: usize, k: usize, precision: Precision) -> Option<PackedMatrix> {
        assert_eq!(matrix.len(), n * k);
        let format = format(precision).filter(|_| level() == Level::Avx512 && n * k > 0)?;
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
                    // SAFETY: these rows are the matrix's, the panel is this task's, and `format` asked the processor.
                    unsafe {
                        let to = packed.panel(panel, from, units);
                        operand.pack::<NR>(format, start, count, from, units, to, std::ptr::null_mut());
                    }
                }
            },
        );
        Some(packed)
    }

    /// Whether products in this precision read it.
    pub(crate) fn is_for(&self, precision: Precision) -> bool {
        format(precision) == Some(self.format)
    }

    /// Where a panel's units of a block of k begin.
    pub(super) fn panel(&self, panel: usize, from: usize, units: usize) -> *mut u32 {
        let panels = self.n.div_ceil(NR);
        self.panels.pointer().cast::<u32>().as_ptr().wrapping_add((from * panels + panel * units) * NR)
    }

    /// The sums that a tile of int8 begins with in the block of k that is number `block`.
    pub(super) fn start(&self, block: usize, panel: usize) -> &[i32; NR] {
        &self.starts[block * self.n.div_ceil(NR) + panel]
    }
}
