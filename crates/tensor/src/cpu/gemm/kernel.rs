//! Micro-kernels as values: the instructions that the [driver](super::driver) multiplies with, and how it packs operands
//! for them.
//!
//! A *panel* is a sequence of units, one per step along k. A unit of A holds [`mr`](Kernel::mr) words, one per row; a unit of
//! B holds [`nr`](Kernel::nr) words, one per column. A word has the size of an element of C. It is one element, or two bf16
//! or four int8 that are consecutive along k, so one driver serves all types.
//!
//! Every kernel adds the terms of an element in the order of k, in blocks that do not depend on the kernel, with fused
//! multiply-adds if the processor has them. So all processors that have them compute the same bits in f32, and all
//! processors compute the same bits in int8, whose sums are exact.

use super::epilogue::{Finish, Tile};
use super::operand::Part;
use crate::cpu::simd::prefetch;

/// The most panels that one call packs.
pub(super) const TOGETHER: usize = 4;
/// The room for row sums of one panel of A, in elements: at least [`Kernel::mr`].
pub(super) const SUMS: usize = 16;

/// A set of instructions for products of one type. Kernels are statics and compared by address.
pub(super) struct Kernel<T: 'static> {
    /// Rows of a tile, at most [`SUMS`].
    pub(super) mr: usize,
    /// Columns of a tile.
    pub(super) nr: usize,
    /// Elements along k in a word.
    pub(super) elements: usize,
    pub(super) packing: Packing<T>,
    /// The same as `multiply` for a panel of B of bf16, if words are f32 that bf16 holds exactly: see [`super::packed`].
    pub(super) multiply_bf16: Option<Multiply<T>>,
    /// Whether tiles can bypass the caches.
    pub(super) streams: bool,
    pub(super) multiply: Multiply<T>,
    pub(super) finish: FinishTile<T>,
}

/// Computes a tile: the product of `units` units of a panel of A and a panel of B.
///
/// # Safety
/// The processor must have the kernel's instructions. The panels must be valid for reads of `units` units, the destination
/// for writes, and for reads if it accumulates. For int8 the terms must be valid for the tile.
pub(super) type Multiply<T> = unsafe fn(units: usize, a: *const T, b: *const T, to: TileStore<T>);

/// [`Finish::tile`] with the instructions of a kernel.
///
/// # Safety
/// As for [`Finish::tile`]; the processor must have the kernel's instructions.
pub(super) type FinishTile<T> = unsafe fn(finish: Finish<T>, c: *mut T, stride: usize, tile: Tile);

/// Packs a part of an operand into `to [panels, units, width]`, where `width` is `mr` or `nr`, with zeros beyond its rows or
/// columns and beyond k. There are at most [`TOGETHER`] panels. Unless `sums [panels, SUMS]` is null, adds the sums of the rows
/// to it, which requires an `outer` stride of 1.
///
/// # Safety
/// The processor must have the kernel's instructions. The part must be valid for reads, `to` for writes, `sums` for reads and
/// writes.
pub(super) type Pack<T> = unsafe fn(part: Part<T>, to: *mut T, sums: *mut T);

/// How operands become panels.
#[derive(Clone, Copy)]
pub(super) enum Packing<T> {
    /// Word by word.
    Convert { a: Pack<T>, b: Pack<T> },
    /// As int8 with a scale for each row of A and column of B: see [`super::pack_int8`]. With an offset, the integers of A are
    /// stored as unsigned bytes, 128 higher.
    Quantize { is_offset: bool },
}

/// The destination of a tile of C.
#[derive(Clone, Copy)]
pub(super) struct TileStore<T> {
    pub(super) c: *mut T,
    /// Elements from one row to the next.
    pub(super) stride: usize,
    pub(super) rows: usize,
    pub(super) cols: usize,
    /// Whether to add to the present elements.
    pub(super) accumulate: bool,
    /// Whether to bypass the caches, which then do not read the memory that is overwritten. Only for tiles of `nr` columns
    /// that do not accumulate and are aligned to cache lines.
    pub(super) stream: bool,
    /// For int8; null otherwise.
    pub(super) int8: Int8Terms,
    pub(super) ahead: Ahead,
}

/// The part of the next panel of B that a tile prefetches into the second-level cache: with few rows, a product waits for its
/// weights more than it computes, and the hardware does not prefetch past the end of a page.
#[derive(Clone, Copy)]
pub(super) struct Ahead {
    start: *const u8,
    /// Cache lines for each [`Ahead::UNITS`] units of the tile.
    lines: usize,
}

/// The next panel of B, shared among the tiles of the present one.
#[derive(Clone, Copy)]
pub(super) struct NextPanel {
    start: *const u8,
    bytes: usize,
    /// Cache lines for each [`Ahead::UNITS`] units of a tile.
    lines: usize,
    /// Bytes for each tile.
    share: usize,
}

impl NextPanel {
    pub(super) const NONE: NextPanel = NextPanel { start: std::ptr::null(), bytes: 0, lines: 0, share: 0 };

    /// Shares a panel among `tiles` tiles of `units` units.
    pub(super) fn new(start: *const u8, bytes: usize, units: usize, tiles: usize) -> NextPanel {
        let steps = (units / Ahead::UNITS).max(1);
        let lines = bytes.div_ceil(64 * steps * tiles);
        NextPanel { start, bytes, lines, share: 64 * lines * steps }
    }

    /// Returns what tile number `tile` prefetches.
    #[inline]
    pub(super) fn of_tile(self, tile: usize) -> Ahead {
        let from = tile * self.share;
        if from >= self.bytes { Ahead::NONE } else { Ahead { start: self.start.wrapping_add(from), lines: self.lines } }
    }
}

impl Ahead {
    pub(super) const NONE: Ahead = Ahead { start: std::ptr::null(), lines: 0 };
    pub(super) const UNITS: usize = 4;

    /// Prefetches what belongs to the next [`Ahead::UNITS`] units of the tile.
    #[inline(always)]
    pub(super) fn next(&mut self) {
        for _ in 0..self.lines {
            prefetch::<2, _>(self.start);
            self.start = self.start.wrapping_add(64);
        }
    }
}

/// The initial sums and the scales of an int8 tile. An element is its sum times the scales of its row and column.
#[derive(Clone, Copy)]
pub(super) struct Int8Terms {
    /// The initial sums of `nr` columns.
    pub(super) starts: *const i32,
    /// A scale for each row of the tile.
    pub(super) rows: *const f32,
    /// A scale for each of `nr` columns.
    pub(super) columns: *const f32,
}

impl Int8Terms {
    pub(super) const NONE: Int8Terms =
        Int8Terms { starts: std::ptr::null(), rows: std::ptr::null(), columns: std::ptr::null() };
}
