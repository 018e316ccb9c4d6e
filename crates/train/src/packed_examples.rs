//! Masked examples, and batches of them as a model reads them.

use crate::{Error, Result, Target, TargetKind};

/// A masked example.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MaskedExample {
    /// Token ids, targets replaced.
    pub ids: Vec<u32>,
    /// 0 for the first segment, 1 for the second.
    pub token_types: Vec<u32>,
    /// The tokens to predict, by ascending position.
    pub targets: Vec<Target>,
    /// [`IS_NEXT`](crate::IS_NEXT) or [`NOT_NEXT`](crate::NOT_NEXT), or nothing for a single segment.
    pub next_sentence_label: Option<u32>,
}

/// A batch of B examples with T tokens and M targets, one after the other without padding.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PackedExamples {
    /// `[T]` Token ids, targets replaced.
    pub ids: Vec<u32>,
    /// `[T]` 0 for the first segment, 1 for the second.
    pub token_types: Vec<u32>,
    /// `[T]` The position of each token in its sequence.
    pub positions: Vec<u32>,
    /// `[B + 1]` Where each sequence begins, and T.
    pub cu_seqlens: Vec<u32>,
    /// `[B]` The number of each sequence within the optimizer step, for random draws.
    pub sequence_numbers: Vec<u32>,
    /// `[M]` The row in the batch, below T, of each token to predict; ascending.
    pub target_rows: Vec<u32>,
    /// `[M]` What to predict.
    pub target_ids: Vec<i64>,
    /// `[M]` What stands in its place.
    pub target_kinds: Vec<TargetKind>,
    /// `[B]` 0 is next, 1 is not next; empty without next-sentence prediction.
    pub next_sentence_labels: Vec<i64>,
}

impl PackedExamples {
    /// Packs examples; `first_sequence` is the number of the first within its optimizer step.
    ///
    /// # Errors
    /// When only some examples have a next-sentence label, or there are 2^32 tokens or more.
    pub fn pack(examples: &[MaskedExample], first_sequence: u32) -> Result<PackedExamples> {
        let tokens: usize = examples.iter().map(|example| example.ids.len()).sum();
        if u32::try_from(tokens).is_err() {
            return Err(Error::invalid("number of tokens in a batch", tokens, "below 2^32"));
        }
        let mut packed = PackedExamples { cu_seqlens: vec![0], ..PackedExamples::default() };
        for (number, example) in examples.iter().enumerate() {
            let start = packed.ids.len() as u32;
            packed.ids.extend_from_slice(&example.ids);
            packed.token_types.extend_from_slice(&example.token_types);
            packed.positions.extend(0..example.ids.len() as u32);
            packed.cu_seqlens.push(packed.ids.len() as u32);
            packed.sequence_numbers.push(first_sequence.wrapping_add(number as u32));
            for target in &example.targets {
                packed.target_rows.push(start + target.position);
                packed.target_ids.push(target.original as i64);
                packed.target_kinds.push(target.kind);
            }
            packed.next_sentence_labels.extend(example.next_sentence_label.map(i64::from));
        }
        match packed.next_sentence_labels.len() {
            labels if labels == 0 || labels == examples.len() => Ok(packed),
            labels => {
                let why = format!("{labels} of {} have a next-sentence label: all or none must", examples.len());
                Err(Error::data("examples of a batch", why))
            }
        }
    }

    /// The number of sequences, B.
    pub fn sequence_count(&self) -> usize {
        self.sequence_numbers.len()
    }

    /// The number of tokens, T.
    pub fn token_count(&self) -> usize {
        self.ids.len()
    }
}
