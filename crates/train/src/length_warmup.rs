//! Warm-up of the sequence length: short sequences first.
//!
//! An untrained model must learn which positions are adjacent before it can use neighbouring tokens, and short sequences
//! have fewer positions. Devlin et al. (2018, A.2) train on sequences of 128 tokens for nine tenths of their steps and on
//! 512 for the rest; this is the same idea at a smaller scale.

use crate::trainer::{DataSet, Fingerprint, Size};
use crate::{ExampleStream, PairExample, PreTraining, PreTrainingBatch, Result};

/// Pre-training data whose first batches have several short sequences instead of each long one: first four of a quarter of
/// the length, then two of half of it, but never below the shortest possible length. The number of tokens per batch stays
/// about the same. Short sequences are drawn from as many passes over the corpus as they need.
///
/// This only makes sense for a sampler that draws segments by length: [`PairSampler::bert`](crate::PairSampler::bert).
#[derive(Clone, Debug)]
pub struct LengthWarmup {
    data: PreTraining,
    /// For each stage, the number of sequences per place and the number of places.
    stages: [(usize, usize); 2],
}

impl LengthWarmup {
    /// Makes the first `quarter` places of a sequence hold four sequences of a quarter of the length, and the next `half`
    /// places two sequences of half of it.
    pub fn new(data: PreTraining, quarter: usize, half: usize) -> LengthWarmup {
        LengthWarmup { data, stages: [(4, quarter), (2, half)] }
    }

    /// Streams the places of an epoch, without the first `skip`; see [`PreTraining::stream`].
    ///
    /// # Errors
    /// Returns the errors of [`PreTraining::epoch`].
    pub fn stream(
        &self,
        epoch: u32,
        mut skip: usize,
    ) -> Result<impl Iterator<Item = Result<Vec<PairExample>>> + use<>> {
        let mut short = Vec::new();
        if epoch == 0 {
            for (sequences, count) in self.stages {
                let skipped = skip.min(count);
                let passes = Passes::new(self.data.clone().shortened(sequences), sequences.saturating_mul(skipped))?;
                skip -= skipped;
                short.push(places(passes, sequences).take(count - skipped));
            }
        }
        Ok(short.into_iter().flatten().chain(places(self.data.stream(epoch, skip)?, 1)))
    }

    /// Returns the number of places of an epoch; see [`PreTraining::example_count`].
    ///
    /// # Errors
    /// Returns the errors of [`PreTraining::epoch`].
    pub fn example_count(&self, epoch: u32) -> Result<usize> {
        let short: usize = self.stages.iter().map(|(_, count)| count).sum();
        Ok(self.data.example_count(epoch)? + if epoch == 0 { short } else { 0 })
    }
}

/// The examples of all epochs, one epoch after the other.
struct Passes {
    data: PreTraining,
    epoch: u32,
    stream: ExampleStream,
}

impl Passes {
    /// Streams the examples without the first `skip`.
    fn new(data: PreTraining, mut skip: usize) -> Result<Passes> {
        let (mut epoch, mut stream) = (0, data.stream(0, 0)?);
        loop {
            let passed = stream.advance(skip);
            skip -= passed;
            // An epoch only has no example if none were given.
            if skip == 0 || passed == 0 {
                return Ok(Passes { data, epoch, stream });
            }
            epoch += 1;
            stream = data.stream(epoch, 0)?;
        }
    }
}

impl Iterator for Passes {
    type Item = Result<PairExample>;

    fn next(&mut self) -> Option<Result<PairExample>> {
        self.stream.next().or_else(|| {
            self.epoch += 1;
            match self.data.stream(self.epoch, 0) {
                Ok(stream) => self.stream = stream,
                Err(error) => return Some(Err(error)),
            }
            self.stream.next()
        })
    }
}

/// Returns groups of `sequences` sequences.
fn places(
    mut examples: impl Iterator<Item = Result<PairExample>>,
    sequences: usize,
) -> impl Iterator<Item = Result<Vec<PairExample>>> {
    std::iter::from_fn(move || {
        let place: Result<Vec<PairExample>> = examples.by_ref().take(sequences).collect();
        place.map(|place| (!place.is_empty()).then_some(place)).transpose()
    })
}

impl DataSet for LengthWarmup {
    /// The sequences of a place.
    type Example = Vec<PairExample>;
    type Batch = PreTrainingBatch;

