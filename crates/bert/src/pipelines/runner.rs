//! Running a model on texts, batch by batch.

use std::ops::Range;

use cloze_tensor::{Precision, Tensor, no_grad};

use super::long_text::{LongText, LongTextReport, Reported};
use super::output::finite;
use crate::{Batch, EncodeOptions, Encoding, Error, ErrorKind, PreTrainedModel, Result, Tokenizer, Truncation};

/// The number of tokens per batch, enough to keep all threads busy.
const BATCH_TOKENS: usize = 4096;

/// The bytes of a text from which on its tokens are counted before it is encoded.
const LONG: usize = 1 << 14;

/// A model with its tokenizer, limited to the maximum length of the model.
pub(super) struct Runner<M> {
    pub(super) model: M,
    pub(super) tokenizer: Tokenizer,
    pub(super) precision: Precision,
    pub(super) long_texts: LongText,
}

/// Texts as a model reads them.
pub(super) struct Readings {
    /// The encodings of all texts in order, several for a text that is read in windows.
    pub(super) encodings: Vec<Encoding>,
    /// The number of tokens of each encoding that not all windows of its text have.
    own: Vec<usize>,
    /// The number of such tokens that are before each encoding in its text.
    pub(super) starts: Vec<usize>,
    pub(super) report: LongTextReport,
}

/// A text as windows, or as a single one.
struct Windows {
    encodings: Vec<Encoding>,
    /// The number of tokens that all windows have.
    shared: usize,
    /// The number of further tokens that consecutive windows share.
    stride: usize,
}

impl From<Encoding> for Windows {
    fn from(encoding: Encoding) -> Windows {
        Windows { encodings: vec![encoding], shared: 0, stride: 0 }
    }
}

impl<M: PreTrainedModel> Runner<M> {
    pub(super) fn new(model: M, tokenizer: Tokenizer, long_texts: LongText) -> Result<Runner<M>> {
        tokenizer.check_vocab_size(model.config())?;
        let max_length = tokenizer.max_length().min(model.config().max_position_embeddings);
        let tokenizer = tokenizer.with_max_length(max_length);
        Ok(Runner { model, tokenizer, precision: Precision::F32, long_texts })
    }

