//! Matrix products of f32 by packing, blocking and tiles, after K. Goto and R. van de Geijn, "Anatomy of
//! high-performance matrix multiplication", 2008.
//!
//! A is packed as a whole (by rows of at most [`PACKED_A`] bytes), all threads together, and stays in the third-level
//! cache. Then each task takes a few columns: it packs its slice of B, a block of k at a time, into its second-level
//! cache, and multiplies. With few tokens B is the weights, which are so read from memory exactly once.
//!
//! A tile's sum goes along k in one order, and blocks depend on sizes alone: results do not depend on the number of
//! threads.

use super::epilogue::{Finish, Tile};
use super::kernels::{Destination, MR, NR, bf16_tile, f32_tile};
use super::pack::{Format, Operand};
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
    let is_unit = |view: &View<'_, f32>| view.row_stride == 1 || view.col_stride == 1;
    level() == Level::Avx512 && c.col_stride == 1 && is_unit(&gemm.a) && is_unit(&gemm.b) && gemm.a.cols > 0
}

fn format(precision: Precision) -> Format {
    match precision {
        Precision::Bf16 if std::is_x86_feature_detected!("avx512bf16") => Format::Bf16Pair,
        Precision::Bf16 => Format::RoundedF32,
        Precision::F32 | Precision::Int8 => Format::F32,
    }
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
    let Gemm { a, b, precision, accumulate, epilogue, row_sums } = gemm;
    let k = a.cols;
    let operand = |view: View<'_, f32>, outer, inner| Operand { data: view.data.as_ptr(), outer, inner, k };
    let format = format(precision);
    let job = Job {
        format,
        units: k.div_ceil(format.elements()),
        a: operand(a, a.row_stride, a.col_stride),
        b: operand(b, b.col_stride, b.row_stride),
        c: Shared(c.data.as_mut_ptr()),
        stride: c.row_stride,
        cols: c.cols,
        accumulate,
        finish: epilogue.finish(),
    };
    let mut sums = row_sums;
    let most = (PACKED_A / 4 / job.units / MR).max(1) * MR;
    let rows = c.rows.div_ceil(c.rows.div_ceil(most)).next_multiple_of(MR);
    let packed = Scratch::new(rows * job.units * 4);
    for first in (0..c.rows).step_by(rows) {
        let count = rows.min(c.rows - first);
        let block = RowBlock { first, count, packed: Shared(packed.pointer().cast().as_ptr()) };
        let sums = sums.as_mut().map(|sums| (Shared(sums.data[first..first + count].as_mut_ptr()), sums.accumulate));
        job.pack_a(&block, sums);
        job.multiply(&block);
    }
}

/// A product for threads to share.
struct Job {
    format: Format,
    /// Words along k.
    units: usize,
    a: Operand,
    b: Operand,
    c: Shared<f32>,
    stride: usize,
    cols: usize,
    accumulate: bool,
    finish: Finish<f32>,
}

/// Rows of A that are packed together: for each block of k, panel after panel.
struct RowBlock {
    first: usize,
    count: usize,
    packed: Shared<u32>,
}

impl RowBlock {
    fn panels(&self) -> usize {
        self.count.div_ceil(MR)
    }

    /// Where the panel's units of the block of k that begins at unit `from` and has `units` begin.
    fn panel(&self, panel: usize, from: usize, units: usize) -> *mut u32 {
        self.packed.at((from * self.panels() + panel * units) * MR)
    }
}

impl Job {
    /// Blocks of k: the first unit and the number of units of each.
    fn blocks(&self) -> impl Iterator<Item = (usize, usize)> {
        let (all, length) = (self.units, self.units.div_ceil(self.units.div_ceil(K_UNITS)));
        (0..all).step_by(length).map(move |from| (from, length.min(all - from)))
    }

