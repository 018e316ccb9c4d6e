//! Matrix products of f32 by packing, blocking and register tiles, after K. Goto and R. van de Geijn, "Anatomy of
//! high-performance matrix multiplication", 2008.
//!
//! The innermost loop multiplies a *panel* of A, 12 rows, with a panel of B, 32 columns, and keeps the 12 x 32 sums in
//! registers ([`super::kernels`]). Everything around it exists to feed that loop from near caches:
//!
//! - *Packing* copies both operands into panels, in the order in which the loop reads them, so that it reads memory
//!   sequentially whatever the strides. It rounds to a smaller type on the way.
//! - *Blocking* along k ([`K_UNITS`]) keeps two panels of B and a block of A in the second-level cache while each of them is
//!   used many times.
//!
//! First all threads together pack A, or as many of its rows as fit into [`PACKED_A`] bytes, into the third-level cache.
//! Then each task takes [`B_PANELS`] panels of B: for each block of k it packs its slice of B and multiplies it with one
//! block of A after the other. With few tokens B is the weights, which are then read from memory exactly once.
//!
//! C is written once per block of k. After the last block the epilogue is applied to each tile while it is in the
//! first-level cache, and what it reads was prefetched before the tile was computed.
//!
//! The sum of an element runs along k in one order, and the blocks depend only on sizes, so results do not depend on the
//! number of threads.

use std::ops::Range;

use super::blocks::{A_BLOCK, B_PANELS, K_UNITS, PACKED_A, blocks};
use super::epilogue::{Finish, Tile};
use super::format::Format;
use super::kernels::{MR, NR, TileStore, bf16_tile, f32_tile, int8_tile};
use super::pack::{Operand, TOGETHER};
use super::pack_int8::pack_activations;
use super::packed::PackedMatrix;
use super::product::Gemm;
use super::view::{View, ViewMut};
use crate::cpu::parallel::{Shared, for_tasks};
use crate::cpu::real::Real;
use crate::cpu::simd::{Level, level};
use crate::dtype::DType;
use crate::memory::Scratch;

/// Returns whether the driver can compute a product into `c`: the operands suit it, and the rows of C are contiguous.
pub(super) fn takes<T: Real>(gemm: &Gemm<'_, T>, c: &ViewMut<'_, T>) -> bool {
    multiplies(gemm) && c.col_stride == 1
}

/// Returns whether this processor has AVX-512 and the operands are f32 with a unit stride.
pub(super) fn multiplies<T: Real>(gemm: &Gemm<'_, T>) -> bool {
    if T::DTYPE != DType::F32 {
        return false;
    }
    let is_unit = |view: &View<'_, T>| view.row_stride == 1 || view.col_stride == 1;
    let fits = match Format::of(gemm.precision) {
        None => false,
        // Each row of A and each column of B has a scale, so both must be contiguous.
        Some(Format::Int8Quad) => {
            gemm.a.col_stride == 1
                && gemm.b.row_stride == 1
                && gemm.b.col_stride == gemm.b.rows
                && gemm.row_sums.is_none()
        }
        Some(_) => is_unit(&gemm.a) && is_unit(&gemm.b),
    };
    fits && level() == Level::Avx512 && gemm.a.cols > 0
}

/// Computes a product for which [`takes`] returned true.
pub(super) fn run(gemm: Gemm<'_, f32>, c: ViewMut<'_, f32>) {
    let Some(format) = Format::of(gemm.precision) else { return };
    let (k, n, is_int8) = (gemm.a.cols, gemm.b.cols, format == Format::Int8Quad);
    let packed = gemm.packed.filter(|packed| (packed.format, packed.n, packed.k) == (format, n, k));
    // A column of int8 is read twice, first for its scale, so B is packed as a whole beforehand.
    let packed_now = match packed {
        None if is_int8 => PackedMatrix::new(&gemm.b.data[..n * k], n, k, gemm.precision),
        _ => None,
    };
    let mut job = Job::new(&gemm, format, packed.or(packed_now.as_ref()), c.data.as_mut_ptr(), c.row_stride);
    job.finish = gemm.epilogue.finish();
    job.stream = gemm.is_for_later && job.can_stream();
    let mut sums = gemm.row_sums;
    let most = (PACKED_A / 4 / job.units / MR).max(1) * MR;
    let rows = c.rows.div_ceil(c.rows.div_ceil(most)).next_multiple_of(MR);
    let packed = Scratch::new(rows * job.units * 4);
    let mut scales = vec![0.0; if is_int8 { rows } else { 0 }];
    for first in (0..c.rows).step_by(rows) {
        let count = rows.min(c.rows - first);
        let (packed, scales) = (Shared::new(packed.pointer().cast().as_ptr()), Shared::new(scales.as_mut_ptr()));
        let block = RowBlock { first, count, packed, scales };
        let sums =
            sums.as_mut().map(|sums| (Shared::new(sums.data[first..first + count].as_mut_ptr()), sums.accumulate));
        if is_int8 {
            job.quantize_a(&block);
        } else {
            job.pack_a(&block, sums);
        }
        job.multiply(&block);
    }
}

