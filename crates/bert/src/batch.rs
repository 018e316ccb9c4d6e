//! Packed batches: the tokens of all sequences one after the other, without padding.
//!
//! T tokens, B sequences, L the length of the rows of a padded batch.

use cloze_tensor::Sequences;

use crate::{BertConfig, Encoding, Error, Result};

/// A batch of packed sequences. Whether it fits a model is checked when the model runs.
#[derive(Clone, Debug)]
pub struct Batch {
    ids: Vec<u32>,
    token_types: Vec<u32>,
    positions: Vec<u32>,
    sequences: Sequences,
}

impl Batch {
    /// Packs sequences, each given as token ids and token types.
    ///
    /// # Errors
    /// Returns an error if a sequence is empty, or its ids and types differ in number.
    pub fn new<I: AsRef<[u32]>>(sequences: &[(I, I)]) -> Result<Batch> {
        let mut ids = Vec::new();
        let mut token_types = Vec::new();
        for (index, (sequence, types)) in sequences.iter().enumerate() {
            let (sequence, types) = (sequence.as_ref(), types.as_ref());
            if sequence.len() != types.len() {
                let (ids, types) = (sequence.len(), types.len());
                return Err(Error::batch(format!("sequence {index} has {ids} ids and {types} token types")));
            }
            ids.extend_from_slice(sequence);
            token_types.extend_from_slice(types);
        }
        let lengths: Vec<usize> = sequences.iter().map(|(ids, _)| ids.as_ref().len()).collect();
        Batch::packed(ids, token_types, Sequences::new(&lengths)?)
    }

    /// Packs encoded texts.
    ///
    /// # Errors
    /// Returns an error if an encoding has no tokens.
    pub fn from_encodings(encodings: &[Encoding]) -> Result<Batch> {
        Batch::new(&encodings.iter().map(|e| (&e.ids, &e.token_types)).collect::<Vec<_>>())
    }

    /// Creates a batch from packed `ids` and `token_types`, `[T]` each.
    ///
    /// # Errors
    /// Returns an error if the numbers of tokens differ.
    pub fn packed(ids: Vec<u32>, token_types: Vec<u32>, sequences: Sequences) -> Result<Batch> {
        if ids.len() != sequences.tokens() || token_types.len() != ids.len() {
            let (ids, types, tokens) = (ids.len(), token_types.len(), sequences.tokens());
            let reason = format!("{ids} ids and {types} token types for sequences of {tokens} tokens");
            return Err(Error::batch(reason));
        }
        let positions = sequences.rows().iter().map(|row| row.position).collect();
        Ok(Batch { ids, token_types, positions, sequences })
    }

    /// Packs a padded batch: `ids`, `token_types` and `attention_mask`, each `[B, L]`, row-major. Tokens with mask 0
    /// are padding and are dropped, wherever they are: the first token of a row has position 0 also if padding comes before
    /// it, and is the one that is pooled. [`Batch::rows_of_padded`] maps the remaining tokens to packed rows.
    ///
    /// # Errors
    /// Returns an error if the lengths differ or are not a multiple of `length`, or a row has only padding.
    pub fn from_padded(ids: &[u32], token_types: &[u32], attention_mask: &[u32], length: usize) -> Result<Batch> {
        let fits = length > 0 && ids.len().is_multiple_of(length);
        if !fits || ids.len() != token_types.len() || ids.len() != attention_mask.len() {
            let (ids, types, mask) = (ids.len(), token_types.len(), attention_mask.len());
            let reason = format!("{ids} ids, {types} token types and {mask} mask entries for rows of length {length}");
            return Err(Error::batch(reason));
        }
        let real = |values: &[u32]| -> Vec<u32> {
            values.iter().zip(attention_mask).filter(|&(_, &mask)| mask != 0).map(|(&value, _)| value).collect()
        };
        let lengths: Vec<usize> =
            attention_mask.chunks(length).map(|row| row.iter().filter(|&&mask| mask != 0).count()).collect();
        Batch::packed(real(ids), real(token_types), Sequences::new(&lengths)?)
    }

    /// Returns the packed row of each entry of a padded batch with this mask, `None` for padding.
    pub fn rows_of_padded(attention_mask: &[u32]) -> Vec<Option<u32>> {
        let mut next = 0;
        let row = |&mask: &u32| {
            (mask != 0).then(|| {
                next += 1;
                next - 1
            })
        };
        attention_mask.iter().map(row).collect()
    }

    /// Returns the token ids, `[T]`.
    pub fn ids(&self) -> &[u32] {
        &self.ids
    }

    /// Returns the token types, `[T]`.
    pub fn token_types(&self) -> &[u32] {
        &self.token_types
    }

    /// Returns the position of each token in its sequence, `[T]`.
    pub fn positions(&self) -> &[u32] {
        &self.positions
    }

    /// Returns the lengths and positions of the sequences.
    pub fn sequences(&self) -> &Sequences {
        &self.sequences
    }

    /// Returns the number of tokens, T.
    pub fn tokens(&self) -> usize {
        self.ids.len()
    }

    /// Returns the number of sequences, B.
    pub fn len(&self) -> usize {
        self.sequences.len()
    }

    /// Returns whether the batch has no sequences.
    pub fn is_empty(&self) -> bool {
        self.sequences.is_empty()
    }

    /// Checks the lengths of the sequences. The embedding look-up checks ids and types.
    pub(crate) fn check(&self, config: &BertConfig) -> Result<()> {
        let limit = config.max_position_embeddings;
        let mut lengths = self.sequences.cu_seqlens().windows(2).map(|ends| (ends[1] - ends[0]) as usize).enumerate();
        match lengths.find(|(_, tokens)| *tokens > limit) {
            Some((index, tokens)) => {
                let reason = format!("sequence {index} has {tokens} tokens: max_position_embeddings is {limit}");
                Err(Error::batch(reason))
            }
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn padding_is_removed() {
        let batch = Batch::from_padded(&[5, 6, 0, 7, 0, 0], &[0, 1, 0, 0, 0, 0], &[1, 1, 0, 1, 0, 0], 3).unwrap();
        assert_eq!(batch.ids(), [5, 6, 7]);
        assert_eq!(batch.token_types(), [0, 1, 0]);
        assert_eq!(batch.positions(), [0, 1, 0]);
        assert_eq!(batch.sequences().cu_seqlens(), [0, 2, 3]);
        let left = Batch::from_padded(&[0, 5, 6, 0, 0, 7], &[0, 0, 1, 0, 0, 0], &[0, 1, 1, 0, 0, 1], 3).unwrap();
        assert_eq!((left.ids(), left.token_types()), (batch.ids(), batch.token_types()));
        assert_eq!((left.positions(), left.sequences().cu_seqlens()), (&[0, 1, 0][..], &[0, 2, 3][..]));
        assert_eq!(Batch::rows_of_padded(&[1, 1, 0, 1]), [Some(0), Some(1), None, Some(2)]);
    }

    #[test]
    fn lengths_that_do_not_match_are_errors() {
        assert!(Batch::new(&[(&[1u32, 2][..], &[0u32][..])]).is_err());
        assert!(Batch::new(&[(&[][..], &[][..])]).is_err());
        assert!(Batch::from_padded(&[1, 2], &[0, 0], &[0, 0], 2).is_err());
        assert!(Batch::from_padded(&[1, 2, 3], &[0; 3], &[1; 3], 2).is_err());
        assert!(Batch::from_padded(&[], &[], &[], 0).is_err());
    }
}
