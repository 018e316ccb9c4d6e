//! Matrix products of f32 by packing, blocking and tiles, after K. Goto and R. van de Geijn, "Anatomy of
//! high-performance matrix multiplication", 2008.
//!
//! A is packed as a whole (by rows of at most [`PACKED_A`] bytes), all threads together, and stays in the third-level
//! cache. Then each task takes a few columns: it packs its slice of B, a block of k at a time, into its second-level
//! cache, and multiplies. With few tokens B is the weights, which are so read from memory exactly once.
//!
//! A tile's sum goes along k in one order, and blocks depend on sizes alone: results do not depend on the number of
//! threads.

use std::ops::Range;

use super::epilogue::{Finish, Tile};
use super::kernels::{Destination, MR, NR, bf16_tile, f32_tile, int8_tile};
use super::pack::{Format, Operand, TOGETHER};
use super::pack_int8::pack_activations;
use super::packed::PackedMatrix;
use super::{Gemm, View, ViewMut};
use crate::Precision;
use crate::cpu::parallel::for_tasks;
use crate::cpu::simd::{Level, level};
use crate::memory::Scratch;

/// Most units of a block along k: two panels of B (98 KB) and a block of A stay in a second-level cache of 1 MiB.
const K_UNITS: usize = 384;
/// Panels of A in a block: 24 of 12 rows, 442 KB.
const A_BLOCK: usize = 24;
/// Panels of B that a task has.
const B_PANELS: usize = 2;
/// Bytes of A that are packed at once.
const PACKED_A: usize = 12 << 20;

/// Whether this processor has the instructions, and the strides are such that something lies side by side.
pub(super) fn takes(gemm: &Gemm<'_, f32>, c: &ViewMut<'_, f32>) -> bool {
    multiplies(gemm) && c.col_stride == 1
}