    fn pack_a(&self, block: &RowBlock, sums: Option<(Shared<f32>, bool)>) {
        // Some 64 KiB a task.
        let together = (16_384 / (self.units * MR)).max(1);
        let tasks = block.panels().div_ceil(together);
        for_tasks(
            tasks,
            block.count * self.units,
            || (),
            |(), task| {
                for panel in task * together..((task + 1) * together).min(block.panels()) {
                    let (start, count) = (panel * MR, MR.min(block.count - panel * MR));
                    let mut row_sums = [0f32; 16];
                    let to = if sums.is_some() { row_sums.as_mut_ptr() } else { std::ptr::null_mut() };
                    for (from, units) in self.blocks() {
                        // SAFETY: these rows are A's, by the checks of its view; the panel is this task's.
                        unsafe {
                            let packed = block.panel(panel, from, units);
                            self.a.pack::<MR>(self.format, block.first + start, count, from, units, packed, to);
                        }
                    }
                    if let Some((sums, accumulate)) = sums {
                        for (i, sum) in row_sums.iter().enumerate().take(count) {
                            // SAFETY: there is a sum for each row, and these are this task's.
                            let to = unsafe { &mut *sums.at(start + i) };
                            *to = if accumulate { *to + sum } else { *sum };
                        }
                    }
                }
            },
        );
    }

    fn multiply(&self, block: &RowBlock) {
        let panels = self.cols.div_ceil(NR);
        let columns = panels.div_ceil(B_PANELS);
        // Where there are too few slices of columns for all threads, several tasks have one, each some of its rows.
        let wanted = 2 * rayon::current_num_threads();
        let parts = if columns >= wanted { 1 } else { wanted.div_ceil(columns).min(block.panels().div_ceil(2)) };
        let height = block.panels().div_ceil(parts);
        let longest = self.blocks().map(|(_, units)| units).max().unwrap_or(0);
        let scratch = || Scratch::new(B_PANELS * NR * longest * 4);
        let cost = (block.count * self.cols).saturating_mul(self.units) / 64;
        for_tasks(columns * parts, cost, scratch, |scratch, task| {
            let (slice, part) = (task / parts * B_PANELS, task % parts * height);
            let (slice, part) = (slice..(slice + B_PANELS).min(panels), part..(part + height).min(block.panels()));
            let packed = scratch.pointer().cast::<u32>().as_ptr();
            for (from, units) in self.blocks() {
                for panel in slice.clone() {
                    let (start, count) = (panel * NR, NR.min(self.cols - panel * NR));
                    let to = packed.wrapping_add((panel - slice.start) * NR * units);
                    // SAFETY: these columns are B's, by the checks of its view; the scratch space is this task's.
                    unsafe { self.b.pack::<NR>(self.format, start, count, from, units, to, std::ptr::null_mut()) };
                }
                for first in part.clone().step_by(A_BLOCK) {
                    for panel in slice.clone() {
                        let b = packed.wrapping_add((panel - slice.start) * NR * units);
                        for row_panel in first..(first + A_BLOCK).min(part.end) {
                            let tile = Tile {
                                row: block.first + row_panel * MR,
                                column: panel * NR,
                                rows: MR.min(block.count - row_panel * MR),
                                cols: NR.min(self.cols - panel * NR),
                            };
                            // SAFETY: both panels are packed, and the tile is this task's.
                            unsafe { self.tile(tile, block.panel(row_panel, from, units), b, from, units) };
                        }
                    }
                }
            }
        });
    }

    /// The part of a tile's sum that the block of k from unit `from` on has, and what follows the last.
    ///
    /// # Safety
    /// `a` and `b` must be panels of that block, and nothing else may access the tile.
    unsafe fn tile(&self, tile: Tile, a: *const u32, b: *const u32, from: usize, units: usize) {
        let last = from + units == self.units;
        // SAFETY: the caller's promises; the driver runs on processors with AVX-512 alone, and packs pairs of bf16
        // only where those are multiplied.
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
            };
            match self.format {
                Format::F32 | Format::RoundedF32 => f32_tile(units, a, b, to),
                Format::Bf16Pair => bf16_tile(units, a, b, to),
            }
            if last {
                finish(self.finish, self.c.0, self.stride, tile);
            }
        }
    }
}

/// # Safety
/// As [`Finish::tile`], on a processor with AVX-512.
#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl,avx2,fma")]
unsafe fn finish(finish: Finish<f32>, c: *mut f32, stride: usize, tile: Tile) {
    // SAFETY: the caller's promises.
    unsafe { finish.tile(c, stride, tile) };
}
