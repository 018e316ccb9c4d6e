//! The random bytes that decide which probabilities dropout keeps.

use super::problem::{BLOCK, padded};
use crate::cpu::dropout::philox_lanes;
use crate::dropout::Dropout;

/// The number of bytes for one block of query rows of a sequence of `len` tokens.
pub(super) fn mask_len(len: usize) -> usize {
    BLOCK * padded(len)
}

/// Writes the bytes of the score rows `first_row..first_row + rows`, with `first_row` a multiple of 16, as rows of `len`
/// rounded up to 32.
///
/// A block of 16 x 32 scores takes 32 Philox calls, one for each lane of a warp on a GPU, which holds 16 of its scores. The
/// calls run side by side in vector lanes; then the bytes are put in row-major order.
#[inline(always)]
pub(super) fn mask_bytes(
    dropout: &Dropout,
    (sequence, head): (u32, u32),
    first_row: usize,
    rows: usize,
    len: usize,
    bytes: &mut [u8],
) {
    let stride = padded(len);
    for block_row in 0..rows.div_ceil(16) {
        for block_column in 0..stride / 32 {
            let (row, column) = ((first_row / 16 + block_row) as u32, block_column as u32);
            let (counter, key) = dropout.attention_counter(sequence, head, row, column, 0);
            let words = philox_lanes::<32>(counter, key);
            // Row i has the lower (i < 8) or upper half of each word. In word w, its columns 8 w .. 8 w + 8 are the two
            // bytes each of lanes 4 (i % 8) .. + 4.
            let mut halves = [[[0u16; 32]; 4]; 2];
            for (w, words) in words.iter().enumerate() {
                for (lane, word) in words.iter().enumerate() {
                    halves[0][w][lane] = (*word as u16).to_le();
                    halves[1][w][lane] = ((word >> 16) as u16).to_le();
                }
            }
            for i in 0..16.min(rows - block_row * 16) {
                let to = &mut bytes[(block_row * 16 + i) * stride + block_column * 32..][..32];
                for (to, half) in to.as_chunks_mut::<8>().0.iter_mut().zip(&halves[i / 8]) {
                    to.copy_from_slice(bytemuck::cast_slice(&half[4 * (i % 8)..][..4]));
                }
            }
        }
    }
}
