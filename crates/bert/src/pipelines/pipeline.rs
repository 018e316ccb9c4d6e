//! The trait that all pipelines share.

use std::path::Path;

use cloze_tensor::{Device, Precision};

use crate::{
    BertConfig, BertForMultipleChoice, BertForSequenceClassification, BertForTokenClassification, Error, OpenOptions,
    PreTrainedModel, Result, Tokenizer,
};

/// A model with its tokenizer, which answers from text.
pub trait Pipeline: Sized {
    /// The type of the model.
    type Model: PreTrainedModel;

    /// Creates a pipeline from a model and its tokenizer.
    ///
    /// # Errors
    /// Returns an error if the tokenizer has more tokens than the model.
    fn new(model: Self::Model, tokenizer: Tokenizer) -> Result<Self>;

    /// Opens the model and the tokenizer in the folder `place`, or [of this name](crate#models-by-name), on the CPU.
    ///
    /// # Errors
    /// Returns an error like [`PreTrainedModel::open`] and [`Tokenizer::open`], if the two do not match, and if the
    /// folder has no weights for the head or the head of another task.
    fn open(place: impl AsRef<Path>) -> Result<Self> {
        Self::open_on(place, &Device::Cpu)
    }

    /// Opens a pipeline like [`open`](Pipeline::open), on the given device.
    ///
    /// # Errors
    /// Returns an error like [`open`](Pipeline::open).
    fn open_on(place: impl AsRef<Path>, device: &Device) -> Result<Self> {
        let place = place.as_ref();
        Self::new(open_trained(place, device)?, Tokenizer::open(place)?)
    }

    /// Sets the precision of matrix products, f32 by default.
    fn precision(self, precision: Precision) -> Self;
}

/// Opens a model that a folder has all weights of.
pub(super) fn open_trained<M: PreTrainedModel>(place: &Path, device: &Device) -> Result<M> {
    let (model, report) = M::open_with(place, device, &OpenOptions::new().quiet())?;
    if !report.missing.is_empty() {
        let (missing, architecture) = (report.missing.join(", "), M::ARCHITECTURE);
        let reason = format!("has no weights for {missing}, which {architecture} needs: train that head first");
        return Err(Error::format(place, reason));
    }
    check_head::<M>(place, model.config())?;
    Ok(model)
}

/// The models whose head is called `classifier`. Their names and shapes do not tell them apart.
const CLASSIFIERS: [&str; 3] = [
    BertForSequenceClassification::ARCHITECTURE,
    BertForTokenClassification::ARCHITECTURE,
    BertForMultipleChoice::ARCHITECTURE,
];

/// Returns an error if the classifier in a folder belongs to another task, because its answers would be nonsense.
fn check_head<M: PreTrainedModel>(place: &Path, config: &BertConfig) -> Result<()> {
    let class = |bert_class| config.model_type.class_name(bert_class);
    let stored = |class: &String| config.architectures.contains(class);
    let own = class(M::ARCHITECTURE);
    match CLASSIFIERS.map(class).into_iter().find(stored) {
        Some(other) if CLASSIFIERS.contains(&M::ARCHITECTURE) && !stored(&own) => Err(Error::format(
            place,
            format!("has a {other}, whose classifier does not fit a {own}: open it as that model"),
        )),
        _ => Ok(()),
    }
}
