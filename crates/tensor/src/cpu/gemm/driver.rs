//! Matrix products by packing, blocking and register tiles, after K. Goto and R. van de Geijn, "Anatomy of
//! high-performance matrix multiplication", 2008.
//!
//! The innermost loop, a [`Kernel`], multiplies a *panel* of A with a panel of B and keeps the sums in registers: 12 rows
//! and 32 columns with AVX-512, 6 and 16 with AVX2. Everything around it exists to feed that loop from near caches:
//!
//! - *Packing* copies both operands into panels, in the order in which the loop reads them, so that it reads memory
//!   sequentially whatever the strides. It rounds to a smaller type on the way.
//! - *Blocking* along k ([`K_UNITS`]) keeps a slice of B and a block of A in the second-level cache while each of them is used
//!   many times.
//!
//! First all threads together pack A, or as many of its rows as fit into [`PACKED_A`] bytes, into the third-level cache.
//! Then each task takes a slice of B of [`SLICE`] columns: for each block of k it packs its slice and multiplies it with one
//! block of A after the other. With few tokens B is the weights, which are then read from memory exactly once.
//!
//! C is written once per block of k. After the last block the epilogue is applied to each tile while it is in the
//! first-level cache, and what it reads was prefetched before the tile was computed.
//!
//! The sum of an element runs along k in one order, and the blocks depend only on sizes, so results do not depend on the
//! number of threads.

use std::ops::Range;

use super::blocks::{A_BLOCK, DIRECT, K_UNITS, PACKED_A, SLICE, blocks};
use super::epilogue::{Finish, Tile};
use super::kernel::{Ahead, Int8Terms, Kernel, Multiply, NextPanel, Pack, Packing, SUMS, TOGETHER, TileStore};
use super::operand::{Operand, Part};
use super::pack_int8::pack_activations;
use super::packed::PackedMatrix;
use super::product::Gemm;
use super::view::{View, ViewMut};
use crate::cpu::parallel::{Shared, for_tasks};
use crate::cpu::real::Real;
use crate::cpu::team::threads;
use crate::memory::Scratch;

/// Computes a product that has elements.
pub(super) fn run<T: Real>(gemm: Gemm<'_, T>, c: ViewMut<'_, T>, kernel: &'static Kernel<T>) {
    let (k, n) = (gemm.a.cols, gemm.b.cols);
    let is_int8 = matches!(kernel.packing, Packing::Quantize { .. });
    let packed = gemm.packed.filter(|packed| packed.is_for(kernel) && (packed.n, packed.k) == (n, k));
    // A column of int8 is read twice, first for its scale, so B is packed as a whole beforehand.
    let packed_now;
    let b = match (packed, kernel.packing) {
        (Some(packed), _) if packed.is_half() => Right::Halves(packed),
        (Some(packed), _) => Right::Packed(packed),
        (None, Packing::Convert { b, .. }) => Right::Strided(Operand::columns(gemm.b), b),
        (None, Packing::Quantize { .. }) => {
            packed_now = PackedMatrix::by(Kernel::of(gemm.precision), &gemm.b.cast().data[..n * k], n, k);
            Right::Packed(&packed_now)
        }
    };
    let mut job = Job::new(&gemm, kernel, b, c.data.as_mut_ptr(), c.stride);
    job.finish = gemm.epilogue.finish();
    job.stream = gemm.is_for_later && job.can_stream();
    let mut sums = gemm.row_sums;
    let most = (PACKED_A / size_of::<T>() / job.units.max(1) / kernel.mr).max(1) * kernel.mr;
    let rows = c.rows.div_ceil(c.rows.div_ceil(most)).next_multiple_of(kernel.mr);
    let packed = Scratch::new(rows * job.units * size_of::<T>());
    let mut scales = vec![0.0; if is_int8 { rows } else { 0 }];
    for first in (0..c.rows).step_by(rows) {
        let count = rows.min(c.rows - first);
        let (packed, scales) = (Shared::new(packed.pointer().cast().as_ptr()), Shared::new(scales.as_mut_ptr()));
        let block = RowBlock { first, count, mr: kernel.mr, packed, scales };
        let sums =
            sums.as_mut().map(|sums| (Shared::new(sums.data[first..first + count].as_mut_ptr()), sums.accumulate));
        match kernel.packing {
            Packing::Convert { a, .. } => job.pack_a(a, &block, sums),
            Packing::Quantize { is_offset } => job.quantize_a(is_offset, &block),
        }
        job.multiply(&block);
    }
}