    /// Encodes texts, each with an optional second text, none of which may be blank.
    pub(super) fn read<'t>(&self, texts: impl Iterator<Item = (&'t str, Option<&'t str>)>) -> Result<Readings> {
        let readings = self.read_any(texts, 0)?;
        let mut first = 0;
        for (index, windows) in readings.report.windows.iter().enumerate() {
            let encoding = &readings.encodings[first];
            let texts = encoding.special_tokens_mask.iter().filter(|&&special| special).count() - 1;
            if (0..texts).any(|sequence| !encoding.sequence_ids.contains(&Some(sequence))) {
                let reason = match readings.report.cut[index] {
                    0 => "is blank or has only characters that are removed".to_string(),
                    _ => format!("has no room among the {} tokens that fit", readings.report.max_length),
                };
                return Err(Error::input(format!("text {index} has no tokens: it {reason}")));
            }
            first += windows;
        }
        Ok(readings)
    }

    /// Encodes texts, each with an optional second text, which may be blank. The first `prompt` tokens of each text are
    /// a prompt.
    pub(super) fn read_any<'t, S: AsRef<str>>(
        &self,
        texts: impl Iterator<Item = (S, Option<&'t str>)>,
        prompt: usize,
    ) -> Result<Readings> {
        let max_length = self.tokenizer.max_length();
        // A stride that no window can have is refused even if every text fits.
        self.long_texts.stride(max_length.saturating_sub(2))?;
        let report = LongTextReport { max_length, ..LongTextReport::default() };
        let mut readings = Readings { encodings: Vec::new(), own: Vec::new(), starts: Vec::new(), report };
        for (index, (text, second)) in texts.enumerate() {
            let read = self.read_one(text.as_ref(), second, prompt);
            let Windows { encodings, shared, stride } = read.map_err(|error| error.in_text(index))?;
            readings.report.cut.push(encodings[0].truncated);
            readings.report.windows.push(encodings.len());
            let mut end = stride;
            for encoding in encodings {
                let (start, own) = (end - stride, encoding.len() - shared);
                end = start + own;
                readings.starts.push(start);
                readings.own.push(own);
                readings.encodings.push(encoding);
            }
        }
        Ok(readings)
    }

    /// Encodes a text.
    fn read_one(&self, text: &str, second: Option<&str>, prompt: usize) -> Result<Windows> {
        let limit = self.tokenizer.max_length();
        if self.long_texts == LongText::Truncate {
            // Even the end of a prompt, as in `sentence-transformers`.
            let options = EncodeOptions::new().truncation(Truncation::LongestFirst);
            return Ok(self.tokenizer.encode_with(text, second, &options)?.into());
        }
        let special = 2 + usize::from(second.is_some());
        let is_long = text.len() + second.map_or(0, str::len) > LONG;
        // Before a long text is read in windows, only its number of tokens is needed.
        let (lengths, encoding) = if is_long {
            ([self.length(text)?, second.map_or(Ok(0), |second| self.length(second))?], None)
        } else {
            let encoding = self.whole(text, second)?;
            let length = |sequence| encoding.sequence_ids.iter().filter(|&&id| id == Some(sequence)).count();
            ([length(0), length(1)], Some(encoding))
        };
        let tokens = lengths[0] + lengths[1] + special;
        if tokens <= limit {
            return Ok(encoding.map_or_else(|| self.whole(text, second), Ok)?.into());
        }
        if prompt > 0 && prompt + special >= limit {
            return Err(Error::input(format!(
                "the prompt has {prompt} tokens: it leaves no room for a text, {limit} fit with {special} special tokens"
            )));
        }
        match self.long_texts {
            LongText::Refuse => Err(ErrorKind::TooLong { text: None, tokens, limit }.into()),
            _ => self.windows(text, second, lengths, prompt),
        }
    }

    /// Returns the number of tokens of a text, without special tokens.
    pub(super) fn length(&self, text: &str) -> Result<usize> {
        Ok(self.tokenizer.ids(text)?.len())
    }

    /// Encodes a text of any length.
    pub(super) fn whole(&self, text: &str, second: Option<&str>) -> Result<Encoding> {
        self.tokenizer.encode_with(text, second, &EncodeOptions::new().max_length(usize::MAX))
    }

    /// Encodes a text that is too long as windows over its longer part. `lengths` has the numbers of tokens of both texts.
    fn windows(&self, text: &str, second: Option<&str>, lengths: [usize; 2], prompt: usize) -> Result<Windows> {
        let limit = self.tokenizer.max_length();
        // The last word of a prompt may be the beginning of a longer one, of fewer tokens.
        let prompt = prompt.min(lengths[0]);
        let (truncation, longer, prefix) = match lengths[0] >= lengths[1] {
            true => (Truncation::OnlyFirst, lengths[0] - prompt, prompt),
            false => (Truncation::OnlySecond, lengths[1], 0),
        };
        let shared = lengths[0] + lengths[1] + 2 + usize::from(second.is_some()) - longer;
        let Some(room) = limit.checked_sub(shared).filter(|room| *room > 0) else {
            return Err(Error::input(format!(
                "no room is left for windows: the special tokens and the shorter text of a pair are {shared} tokens, \
                 {limit} fit"
            )));
        };
        let stride = self.long_texts.stride(room)?;
        let options = EncodeOptions::new().truncation(truncation).stride(stride).prefix(prefix);
        let mut first = self.tokenizer.encode_with(text, second, &options)?;
        let mut encodings = std::mem::take(&mut first.overflowing);
        encodings.insert(0, first);
        Ok(Windows { encodings, shared, stride })
    }

    /// Computes a row per text: the one that `forward` computes for its encoding, or the mean over its windows.
    pub(super) fn means(
        &self,
        texts: Readings,
        mut forward: impl FnMut(&M, &Batch) -> Result<Tensor>,
    ) -> Result<Reported<Vec<Vec<f32>>>> {
        let mut rows = Vec::with_capacity(texts.encodings.len());
        self.in_batches(&texts.encodings, |model, batch, encodings| {
            let values = finite(&forward(model, batch)?)?; // [B, C]
            rows.extend(values.chunks_exact(values.len() / encodings.len()).map(<[f32]>::to_vec));
            Ok(())
        })?;
        let mut windows = rows.into_iter().zip(texts.own);
        let of_text = |&count: &usize| mean(windows.by_ref().take(count).collect());
        let value = texts.report.windows.iter().map(of_text).collect();
        Ok(Reported { value, report: texts.report })
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

/// Computes the mean of rows with weights.
fn mean(mut rows: Vec<(Vec<f32>, usize)>) -> Vec<f32> {
    if rows.len() == 1 {
        return rows.remove(0).0;
    }
    let weights: f64 = rows.iter().map(|(_, weight)| *weight as f64).sum();
    let at = |column: usize| {
        let sum: f64 = rows.iter().map(|(row, weight)| f64::from(row[column]) * *weight as f64).sum();
        (sum / weights) as f32
    };
    (0..rows.first().map_or(0, |(row, _)| row.len())).map(at).collect()
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
