//! A data set: examples in an order per epoch, and the batches made of them.

use crate::Result;

/// The size of an example in a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// The number of sequences: 1, except for a question with several choices.
    pub sequences: usize,
    /// The number of tokens in all of them.
    pub tokens: usize,
}

/// Examples in an order that depends on the epoch, and the batches made of them.
pub trait DataSet {
    /// The unit that is shuffled.
    type Example;
    /// The input of a model, with its labels.
    type Batch;

    /// Returns the examples of an epoch in training order. Every call returns the same examples.
    ///
    /// # Errors
    /// Returns an error if a setting is invalid or an example cannot be read.
    fn epoch(&self, epoch: u32) -> Result<impl Iterator<Item = Result<Self::Example>> + '_>;

    /// Makes a batch of some examples. `step` is the optimizer step, and `sequences` has the number within it of the first
    /// sequence of each example; random draws depend on both. A batch may have any examples of its step: with several
    /// [ranks](crate::Trainer::communicator), it has those of one rank.
    ///
    /// # Errors
    /// Returns an error if a setting is invalid.
    fn batch(&self, examples: &[Self::Example], step: u32, sequences: &[u32]) -> Result<Self::Batch>;

    /// Returns the size of an example in a batch.
    fn size(&self, example: &Self::Example) -> Size;

    /// Returns the name of an example for error messages, such as its row number.
    fn name(&self, _example: &Self::Example) -> Option<String> {
        None
    }

    /// Returns a number that differs for other data and for other settings, so that a run only resumes with the data it
    /// started with. `None` skips this check.
    fn fingerprint(&self) -> Option<u64> {
        None
    }
}
