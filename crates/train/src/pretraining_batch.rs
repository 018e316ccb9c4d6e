//! Masked examples, and the batches that a model pre-trains on.

use cloze_bert::{Batch, PreTrainingTargets};
use cloze_tensor::Sequences;

use crate::{Error, Result, Target, TargetKind};

/// A masked example.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MaskedExample {
    /// Token ids, with the targets replaced.
    pub ids: Vec<u32>,
    /// 0 for the first segment, 1 for the second.
    pub token_types: Vec<u32>,
    /// The tokens to predict, by ascending position.
    pub targets: Vec<Target>,
    /// [`IS_NEXT`](crate::IS_NEXT) or [`NOT_NEXT`](crate::NOT_NEXT); `None` for a single segment.
    pub next_sentence_label: Option<u32>,
}

/// A batch of masked examples with its pre-training targets.
#[derive(Clone, Debug)]
pub struct PreTrainingBatch {
    batch: Batch,
    targets: PreTrainingTargets,
    target_kinds: Vec<TargetKind>,
}

impl PreTrainingBatch {
    /// Packs examples. `first_sequence` is the number of the first one within its optimizer step.
    ///
    /// # Errors
    /// Returns an error if an example is empty or inconsistent, if only some of the examples have a next-sentence
    /// label, or if there are 2^32 tokens or more.
    pub fn new(examples: &[MaskedExample], first_sequence: u32) -> Result<PreTrainingBatch> {
        let numbers: Vec<u32> = (0..examples.len()).map(|number| first_sequence.wrapping_add(number as u32)).collect();
        PreTrainingBatch::numbered(examples, &numbers)
    }

    /// Packs examples with their `numbers` within the optimizer step.
    ///
    /// # Errors
    /// Returns the errors of [`new`](PreTrainingBatch::new), and an error if there are more or fewer numbers than examples.
    pub fn numbered(examples: &[MaskedExample], numbers: &[u32]) -> Result<PreTrainingBatch> {
        let lengths: Vec<usize> = examples.iter().map(|example| example.ids.len()).collect();
        let sequences = Sequences::numbered(&lengths, numbers)?;
        let (mut ids, mut token_types) = (Vec::new(), Vec::new());
        let (mut targets, mut target_kinds) = (PreTrainingTargets::default(), Vec::new());
        for (number, (example, &start)) in examples.iter().zip(sequences.starts()).enumerate() {
            example.check(number)?;
            ids.extend_from_slice(&example.ids);
            token_types.extend_from_slice(&example.token_types);
            for target in &example.targets {
                targets.rows.push(start + target.position);
                targets.labels.push(target.original.into());
                target_kinds.push(target.kind);
            }
            targets.next_sentence.extend(example.next_sentence_label.map(i64::from));
        }
        let labels = targets.next_sentence.len();
        if labels != 0 && labels != examples.len() {
            let why = format!("{labels} of {} have a next-sentence label, all or none must have one", examples.len());
            return Err(Error::data("masked examples", why));
        }
        Ok(PreTrainingBatch { batch: Batch::packed(ids, token_types, sequences)?, targets, target_kinds })
    }

    /// Returns the packed sequences, with the targets replaced.
    pub fn batch(&self) -> &Batch {
        &self.batch
    }

    /// Returns the M targets: rows, original tokens and, with next-sentence prediction, a label per sequence.
    pub fn targets(&self) -> &PreTrainingTargets {
        &self.targets
    }

    /// Returns how each target was replaced, `[M]`.
    pub fn target_kinds(&self) -> &[TargetKind] {
        &self.target_kinds
    }
}

impl MaskedExample {
    /// Checks the lengths and positions of example `number` of a batch.
    fn check(&self, number: usize) -> Result<()> {
        let (ids, types) = (self.ids.len(), self.token_types.len());
        if ids != types {
            let why = format!("example {number} has {ids} ids and {types} token types");
            return Err(Error::data("masked examples", why));
        }
        match self.targets.iter().find(|target| target.position as usize >= ids) {
            Some(target) => {
                let why =
                    format!("example {number} has a target at position {} but only {ids} tokens", target.position);
                Err(Error::data("masked examples", why))
            }
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example(next_sentence_label: Option<u32>) -> MaskedExample {
        let target = Target { position: 1, original: 7, kind: TargetKind::Masked };
        MaskedExample { ids: vec![2, 4, 3], token_types: vec![0; 3], targets: vec![target], next_sentence_label }
    }

    #[test]
    fn rows_count_over_the_whole_batch() {
        let batch = PreTrainingBatch::new(&[example(Some(1)), example(Some(0))], 5).unwrap();
        assert_eq!(batch.batch().ids(), [2, 4, 3, 2, 4, 3]);
        assert_eq!(batch.batch().sequences().numbers(), [5, 6]);
        let targets = PreTrainingTargets { rows: vec![1, 4], labels: vec![7, 7], next_sentence: vec![1, 0] };
        assert_eq!((batch.targets(), batch.target_kinds()), (&targets, &[TargetKind::Masked; 2][..]));
    }

    #[test]
    fn inconsistent_examples_are_refused() {
        let error = |examples: &[MaskedExample]| PreTrainingBatch::new(examples, 0).unwrap_err().to_string();
        let mixed = error(&[example(Some(0)), example(None)]);
        assert_eq!(mixed, "masked examples: 1 of 2 have a next-sentence label, all or none must have one");
        let types = error(&[MaskedExample { token_types: vec![0; 2], ..example(None) }]);
        assert_eq!(types, "masked examples: example 0 has 3 ids and 2 token types");
        let target = Target { position: 3, original: 7, kind: TargetKind::Kept };
        let outside = error(&[example(None), MaskedExample { targets: vec![target], ..example(None) }]);
        assert_eq!(outside, "masked examples: example 1 has a target at position 3 but only 3 tokens");
        let empty = error(&[MaskedExample { ids: vec![], token_types: vec![], targets: vec![], ..example(None) }]);
        assert!(empty.contains("sequence 0 is empty"), "{empty}");
    }
}