/// The panels of a thread's products, kept from one product to the next.
#[derive(Default)]
pub(crate) struct PackingSpace {
    a: Option<Scratch>,
    b: Option<Scratch>,
}

impl PackingSpace {
    fn space<T>(scratch: &mut Option<Scratch>, words: usize) -> *mut T {
        let bytes = words * size_of::<T>();
        let fitting = scratch.take().filter(|scratch| scratch.len() >= bytes);
        scratch.insert(fitting.unwrap_or_else(|| Scratch::new(bytes))).pointer().cast().as_ptr()
    }
}

/// Computes a product that has elements on the calling thread. The kernel must convert its operands word by word.
///
/// # Safety
/// The elements of C, in rows `stride` apart, must be valid for reads and writes, and nothing else may access them during
/// the call.
pub(super) unsafe fn run_serially<T: Real>(
    gemm: Gemm<'_, T>,
    c: *mut T,
    stride: usize,
    kernel: &'static Kernel<T>,
    space: &mut PackingSpace,
) {
    let Packing::Convert { a: pack, b: pack_b } = kernel.packing else {
        unreachable!("`Gemm::serial` does not quantize");
    };
    let b = Right::Strided(Operand::columns(gemm.b), pack_b);
    let job = Job::new(&gemm, kernel, b, c, stride);
    let (count, mr, slice) = (gemm.a.rows, kernel.mr, job.slice());
    let packed = PackingSpace::space(&mut space.a, count.next_multiple_of(mr) * job.units);
    let block =
        RowBlock { first: 0, count, mr, packed: Shared::new(packed), scales: Shared::new(std::ptr::null_mut()) };
    for first in (0..block.panels()).step_by(TOGETHER) {
        let panels = first..(first + TOGETHER).min(block.panels());
        // SAFETY: `packed` has room for all panels of A, and only this thread uses it.
        unsafe { job.pack_panels(pack, &block, panels, std::ptr::null_mut()) };
    }
    let panels = job.cols.div_ceil(kernel.nr);
    let b = PackingSpace::space(&mut space.b, slice * kernel.nr * K_UNITS.min(job.units));
    for first in (0..panels).step_by(slice) {
        // SAFETY: `b` has room for a block of k of a slice, and C is exclusive by this function's contract.
        unsafe { job.multiply_slice(&block, first..(first + slice).min(panels), 0..block.panels(), b) };
    }
}

