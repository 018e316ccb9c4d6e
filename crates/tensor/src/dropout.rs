//! The masks of dropout: a pure function of seed, site, step, sequence and coordinates.
//!
//! Masks are recomputed in backward, never stored. One Philox call gives 16 bytes, hence 16 decisions: the drop probability
//! is rounded to `threshold / 256`, an element is kept if its byte is at least `threshold`, and kept values are scaled by
//! `256 / (256 - threshold)`.

use crate::error::{Error, Result};
use crate::random::{Purpose, key, philox};

/// A dropout at one place of a model during one optimizer step.
///
/// `Dropout::NONE` (also the default) keeps everything: evaluation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Dropout {
    threshold: u32,
    key: [u32; 2],
    site: u32,
    step: u32,
}

impl Dropout {
    /// Keeps every element.
    pub const NONE: Dropout = Dropout { threshold: 0, key: [0; 2], site: 0, step: 0 };

    /// Creates a dropout with probability `p`, rounded to a multiple of 1/256, in optimizer step `step`. `site` is a number
    /// below 2^20 that differs between the dropouts of a model.
    ///
    /// # Errors
    /// Returns an error if `p` is not in [0, 1) or would be rounded to 0 or 1, or if `site` is out of range.
    pub fn new(p: f64, seed: u64, site: u32, step: u32) -> Result<Dropout> {
        if !(0.0..1.0).contains(&p) {
            return Err(Error::invalid("dropout", format!("probability {p} is not in [0, 1)")));
        }
        let threshold = (p * 256.0).round() as u32;
        if p > 0.0 && (p < 1.0 / 256.0 || threshold > 255) {
            return Err(Error::invalid("dropout", format!("probability {p} is neither 0 nor in [1/256, 255/256]")));
        }
        if site >= 1 << 20 {
            return Err(Error::invalid("dropout", format!("site {site} is out of range: the limit is 2^20")));
        }
        Ok(Dropout { threshold, key: key(seed), site, step })
    }

    /// The key, site and step, which decide together with the coordinates of an element.
    #[cfg(feature = "cuda")]
    pub(crate) fn identity(&self) -> ([u32; 2], u32, u32) {
        (self.key, self.site, self.step)
    }

    /// Returns whether every element is kept.
    #[inline]
    pub fn is_none(&self) -> bool {
        self.threshold == 0
    }

    /// Returns the smallest byte for which an element is kept.
    #[inline]
    pub fn threshold(&self) -> u32 {
        self.threshold
    }

    /// Returns the factor of kept values: `256 / (256 - threshold)`.
    #[inline]
    pub fn scale(&self) -> f64 {
        256.0 / (256 - self.threshold) as f64
    }

    /// Returns the counter and key of the 16 bytes for the columns `16 * group ..` of a row of hidden states. `group` is
    /// counted through the whole sequence: `position * ceil(width / 16) + column / 16`.
    #[inline(always)]
    pub fn hidden_counter(&self, sequence: u32, group: u32) -> ([u32; 4], [u32; 2]) {
        ([Purpose::Dropout.word(self.site, 0), self.step, sequence, group], self.key)
    }

    /// Returns the counter and key of the 16 bytes of a lane in a 16 x 32 block of a head's scores. Element `(i, j)` of the
    /// block belongs to lane `4 * (i % 8) + (j % 8) / 2`, and its byte there is `4 * (j / 8) + 2 * (i / 8) + j % 2`: the
    /// layout of tensor-core accumulators.
    #[inline(always)]
    pub fn attention_counter(
        &self,
        sequence: u32,
        head: u32,
        row_block: u32,
        column_block: u32,
        lane: u32,
    ) -> ([u32; 4], [u32; 2]) {
        let coordinates = row_block << 16 | column_block << 5 | lane;
        ([Purpose::AttentionDropout.word(self.site, head), self.step, sequence, coordinates], self.key)
    }

    /// Returns the 16 random bytes of a counter and key.
    #[inline(always)]
    pub fn bytes((counter, key): ([u32; 4], [u32; 2])) -> [u8; 16] {
        let words = philox::<7>(counter, key);
        let mut bytes = [0; 16];
        for (to, word) in bytes.chunks_exact_mut(4).zip(words) {
            to.copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }
}

/// The coordinates of a row of hidden states: the global number of its sequence within the optimizer step, and its position
/// in that sequence.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, bytemuck::Zeroable, bytemuck::Pod)]
pub struct RowCoordinate {
    /// The global number of the sequence within the optimizer step.
    pub sequence: u32,
    /// The position of the row in its sequence.
    pub position: u32,
}
