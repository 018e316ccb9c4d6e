//! The packed form of B: made once for weights that do not change.
//!
//! A product with few rows takes as long as it takes to read the weights. So those of a kernel that multiplies bf16 in f32 are
//! kept as bf16, in half the memory. For a few rows, a tile widens them as it reads them; for more, they are widened once for
//! all tiles of a slice.

use std::ops::Range;

use super::blocks::{K_UNITS, blocks};
use super::kernel::{Kernel, Packing};
use super::operand::{Operand, Part};
use super::pack_int8::pack_weights;
use super::view::View;
use crate::cpu::parallel::for_tasks;
use crate::cpu::simd::simd;
use crate::memory::Scratch;
use crate::precision::Precision;

/// The transpose of a row-major matrix `[n, k]` in panels: for each block of k, one panel after the other.
pub(crate) struct PackedMatrix {
    kernel: &'static Kernel<f32>,
    pub(super) n: usize,
    pub(super) k: usize,
    /// Words of f32, or their upper halves.
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
        let is_half = kernel.multiply_bf16.is_some();
        let mut packed = PackedMatrix {
            kernel,
            n,
            k,
            panels: Scratch::new(panels * kernel.nr * units * if is_half { 2 } else { 4 }),
            scales: Vec::new(),
            starts: Vec::new(),
        };
        let pack = match kernel.packing {
            Packing::Convert { b, .. } => b,
            Packing::Quantize { is_offset } => {
                let panel = |panel, from, units| packed.panel(panel, from, units).cast();
                // SAFETY: `packed` has room for all panels, of which no two overlap, and no other thread knows it yet.
                let (scales, starts) = unsafe { pack_weights(matrix, n, k, (kernel.nr, is_offset), panel) };
                (packed.scales, packed.starts) = (scales, starts);
                return packed;
            }
        };
        let operand = Operand::rows(View::rows(matrix, n, k));
        let longest = if is_half { units.min(K_UNITS) * kernel.nr } else { 0 };
        let words = || vec![0f32; longest];
        for_tasks(panels, n * k, words, |words, panel| {
            let (start, count) = (panel * kernel.nr, kernel.nr.min(n - panel * kernel.nr));
            for (from, units) in blocks(units) {
                let to = if is_half { words.as_mut_ptr() } else { packed.panel(panel, from, units) };
                // SAFETY: these are rows of `matrix`, whose length was asserted; no other task has this panel, and `words` has
                // room for it; the processor has the instructions of the kernel that `Kernel::of` chose.
                unsafe { pack(Part { operand: operand.from(start), count, from, units }, to, std::ptr::null_mut()) };
                if is_half {
                    // SAFETY: no other task has this panel.
                    let halves =
                        unsafe { std::slice::from_raw_parts_mut(packed.half(panel, from, units), units * kernel.nr) };
                    for (half, word) in halves.iter_mut().zip(&*words) {
                        *half = half::bf16::from_f32(*word).to_bits();
                    }
                }
            }
        });
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

    /// Whether the panels are kept as bf16.
    pub(super) fn is_half(&self) -> bool {
        self.kernel.multiply_bf16.is_some()
    }

    /// The start of a panel in the block of k that begins at unit `from` and has `units` units.
    pub(super) fn panel(&self, panel: usize, from: usize, units: usize) -> *mut f32 {
        debug_assert!(!self.is_half());
        self.panels.pointer().cast::<f32>().as_ptr().wrapping_add(self.index(panel, from, units))
    }

    /// The same for panels that are kept as bf16.
    pub(super) fn half(&self, panel: usize, from: usize, units: usize) -> *mut u16 {
        debug_assert!(self.is_half());
        self.panels.pointer().cast::<u16>().as_ptr().wrapping_add(self.index(panel, from, units))
    }

    fn index(&self, panel: usize, from: usize, units: usize) -> usize {
        let nr = self.kernel.nr;
        (from * self.n.div_ceil(nr) + panel * units) * nr
    }

    /// Converts panels that are kept as bf16 to f32, `to [panels, units, nr]`.
    pub(super) fn widen(&self, panels: Range<usize>, from: usize, units: usize, to: &mut [f32]) {
        debug_assert!(self.is_half());
        // The panels of a block lie one after the other.
        let start = self.index(panels.start, from, units);
        widen(&self.panels.slice::<u16>()[start..][..panels.len() * units * self.kernel.nr], to);
    }

    /// The initial sums of a tile of int8 in block number `block` of k.
    pub(super) fn start(&self, block: usize, panel: usize) -> *const i32 {
        let nr = self.kernel.nr;
        self.starts[(block * self.n.div_ceil(nr) + panel) * nr..][..nr].as_ptr()
    }
}

simd! {
    /// Converts bf16 to f32.
    fn widen(from: &[u16], to: &mut [f32]) {
        for (to, &from) in to.iter_mut().zip(from) {
            *to = f32::from_bits(u32::from(from) << 16);
        }
    }
}
