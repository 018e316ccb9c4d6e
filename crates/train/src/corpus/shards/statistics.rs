//! What is in a corpus, and what was left out of it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::super::assemble::TokenPart;
use super::super::part::DroppedTexts;
use super::super::store::Shard;

/// The numbers of a prepared corpus: what was read, what was left out, and what is in the shards.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct CorpusStatistics {
    /// The number of files.
    pub files: u64,
    /// The number of their bytes, as they are stored.
    pub stored_bytes: u64,
    /// The number of their bytes after decompression. Of Parquet files, only the texts count.
    pub text_bytes: u64,
    /// The number of texts that are no documents, by reason.
    pub dropped: DroppedTexts,
    /// The number of documents without a token, which are left out.
    pub documents_without_token: u64,
    /// The number of documents that equal an earlier one, and are left out.
    pub duplicates: u64,
    /// The number of sentences without a token, which are left out of their documents.
    pub sentences_without_token: u64,
    /// The number of documents in the shards.
    pub documents: u64,
    /// The number of sentences in the shards.
    pub sentences: u64,
    /// The number of tokens in the shards.
    pub tokens: u64,
    /// How many of the tokens are `[UNK]`.
    pub unknown_tokens: u64,
    /// The lengths of the sentences, in tokens.
    pub sentence_lengths: LengthStatistics,
    /// The lengths of the documents, in tokens.
    pub document_lengths: LengthStatistics,
}

impl CorpusStatistics {
    /// Returns the fraction of the tokens that are `[UNK]`.
    pub fn unknown_share(&self) -> f64 {
        self.unknown_tokens as f64 / self.tokens.max(1) as f64
    }
}

/// The distribution of lengths. A quantile is the smallest length that at least this fraction of all lengths does not
/// exceed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct LengthStatistics {
    /// The smallest length.
    pub shortest: u64,
    /// The quantile of 0.5.
    pub median: u64,
    /// The quantile of 0.9.
    pub p90: u64,
    /// The quantile of 0.99.
    pub p99: u64,
    /// The largest length.
    pub longest: u64,
    /// The number of lengths up to 1, from 2 to 2, from 3 to 4, from 5 to 8, and so on to the next powers of two.
    pub histogram: Vec<u64>,
}

/// The number of items of each length. There are few lengths: with n different ones, the corpus has n²/2 tokens.
#[derive(Default)]
struct LengthCounts {
    short: Vec<u64>,
    long: BTreeMap<u64, u64>,
}

/// Shorter lengths are counted in a list.
const SHORT: u64 = 1 << 10;

impl LengthCounts {
    /// Adds items with these ends.
    fn add(&mut self, ends: impl Iterator<Item = u64>) {
        self.short.resize(SHORT as usize, 0);
        let mut start = 0;
        for end in ends {
            let length = end - std::mem::replace(&mut start, end);
            match self.short.get_mut(length as usize) {
                Some(count) => *count += 1,
                None => *self.long.entry(length).or_default() += 1,
            }
        }
    }

    fn iter(&self) -> impl Iterator<Item = (u64, u64)> {
        let short = (0..).zip(self.short.iter().copied()).filter(|(_, count)| *count > 0);
        short.chain(self.long.iter().map(|(&length, &count)| (length, count)))
    }

    fn statistics(&self) -> LengthStatistics {
        let total: u64 = self.iter().map(|(_, count)| count).sum();
        let quantile = |percent: u64| {
            // Whole numbers, so that there is nothing to round.
            let enough =
                |(_, so_far): &(u64, u64)| 100 * u128::from(*so_far) >= u128::from(percent) * u128::from(total);
            let so_far = self.iter().scan(0, |sum, (length, count)| {
                *sum += count;
                Some((length, *sum))
            });
            so_far.into_iter().find(enough).map_or(0, |(length, _)| length)
        };
        let mut histogram = Vec::new();
        for (length, count) in self.iter() {
            let bin = length.max(1).next_power_of_two().trailing_zeros() as usize;
            histogram.resize(histogram.len().max(bin + 1), 0);
            histogram[bin] += count;
        }
        let shortest = self.iter().next().map_or(0, |(length, _)| length);
        let [median, p90, p99, longest] = [50, 90, 99, 100].map(quantile);
        LengthStatistics { shortest, median, p90, p99, longest, histogram }
    }
}

/// Statistics that grow with the corpus.
#[derive(Default)]
pub(super) struct Counting {
    pub(super) statistics: CorpusStatistics,
    sentence_lengths: LengthCounts,
    document_lengths: LengthCounts,
}

impl Counting {
    /// Adds a part that was read.
    pub(super) fn add_part(&mut self, part: &TokenPart) {
        self.statistics.text_bytes += part.text_bytes;
        self.statistics.dropped.add(part.dropped);
    }

    /// Adds a shard.
    pub(super) fn add_shard(&mut self, shard: &Shard, unk_id: u32) {
        let counts = shard.counts();
        self.statistics.documents += counts.documents as u64;
        self.statistics.sentences += counts.sentences as u64;
        self.statistics.tokens += counts.tokens as u64;
        self.statistics.unknown_tokens += shard.ids.count(unk_id) as u64;
        self.sentence_lengths.add(shard.sentence_ends.iter().copied());
        let last = |&end: &u64| shard.sentence_ends[end as usize - 1];
        self.document_lengths.add(shard.document_ends.iter().map(last));
    }

    pub(super) fn finish(self) -> CorpusStatistics {
        CorpusStatistics {
            sentence_lengths: self.sentence_lengths.statistics(),
            document_lengths: self.document_lengths.statistics(),
            ..self.statistics
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        /// Quantiles are those of the sorted list.
        #[test]
        fn quantiles_are_those_of_a_list(mut lengths in proptest::collection::vec(1u64..2_000, 1..300)) {
            let mut counts = LengthCounts::default();
            for some in lengths.chunks(7) {
                counts.add(some.iter().scan(0, |end, length| { *end += length; Some(*end) }));
            }
            let found = counts.statistics();
            lengths.sort_unstable();
            let quantile = |percent: usize| lengths[(percent * lengths.len()).div_ceil(100) - 1];
            proptest::prop_assert_eq!([found.median, found.p90, found.p99], [50, 90, 99].map(quantile));
            proptest::prop_assert_eq!((found.shortest, found.longest), (lengths[0], lengths[lengths.len() - 1]));
            for (bin, &count) in found.histogram.iter().enumerate() {
                let (above, to) = (if bin == 0 { 0 } else { 1 << (bin - 1) }, 1 << bin);
                let inside = lengths.iter().filter(|&&length| length > above && length <= to).count();
                proptest::prop_assert_eq!(count, inside as u64);
            }
            proptest::prop_assert_eq!(found.histogram.iter().sum::<u64>(), lengths.len() as u64);
        }
    }
}
