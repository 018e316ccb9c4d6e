//! A stream of the examples of an epoch, with only one buffer of them in memory.
//!
//! The corpus is divided into blocks, in an order that is drawn per epoch. The examples of 32 consecutive blocks fill a
//! buffer and are shuffled together. A corpus that fits into the buffer is a single block.

use cloze_tensor::random::{Purpose, Stream};
use rayon::prelude::*;

use super::blocks::Blocks;
use super::{PairExample, PairKind, PairSampler};
use crate::{Result, TokenizedCorpus};

/// The sites of `Purpose::Shuffle`: the order of the examples in a buffer, and of the blocks of an epoch.
const EPOCH_SITE: u32 = 0;
const BLOCK_SITE: u32 = 2;

/// The number of blocks whose examples are shuffled together.
const BLOCKS: usize = 32;

/// The number of the course's pairs that are drawn together.
const PAIRS: usize = 1 << 20;

/// The examples of an epoch in training order.
///
/// The stream only depends on the settings of the data set and the epoch. It holds one buffer of examples at a time,
/// whatever the size of the corpus.
pub struct ExampleStream {
    plan: Plan,
    next_buffer: usize,
    buffer: std::vec::IntoIter<PairExample>,
}

/// The division of the examples of an epoch into buffers.
struct Plan {
    corpus: TokenizedCorpus,
    source: ExampleSource,
    seed: u64,
    epoch: u32,
}

enum ExampleSource {
    /// The same examples in every epoch.
    Given(Vec<PairExample>),
    Course {
        sampler: PairSampler,
        pairs: usize,
    },
    Bert {
        sampler: PairSampler,
        blocks: Blocks,
        order: Vec<u32>,
    },
}

impl ExampleStream {
    /// Streams the examples that `sampler` draws, with buffers of about `buffer` tokens.
    ///
    /// # Errors
    /// Returns the errors of [`PairSampler::sample`].
    pub(crate) fn sampled(
        corpus: TokenizedCorpus,
        sampler: PairSampler,
        buffer: usize,
        seed: u64,
        epoch: u32,
    ) -> Result<ExampleStream> {
        sampler.check_with(&corpus)?;
        let source = match sampler.kind {
            PairKind::Course { pairs } => ExampleSource::Course { sampler, pairs },
            PairKind::Bert { .. } => {
                let is_one = corpus.token_count() <= buffer;
                let blocks = Blocks::new(&corpus, if is_one { usize::MAX } else { buffer / BLOCKS });
                // There are fewer than 2^32 blocks, since a block has many tokens.
                let mut order: Vec<u32> = (0..blocks.count as u32).collect();
                Stream::new(seed, Purpose::Shuffle, BLOCK_SITE, epoch, 0).shuffle(&mut order);
                ExampleSource::Bert { sampler, blocks, order }
            }
        };
        Ok(ExampleStream::new(Plan { corpus, source, seed, epoch }))
    }

    /// Streams these examples, shuffled.
    pub(crate) fn given(corpus: TokenizedCorpus, examples: Vec<PairExample>, seed: u64, epoch: u32) -> ExampleStream {
        ExampleStream::new(Plan { corpus, source: ExampleSource::Given(examples), seed, epoch })
    }

    fn new(plan: Plan) -> ExampleStream {
        ExampleStream { plan, next_buffer: 0, buffer: Vec::new().into_iter() }
    }

    /// Skips the next `count` examples and returns how many there were. Whole buffers are only counted, not shuffled.
    pub fn advance(&mut self, count: usize) -> usize {
        let mut left = count;
        loop {
            let here = left.min(self.buffer.len());
            self.buffer.by_ref().take(here).for_each(drop);
            left -= here;
            if left == 0 || self.next_buffer == self.plan.buffer_count() {
                return count - left;
            }
            match self.plan.size(self.next_buffer) {
                size if size <= left => {
                    left -= size;
                    self.next_buffer += 1;
                }
                _ => self.fill(),
            }
        }
    }

    /// Returns the number of examples that are left. BERT's examples must be drawn to be counted, which takes about as long
    /// as skipping them.
    pub fn remaining(&self) -> usize {
        let ahead = self.next_buffer..self.plan.buffer_count();
        self.buffer.len() + ahead.map(|buffer| self.plan.size(buffer)).sum::<usize>()
    }

    fn fill(&mut self) {
        self.buffer = Vec::new().into_iter();
        self.buffer = self.plan.examples(self.next_buffer).into_iter();
        self.next_buffer += 1;
    }
}

impl Iterator for ExampleStream {
    /// Reserves an error for corpora that are read during training; the present ones return none.
    type Item = Result<PairExample>;

    fn next(&mut self) -> Option<Result<PairExample>> {
        while self.buffer.len() == 0 && self.next_buffer < self.plan.buffer_count() {
            self.fill();
        }
        self.plan.corpus.visit();
        self.buffer.next().map(Ok)
    }
}

impl Plan {
    fn buffer_count(&self) -> usize {
        match &self.source {
            ExampleSource::Given(_) => 1,
            ExampleSource::Course { pairs, .. } => pairs.div_ceil(PAIRS),
            ExampleSource::Bert { order, .. } => order.len().div_ceil(BLOCKS),
        }
    }