/// As [`takes`], of the operands.
pub(super) fn multiplies(gemm: &Gemm<'_, f32>) -> bool {
    let is_unit = |view: &View<'_, f32>| view.row_stride == 1 || view.col_stride == 1;
    let fits = match format(gemm.precision) {
        None => false,
        // Scales are those of rows of A and columns of B.
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

/// What panels hold; `None` where the processor cannot multiply that.
pub(super) fn format(precision: Precision) -> Option<Format> {
    match precision {
        Precision::F32 => Some(Format::F32),
        Precision::Bf16 if std::is_x86_feature_detected!("avx512bf16") => Some(Format::Bf16Pair),
        Precision::Bf16 => Some(Format::Bf16AsF32),
        Precision::F16 => Some(Format::F16AsF32),
        Precision::Int8 => std::is_x86_feature_detected!("avx512vnni").then_some(Format::Int8Quad),
    }
}

/// Blocks of k: the first unit and the number of units of each.
pub(super) fn blocks(units: usize) -> impl Iterator<Item = (usize, usize)> {
    let length = units.div_ceil(units.div_ceil(K_UNITS).max(1)).max(1);
    (0..units).step_by(length).map(move |from| (from, length.min(units - from)))
}

/// A pointer that threads share, each writing a part of its own.
#[derive(Clone, Copy)]
struct Shared<T>(*mut T);

// SAFETY: every use says which part it has.
unsafe impl<T: Send> Send for Shared<T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for Shared<T> {}

impl<T> Shared<T> {
    fn at(self, index: usize) -> *mut T {
        self.0.wrapping_add(index)
    }
}

/// Computes a product that [`takes`] accepts.
pub(super) fn run(gemm: Gemm<'_, f32>, c: ViewMut<'_, f32>) {
    let Some(format) = format(gemm.precision) else { return };
    let (k, n, is_int8) = (gemm.a.cols, gemm.b.cols, format == Format::Int8Quad);
    let packed = gemm.packed.filter(|packed| (packed.format, packed.n, packed.k) == (format, n, k));
    // Rows of int8 are read twice, once for their scale, and rounded before they are packed.
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
        let (packed, scales) = (Shared(packed.pointer().cast().as_ptr()), Shared(scales.as_mut_ptr()));
        let block = RowBlock { first, count, packed, scales };
        let sums = sums.as_mut().map(|sums| (Shared(sums.data[first..first + count].as_mut_ptr()), sums.accumulate));
        if is_int8 {
            job.quantize_a(&block);
        } else {
            job.pack_a(&block, sums);
        }
        job.multiply(&block);
    }
}

/// Working memory of a thread's products.
#[derive(Default)]
pub(super) struct Workspace {
    a: Option<Scratch>,
    b: Option<Scratch>,
}

impl Workspace {
    fn space(scratch: &mut Option<Scratch>, words: usize) -> *mut u32 {
        let fitting = scratch.take().filter(|scratch| scratch.len() >= 4 * words);
        scratch.insert(fitting.unwrap_or_else(|| Scratch::new(4 * words))).pointer().cast().as_ptr()
    }
}

/// Computes a product that [`multiplies`] accepts, on this thread.
///
/// # Safety
/// `c` must be writable at the rows of the product, `stride` apart, and nothing else may access it.
pub(super) unsafe fn run_serially(gemm: Gemm<'_, f32>, c: *mut f32, stride: usize, space: &mut Workspace) {
    let Some(format) = format(gemm.precision) else { return };
    let job = Job::new(&gemm, format, None, c, stride);
    let count = gemm.a.rows;
    let packed = Workspace::space(&mut space.a, count.next_multiple_of(MR) * job.units);
    let block = RowBlock { first: 0, count, packed: Shared(packed), scales: Shared(std::ptr::null_mut()) };
    for first in (0..block.panels()).step_by(TOGETHER) {
        // SAFETY: the panels are in the workspace, which has room for all.
        unsafe { job.pack_panels(&block, first..(first + TOGETHER).min(block.panels()), std::ptr::null_mut()) };
    }
    let panels = job.cols.div_ceil(NR);
    let b = Workspace::space(&mut space.b, B_PANELS * NR * K_UNITS.min(job.units));
    for first in (0..panels).step_by(B_PANELS) {
        // SAFETY: as above; and C is this thread's.
        unsafe { job.multiply_slice(&block, first..(first + B_PANELS).min(panels), 0..block.panels(), b) };
    }
}

/// B of a product.
enum Right<'a> {
    Strided(Operand),
    Packed(&'a PackedMatrix),
}

/// A product for threads to share.
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
    /// Whether C is written past the caches; then every row of C begins on a cache line.
    stream: bool,
    finish: Finish<f32>,
}

/// Rows of A that are packed together: for each block of k, panel after panel.
struct RowBlock {
    first: usize,
    count: usize,
    packed: Shared<u32>,
    /// Of int8, what a row's integers are multiplied with.
    scales: Shared<f32>,
}

impl RowBlock {
    fn panels(&self) -> usize {
        self.count.div_ceil(MR)
    }

    /// The rows of the block that a panel has.
    fn rows(&self, panel: usize) -> Range<usize> {
        panel * MR..((panel + 1) * MR).min(self.count)
    }

