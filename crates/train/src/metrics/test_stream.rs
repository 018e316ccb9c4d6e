//! The same numbers as in the scripts that the expected values of the tests of metrics come from.

/// A linear congruential generator (D. Knuth's MMIX).
pub(super) struct Lcg(pub(super) u64);

impl Lcg {
    pub(super) fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 33) as usize % limit
    }
}
