//! The only source of randomness: Philox4x32-7, a counter-based generator.
//!
//! A sequential generator has a state, so a draw depends on how many draws came before it, and thereby on threads and
//! batches. A counter-based generator is a pure function of a key and a counter, a block cipher weakened as far as statistical
//! tests allow. Here the key is the seed, and the counter identifies the draw: its purpose and site, the optimizer step, the
//! global number of the sequence within that step, and coordinates local to the sequence. A draw therefore depends neither on
//! the number of threads nor on how sequences are packed into batches, can be recomputed in backward instead of being stored,
//! and is the same on a GPU.
//!
//! Each round multiplies two of the four counter words by constants, exchanges the halves of the products, and mixes them
//! with the other two words and the key. Seven rounds are the fewest that pass BigCrush (J. K. Salmon, M. A. Moraes,
//! R. O. Dror, D. E. Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011).

use std::convert::Infallible;

use rand_core::TryRng;

/// The multipliers of a round.
const MULTIPLIERS: [u32; 2] = [0xD251_1F53, 0xCD9E_8D57];
/// The increments of the key after each round: the golden ratio and the square root of three.
const WEYL: [u32; 2] = [0x9E37_79B9, 0xBB67_AE85];

/// Computes Philox4x32 with `ROUNDS` rounds: 16 random bytes, as four words, for each (counter, key).
#[inline(always)]
pub fn philox<const ROUNDS: usize>(counter: [u32; 4], key: [u32; 2]) -> [u32; 4] {
    let ([mut c0, mut c1, mut c2, mut c3], [mut k0, mut k1]) = (counter, key);
    for _ in 0..ROUNDS {
        let p0 = MULTIPLIERS[0] as u64 * c0 as u64;
        let p1 = MULTIPLIERS[1] as u64 * c2 as u64;
        (c0, c1, c2, c3) = ((p1 >> 32) as u32 ^ c1 ^ k0, p1 as u32, (p0 >> 32) as u32 ^ c3 ^ k1, p0 as u32);
        k0 = k0.wrapping_add(WEYL[0]);
        k1 = k1.wrapping_add(WEYL[1]);
    }
    [c0, c1, c2, c3]
}

/// Returns the two key words of a seed.
#[inline]
pub fn key(seed: u64) -> [u32; 2] {
    [seed as u32, (seed >> 32) as u32]
}

/// The purpose of a draw. Draws for different purposes never share a counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Purpose {
    /// Dropout of hidden states.
    Dropout = 0,
    /// Dropout of attention probabilities.
    AttentionDropout = 1,
    /// Initial values of parameters.
    Init = 2,
    /// The choice of masked-language-model targets and their replacements.
    Masking = 3,
    /// The choice of sentence pairs for next-sentence prediction.
    Pairing = 4,
    /// The order of a data set.
    Shuffle = 5,
    /// Draws of user code.
    User = 6,
}

impl Purpose {
    /// The first counter word: the purpose in the top four bits, then `site` (below 2^20), then `lane` (below 2^8: an
    /// attention head, or zero).
    #[inline]
    pub(crate) fn word(self, site: u32, lane: u32) -> u32 {
        debug_assert!(site < 1 << 20 && lane < 1 << 8);
        (self as u32) << 28 | site << 8 | lane
    }
}

/// A random stream for one purpose, step and sequence. It implements the generator traits of `rand`.
///
/// ```
/// use cloze_tensor::random::{Purpose, Stream};
/// let mut a = Stream::new(7, Purpose::User, 0, 0, 0);
/// let mut b = a.clone();
/// assert_eq!(a.uniform(), b.uniform());
/// ```
#[derive(Clone, Debug)]
pub struct Stream {
    key: [u32; 2],
    counter: [u32; 4],
    block: [u32; 4],
    used: usize,
}

impl Stream {
    /// Creates a stream for draws of a program's own, such as [`Tensor::randn`](crate::Tensor::randn).
    pub fn seeded(seed: u64) -> Stream {
        Stream::new(seed, Purpose::User, 0, 0, 0)
    }

    /// Creates the stream of `seed` for draws of `purpose` at `site` (only the low 20 bits count) in optimizer step `step` and
    /// sequence `sequence`. It yields 2^34 words before it repeats.
    pub fn new(seed: u64, purpose: Purpose, site: u32, step: u32, sequence: u32) -> Stream {
        let word = purpose.word(site & 0xF_FFFF, 0);
        Stream { key: key(seed), counter: [word, step, sequence, 0], block: [0; 4], used: 4 }
    }