    /// Returns the number of examples in a buffer.
    fn size(&self, buffer: usize) -> usize {
        match &self.source {
            ExampleSource::Given(examples) => examples.len(),
            ExampleSource::Course { pairs, .. } => (pairs - buffer * PAIRS).min(PAIRS),
            ExampleSource::Bert { sampler, blocks, order } => {
                let count = |&number: &u32| {
                    let block = blocks.get(&self.corpus, number as usize);
                    sampler.count_in_block(&self.corpus, &block, self.seed, self.epoch)
                };
                blocks_of(order, buffer).par_iter().map(count).sum()
            }
        }
    }

    /// Draws and shuffles the examples of a buffer.
    fn examples(&self, buffer: usize) -> Vec<PairExample> {
        let (corpus, seed, epoch) = (&self.corpus, self.seed, self.epoch);
        let mut examples = match &self.source {
            ExampleSource::Given(examples) => examples.clone(),
            ExampleSource::Course { sampler, pairs } => {
                let start = buffer * PAIRS;
                sampler.course_pairs(corpus, start..(start + PAIRS).min(*pairs), seed, epoch)
            }
            ExampleSource::Bert { sampler, blocks, order } => {
                let draw = |&number: &u32| sampler.in_block(corpus, &blocks.get(corpus, number as usize), seed, epoch);
                blocks_of(order, buffer).par_iter().map(draw).collect::<Vec<_>>().concat()
            }
        };
        Stream::new(seed, Purpose::Shuffle, EPOCH_SITE, epoch, buffer as u32).shuffle(&mut examples);
        examples
    }
}

fn blocks_of(order: &[u32], buffer: usize) -> &[u32] {
    &order[buffer * BLOCKS..order.len().min((buffer + 1) * BLOCKS)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::corpus::numbered;

    fn corpus() -> TokenizedCorpus {
        numbered(&[40, 7, 1, 99, 60, 12, 12, 80, 3, 33])
    }

    fn stream(buffer: usize, epoch: u32) -> ExampleStream {
        ExampleStream::sampled(corpus(), PairSampler::bert().seq_len(24), buffer, 5, epoch).unwrap()
    }

    fn all(stream: ExampleStream) -> Vec<PairExample> {
        stream.map(|example| example.unwrap()).collect()
    }

    #[test]
    fn one_block_is_the_sampler_shuffled() {
        let mut expected = PairSampler::bert().seq_len(24).sample(&corpus(), 5, 2).unwrap();
        Stream::new(5, Purpose::Shuffle, 0, 2, 0).shuffle(&mut expected);
        assert_eq!(all(stream(1 << 20, 2)), expected);
        assert_eq!(all(stream(corpus().token_count(), 2)), expected);
        assert_ne!(all(stream(corpus().token_count() - 1, 2)), expected);
    }

    #[test]
    fn blocks_cover_the_corpus_once() {
        // A buffer of 40 tokens gives about 35 buffers of 32 blocks of about one token.
        for buffer in [40, 200, 640, 1_000] {
            let sampler = PairSampler::bert().seq_len(22).short_probability(0.0).next_sentence(false);
            let stream = ExampleStream::sampled(corpus(), sampler, buffer, 5, 0).unwrap();
            let mut used = vec![0; corpus().token_count()];
            all(stream).iter().flat_map(PairExample::first).for_each(|token| used[token] += 1);
            assert!(used.iter().all(|&times| times == 1), "{buffer}: {used:?}");
        }
    }

    #[test]
    fn buffers_follow_an_order_of_the_epoch() {
        let (first, second) = (all(stream(480, 0)), all(stream(480, 1)));
        let starts =
            |examples: &[PairExample]| examples.iter().map(|example| example.first().start).collect::<Vec<_>>();
        assert_ne!(starts(&first), starts(&second));
        assert_eq!(first, all(stream(480, 0)));
        // The first buffer has less than half of the examples, yet they come from the whole corpus.
        let buffer = stream(480, 0).plan.size(0);
        assert!(buffer * 2 < first.len(), "{buffer} of {}", first.len());
        let reach = starts(&first[..buffer]);
        let span = reach.iter().max().unwrap() - reach.iter().min().unwrap();
        assert!(span * 2 > corpus().token_count(), "{span}");
    }

    #[test]
    fn skipping_equals_taking() {
        let course = || ExampleStream::sampled(corpus(), PairSampler::course(30), 9, 5, 0).unwrap();
        let given = || ExampleStream::given(corpus(), all(course()), 5, 3);
        let make: [&dyn Fn() -> ExampleStream; 5] =
            [&|| stream(40, 1), &|| stream(640, 1), &|| stream(1 << 20, 1), &course, &given];
        for make in make {
            let whole = all(make());
            assert_eq!(make().remaining(), whole.len());
            for skip in [0, 1, 17, whole.len() / 2, whole.len() - 1, whole.len()] {
                let mut stream = make();
                assert_eq!(stream.advance(skip / 2), skip / 2);
                stream.advance(skip - skip / 2);
                assert_eq!(stream.remaining(), whole.len() - skip);
                assert_eq!(all(stream), whole[skip..]);
            }
            let mut stream = make();
            stream.next();
            assert_eq!(stream.remaining(), whole.len() - 1);
            assert_eq!(stream.advance(usize::MAX), whole.len() - 1);
            assert!(stream.next().is_none() && stream.remaining() == 0);
        }
    }

    #[test]
    fn threads_change_nothing() {
        let of = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| all(stream(300, 4)))
        };
        assert_eq!(of(1), of(3));
    }
}