/// The panels of a thread's products, kept from one product to the next.
#[derive(Default)]
pub(super) struct PackingSpace {
    a: Option<Scratch>,
    b: Option<Scratch>,
}

impl PackingSpace {
    fn space(scratch: &mut Option<Scratch>, words: usize) -> *mut u32 {
        let fitting = scratch.take().filter(|scratch| scratch.len() >= 4 * words);
        scratch.insert(fitting.unwrap_or_else(|| Scratch::new(4 * words))).pointer().cast().as_ptr()
    }
}

/// Computes a product for which [`multiplies`] returned true, on the calling thread.
///
/// # Safety
/// The elements of C, in rows `stride` apart, must be valid for reads and writes, and nothing else may access them during
/// the call.
pub(super) unsafe fn run_serially(gemm: Gemm<'_, f32>, c: *mut f32, stride: usize, space: &mut PackingSpace) {
    let Some(format) = Format::of(gemm.precision) else { return };
    let job = Job::new(&gemm, format, None, c, stride);
    let count = gemm.a.rows;
    let packed = PackingSpace::space(&mut space.a, count.next_multiple_of(MR) * job.units);
    let block = RowBlock { first: 0, count, packed: Shared::new(packed), scales: Shared::new(std::ptr::null_mut()) };
    for first in (0..block.panels()).step_by(TOGETHER) {
        // SAFETY: `packed` has room for all panels of A, and only this thread uses it.
        unsafe { job.pack_panels(&block, first..(first + TOGETHER).min(block.panels()), std::ptr::null_mut()) };
    }
    let panels = job.cols.div_ceil(NR);
    let b = PackingSpace::space(&mut space.b, B_PANELS * NR * K_UNITS.min(job.units));
    for first in (0..panels).step_by(B_PANELS) {
        // SAFETY: `b` has room for a block of k of `B_PANELS` panels, and C is exclusive by this function's contract.
        unsafe { job.multiply_slice(&block, first..(first + B_PANELS).min(panels), 0..block.panels(), b) };
    }
}

/// The operand B.
enum Right<'a> {
    Strided(Operand),
    Packed(&'a PackedMatrix),
}

/// A product in the form that the threads share.
struct Job<'a> {
    format: Format,
    /// Words along k.
    units: usize,
    a: View<'a, f32>,
    a_operand: Operand,
    b: Right<'a>,
    c: Shared<f32>,
    stride: usize,
    cols: usize,
    accumulate: bool,
    /// Whether C bypasses the caches. Each row of C then begins on a cache line.
    stream: bool,
    finish: Finish<f32>,
}

/// The rows of A that are packed at a time: for each block of k, one panel after the other.
struct RowBlock {
    first: usize,
    count: usize,
    packed: Shared<u32>,
    /// The scale of each row, for int8.
    scales: Shared<f32>,
}

impl RowBlock {
    fn panels(&self) -> usize {
        self.count.div_ceil(MR)
    }

    /// The rows of a panel, counted from the first row of the block.
    fn rows(&self, panel: usize) -> Range<usize> {
        panel * MR..((panel + 1) * MR).min(self.count)
    }

    /// The start of a panel in the block of k that begins at unit `from` and has `units` units.
    fn panel(&self, panel: usize, from: usize, units: usize) -> *mut u32 {
        self.packed.at((from * self.panels() + panel * units) * MR)
    }
}