    /// Returns the next 32 random bits.
    #[inline]
    pub fn word(&mut self) -> u32 {
        if self.used == 4 {
            self.block = philox::<7>(self.counter, self.key);
            self.counter[3] = self.counter[3].wrapping_add(1);
            self.used = 0;
        }
        self.used += 1;
        self.block[self.used - 1]
    }

    /// Returns a number in [0, 1), a multiple of 2^-53.
    #[inline]
    pub fn uniform(&mut self) -> f64 {
        let high = self.word() as u64;
        let low = self.word() as u64;
        ((high << 32 | low) >> 11) as f64 * (1.0 / (1u64 << 53) as f64)
    }

    /// Returns an unbiased integer in [0, bound), or 0 if `bound` is 0 (D. Lemire, "Fast random integer generation in an
    /// interval", 2019).
    pub fn below(&mut self, bound: usize) -> usize {
        let bound = bound as u64;
        if bound == 0 {
            return 0;
        }
        loop {
            let x = (self.word() as u64) << 32 | self.word() as u64;
            let product = x as u128 * bound as u128;
            if product as u64 >= bound.wrapping_neg() % bound {
                return (product >> 64) as usize;
            }
        }
    }

    /// Returns two independent standard normal numbers (G. E. P. Box and M. E. Muller, 1958).
    pub fn normal_pair(&mut self) -> [f64; 2] {
        let radius = (-2.0 * (1.0 - self.uniform()).ln()).sqrt();
        let (sin, cos) = (std::f64::consts::TAU * self.uniform()).sin_cos();
        [radius * cos, radius * sin]
    }

    /// Shuffles `items` (R. A. Fisher and F. Yates). The order depends only on this stream, not on the version of any crate.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            let other = self.below(last + 1);
            items.swap(last, other);
        }
    }
}

impl TryRng for Stream {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        Ok(self.word())
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        let low = self.word() as u64;
        Ok((self.word() as u64) << 32 | low)
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        for chunk in bytes.chunks_mut(4) {
            chunk.copy_from_slice(&self.word().to_le_bytes()[..chunk.len()]);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Known-answer vectors of Random123 (`kat_vectors`, philox4x32 with 7 and 10 rounds).
    #[test]
    fn known_answers() {
        let ones = u32::MAX;
        assert_eq!(philox::<7>([0; 4], [0; 2]), [0x5f6f_b709, 0x0d89_3f64, 0x4f12_1f81, 0x4f73_0a48]);
        assert_eq!(philox::<7>([ones; 4], [ones; 2]), [0x5207_ddc2, 0x4516_5e59, 0x4d8e_e751, 0x8c52_f662]);
        let pi = ([0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344], [0xa409_3822, 0x299f_31d0]);
        assert_eq!(philox::<7>(pi.0, pi.1), [0x4dfc_caba, 0x190a_87f0, 0xc473_62ba, 0xb6b5_242a]);
        assert_eq!(philox::<10>([0; 4], [0; 2]), [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
        assert_eq!(philox::<10>(pi.0, pi.1), [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1]);
    }

    #[test]
    #[cfg_attr(miri, ignore = "plain arithmetic, 100,000 draws")]
    fn below_is_uniform_and_in_range() {
        let mut stream = Stream::new(3, Purpose::User, 0, 0, 0);
        let mut counts = [0usize; 7];
        for _ in 0..70_000 {
            counts[stream.below(7)] += 1;
        }
        assert!(counts.iter().all(|&n| (9_500..10_500).contains(&n)), "{counts:?}");
        assert_eq!(stream.below(0), 0);
        assert_eq!(stream.below(1), 0);
    }

    #[test]
    #[cfg_attr(miri, ignore = "plain arithmetic, 100,000 draws")]
    fn normal_has_its_moments() {
        let mut stream = Stream::new(5, Purpose::User, 0, 0, 0);
        let draws: Vec<f64> = (0..50_000).flat_map(|_| stream.normal_pair()).collect();
        let mean = draws.iter().sum::<f64>() / draws.len() as f64;
        let variance = draws.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / draws.len() as f64;
        assert!(mean.abs() < 0.01 && (variance - 1.0).abs() < 0.02, "mean {mean}, variance {variance}");
    }
}
