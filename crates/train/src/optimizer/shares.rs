//! The cut of the flat parameters into the shares of ranks.
//!
//! The flat buffer is a sequence of buckets, and each rank owns a piece of each bucket. All ranks thus take part in the
//! exchange of every bucket, whichever part of the model it comes from.

use std::ops::Range;

/// The elements of a bucket: 16 MiB of f32, long enough for the bandwidth of a network.
pub(crate) const BUCKET: usize = 1 << 22;

/// The elements of a block. Pieces consist of blocks, and the norm is a sum over blocks, in their order: it does not depend on
/// the number of ranks.
pub(crate) const BLOCK: usize = 1 << 12;

/// The cut of a flat buffer into shares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shares {
    elements: usize,
    ranks: usize,
    bucket: usize,
}

impl Shares {
    pub(crate) fn new(elements: usize, ranks: usize) -> Shares {
        let piece = (BUCKET / ranks / BLOCK).max(1) * BLOCK;
        Shares { elements, ranks, bucket: piece * ranks }
    }

    /// Returns the buckets, in order.
    pub(crate) fn buckets(self) -> impl DoubleEndedIterator<Item = Bucket> {
        (0..self.elements.div_ceil(self.bucket)).map(move |number| {
            let start = number * self.bucket;
            let end = (start + self.bucket).min(self.elements);
            let piece = (end - start).div_ceil(self.ranks).next_multiple_of(BLOCK);
            Bucket { range: start..end, piece, ranks: self.ranks, before: start / self.ranks }
        })
    }

    /// Returns the pieces of a rank, in order.
    pub(crate) fn pieces(self, rank: usize) -> impl Iterator<Item = Range<usize>> {
        self.buckets().map(move |bucket| bucket.piece(rank))
    }

    /// Returns the number of elements that a rank owns.
    pub(crate) fn owned(self, rank: usize) -> usize {
        self.pieces(rank).map(|piece| piece.len()).sum()
    }
}

/// A range of the flat buffer that is exchanged at once.
#[derive(Clone, Debug)]
pub(crate) struct Bucket {
    pub(crate) range: Range<usize>,
    piece: usize,
    ranks: usize,
    /// The elements of each rank in the buckets before, all of which are full.
    before: usize,
}

impl Bucket {
    /// Returns the start of this bucket's piece within the share of any rank.
    pub(crate) fn share_start(&self) -> usize {
        self.before
    }

    /// Returns the range that a rank owns. The last ranks may own nothing of the last bucket.
    pub(crate) fn piece(&self, rank: usize) -> Range<usize> {
        let at = |rank: usize| (self.range.start + rank * self.piece).min(self.range.end);
        at(rank)..at(rank + 1)
    }

    /// Returns the bytes of the piece of each rank, for elements of `size` bytes.
    pub(crate) fn lengths(&self, size: usize) -> Vec<usize> {
        (0..self.ranks).map(|rank| self.piece(rank).len() * size).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_disjoint_complete_and_even() {
        for elements in [0, 32, BLOCK, 5 * BLOCK + 32, BUCKET, 3 * BUCKET + 17 * BLOCK + 64] {
            for ranks in [1, 2, 3, 4, 7, 2000] {
                let shares = Shares::new(elements, ranks);
                let (mut next, mut owned_before) = (0, vec![0; ranks]);
                for bucket in shares.buckets() {
                    for (rank, owned_before) in owned_before.iter_mut().enumerate() {
                        let piece = bucket.piece(rank);
                        assert_eq!(piece.start, next);
                        assert!(piece.start % BLOCK == 0 || piece.is_empty());
                        assert_eq!(bucket.share_start(), *owned_before);
                        *owned_before += piece.len();
                        next = piece.end;
                    }
                    assert_eq!(bucket.lengths(4).iter().sum::<usize>(), 4 * bucket.range.len());
                }
                assert_eq!(next, elements);
                let owned: Vec<usize> = (0..ranks).map(|rank| shares.owned(rank)).collect();
                assert_eq!(owned.iter().sum::<usize>(), elements);
                // The last bucket is cut into whole blocks, so the first ranks may own a little more of it.
                let even = elements / ranks;
                assert!(owned.iter().all(|&owned| owned <= even + BLOCK), "{elements} {ranks}: {owned:?}");
            }
        }
    }
}
