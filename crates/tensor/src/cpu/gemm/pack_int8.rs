//! Packing rows as int8.
//!
//! AVX2 and VNNI multiply unsigned by signed bytes. For their kernels, activations are stored as `q + 128`, and the sums begin
//! with -128 times the sum of the weights' integers, which makes up for the 128.
//!
//! Sums are exact: a block of k has at most [`K_UNITS`](super::blocks::K_UNITS) words of four products of magnitude at most
//! 255 * 64, together below 2^25.

use super::blocks::blocks;
use super::int8::{ACTIVATION, WEIGHT, quantize};
use super::view::View;
use crate::cpu::parallel::{Disjoint, for_tasks};

/// Elements along k in a word.
const ELEMENTS: usize = 4;

/// Packs the transpose of weights `[n, k]` for a kernel of `nr` columns with or without an offset for A.
/// `panel(panel, from, units)` returns the address for a panel's part of a block of k. Returns the scales of the columns,
/// padded to whole panels, and the initial sums `[blocks, panels, nr]`.
///
/// # Safety
/// Each address must be valid for writes of `units` units of a panel, no two parts may overlap, and nothing else may access them
/// meanwhile.
pub(super) unsafe fn pack_weights(
    weights: &[f32],
    n: usize,
    k: usize,
    (nr, is_offset): (usize, bool),
    panel: impl Fn(usize, usize, usize) -> *mut i8 + Sync,
) -> (Vec<f32>, Vec<i32>) {
    let (panels, units) = (n.div_ceil(nr), k.div_ceil(ELEMENTS));
    let offset = if is_offset { -128 } else { 0 };
    let count = blocks(units).count();
    let (mut scales, mut starts) = (vec![0.0; panels * nr], vec![0; panels * count * nr]);
    let (all_scales, all_starts) = (Disjoint::new(&mut scales), Disjoint::new(&mut starts));
    for_tasks(
        panels,
        n * k,
        || vec![0i8; units * ELEMENTS],
        |row, at| {
            // SAFETY: no other task has this panel.
            let scales = unsafe { all_scales.slice(at * nr..(at + 1) * nr) };
            for (column, scale) in scales.iter_mut().enumerate().take(n - at * nr) {
                *scale = quantize(&weights[(at * nr + column) * k..][..k], WEIGHT, &mut row[..k]);
                for (number, (from, length)) in blocks(units).enumerate() {
                    let part = &row[from * ELEMENTS..][..length * ELEMENTS];
                    let start = (number * panels + at) * nr + column;
                    // SAFETY: no other task has this panel, and this one takes one element at a time.
                    let sum = unsafe { all_starts.slice(start..start + 1) };
                    sum[0] = offset * part.iter().map(|&q| i32::from(q)).sum::<i32>();
                    let to = panel(at, from, length);
                    for (unit, word) in part.as_chunks::<ELEMENTS>().0.iter().enumerate() {
                        let to = to.wrapping_add((unit * nr + column) * ELEMENTS).cast::<[i8; ELEMENTS]>();
                        // SAFETY: `unit` is below `length` and `column` below `nr`, so this word is within the part of the panel at
                        // `to`, which is valid by this function's contract; no other task has it.
                        unsafe { to.write(*word) };
                    }
                }
            }
        },
    );
    (scales, starts)
}

/// Packs rows of activations, of a row-major A from row `start` on, one for each of `scales`, and writes their scales. The
/// kernel has `mr` rows, at least as many as there are `scales`, and its A may have an offset. `panel(from, units)` returns the
/// address for the panel's part of a block of k; `row` is working memory.
///
/// # Safety
/// Each address must be valid for writes of `units` units of a panel, and nothing else may access them meanwhile.
pub(super) unsafe fn pack_activations(
    a: View<'_, f32>,
    start: usize,
    scales: &mut [f32],
    row: &mut Vec<i8>,
    (mr, is_offset): (usize, bool),
    panel: impl Fn(usize, usize) -> *mut u32,
) {
    let units = a.cols.div_ceil(ELEMENTS);
    let flip = if is_offset { 0x8080_8080 } else { 0 };
    row.resize(units * ELEMENTS, 0);
    for (i, scale) in scales.iter_mut().enumerate() {
        *scale = quantize(&a.data[(start + i) * a.row_stride..][..a.cols], ACTIVATION, &mut row[..a.cols]);
        for (from, length) in blocks(units) {
            let to = panel(from, length);
            for (unit, word) in row[from * ELEMENTS..][..length * ELEMENTS].as_chunks::<ELEMENTS>().0.iter().enumerate()
            {
                let word = u32::from_ne_bytes(word.map(|q| q as u8)) ^ flip;
                let to = to.wrapping_add(unit * mr + i);
                // SAFETY: `unit` is below `length` and `i` below `mr`, so this word is within the part of the panel, which is valid by
                // this function's contract.
                unsafe { to.write(word) };
            }
        }
    }
}