    /// Where the panel's units of the block of k that begins at unit `from` and has `units` begin.
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
            c: Shared(c),
            stride,
            cols: b.cols,
            accumulate: gemm.accumulate,
            stream: false,
            finish: Finish::None,
        }
    }

    /// Whether C may be written past the caches: complete at once, by cache lines.
    fn can_stream(&self) -> bool {
        let is_aligned = self.c.0.addr().is_multiple_of(64) && self.stride.is_multiple_of(16);
        let is_complete = blocks(self.units).count() == 1 && !self.accumulate && matches!(self.finish, Finish::None);
        is_aligned && is_complete && self.format != Format::Int8Quad
    }

    /// Calls `f` with working memory and the numbers of some panels of A, for all of them.
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
                // SAFETY: the panels are this task's.
                unsafe { self.pack_panels(block, panels.clone(), to) };
                if let Some((sums, accumulate)) = sums {
                    for (panel, row_sums) in panels.zip(row_sums.chunks(16)) {
                        for (row, sum) in block.rows(panel).zip(row_sums) {
                            // SAFETY: there is a sum for each row, and these are this task's.
                            let to = unsafe { &mut *sums.at(row) };
                            *to = if accumulate { *to + sum } else { *sum };
                        }
                    }
                }
            },
        );
    }

    /// Packs some panels of A, for all blocks of k, and adds their rows to `sums [panels, 16]`, if those are not null.
    ///
    /// # Safety
    /// The panels must be writable, and at most [`TOGETHER`].
    unsafe fn pack_panels(&self, block: &RowBlock, panels: Range<usize>, sums: *mut f32) {
        let rows = panels.start * MR..(panels.end * MR).min(block.count);
        for (from, units) in blocks(self.units) {
            // SAFETY: these rows are A's, by the checks of its view; the rest is the caller's promise.
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
                // SAFETY: the panel and its scales are this task's.
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
        // Where there are too few slices of columns for all threads, several tasks have one, each some of its rows.
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
            // SAFETY: the tiles and the scratch space are this task's.
            unsafe { self.multiply_slice(block, slice, part, space) };
        });
    }

    /// Computes the tiles of some panels of B and some of A, all of whose panels are packed. B is packed to `space`,
    /// where that is still to be done.
    ///
    /// # Safety
    /// Nothing else may access the tiles. `space` must have room for a block of k of these panels of B.
    unsafe fn multiply_slice(&self, block: &RowBlock, slice: Range<usize>, part: Range<usize>, space: *mut u32) {
        for (number, (from, units)) in blocks(self.units).enumerate() {
            let b = |panel: usize| match self.b {
                Right::Strided(_) => space.wrapping_add((panel - slice.start) * NR * units),
                Right::Packed(packed) => packed.panel(panel, from, units),
            };
            if let Right::Strided(operand) = self.b {
                let columns = slice.start * NR..(slice.end * NR).min(self.cols);
                // SAFETY: these columns are B's, by the checks of its view; there is room for them.
                unsafe {
                    let null = std::ptr::null_mut();
                    operand.pack::<NR>(self.format, columns.start, columns.len(), from, units, space, null);
                }
            }
            for first in part.clone().step_by(A_BLOCK) {
                for panel in slice.clone() {
                    for row_panel in first..(first + A_BLOCK).min(part.end) {
                        let place = Place { panel, row_panel, number, from, units };
                        // SAFETY: both panels are packed; the tile is the caller's.
                        unsafe { self.tile(block, place, b(panel)) };
                    }
                }
            }
        }
        if self.stream {
            // Other threads must not see what follows before they see what was written past the caches.
            // SAFETY: every x86-64 has it.
            unsafe { std::arch::x86_64::_mm_sfence() };
        }
    }

    /// The part of a tile's sum that a block of k has, and what follows the last.
    ///
    /// # Safety
    /// Both panels must be packed, B's at `b`, and nothing else may access the tile.
    #[inline]
    unsafe fn tile(&self, block: &RowBlock, place: Place, b: *const u32) {
        let Place { panel, row_panel, number, from, units } = place;
        let tile = Tile {
            row: block.first + row_panel * MR,
            column: panel * NR,
            rows: block.rows(row_panel).len(),
            cols: NR.min(self.cols - panel * NR),
        };
        let a = block.panel(row_panel, from, units);
        let last = from + units == self.units;
        // SAFETY: the caller's promises; the driver runs on processors with AVX-512 alone, and packs what they multiply.
        unsafe {
            if last {
                self.finish.prefetch(self.stride, tile);
            }
            let to = Destination {
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
                finish(self.finish, self.c.0, self.stride, tile);
            }
        }
    }
}

/// Which panels of B and A, and which block of k: its number, first unit, and number of units.
struct Place {
    panel: usize,
    row_panel: usize,
    number: usize,
    from: usize,
    units: usize,
}

/// # Safety
/// As [`Finish::tile`], on a processor with AVX-512.
#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl,avx2,fma")]
unsafe fn finish(finish: Finish<f32>, c: *mut f32, stride: usize, tile: Tile) {
    // SAFETY: the caller's promises.
    unsafe { finish.tile(c, stride, tile) };
}
