//! The trait that all pipelines share.

use std::path::Path;

use cloze_tensor::{Device, Precision};

use crate::{
    BertConfig, BertForMultipleChoice, BertForSequenceClassification, BertForTokenClassification, Error, LoadReport,
    OpenOptions, PreTrainedModel, Result, Tokenizer,
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
        Ok(Self::open_reported(place, device)?.0)
    }

    /// Opens a pipeline like [`open_on`](Pipeline::open_on). The report has the fields of `config.json` that are not
    /// read, and the contradictions between the files of the folder.
    ///
    /// # Errors
    /// Returns an error like [`open`](Pipeline::open).
    fn open_reported(place: impl AsRef<Path>, device: &Device) -> Result<(Self, LoadReport)> {
        let place = place.as_ref();
        let (model, mut report) = open_trained::<Self::Model>(place, device)?;
        let tokenizer = Tokenizer::open(place)?;
        report.add_tokenizer(&tokenizer, model.config());
        Ok((Self::new(model, tokenizer)?, report))
    }

    /// Sets the precision of matrix products, f32 by default.
    fn precision(self, precision: Precision) -> Self;

    /// Returns the model.
    fn model(&self) -> &Self::Model;

    /// Returns the tokenizer, limited to the length that the model allows.
    fn tokenizer(&self) -> &Tokenizer;
}

/// Opens a model that a folder has all weights of. The report says nothing about the tokenizer.
pub(super) fn open_trained<M: PreTrainedModel>(place: &Path, device: &Device) -> Result<(M, LoadReport)> {
    let (model, report) = M::open_reported(place, device, &OpenOptions::new().without_tokenizer())?;
    if !report.missing.is_empty() {
        let (missing, architecture) = (report.missing.join(", "), M::ARCHITECTURE);
        let reason = format!("has no weights for {missing}, which {architecture} needs: train that head first");
        return Err(Error::format(place, reason));
    }
    check_head::<M>(place, model.config())?;
    Ok((model, report))
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
