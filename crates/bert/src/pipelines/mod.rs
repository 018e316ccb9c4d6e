//! Pipelines: text in, answers out.
//!
//! A pipeline is a model with its tokenizer. All pipelines are opened in the same way ([`Pipeline`]), accept many texts
//! per call, and can be shared between threads.

mod fill_mask;
mod next_sentence;
mod question_answering;
mod sentence_embedder;
mod similarity;
pub mod spans;
mod text_classification;
mod token_classification;

use std::ops::Range;
use std::path::Path;

use cloze_tensor::{Device, Precision, Tensor, no_grad};

pub use fill_mask::{FillMask, FilledMask, Guess};
pub use next_sentence::NextSentence;
pub use question_answering::{Answer, QuestionAnswering};
pub use sentence_embedder::SentenceEmbedder;
pub use similarity::{Similarity, cosine_similarity};
pub use text_classification::{Classification, TextClassification};
pub use token_classification::{Aggregation, Entity, LabelledWord, TokenClassification};

use crate::{
    Batch, BertConfig, BertForMultipleChoice, BertForSequenceClassification, BertForTokenClassification, EncodeOptions,
    Encoding, Error, PreTrainedModel, Result, Tokenizer, Truncation,
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
        let (model, report) = Self::Model::open(place, device)?;
        if !report.missing.is_empty() {
            let (missing, architecture) = (report.missing.join(", "), Self::Model::ARCHITECTURE);
            let reason = format!("has no weights for {missing}, which {architecture} needs: train that head first");
            return Err(Error::format(place, reason));
        }
        check_head::<Self::Model>(place, model.config())?;
        Self::new(model, Tokenizer::open(place)?)
    }

    /// Sets the precision of matrix products, f32 by default.
    fn precision(self, precision: Precision) -> Self;
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

/// The number of tokens per batch, enough to keep all threads busy.
const BATCH_TOKENS: usize = 4096;

/// A model with its tokenizer, limited to the maximum length of the model.
struct Runner<M> {
    model: M,
    tokenizer: Tokenizer,
    precision: Precision,
}

impl<M: PreTrainedModel> Runner<M> {
    fn new(model: M, tokenizer: Tokenizer) -> Result<Runner<M>> {
        tokenizer.check_vocab_size(model.config())?;
        let max_length = tokenizer.max_length().min(model.config().max_position_embeddings);
        let tokenizer = tokenizer.with_max_length(max_length);
        Ok(Runner { model, tokenizer, precision: Precision::F32 })
    }

    /// Encodes texts, each with an optional second text. An error names the index of the text.
    fn encode<'t>(
        &self,
        texts: impl Iterator<Item = (&'t str, Option<&'t str>)>,
        truncate: bool,
    ) -> Result<Vec<Encoding>> {
        let truncation = if truncate { Truncation::LongestFirst } else { Truncation::None };
        let options = EncodeOptions::new().truncation(truncation);
        let encode = |(index, (text, second)): (usize, (&str, Option<&str>))| {
            let encoding = self.tokenizer.encode_with(text, second, &options)?;
            let has_tokens = |sequence| encoding.sequence_ids.contains(&Some(sequence));
            if !has_tokens(0) || (second.is_some() && !has_tokens(1)) {
                let reason = format!("text {index} has no tokens: it is blank or has only characters that are removed");
                return Err(Error::input(reason));
            }
            Ok(encoding)
        };
        texts.enumerate().map(encode).collect()
    }

    /// Calls `run` with batches of about [`BATCH_TOKENS`] tokens, without recording a graph.
    fn in_batches(
        &self,
        encodings: &[Encoding],
        mut run: impl FnMut(&M, &Batch, &[Encoding]) -> Result<()>,
    ) -> Result<()> {
        let run_all = || {
            for range in batches(encodings) {
                let encodings = &encodings[range];
                run(&self.model, &Batch::from_encodings(encodings)?, encodings)?;
            }
            Ok(())
        };
        no_grad(|| self.precision.scope(run_all))
    }
}

/// Returns the ranges of encodings that form batches of at most [`BATCH_TOKENS`] tokens, or of a single encoding.
fn batches(encodings: &[Encoding]) -> Vec<Range<usize>> {
    let (mut ranges, mut start, mut tokens) = (Vec::new(), 0, 0);
    for (index, encoding) in encodings.iter().enumerate() {
        if tokens + encoding.len() > BATCH_TOKENS && index > start {
            ranges.push(start..index);
            (start, tokens) = (index, 0);
        }
        tokens += encoding.len();
    }
    if start < encodings.len() {
        ranges.push(start..encodings.len());
    }
    ranges
}

/// Computes the softmax of logits in f64.
fn softmax(logits: &[f32]) -> Vec<f64> {
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let powers: Vec<f64> = logits.iter().map(|&x| f64::from(x - largest).exp()).collect();
    let sum: f64 = powers.iter().sum();
    powers.into_iter().map(|power| power / sum).collect()
}

/// Returns the position of the first largest value, or 0 if there are no values.
fn largest(values: &[f64]) -> usize {
    (1..values.len()).fold(0, |best, at| if values[at] > values[best] { at } else { best })
}

/// Returns the values of a model's output.
///
/// # Errors
/// Returns an error if a value is not finite, which very large weights can cause.
fn finite(output: &Tensor) -> Result<Vec<f32>> {
    let values = output.to_vec::<f32>()?;
    values.iter().copied().try_for_each(|value| check_finite(value.into()))?;
    Ok(values)
}

fn check_finite(value: f64) -> Result<()> {
    match value.is_finite() {
        true => Ok(()),
        false => Err(Error::input(format!("the model computes {value}: its weights are too large"))),
    }
}

/// A text that is indexed by characters.
struct Characters<'t> {
    text: &'t str,
    /// The byte offset of each character.
    starts: Vec<usize>,
}

impl<'t> Characters<'t> {
    fn new(text: &'t str) -> Characters<'t> {
        Characters { text, starts: text.char_indices().map(|(byte, _)| byte).collect() }
    }

    /// Returns the characters `start..end`.
    fn part(&self, start: usize, end: usize) -> &'t str {
        let byte = |character: usize| self.starts.get(character).copied().unwrap_or(self.text.len());
        self.text.get(byte(start)..byte(end)).unwrap_or_default()
    }
}
