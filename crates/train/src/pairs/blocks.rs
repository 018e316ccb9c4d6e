//! Division of a corpus into blocks of about the same number of tokens.

use std::ops::Range;

use crate::TokenizedCorpus;

/// Consecutive sentences. The first and the last document may lie only partly in the block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct CorpusBlock {
    pub(super) number: usize,
    pub(super) sentences: Range<usize>,
    /// The documents with sentences in the block.
    pub(super) documents: Range<usize>,
}

impl CorpusBlock {
    /// Returns the whole corpus as one block.
    pub(super) fn whole(corpus: &TokenizedCorpus) -> CorpusBlock {
        CorpusBlock { number: 0, sentences: 0..usize::MAX, documents: 0..corpus.document_count() }
    }
}

/// How a corpus is divided.
#[derive(Clone, Copy, Debug)]
pub(super) struct Blocks {
    /// The number of tokens within which the sentences of a block begin.
    width: usize,
    pub(super) count: usize,
}

impl Blocks {
    /// Divides a corpus into blocks of about `tokens` tokens. For a part of a split corpus, the whole corpus is divided.
    pub(super) fn new(corpus: &TokenizedCorpus, tokens: usize) -> Blocks {
        let (own, all) = (corpus.token_count().max(1), corpus.token_limit());
        let count = own.div_ceil(tokens.max(1));
        let width = all.div_ceil(count).max(1);
        Blocks { width, count: all.div_ceil(width) }
    }

    /// Returns block `number`, which may be empty.
    pub(super) fn get(self, corpus: &TokenizedCorpus, number: usize) -> CorpusBlock {
        let start = number * self.width;
        let sentences = corpus.first_sentence_from(start)..corpus.first_sentence_from(start + self.width);
        let count = corpus.document_count();
        let first = first(count, |document| corpus.sentences_of(document).end > sentences.start);
        let end = self::first(count, |document| corpus.sentences_of(document).start >= sentences.end);
        // No sentence begins in a block that lies within a long sentence.
        let documents = if sentences.is_empty() { first..first } else { first..end.max(first) };
        CorpusBlock { number, sentences, documents }
    }
}

/// Returns the first number below `count` that satisfies a monotonic predicate, or `count` if none does.
fn first(count: usize, is_so: impl Fn(usize) -> bool) -> usize {
    let (mut low, mut high) = (0, count);
    while low < high {
        let middle = low + (high - low) / 2;
        if is_so(middle) { high = middle } else { low = middle + 1 }
    }
    low
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::corpus::numbered;

    #[test]
    fn blocks_are_a_partition() {
        let corpus = numbered(&[5, 1, 1, 30, 2, 2, 9]);
        let (a, b) = corpus.split(0.4, 1).unwrap();
        for part in [corpus, a, b] {
            for tokens in [1, 3, 4, 7, 16, 50, 199, 200, 1_000] {
                let blocks = Blocks::new(&part, tokens);
                let mut sentences = vec![Vec::new(); part.document_count()];
                for number in 0..blocks.count {
                    let block = blocks.get(&part, number);
                    for document in block.documents {
                        let all = part.sentences_of(document);
                        let own = all.start.max(block.sentences.start)..all.end.min(block.sentences.end);
                        assert!(!own.is_empty());
                        sentences[document].extend(own);
                    }
                }
                let expected: Vec<Vec<usize>> =
                    (0..part.document_count()).map(|document| part.sentences_of(document).collect()).collect();
                assert_eq!(sentences, expected, "{tokens}");
            }
        }
    }

    #[test]
    fn blocks_have_the_tokens_asked_for() {
        let corpus = numbered(&[10; 100]);
        let (_, tenth) = corpus.split(0.1, 3).unwrap();
        assert_eq!(Blocks::new(&corpus, 4_000).count, 1);
        assert_eq!(Blocks::new(&corpus, 3_999).count, 2);
        assert_eq!(Blocks::new(&corpus, 400).count, 10);
        assert_eq!(Blocks::new(&tenth, 400).count, 1);
        assert_eq!(Blocks::new(&tenth, 100).count, 4);
    }
}