    fn epoch(&self, epoch: u32) -> Result<impl Iterator<Item = Result<Vec<PairExample>>> + '_> {
        self.stream(epoch, 0)
    }

    fn batch(&self, examples: &[Vec<PairExample>], step: u32, sequences: &[u32]) -> Result<PreTrainingBatch> {
        let numbers = |(place, &first): (&Vec<PairExample>, &u32)| (0..place.len() as u32).map(move |n| first + n);
        let numbers: Vec<u32> = examples.iter().zip(sequences).flat_map(numbers).collect();
        self.data.numbered_batch(&examples.concat(), step, &numbers)
    }

    fn size(&self, examples: &Vec<PairExample>) -> Size {
        Size { sequences: examples.len(), tokens: examples.iter().map(PairExample::token_count).sum() }
    }

    fn fingerprint(&self) -> Option<u64> {
        let mut print = Fingerprint::new();
        print.add(format!("{:?} {:?}", self.stages, self.data.fingerprint()).as_bytes());
        Some(print.finish())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::VocabularyTable;
    use crate::corpus::numbered;

    fn all(data: &LengthWarmup, epoch: u32) -> Vec<Vec<PairExample>> {
        data.stream(epoch, 0).unwrap().collect::<Result<_>>().unwrap()
    }

    #[test]
    fn batches_grow_in_length_and_keep_their_size() {
        let data = PreTraining::from_tokenized(numbered(&[400, 250, 310]), VocabularyTable::small(20_000)).seq_len(64);
        let places = all(&LengthWarmup::new(data.clone(), 8, 12), 0);
        let longest = |places: &[Vec<PairExample>]| places.iter().flatten().map(PairExample::token_count).max();
        assert_eq!(longest(&places[..8]), Some(16));
        assert_eq!(longest(&places[8..20]), Some(32));
        assert_eq!(longest(&places[20..]), Some(64));
        assert!(places[..8].iter().all(|place| place.len() == 4) && places[8..20].iter().all(|place| place.len() == 2));
        let rest: Vec<PairExample> = places[20..].concat();
        assert_eq!(rest, data.epoch(0).unwrap());
        assert_eq!(all(&LengthWarmup::new(data.clone(), 8, 12), 1).concat(), data.epoch(1).unwrap());
    }

    #[test]
    fn sequences_are_never_too_short() {
        let data = PreTraining::from_tokenized(numbered(&[400, 250, 310]), VocabularyTable::small(20_000));
        for seq_len in [5, 9, 16] {
            let places = all(&LengthWarmup::new(data.clone().seq_len(seq_len), 8, 12), 0);
            assert!(places[..8].iter().all(|place| place.len() == 4));
            assert!(places[..8].iter().flatten().all(|example| example.token_count() <= (seq_len / 4).max(5)));
        }
        let error = LengthWarmup::new(data.seq_len(4), 8, 12).stream(0, 0).err().unwrap().to_string();
        assert_eq!(error, "seq_len is 4, must be from 5 to 65536");
    }

    #[test]
    fn short_sequences_come_from_several_passes() {
        let data = PreTraining::from_tokenized(numbered(&[400, 250, 310]), VocabularyTable::small(20_000)).seq_len(64);
        let passes: Vec<PairExample> =
            (0..3).flat_map(|epoch| data.clone().shortened(4).epoch(epoch).unwrap()).collect();
        let count = passes.len() / 4;
        let places = all(&LengthWarmup::new(data, count, 0), 0);
        assert_eq!(places[..count].concat(), passes[..4 * count]);
    }

    #[test]
    fn no_examples_are_no_places() {
        let data = PreTraining::from_tokenized(numbered(&[4, 2]), VocabularyTable::small(20_000)).examples(Vec::new());
        for skip in [0, 3] {
            assert_eq!(LengthWarmup::new(data.clone(), 8, 12).stream(0, skip).unwrap().count(), 0);
        }
    }

    #[test]
    fn skipping_places_equals_taking_them() {
        let data = PreTraining::from_tokenized(numbered(&[400, 250, 310]), VocabularyTable::small(20_000)).seq_len(64);
        // The last two need several passes over the corpus.
        for (quarter, half) in [(8, 12), (0, 0), (5, 400), (300, 3)] {
            let data = LengthWarmup::new(data.clone(), quarter, half);
            for epoch in [0, 1] {
                let all = all(&data, epoch);
                assert_eq!(data.example_count(epoch).unwrap(), all.len());
                for skip in [0, 3, 8, 9, 20, 21, all.len() / 2, all.len() - 1, all.len(), all.len() + 5] {
                    let rest: Result<Vec<_>> = data.stream(epoch, skip).unwrap().collect();
                    assert_eq!(rest.unwrap(), all[skip.min(all.len())..], "{quarter} {half} {epoch} {skip}");
                }
            }
        }
    }
}
