//! Documents that were seen before.

use std::collections::HashSet;
use std::hash::{BuildHasherDefault, Hasher};

/// The hashes of documents, 16 bytes each. The set has room for up to twice as many.
#[derive(Default)]
pub(super) struct Duplicates(HashSet<u128, BuildHasherDefault<FirstWord>>);

impl Duplicates {
    /// Adds the hash of a document. Returns whether it was there already.
    pub(super) fn seen(&mut self, document: u128) -> bool {
        !self.0.insert(document)
    }
}

/// Takes the first word of a hash, which needs no hashing.
#[derive(Default)]
struct FirstWord(u64);

impl Hasher for FirstWord {
    fn write(&mut self, bytes: &[u8]) {
        let mut word = [0; 8];
        word.iter_mut().zip(bytes).for_each(|(to, &from)| *to = from);
        self.0 = u64::from_ne_bytes(word);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_hash_is_new_once() {
        let mut seen = Duplicates::default();
        let hash = |number: u128| number.wrapping_mul(0x9E37_79B9_7F4A_7C15_F39C_C060_5CED_C835);
        assert!((0..5_000).all(|number| !seen.seen(hash(number))));
        assert!((0..5_000).all(|number| seen.seen(hash(number))));
        // Hashes with the same first word are different.
        assert!(!seen.seen(hash(3) ^ 1 << 127));
    }
}