impl<'a> Job<'a> {
    fn new(
        gemm: &Gemm<'a, f32>,
        format: Format,
        packed: Option<&'a PackedMatrix>,
        c: *mut f32,
        stride: usize,
    ) -> Job<'a> {
        let (a, b, k) = (gemm.a, gemm.b, gemm.a.cols);
        let operand = |view: View<'_, f32>, outer, inner| Operand { data: view.data.as_ptr(), outer, inner, k };
        Job {
            format,
            units: k.div_ceil(format.elements()),
            a,
            a_operand: operand(a, a.row_stride, a.col_stride),
            b: packed.map_or(Right::Strided(operand(b, b.col_stride, b.row_stride)), Right::Packed),
            c: Shared::new(c),
            stride,
            cols: b.cols,
            accumulate: gemm.accumulate,
            stream: false,
            finish: Finish::None,
        }
    }

    /// Whether C may bypass the caches: each element is written once, by a whole cache line.
    fn can_stream(&self) -> bool {
        let is_aligned = self.c.at(0).addr().is_multiple_of(64) && self.stride.is_multiple_of(16);
        let is_complete = blocks(self.units).count() == 1 && !self.accumulate && matches!(self.finish, Finish::None);
        is_aligned && is_complete && self.format != Format::Int8Quad
    }

    /// Calls `f` for all panels of A, up to [`TOGETHER`] at a time, with a thread's scratch space.
    fn for_panels<S>(&self, block: &RowBlock, scratch: impl Fn() -> S + Sync, f: impl Fn(&mut S, Range<usize>) + Sync) {
        for_tasks(block.panels().div_ceil(TOGETHER), block.count * self.units, scratch, |scratch, task| {
            f(scratch, task * TOGETHER..((task + 1) * TOGETHER).min(block.panels()));
        });
    }

    fn pack_a(&self, block: &RowBlock, sums: Option<(Shared<f32>, bool)>) {
        self.for_panels(
            block,
            || (),
            |(), panels| {
                let mut row_sums = [0f32; 16 * TOGETHER];
                let to = if sums.is_some() { row_sums.as_mut_ptr() } else { std::ptr::null_mut() };
                // SAFETY: no other task has these panels, and `row_sums` has room for `TOGETHER` of them.
                unsafe { self.pack_panels(block, panels.clone(), to) };
                if let Some((sums, accumulate)) = sums {
                    for (panel, row_sums) in panels.zip(row_sums.chunks(16)) {
                        for (row, sum) in block.rows(panel).zip(row_sums) {
                            // SAFETY: `run` passed a sum for each row of the block, and no other task has these rows.
                            let to = unsafe { &mut *sums.at(row) };
                            *to = if accumulate { *to + sum } else { *sum };
                        }
                    }
                }
            },
        );
    }

    /// Packs up to [`TOGETHER`] panels of A for all blocks of k, and adds the sums of their rows to `sums [panels, 16]`
    /// unless that is null.
    ///
    /// # Safety
    /// Nothing else may access the panels. `sums` must be null or valid for reads and writes.
    unsafe fn pack_panels(&self, block: &RowBlock, panels: Range<usize>, sums: *mut f32) {
        let rows = panels.start * MR..(panels.end * MR).min(block.count);
        for (from, units) in blocks(self.units) {
            // SAFETY: the view of A was checked to be within its slice, and these are rows of A; the panels and the sums are
            // valid by this function's contract. `Format::of` and `multiplies` checked the processor.
            unsafe {
                let packed = block.panel(panels.start, from, units);
                self.a_operand.pack::<MR>(self.format, block.first + rows.start, rows.len(), from, units, packed, sums);
            }
        }
    }

    fn quantize_a(&self, block: &RowBlock) {
        self.for_panels(block, Vec::new, |row, panels| {
            for panel in panels {
                let rows = block.rows(panel);
                // SAFETY: no other task has this panel or the scales of its rows.
                unsafe {
                    let scales = std::slice::from_raw_parts_mut(block.scales.at(rows.start), rows.len());
                    pack_activations(self.a, block.first + rows.start, scales, row, |from, units| {
                        block.panel(panel, from, units)
                    });
                }
            }
        });
    }

    fn multiply(&self, block: &RowBlock) {
        let panels = self.cols.div_ceil(NR);
        let columns = panels.div_ceil(B_PANELS);
        // If there are too few slices of columns for all threads, several tasks share one, each with a part of the rows.
        let wanted = 2 * rayon::current_num_threads();
        let parts = if columns >= wanted { 1 } else { wanted.div_ceil(columns).min(block.panels().div_ceil(2)) };
        let height = block.panels().div_ceil(parts);
        let longest = match self.b {
            Right::Strided(_) => blocks(self.units).map(|(_, units)| units).max().unwrap_or(0),
            Right::Packed(_) => 0,
        };
        let scratch = || Scratch::new(B_PANELS * NR * longest * 4);
        let cost = (block.count * self.cols).saturating_mul(self.units) / 64;
        for_tasks(columns * parts, cost, scratch, |scratch, task| {
            let (slice, part) = (task / parts * B_PANELS, task % parts * height);
            let (slice, part) = (slice..(slice + B_PANELS).min(panels), part..(part + height).min(block.panels()));
            let space = scratch.pointer().cast::<u32>().as_ptr();
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
    unsafe fn multiply_slice(&self, block: &RowBlock, slice: Range<usize>, part: Range<usize>, space: *mut u32) {
        for (number, (from, units)) in blocks(self.units).enumerate() {
            let b = |panel: usize| match self.b {
                Right::Strided(_) => space.wrapping_add((panel - slice.start) * NR * units),
                Right::Packed(packed) => packed.panel(panel, from, units),
            };
            if let Right::Strided(operand) = self.b {
                let columns = slice.start * NR..(slice.end * NR).min(self.cols);
                // SAFETY: the view of B was checked to be within its slice, and these are columns of B; `space` has room for
                // them by this function's contract.
                unsafe {
                    let null = std::ptr::null_mut();
                    operand.pack::<NR>(self.format, columns.start, columns.len(), from, units, space, null);
                }
            }
            for first in part.clone().step_by(A_BLOCK) {
                for panel in slice.clone() {
                    for row_panel in first..(first + A_BLOCK).min(part.end) {
                        let place = TileIndex { panel, row_panel, number, from, units };
                        // SAFETY: both panels are packed, and nothing else accesses the tile by this function's contract.
                        unsafe { self.tile(block, place, b(panel)) };
                    }
                }
            }
        }
        if self.stream {
            // Writes that bypass the caches must be visible before the task counts as done.
            // SAFETY: every x86-64 processor has SSE.
            unsafe { std::arch::x86_64::_mm_sfence() };
        }
    }

    /// Adds the products of one block of k to a tile, and applies the epilogue after the last block.
    ///
    /// # Safety
    /// Both panels must be packed, that of B at `b`, and nothing else may access the tile.
    #[inline]
    unsafe fn tile(&self, block: &RowBlock, place: TileIndex, b: *const u32) {
        let TileIndex { panel, row_panel, number, from, units } = place;
        let tile = Tile {
            row: block.first + row_panel * MR,
            column: panel * NR,
            rows: block.rows(row_panel).len(),
            cols: NR.min(self.cols - panel * NR),
        };
        let a = block.panel(row_panel, from, units);
        let last = from + units == self.units;
        // SAFETY: the panels are packed and the tile is exclusive by this function's contract. `multiplies` checked for
        // AVX-512, and `Format::of` for the instructions of the format.
        unsafe {
            if last {
                self.finish.prefetch(self.stride, tile);
            }
            let to = TileStore {
                c: self.c.at(tile.row * self.stride + tile.column),
                stride: self.stride,
                rows: tile.rows,
                cols: tile.cols,
                accumulate: self.accumulate || from > 0,
                stream: self.stream && tile.cols == NR,
            };
            match (self.format, &self.b) {
                (Format::Int8Quad, Right::Packed(packed)) => {
                    let (rows, columns) = (block.scales.at(row_panel * MR), packed.scales[panel * NR..].as_ptr());
                    int8_tile(units, a, b, packed.start(number, panel), rows, columns, to);
                }
                (Format::Bf16Pair, _) => bf16_tile(units, a, b, to),
                _ => f32_tile(units, a, b, to),
            }
            if last {
                finish(self.finish, self.c.at(0), self.stride, tile);
            }
        }
    }
}

/// The position of a tile's partial sum.
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

/// [`Finish::tile`] with the instructions of the driver.
///
/// # Safety
/// As for [`Finish::tile`]; the processor must have AVX-512.
#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl,avx2,fma")]
unsafe fn finish(finish: Finish<f32>, c: *mut f32, stride: usize, tile: Tile) {
    // SAFETY: this function's contract includes that of `tile`.
    unsafe { finish.tile(c, stride, tile) };
}
