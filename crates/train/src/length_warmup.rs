//! Short sequences first.
//!
//! A model that starts from nothing must learn which position is next to which before it can use neighbours,
//! and there are fewer positions in short sequences. Devlin et al. (2018, A.2) train on sequences of 128 tokens
//! for nine tenths of their steps and on 512 for the rest; this is the same at a smaller scale.

use crate::trainer::{DataSet, Fingerprint, Size};
use crate::{PackedExamples, PairExample, PreTraining, Result};

/// Pre-training data whose first batches hold several short sequences in the place of each long one: of a
/// quarter of the length at first, then of half of it. The number of tokens of a batch stays about the same.
///
/// Only a data set that samples segments by length makes sense here: [`PairSampler::bert`](crate::PairSampler::bert).
#[derive(Clone, Debug)]
pub struct LengthWarmup {
    data: PreTraining,
    /// For each stage: sequences in the place of one, and how many places.
    stages: [(usize, usize); 2],
}

impl LengthWarmup {
    /// Short sequences in the first `quarter` places of a sequence, then half as long as usual in `half` places.
    pub fn new(data: PreTraining, quarter: usize, half: usize) -> LengthWarmup {
        LengthWarmup { data, stages: [(4, quarter), (2, half)] }
    }
}

impl DataSet for LengthWarmup {
    /// The sequences in the place of one.
    type Example = Vec<PairExample>;
    type Batch = PackedExamples;

    fn epoch(&self, epoch: u32) -> Result<impl Iterator<Item = Result<Vec<PairExample>>> + '_> {
        Ok(self.places(epoch)?.into_iter().map(Ok))
    }

    fn batch(&self, examples: &[Vec<PairExample>], step: u32, first_sequence: u32) -> Result<PackedExamples> {
        self.data.batch(&examples.concat(), step, first_sequence)
    }

    fn size(&self, examples: &Vec<PairExample>) -> Size {
        Size { sequences: examples.len(), tokens: examples.iter().map(PairExample::token_count).sum() }
    }

    fn fingerprint(&self) -> Option<u64> {
        let mut print = Fingerprint::new();
        print.add(format!("{:?} {}", self.stages, self.data.fingerprint()).as_bytes());
        Some(print.finish())
    }
}

impl LengthWarmup {
    fn places(&self, epoch: u32) -> Result<Vec<Vec<PairExample>>> {
        let mut places = Vec::new();
        if epoch == 0 {
            for (sequences, count) in self.stages {
                let short = self.data.clone().seq_len(self.data.longest() / sequences).epoch(0)?;
                places.extend(short.chunks(sequences).map(<[PairExample]>::to_vec).take(count));
            }
        }
        places.extend(self.data.epoch(epoch)?.into_iter().map(|example| vec![example]));
        Ok(places)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::VocabularyTable;
    use crate::corpus::numbered;

    #[test]
    fn batches_grow_in_length_and_keep_their_size() {
        let data = PreTraining::from_tokenized(numbered(&[400, 250, 310]), VocabularyTable::small(20_000)).seq_len(64);
        let places = LengthWarmup::new(data.clone(), 8, 12).places(0).unwrap();
        let longest = |places: &[Vec<PairExample>]| places.iter().flatten().map(PairExample::token_count).max();
        assert_eq!(longest(&places[..8]), Some(16));
        assert_eq!(longest(&places[8..20]), Some(32));
        assert_eq!(longest(&places[20..]), Some(64));
        assert!(places[..8].iter().all(|place| place.len() == 4) && places[8..20].iter().all(|place| place.len() == 2));
        let rest: Vec<PairExample> = places[20..].concat();
        assert_eq!(rest, data.epoch(0).unwrap());
        assert_eq!(LengthWarmup::new(data.clone(), 8, 12).places(1).unwrap().concat(), data.epoch(1).unwrap());
    }
}
