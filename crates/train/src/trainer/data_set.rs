//! The two traits of training: what a model learns from, and a model that learns.

use cloze_bert::Mode;
use cloze_tensor::{Module, Tensor};

use crate::Result;

/// A model that learns from batches `B`.
///
/// The loss is a mean over predictions, or a sum of such means: masked tokens and pairs of sentences. A step may be made
/// of several batches, and is normalised as a whole: a masked token counts as much in a batch of few as in one of many.
///
/// ```
/// use cloze_bert::{Batch, BertForSequenceClassification, Mode, SequenceLabels};
/// use cloze_tensor::{Module, Tensor};
/// use cloze_train::{Learn, share};
/// struct Scored { batch: Batch, scores: Vec<f32> }
/// struct Model(BertForSequenceClassification);
/// # impl Module for Model {
/// #     fn visit(&self, name: &str, visitor: &mut dyn FnMut(&str, &Tensor)) { self.0.visit(name, visitor) }
/// #     fn visit_mut(&mut self, name: &str, visitor: &mut dyn FnMut(&str, &mut Tensor)) { self.0.visit_mut(name, visitor) }
/// # }
/// impl Learn<Scored> for Model {
///     fn counts(&self, batch: &Scored) -> Vec<usize> {
///         vec![batch.scores.len()]
///     }
///
///     fn loss(&self, batch: &Scored, counts: &[usize], mode: Mode) -> cloze_train::Result<Tensor> {
///         let mean = self.0.loss(&batch.batch, &SequenceLabels::Values(batch.scores.clone()), mode)?;
///         share(mean, batch.scores.len(), counts)
///     }
/// }
/// ```
pub trait Learn<B>: Module {
    /// How many predictions each term of the loss has in this batch.
    fn counts(&self, batch: &B) -> Vec<usize>;

    /// The loss, as a number with a graph: of each term the sum over the predictions of this batch, divided by its
    /// `counts`, which are those of all batches of the step together.
    ///
    /// # Errors
    /// When the batch does not fit the model.
    fn loss(&self, batch: &B, counts: &[usize], mode: Mode) -> Result<Tensor>;

    /// Whether the parameter `name` is trained on batches like `batch`. All are, unless this says otherwise.
    fn is_trainable(&self, _name: &str, _batch: &B) -> bool {
        true
    }
}

/// The share of a batch in the loss of its step, for a loss of one term: its `mean` over the `own` predictions of the
/// batch, times their part in all of the step's.
///
/// # Errors
/// None for a number.
pub fn share(mean: Tensor, own: usize, counts: &[usize]) -> Result<Tensor> {
    match counts {
        [all] if *all != own => Ok(mean.mul_scalar(own as f64 / *all as f64)?),
        _ => Ok(mean),
    }
}

/// What an example takes of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// Sequences: 1, but for a question with several choices.
    pub sequences: usize,
    /// Tokens of all of them.
    pub tokens: usize,
}

/// Examples, in an order that depends on the epoch, and the batches made of them.
pub trait DataSet {
    /// What is shuffled.
    type Example;
    /// What a model learns from.
    type Batch;

    /// The examples of an epoch, in the order of training: the same at every call.
    ///
    /// # Errors
    /// When a setting makes no sense, or an example cannot be read.
    fn epoch(&self, epoch: u32) -> Result<impl Iterator<Item = Result<Self::Example>> + '_>;

    /// The batch of some of them. `first_sequence` numbers the first sequence within optimizer step `step`, which random
    /// draws depend on.
    ///
    /// # Errors
    /// When a setting makes no sense.
    fn batch(&self, examples: &[Self::Example], step: u32, first_sequence: u32) -> Result<Self::Batch>;

    /// What an example takes of a batch.
    fn size(&self, example: &Self::Example) -> Size;

    /// What to call an example in an error: the number of its row.
    fn name(&self, _example: &Self::Example) -> Option<String> {
        None
    }

    /// A number that other data, or other settings of these, would not have: a run goes on with the data that it began
    /// with. `None`: anything goes.
    fn fingerprint(&self) -> Option<u64> {
        None
    }
}
