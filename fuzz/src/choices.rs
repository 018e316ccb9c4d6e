//! Choices that bytes make: small programs, shapes and values out of any input.

/// Reads choices from bytes. After their end, every choice is 0.
pub struct Choices<'a> {
    bytes: &'a [u8],
}

impl<'a> Choices<'a> {
    /// Starts at the first byte.
    pub fn new(bytes: &'a [u8]) -> Choices<'a> {
        Choices { bytes }
    }

    /// Returns whether choices are left.
    pub fn any_left(&self) -> bool {
        !self.bytes.is_empty()
    }

    /// Returns the next byte.
    pub fn byte(&mut self) -> u8 {
        let Some((&first, rest)) = self.bytes.split_first() else { return 0 };
        self.bytes = rest;
        first
    }

    /// Returns a number below `end`, which is at most 256.
    pub fn below(&mut self, end: usize) -> usize {
        usize::from(self.byte()) % end.max(1)
    }

    /// Returns one of `values`.
    pub fn of<T: Copy>(&mut self, values: &[T]) -> T {
        values[self.below(values.len())]
    }

    /// Returns a number that is small in most cases, and an edge of its range in some.
    pub fn size(&mut self) -> usize {
        match self.byte() {
            byte @ 0..=239 => usize::from(byte % 16),
            byte @ 240..=247 => usize::MAX >> (byte - 240),
            byte => 1 << (8 * (byte - 248)).min(63),
        }
    }

    /// Returns a small number with a few bits, so that sums of products are exact in f32.
    pub fn value(&mut self) -> f32 {
        f32::from(self.byte() as i8) / 16.0
    }

    /// Returns all bytes that are left.
    pub fn rest(self) -> &'a [u8] {
        self.bytes
    }
}
