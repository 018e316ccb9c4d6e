//! The rows of the last hidden states that a head needs.

use std::borrow::Cow;

use cloze_tensor::{RowCoordinate, Sequences, Tensor};

use crate::Result;

/// A selection of the rows of a batch's last hidden states.
///
/// The last layer computes only these rows. Pre-training needs about a sixth of them: the masked tokens and `[CLS]`.
#[derive(Clone, Debug)]
pub struct Rows<'a> {
    picked: Option<Cow<'a, [u32]>>,
    coordinates: Cow<'a, [RowCoordinate]>,
}

impl<'a> Rows<'a> {
    /// Selects all rows.
    pub fn all(sequences: &'a Sequences) -> Rows<'a> {
        Rows { picked: None, coordinates: sequences.rows().into() }
    }

    /// Selects the rows `picked`, in this order. The forward pass returns an error if one is out of range.
    pub fn some(sequences: &Sequences, picked: &'a [u32]) -> Rows<'a> {
        let coordinate = |&row: &u32| sequences.rows().get(row as usize).copied().unwrap_or_default();
        Rows { picked: Some(picked.into()), coordinates: picked.iter().map(coordinate).collect() }
    }

    /// Selects the `[CLS]` row of each sequence.
    pub fn cls(sequences: &'a Sequences) -> Rows<'a> {
        Rows::some(sequences, sequences.starts())
    }

    /// Returns these rows of a tensor `[T, ..]`.
    pub(super) fn of(&self, x: &Tensor) -> Result<Tensor> {
        Ok(match &self.picked {
            Some(picked) => x.gather_rows(picked)?,
            None => x.clone(),
        })
    }

    /// Returns an owned copy of the selection.
    pub(super) fn to_static(&self) -> Rows<'static> {
        let picked = self.picked.as_ref().map(|picked| picked.to_vec().into());
        Rows { picked, coordinates: self.coordinates.to_vec().into() }
    }

    /// Returns the sequence and position of each row, which dropout masks depend on.
    pub(super) fn coordinates(&self) -> &[RowCoordinate] {
        &self.coordinates
    }
}
