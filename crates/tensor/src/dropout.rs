//! Which elements a dropout keeps: a pure function of seed, site, step, sequence and coordinates.
//!
//! Masks are recomputed in backward, never stored. One Philox call gives 16 bytes, hence 16 decisions:
//! the drop probability is rounded to `threshold / 256`, an element is kept when its byte is at least
//! `threshold`, and kept values are scaled by `256 / (256 - threshold)`.

use crate::random::{Purpose, key, philox};
use crate::{Error, Result};

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

    /// Drops with probability `p`, rounded to a multiple of 1/256, at `site` (a number that differs
    /// between the dropouts of a model, below 2^20) in optimizer step `step`.
    ///
    /// # Errors
    /// When `p` is not in [0, 1), or is so small (or so near 1) that it would round to 0 (or 1).
    pub fn new(p: f64, seed: u64, site: u32, step: u32) -> Result<Dropout> {
        if !(0.0..1.0).contains(&p) {
            return Err(Error::invalid("dropout", format!("probability {p} is not in [0, 1)")));
        }
        let threshold = (p * 256.0).round() as u32;
        if p > 0.0 && (p < 1.0 / 256.0 || threshold > 255) {
            return Err(Error::invalid("dropout", format!("probability {p} is outside [1/256, 255/256] and not 0")));
        }
        if site >= 1 << 20 {
            return Err(Error::invalid("dropout", format!("site {site} is not below 2^20")));
        }
        Ok(Dropout { threshold, key: key(seed), site, step })
    }

    /// Key, site and step: with the coordinates of an element they decide.
    #[cfg(feature = "cuda")]
    pub(crate) fn identity(&self) -> ([u32; 2], u32, u32) {
        (self.key, self.site, self.step)
    }

    /// Whether everything is kept.
    #[inline]
    pub fn is_none(&self) -> bool {
        self.threshold == 0
    }

    /// An element is kept when its byte is at least this.
    #[inline]
    pub fn threshold(&self) -> u32 {
        self.threshold
    }

    /// What kept values are multiplied with: `256 / (256 - threshold)`.
    #[inline]
    pub fn scale(&self) -> f64 {
        256.0 / (256 - self.threshold) as f64
    }

    /// The counter and key of the 16 bytes for columns `16 * group ..` of a row of hidden states. `group`
    /// counts on through the sequence: `position * ceil(width / 16) + column / 16`.
    #[inline(always)]
    pub fn hidden_counter(&self, sequence: u32, group: u32) -> ([u32; 4], [u32; 2]) {
        ([Purpose::Dropout.word(self.site, 0), self.step, sequence, group], self.key)
    }

    /// The counter and key of the 16 bytes that a lane holds in a 16 x 32 block of a head's scores. Lane
    /// `4 * (i % 8) + (j % 8) / 2` holds the elements with `i` and `j` local to the block; element `(i, j)`
    /// has byte `4 * (j / 8) + 2 * (i / 8) + j % 2`. That is how tensor-core accumulators lie.
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

    /// The 16 bytes of a counter.
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

/// Where a row of hidden states stands: the global number of its sequence within the optimizer step, and
/// its position in that sequence.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, bytemuck::Zeroable, bytemuck::Pod)]
pub struct RowCoordinate {
    /// Global number of the sequence within the optimizer step.
    pub sequence: u32,
    /// Position of the row in its sequence.
    pub position: u32,
}
