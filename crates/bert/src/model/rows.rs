//! Which rows of the hidden states somebody will look at.

use std::borrow::Cow;

use cloze_tensor::{RowCoordinate, Sequences, Tensor};

use crate::Result;

/// The rows that are wanted of a batch's last hidden states: all, or some. Pre-training reads a sixth of them:
/// the masked tokens and `[CLS]`.
#[derive(Clone, Debug)]
pub struct Rows<'a> {
    picked: Option<Cow<'a, [u32]>>,
    coordinates: Cow<'a, [RowCoordinate]>,
}

impl<'a> Rows<'a> {
    /// All rows.
    pub fn all(sequences: &'a Sequences) -> Rows<'a> {
        Rows { picked: None, coordinates: sequences.rows().into() }
    }

    /// The rows `picked`, in that order. Those that are out of range are reported when the model runs.
    pub fn some(sequences: &Sequences, picked: &'a [u32]) -> Rows<'a> {
        let coordinate = |&row: &u32| sequences.rows().get(row as usize).copied().unwrap_or_default();
        Rows { picked: Some(picked.into()), coordinates: picked.iter().map(coordinate).collect() }
    }

    /// The `[CLS]` row of each sequence.
    pub fn cls(sequences: &'a Sequences) -> Rows<'a> {
        Rows::some(sequences, sequences.starts())
    }

    /// These rows of a tensor `[T, ..]`.
    pub(super) fn of(&self, x: &Tensor) -> Result<Tensor> {
        Ok(match &self.picked {
            Some(picked) => x.gather_rows(picked)?,
            None => x.clone(),
        })
    }

    /// The same rows, for whoever outlives the batch.
    pub(super) fn to_static(&self) -> Rows<'static> {
        let picked = self.picked.as_ref().map(|picked| picked.to_vec().into());
        Rows { picked, coordinates: self.coordinates.to_vec().into() }
    }

    /// Where each of them stands.
    pub(super) fn coordinates(&self) -> &[RowCoordinate] {
        &self.coordinates
    }
}
