//! The share of a rank in a step.
//!
//! Every rank derives the examples of a step from seed and step, so every rank knows all shares and nothing is exchanged. An
//! example keeps its number within the step, on which its random draws depend, wherever it is computed.

use super::{DataSet, Size};

/// A batch of a step: examples, and the number of the first sequence of each within the step.
pub(super) struct Numbered<E> {
    pub(super) examples: Vec<E>,
    pub(super) sequences: Vec<u32>,
}

/// The share of a rank in a step.
pub(super) struct Share<E> {
    /// The parts of the batches that the rank computes. There may be none.
    pub(super) batches: Vec<Numbered<E>>,
    /// The number of tokens in the shares of all ranks.
    pub(super) tokens: usize,
}

/// Returns the share of `rank` in a step of these batches, of which it takes a part of each or, if `is_whole`, whole ones.
///
/// The longest examples are dealt first, each to the rank that has the fewest tokens so far; the rest follows from the order
/// of the step.
pub(super) fn share_of<D: DataSet>(
    data: &D,
    batches: Vec<Vec<D::Example>>,
    (rank, ranks): (usize, usize),
    is_whole: bool,
) -> Share<D::Example> {
    let sizes: Vec<Vec<Size>> =
        batches.iter().map(|batch| batch.iter().map(|example| data.size(example)).collect()).collect();
    let tokens = |sizes: &[Size]| sizes.iter().map(|size| size.tokens).sum::<usize>();
    let mut share = Share { batches: Vec::new(), tokens: sizes.iter().map(|sizes| tokens(sizes)).sum() };
    let (mut loads, mut sequences) = (vec![0; ranks], 0u32);
    let owners_of_batches = deal(&sizes.iter().map(|sizes| tokens(sizes)).collect::<Vec<_>>(), &mut loads.clone());
    for ((examples, sizes), owner) in batches.into_iter().zip(sizes).zip(owners_of_batches) {
        let owners = match is_whole {
            true => vec![owner; sizes.len()],
            false => deal(&sizes.iter().map(|size| size.tokens).collect::<Vec<_>>(), &mut loads),
        };
        let mut own = Numbered { examples: Vec::new(), sequences: Vec::new() };
        for ((example, size), owner) in examples.into_iter().zip(sizes).zip(owners) {
            if owner == rank {
                own.examples.push(example);
                own.sequences.push(sequences);
            }
            sequences = sequences.wrapping_add(size.sequences as u32);
        }
        share.batches.extend((!own.examples.is_empty()).then_some(own));
    }
    share
}

/// Returns the rank that gets each item of these lengths, and adds the lengths to the loads of the ranks.
fn deal(lengths: &[usize], loads: &mut [usize]) -> Vec<usize> {
    if loads.len() == 1 {
        return vec![0; lengths.len()];
    }
    let mut order: Vec<usize> = (0..lengths.len()).collect();
    order.sort_by_key(|&item| std::cmp::Reverse(lengths[item]));
    let mut owners = vec![0; lengths.len()];
    for item in order {
        let least = (0..loads.len()).min_by_key(|&rank| loads[rank]).unwrap_or(0);
        loads[least] += lengths[item];
        owners[item] = least;
    }
    owners
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Result;

    /// Example n has n % 3 + 1 sequences of 1 + n * 7 % 61 tokens together.
    struct Lengths;

    impl DataSet for Lengths {
        type Example = usize;
        type Batch = ();

        fn epoch(&self, _epoch: u32) -> Result<impl Iterator<Item = Result<usize>> + '_> {
            Ok((0..0).map(Ok))
        }

        fn batch(&self, _examples: &[usize], _step: u32, _sequences: &[u32]) -> Result<()> {
            Ok(())
        }

        fn size(&self, example: &usize) -> Size {
            Size { sequences: example % 3 + 1, tokens: 1 + example * 7 % 61 }
        }
    }

    fn shares(ranks: usize, is_whole: bool) -> Vec<Share<usize>> {
        let batches =
            || vec![(0..40).collect::<Vec<_>>(), (40..64).collect(), (64..100).collect(), (100..120).collect()];
        (0..ranks).map(|rank| share_of(&Lengths, batches(), (rank, ranks), is_whole)).collect()
    }

    #[test]
    fn shares_are_disjoint_complete_and_keep_their_numbers() {
        let number = |example: usize| (0..example).map(|other| (other % 3 + 1) as u32).sum::<u32>();
        for (ranks, is_whole) in [(1, false), (2, false), (3, false), (7, false), (1, true), (3, true), (6, true)] {
            let mut seen = Vec::new();
            for share in shares(ranks, is_whole) {
                assert_eq!(share.tokens, (0..120).map(|example| Lengths.size(&example).tokens).sum::<usize>());
                for batch in share.batches {
                    assert!(batch.examples.is_sorted());
                    assert!(batch.examples.iter().map(|&example| number(example)).eq(batch.sequences));
                    seen.extend(batch.examples);
                }
            }
            seen.sort_unstable();
            assert!(seen.into_iter().eq(0..120), "{ranks} ranks");
        }
    }

    #[test]
    fn shares_have_about_as_many_tokens() {
        for ranks in [2, 3, 4] {
            let tokens = |share: &Share<usize>| -> usize {
                share.batches.iter().flat_map(|batch| &batch.examples).map(|n| Lengths.size(n).tokens).sum()
            };
            let loads: Vec<usize> = shares(ranks, false).iter().map(tokens).collect();
            let (least, most) = (loads.iter().min().unwrap(), loads.iter().max().unwrap());
            assert!(100 * (most - least) < 2 * most, "{loads:?}");
        }
        let whole = shares(2, true);
        assert_eq!(whole[0].batches[0].examples.len(), 40);
    }
}