/// The operand B.
enum Right<'a, T> {
    Strided(Operand<T>, Pack<T>),
    Packed(&'a PackedMatrix),
    /// Packed, and kept as bf16.
    Halves(&'a PackedMatrix),
}

/// A product in the form that the threads share.
struct Job<'a, T: 'static> {
    kernel: &'static Kernel<T>,
    /// Words along k.
    units: usize,
    a: View<'a, T>,
    b: Right<'a, T>,
    c: Shared<T>,
    stride: usize,
    cols: usize,
    accumulate: bool,
    /// Whether C bypasses the caches. Each row of C then begins on a cache line.
    stream: bool,
    finish: Finish<T>,
}

/// The rows of A that are packed at a time: for each block of k, one panel after the other.
struct RowBlock<T> {
    first: usize,
    count: usize,
    /// Rows of a panel.
    mr: usize,
    packed: Shared<T>,
    /// The scale of each row, for int8.
    scales: Shared<f32>,
}

impl<T: Real> RowBlock<T> {
    fn panels(&self) -> usize {
        self.count.div_ceil(self.mr)
    }

    /// The rows of a panel, counted from the first row of the block.
    fn rows(&self, panel: usize) -> Range<usize> {
        panel * self.mr..((panel + 1) * self.mr).min(self.count)
    }

    /// The start of a panel in the block of k that begins at unit `from` and has `units` units.
    fn panel(&self, panel: usize, from: usize, units: usize) -> *mut T {
        self.packed.at((from * self.panels() + panel * units) * self.mr)
    }
}

impl<'a, T: Real> Job<'a, T> {
    fn new(gemm: &Gemm<'a, T>, kernel: &'static Kernel<T>, b: Right<'a, T>, c: *mut T, stride: usize) -> Job<'a, T> {
        Job {
            kernel,
            units: gemm.a.cols.div_ceil(kernel.elements),
            a: gemm.a,
            b,
            c: Shared::new(c),
            stride,
            cols: gemm.b.cols,
            accumulate: gemm.accumulate,
            stream: false,
            finish: Finish::None,
        }
    }

    /// Panels of B in a task.
    fn slice(&self) -> usize {
        SLICE / self.kernel.nr
    }

    /// Whether C may bypass the caches: each element is written once, by a whole cache line.
    fn can_stream(&self) -> bool {
        let is_aligned = self.c.at(0).addr().is_multiple_of(64) && (self.stride * size_of::<T>()).is_multiple_of(64);
        let is_complete = blocks(self.units).count() == 1 && !self.accumulate && matches!(self.finish, Finish::None);
        // Miri does not know the instructions.
        self.kernel.streams && !cfg!(miri) && is_aligned && is_complete
    }

    /// Calls `f` for all panels of A, up to [`TOGETHER`] at a time, with a thread's scratch space.
    fn for_panels<S>(
        &self,
        block: &RowBlock<T>,
        scratch: impl Fn() -> S + Sync,
        f: impl Fn(&mut S, Range<usize>) + Sync,
    ) {
        for_tasks(block.panels().div_ceil(TOGETHER), block.count * self.units, scratch, |scratch, task| {
            f(scratch, task * TOGETHER..((task + 1) * TOGETHER).min(block.panels()));
        });
    }

    fn pack_a(&self, pack: Pack<T>, block: &RowBlock<T>, sums: Option<(Shared<T>, bool)>) {
        self.for_panels(
            block,
            || (),
            |(), panels| {
                let mut row_sums = [T::ZERO; SUMS * TOGETHER];
                let to = if sums.is_some() { row_sums.as_mut_ptr() } else { std::ptr::null_mut() };
                // SAFETY: no other task has these panels, and `row_sums` has room for `TOGETHER` of them.
                unsafe { self.pack_panels(pack, block, panels.clone(), to) };
                if let Some((sums, accumulate)) = sums {
                    for (panel, row_sums) in panels.zip(row_sums.chunks(SUMS)) {
                        for (row, &sum) in block.rows(panel).zip(row_sums) {
                            // SAFETY: `run` passed a sum for each row of the block, and no other task has these rows.
                            let to = unsafe { &mut *sums.at(row) };
                            *to = if accumulate { *to + sum } else { sum };
                        }
                    }
                }
            },
        );
    }

    /// Packs up to [`TOGETHER`] panels of A for all blocks of k, and adds the sums of their rows to `sums [panels, SUMS]`
    /// unless that is null.
    ///
    /// # Safety
    /// Nothing else may access the panels. `sums` must be null or valid for reads and writes.
    unsafe fn pack_panels(&self, pack: Pack<T>, block: &RowBlock<T>, panels: Range<usize>, sums: *mut T) {
        let rows = panels.start * block.mr..(panels.end * block.mr).min(block.count);
        let operand = Operand::rows(self.a).from(block.first + rows.start);
        for (from, units) in blocks(self.units) {
            // SAFETY: the view of A was checked to be within its slice, and these are rows of A; the panels and the sums are
            // valid by this function's contract. The processor has the instructions of the kernel that `Kernel::of` chose.
            unsafe {
                pack(Part { operand, count: rows.len(), from, units }, block.panel(panels.start, from, units), sums)
            };
        }
    }

    fn quantize_a(&self, is_offset: bool, block: &RowBlock<T>) {
        self.for_panels(block, Vec::new, |row, panels| {
            for panel in panels {
                let rows = block.rows(panel);
                // SAFETY: `run` passed a scale for each row of the block, and no other task has those of this panel.
                let scales = unsafe { std::slice::from_raw_parts_mut(block.scales.at(rows.start), rows.len()) };
                let (start, form) = (block.first + rows.start, (block.mr, is_offset));
                let to = |from, units| block.panel(panel, from, units).cast();
                // SAFETY: the block has room for whole panels, and no other task has this one.
                unsafe { pack_activations(self.a.cast(), start, scales, row, form, to) };
            }
        });
    }

    fn multiply(&self, block: &RowBlock<T>) {
        let (nr, width) = (self.kernel.nr, self.slice());
        let panels = self.cols.div_ceil(nr);
        let columns = panels.div_ceil(width);
        // If there are too few slices of columns for all threads, several tasks share one, each with a part of the rows.
        let wanted = 2 * threads();
        let parts = if columns >= wanted { 1 } else { wanted.div_ceil(columns).min(block.panels().div_ceil(2)) };
        let height = block.panels().div_ceil(parts);
        let longest = match self.b {
            Right::Strided(..) | Right::Halves(_) => blocks(self.units).map(|(_, units)| units).max().unwrap_or(0),
            Right::Packed(_) => 0,
        };
        let scratch = || Scratch::new(width * nr * longest * size_of::<T>());
        let cost = (block.count * self.cols).saturating_mul(self.units) / 64;
        for_tasks(columns * parts, cost, scratch, |scratch, task| {
            let (slice, part) = (task / parts * width, task % parts * height);
            let (slice, part) = (slice..(slice + width).min(panels), part..(part + height).min(block.panels()));
            let space = scratch.pointer().cast::<T>().as_ptr();
            // SAFETY: tasks have disjoint tiles and a thread its own scratch space, which has room for a block of k; all of A
            // is packed.
            unsafe { self.multiply_slice(block, slice, part, space) };
        });
    }

    /// Computes the tiles of the panels `slice` of B and `part` of A. B is packed into `space` unless it came packed.
    ///
    /// # Safety
    /// The panels of A must be packed. Nothing else may access the tiles. `space` must have room for a block of k of these
    /// panels of B.
    unsafe fn multiply_slice(&self, block: &RowBlock<T>, slice: Range<usize>, part: Range<usize>, space: *mut T) {
        let nr = self.kernel.nr;
        let direct = self.kernel.multiply_bf16.filter(|_| part.len() <= DIRECT && matches!(self.b, Right::Halves(_)));
        let multiply = direct.unwrap_or(self.kernel.multiply);
        let widens = direct.is_none() && matches!(self.b, Right::Halves(_));
        let mut steps = blocks(self.units).enumerate().peekable();
        while let Some((number, (from, units))) = steps.next() {
            match self.b {
                Right::Strided(operand, pack) => {
                    for panel in slice.clone().step_by(TOGETHER) {
                        let columns = panel * nr..((panel + TOGETHER).min(slice.end) * nr).min(self.cols);
                        let (operand, to) =
                            (operand.from(columns.start), space.wrapping_add((panel - slice.start) * nr * units));
                        // SAFETY: the view of B was checked to be within its slice, and these are columns of B; `space` has
                        // room for them by this function's contract.
                        unsafe { pack(Part { operand, count: columns.len(), from, units }, to, std::ptr::null_mut()) };
                    }
                }
                Right::Halves(packed) if widens => {
                    // SAFETY: `space` has room for these panels by this function's contract, and words of bf16 are f32.
                    let to = unsafe { std::slice::from_raw_parts_mut(space.cast(), slice.len() * nr * units) };
                    packed.widen(slice.clone(), from, units, to);
                }
                Right::Packed(_) | Right::Halves(_) => {}
            }
            let b = |panel: usize| match self.b {
                Right::Packed(packed) => packed.panel(panel, from, units).cast(),
                Right::Halves(packed) if !widens => packed.half(panel, from, units).cast(),
                Right::Strided(..) | Right::Halves(_) => space.wrapping_add((panel - slice.start) * nr * units),
            };
            let following = steps.peek().map(|&(_, block)| block);
            for first in part.clone().step_by(A_BLOCK) {
                let row_panels = first..(first + A_BLOCK).min(part.end);
                for panel in slice.clone() {
                    let next = match following {
                        _ if panel + 1 < slice.end && !widens => Some((panel + 1, from, units)),
                        Some((from, units)) => Some((if widens { panel } else { slice.start }, from, units)),
                        None => None,
                    };
                    let next = next.and_then(|(panel, from, units)| self.packed_bytes(panel, from, units));
                    let next = next.map_or(NextPanel::NONE, |(start, bytes)| {
                        NextPanel::new(start, bytes, units, row_panels.len())
                    });
                    for row_panel in row_panels.clone() {
                        let place = TileIndex { panel, row_panel, number, from, units };
                        let ahead = next.of_tile(row_panel - part.start);
                        // SAFETY: both panels are packed, and nothing else accesses the tile by this function's contract.
                        unsafe { self.tile(multiply, block, place, b(panel), ahead) };
                    }
                }
            }
        }
        if self.stream {
            // Writes that bypass the caches must be visible before the task counts as done.
            stream_fence();
        }
    }

    /// Returns the address and the size in bytes of a panel of B for a block of k, if B came packed.
    fn packed_bytes(&self, panel: usize, from: usize, units: usize) -> Option<(*const u8, usize)> {
        let words = units * self.kernel.nr;
        match self.b {
            Right::Strided(..) => None,
            Right::Packed(packed) => Some((packed.panel(panel, from, units).cast(), words * size_of::<T>())),
            Right::Halves(packed) => Some((packed.half(panel, from, units).cast(), words * size_of::<u16>())),
        }
    }

    /// Adds the products of one block of k to a tile, and applies the epilogue after the last block.
    ///
    /// # Safety
    /// Both panels must be packed, that of B at `b`, and nothing else may access the tile.
    #[inline]
    unsafe fn tile(&self, multiply: Multiply<T>, block: &RowBlock<T>, place: TileIndex, b: *const T, ahead: Ahead) {
        let Kernel { mr, nr, finish, .. } = *self.kernel;
        let TileIndex { panel, row_panel, number, from, units } = place;
        let tile = Tile {
            row: block.first + row_panel * mr,
            column: panel * nr,
            rows: block.rows(row_panel).len(),
            cols: nr.min(self.cols - panel * nr),
        };
        let a = block.panel(row_panel, from, units);
        let last = from + units == self.units;
        let int8 = match (&self.kernel.packing, &self.b) {
            (Packing::Quantize { .. }, Right::Packed(packed)) => Int8Terms {
                starts: packed.start(number, panel),
                rows: block.scales.at(row_panel * mr),
                columns: packed.scales[panel * nr..].as_ptr(),
            },
            _ => Int8Terms::NONE,
        };
        if last {
            self.finish.prefetch(self.stride, tile);
        }
        let to = TileStore {
            c: self.c.at(tile.row * self.stride + tile.column),
            stride: self.stride,
            rows: tile.rows,
            cols: tile.cols,
            accumulate: self.accumulate || from > 0,
            stream: self.stream && tile.cols == nr,
            int8,
            ahead,
        };
        // SAFETY: the panels are packed and the tile is exclusive by this function's contract; the scales have an element for
        // each row and column of whole panels. The processor has the instructions of the kernel that `Kernel::of` chose.
        unsafe { multiply(units, a, b, to) };
        if last {
            // SAFETY: as above; `Gemm::write_to` checked that the operands of the epilogue have the size of C.
            unsafe { finish(self.finish, self.c.at(0), self.stride, tile) };
        }
    }
}

/// Makes writes that bypassed the caches visible to other threads.
fn stream_fence() {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: every x86-64 processor has SSE.
    unsafe {
        std::arch::x86_64::_mm_sfence();
    }
}

/// The position of a tile's partial sum.
#[derive(Clone, Copy)]
struct TileIndex {
    /// The panel of B.
    panel: usize,
    /// The panel of A.
    row_panel: usize,
    /// The number of the block of k, its first unit and its length.
    number: usize,
    from: usize,
    units: usize,
}
