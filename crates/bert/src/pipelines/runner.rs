//! Running a model on encoded texts, batch by batch.

use std::ops::Range;

use cloze_tensor::{Precision, no_grad};

use crate::{Batch, EncodeOptions, Encoding, Error, PreTrainedModel, Result, Tokenizer, Truncation};

/// The number of tokens per batch, enough to keep all threads busy.
const BATCH_TOKENS: usize = 4096;

/// A model with its tokenizer, limited to the maximum length of the model.
pub(super) struct Runner<M> {
    pub(super) model: M,
    pub(super) tokenizer: Tokenizer,
    pub(super) precision: Precision,
}

impl<M: PreTrainedModel> Runner<M> {
    pub(super) fn new(model: M, tokenizer: Tokenizer) -> Result<Runner<M>> {
        tokenizer.check_vocab_size(model.config())?;
        let max_length = tokenizer.max_length().min(model.config().max_position_embeddings);
        let tokenizer = tokenizer.with_max_length(max_length);
        Ok(Runner { model, tokenizer, precision: Precision::F32 })
    }

    /// Encodes texts, each with an optional second text. An error names the index of the text.
    pub(super) fn encode<'t>(
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

    /// Encodes a text, or a pair of texts, that may be blank. The end of one that is too long is removed.
    pub(super) fn encode_any(&self, text: &str, second: Option<&str>) -> Result<Encoding> {
        self.tokenizer.encode_with(text, second, &EncodeOptions::new().truncation(Truncation::LongestFirst))
    }

    /// Calls `run` with batches of about [`BATCH_TOKENS`] tokens, without recording a graph.
    pub(super) fn in_batches(
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
