//! Random numbers that a Python script can reproduce, for tests whose expected values come from Python libraries.

/// A linear congruential generator with the constants of D. Knuth's MMIX.
pub(super) struct Lcg(pub(super) u64);

impl Lcg {
    pub(super) fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 33) as usize % limit
    }
}
