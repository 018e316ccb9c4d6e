//! Packing rows as int8.
//!
//! VNNI multiplies unsigned by signed bytes, so activations are stored as `q + 128`. The sums begin with -128 times the sum
//! of the weights' integers, which makes up for the 128.

use super::blocks::blocks;
use super::int8::quantize;
use super::kernels::{MR, NR};
use super::view::View;
use crate::cpu::parallel::{Disjoint, for_tasks};

/// Elements along k in a word.
const ELEMENTS: usize = 4;

/// Packs the transpose of weights `[n, k]`. `panel(panel, from, units)` returns the address for a panel's part of a block of
/// k. Returns the scales of the columns, padded to whole panels, and for each block and panel the initial sums.
pub(super) fn pack_weights(
    weights: &[f32],
    n: usize,
    k: usize,
    panel: impl Fn(usize, usize, usize) -> *mut i8 + Sync,
) -> (Vec<f32>, Vec<[i32; NR]>) {
    let (panels, units) = (n.div_ceil(NR), k.div_ceil(ELEMENTS));
    let count = blocks(units).count();
    let (mut scales, mut starts) = (vec![0.0; panels * NR], vec![[0; NR]; panels * count]);
    let (all_scales, all_starts) = (Disjoint::new(&mut scales), Disjoint::new(&mut starts));
    for_tasks(
        panels,
        n * k,
        || vec![0i8; units * ELEMENTS],
        |row, at| {
            // SAFETY: no other task has this panel, its scales or its sums; `panel` returns room for the panel's words.
            unsafe {
                let scales = all_scales.slice(at * NR..(at + 1) * NR);
                for (column, scale) in scales.iter_mut().enumerate().take(n - at * NR) {
                    *scale = quantize(&weights[(at * NR + column) * k..][..k], &mut row[..k]);
                    for (number, (from, length)) in blocks(units).enumerate() {
                        let part = &row[from * ELEMENTS..][..length * ELEMENTS];
                        let start = &mut all_starts.slice(number * panels + at..number * panels + at + 1)[0];
                        start[column] = -128 * part.iter().map(|&q| i32::from(q)).sum::<i32>();
                        let to = panel(at, from, length);
                        for (unit, word) in part.as_chunks::<ELEMENTS>().0.iter().enumerate() {
                            to.add((unit * NR + column) * ELEMENTS).cast::<[i8; ELEMENTS]>().write(*word);
                        }
                    }
                }
            }
        },
    );
    (scales, starts)
}

/// Packs rows of activations, of a row-major A from row `start` on, one for each of `scales`, and writes their scales.
/// `panel(from, units)` returns the address for the panel's part of a block of k; `row` is working memory.
///
/// # Safety
/// Each address must be valid for writes of `units` units of a panel.
pub(super) unsafe fn pack_activations(
    a: View<'_, f32>,
    start: usize,
    scales: &mut [f32],
    row: &mut Vec<i8>,
    panel: impl Fn(usize, usize) -> *mut u32,
) {
    let units = a.cols.div_ceil(ELEMENTS);
    row.resize(units * ELEMENTS, 0);
    for (i, scale) in scales.iter_mut().enumerate() {
        *scale = quantize(&a.data[(start + i) * a.row_stride..][..a.cols], &mut row[..a.cols]);
        for (from, length) in blocks(units) {
            let to = panel(from, length);
            for (unit, word) in row[from * ELEMENTS..][..length * ELEMENTS].as_chunks::<ELEMENTS>().0.iter().enumerate()
            {
                let word = u32::from_ne_bytes(word.map(|q| q as u8)) ^ 0x8080_8080;
                // SAFETY: `unit` is below `length` and `i` below `MR`, so this word is within the panel's part.
                unsafe { to.add(unit * MR + i).write(word) };
            }
        }
    }
}
