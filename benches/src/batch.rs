//! The batch of a pre-training step: sequences of one length, with 15 % of their tokens masked.

use cloze::bert::{Batch, BertConfig, PreTrainingTargets};
use cloze::tensor::Sequences;

/// Returns the number of masked tokens in a sequence: 15 % of its length.
pub fn masked(length: usize) -> usize {
    (length * 15).div_ceil(100)
}

/// Returns a batch of `count` sequences and its targets, with arbitrary ids.
///
/// # Errors
/// Returns an error if `length` is 0.
pub fn of(config: &BertConfig, count: usize, length: usize) -> cloze::bert::Result<(Batch, PreTrainingTargets)> {
    let id = |token: usize| (5 + token * 7919 % (config.vocab_size - 5)) as u32;
    let tokens = count * length;
    let token_types = (0..tokens).map(|token| u32::from(token % length > length / 2)).collect();
    let batch = Batch::packed((0..tokens).map(id).collect(), token_types, Sequences::new(&vec![length; count])?)?;
    let rows = (0..count).flat_map(|sequence| (1..=masked(length)).map(move |at| (sequence * length + at) as u32));
    let rows: Vec<u32> = rows.collect();
    let labels = rows.iter().map(|&row| i64::from(id(row as usize))).collect();
    let next_sentence = (0..count).map(|sequence| (sequence % 2) as i64).collect();
    Ok((batch, PreTrainingTargets { rows, labels, next_sentence }))
}
