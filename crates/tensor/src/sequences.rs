//! Packed sequences: the one representation of a batch.

use std::sync::Arc;

use crate::dropout::RowCoordinate;
use crate::error::{Error, Result};

/// The layout of the sequences of a packed batch, one after another. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sequences(Arc<Packed>);

#[derive(Debug, PartialEq, Eq)]
struct Packed {
    cu_seqlens: Vec<u32>,
    numbers: Vec<u32>,
    rows: Vec<RowCoordinate>,
}

impl Sequences {
    /// Lays out sequences of these lengths, numbered from 0 within their optimizer step.
    ///
    /// # Errors
    /// Returns an error if a length is 0 or there are 2^32 tokens or more.
    pub fn new(lengths: &[usize]) -> Result<Sequences> {
        // More than 2^32 sequences have more than 2^32 tokens, which is refused below.
        Sequences::numbered(lengths, &(0..lengths.len()).map(|number| number as u32).collect::<Vec<_>>())
    }

    /// Lays out sequences of these lengths with their global `numbers` within the optimizer step. Dropout masks follow
    /// from the numbers, so a sequence is treated the same in whichever batch it is.
    ///
    /// # Errors
    /// Returns an error if a length is 0, there are 2^32 tokens or more, or the numbers of lengths and of `numbers` differ.
    pub fn numbered(lengths: &[usize], numbers: &[u32]) -> Result<Sequences> {
        const OP: &str = "sequences";
        if lengths.len() != numbers.len() {
            let reason = format!("{} lengths and {} sequence numbers given", lengths.len(), numbers.len());
            return Err(Error::invalid(OP, reason));
        }
        let (mut cu_seqlens, mut tokens) = (vec![0u32], 0u32);
        for (index, &length) in lengths.iter().enumerate() {
            if length == 0 {
                return Err(Error::invalid(OP, format!("sequence {index} is empty")));
            }
            let end = u32::try_from(length).ok().and_then(|length| tokens.checked_add(length));
            tokens =
                end.ok_or_else(|| Error::invalid(OP, format!("2^32 tokens or more, sequence {index} included")))?;
            cu_seqlens.push(tokens);
        }
        let mut rows = Vec::new();
        let lacking = |_| Error::invalid(OP, format!("cannot allocate the coordinates of {tokens} tokens"));
        rows.try_reserve_exact(tokens as usize).map_err(lacking)?;
        for (ends, &sequence) in cu_seqlens.windows(2).zip(numbers) {
            rows.extend((0..ends[1] - ends[0]).map(|position| RowCoordinate { sequence, position }));
        }
        Ok(Sequences(Arc::new(Packed { cu_seqlens, numbers: numbers.to_vec(), rows })))
    }

    /// Returns the number of sequences: B.
    pub fn len(&self) -> usize {
        self.0.numbers.len()
    }

    /// Returns whether there is no sequence.
    pub fn is_empty(&self) -> bool {
        self.0.numbers.is_empty()
    }

    /// Returns the number of tokens: T.
    pub fn tokens(&self) -> usize {
        self.0.rows.len()
    }

    /// Returns where each sequence starts, and T at the end: [B + 1].
    pub fn cu_seqlens(&self) -> &[u32] {
        &self.0.cu_seqlens
    }

    /// Returns the first row of each sequence: its `[CLS]` token.
    pub fn starts(&self) -> &[u32] {
        &self.0.cu_seqlens[..self.len()]
    }

    /// Returns the length of the longest sequence.
    pub fn longest(&self) -> usize {
        self.0.cu_seqlens.windows(2).map(|ends| (ends[1] - ends[0]) as usize).max().unwrap_or(0)
    }

    /// Returns the global number of each sequence within its optimizer step.
    pub fn numbers(&self) -> &[u32] {
        &self.0.numbers
    }

    /// Returns the coordinates of each of the T rows.
    pub fn rows(&self) -> &[RowCoordinate] {
        &self.0.rows
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn impossible_sizes_are_refused() {
        for lengths in [&[usize::MAX, 2][..], &[1 << 32], &[u32::MAX as usize, 1]] {
            let Err(error) = Sequences::new(lengths) else { panic!("{lengths:?} were accepted") };
            assert!(error.to_string().contains("2^32 tokens or more"), "{error}");
        }
    }
}
