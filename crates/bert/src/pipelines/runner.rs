//! Running a model on texts, batch by batch.

use std::borrow::Cow;

use cloze_tensor::{Precision, Tensor, no_grad};

use super::long_text::{LongText, LongTextReport, Reported};
use super::output::finite;
use crate::tokenizer::Layout;
use crate::{Batch, EncodeOptions, Encoding, Error, ErrorKind, PreTrainedModel, Result, Tokenizer, Truncation};

/// The number of tokens per batch, enough to keep all threads busy.
const BATCH_TOKENS: usize = 4096;

/// A model with its tokenizer, limited to the maximum length of the model.
pub(super) struct Runner<M> {
    pub(super) model: M,
    pub(super) tokenizer: Tokenizer,
    pub(super) precision: Precision,
    pub(super) long_texts: LongText,
}

/// Texts as a model reads them. They are encoded when the model comes to them, so that a text takes no more memory than its
/// answer.
pub(super) struct Readings<'t> {
    pub(super) texts: Vec<Reading<'t>>,
    pub(super) report: LongTextReport,
}

/// A text, and the tokens of its windows.
pub(super) struct Reading<'t> {
    pub(super) text: Cow<'t, str>,
    pub(super) second: Option<&'t str>,
    pub(super) layout: Layout,
    options: EncodeOptions,
    /// The number of tokens that all windows have.
    shared: usize,
}

/// A text or a part of it, as a model reads it.
pub(super) struct Window {
    /// The index of the text.
    pub(super) text: usize,
    /// The index among the windows of the text.
    pub(super) number: usize,
    pub(super) encoding: Encoding,
    /// The number of tokens that not all windows of the text have.
    own: usize,
    /// The number of tokens of the first text that are before this window.
    pub(super) start: usize,
}

impl Window {
    pub(super) fn whole(text: usize, encoding: Encoding) -> Window {
        Window { text, number: 0, own: encoding.len(), encoding, start: 0 }
    }
}

impl Reading<'_> {
    /// Encodes the windows with these numbers, which increase, of the text with this index.
    pub(super) fn windows<'a>(
        &'a self,
        tokenizer: &'a Tokenizer,
        text: usize,
        numbers: impl IntoIterator<Item = usize> + 'a,
    ) -> impl Iterator<Item = Window> + 'a {
        let mut windows = tokenizer.windows_of(&self.text, self.second, self.layout, &self.options);
        let mut next = 0;
        numbers.into_iter().map_while(move |number| {
            let encoding = windows.nth(number - next)?;
            next = number + 1;
            let (start, _) = self.layout.range(0, number);
            Some(Window { text, number, own: encoding.len() - self.shared, encoding, start })
        })
    }
}

impl Readings<'_> {
    /// Encodes all windows of all texts.
    pub(super) fn windows<'a>(&'a self, tokenizer: &'a Tokenizer) -> impl Iterator<Item = Window> + 'a {
        let texts = self.texts.iter().enumerate();
        texts.flat_map(move |(index, text)| text.windows(tokenizer, index, 0..text.layout.count()))
    }
}

impl<M: PreTrainedModel> Runner<M> {
    pub(super) fn new(model: M, tokenizer: Tokenizer, long_texts: LongText) -> Result<Runner<M>> {
        tokenizer.check_vocab_size(model.config())?;
        let max_length = tokenizer.max_length().min(model.config().max_position_embeddings);
        let tokenizer = tokenizer.with_max_length(max_length);
        Ok(Runner { model, tokenizer, precision: Precision::F32, long_texts })
    }

    /// Counts the tokens of texts, each with an optional second text, none of which may be blank.
    pub(super) fn read<'t>(&self, texts: impl Iterator<Item = (&'t str, Option<&'t str>)>) -> Result<Readings<'t>> {
        let readings = self.read_any(texts.map(|(text, second)| (text.into(), second)), 0)?;
        for (index, text) in readings.texts.iter().enumerate() {
            if (0..text.layout.texts()).any(|sequence| text.layout.range(sequence, 0).1 == 0) {
                let reason = match readings.report.cut[index] {
                    0 => "is blank or has only characters that are removed".to_string(),
                    _ => format!("has no room among the {} tokens that fit", readings.report.max_length),
                };
                return Err(Error::input(format!("text {index} has no tokens: it {reason}")));
            }
        }
        Ok(readings)
    }

    /// Counts the tokens of texts, each with an optional second text, which may be blank. The first `prompt` tokens of each
    /// text are a prompt.
    pub(super) fn read_any<'t>(
        &self,
        texts: impl Iterator<Item = (Cow<'t, str>, Option<&'t str>)>,
        prompt: usize,
    ) -> Result<Readings<'t>> {
        let max_length = self.tokenizer.max_length();
        // A stride that no window can have is refused even if every text fits.
        self.long_texts.stride(max_length.saturating_sub(2))?;
        let report = LongTextReport { max_length, ..LongTextReport::default() };
        let mut readings = Readings { texts: Vec::new(), report };
        for (index, (text, second)) in texts.enumerate() {
            let reading = self.read_one(text, second, prompt).map_err(|error| error.in_text(index))?;
            readings.report.cut.push(reading.layout.cut);
            readings.report.windows.push(reading.layout.count());
            readings.texts.push(reading);
        }
        Ok(readings)
    }

    /// Counts the tokens of a text, and lays it out.
    fn read_one<'t>(&self, text: Cow<'t, str>, second: Option<&'t str>, prompt: usize) -> Result<Reading<'t>> {
        let limit = self.tokenizer.max_length();
        let counts = [self.tokenizer.count(&text), second.map_or(0, |second| self.tokenizer.count(second))];
        let lengths = &counts[..1 + usize::from(second.is_some())];
        let tokens = counts[0] + counts[1] + 1 + lengths.len();
        let (options, shared) = if self.long_texts == LongText::Truncate {
            // Even the end of a prompt, as in `sentence-transformers`.
            (EncodeOptions::new().truncation(Truncation::LongestFirst), 0)
        } else if tokens <= limit {
            (EncodeOptions::new(), 0)
        } else {
            self.check_prompt(prompt, 1 + lengths.len())?;
            match self.long_texts {
                LongText::Refuse => return Err(ErrorKind::TooLong { text: None, tokens, limit }.into()),
                _ => self.windows(counts, second.is_some(), prompt)?,
            }
        };
        let layout = Layout::new(lengths, limit, &options)?;
        Ok(Reading { text, second, layout, options, shared })
    }

    /// Checks that a prompt leaves room for a text.
    fn check_prompt(&self, prompt: usize, special: usize) -> Result<()> {
        let limit = self.tokenizer.max_length();
        match prompt > 0 && prompt + special >= limit {
            true => Err(Error::input(format!(
                "the prompt has {prompt} tokens: it leaves no room for a text, {limit} fit with {special} special tokens"
            ))),
            false => Ok(()),
        }
    }

    /// Returns the options for windows over the longer of two texts, of `lengths` tokens, and the number of tokens that all
    /// windows have.
    fn windows(&self, lengths: [usize; 2], is_pair: bool, prompt: usize) -> Result<(EncodeOptions, usize)> {
        let limit = self.tokenizer.max_length();
        // The last word of a prompt may be the beginning of a longer one, of fewer tokens.
        let prompt = prompt.min(lengths[0]);
        let (truncation, longer, prefix) = match lengths[0] >= lengths[1] {
            true => (Truncation::OnlyFirst, lengths[0] - prompt, prompt),
            false => (Truncation::OnlySecond, lengths[1], 0),
        };
        let shared = lengths[0] + lengths[1] + 2 + usize::from(is_pair) - longer;
        let Some(room) = limit.checked_sub(shared).filter(|room| *room > 0) else {
            return Err(Error::input(format!(
                "no room is left for windows: the special tokens and the shorter text of a pair are {shared} tokens, \
                 {limit} fit"
            )));
        };
        let stride = self.long_texts.stride(room)?;
        Ok((EncodeOptions::new().truncation(truncation).stride(stride).prefix(prefix), shared))
    }

    /// Computes a row per text: the one that `forward` computes for its encoding, or the mean over its windows.
    pub(super) fn means(
        &self,
        texts: Readings,
        mut forward: impl FnMut(&M, &Batch) -> Result<Tensor>,
    ) -> Result<Reported<Vec<Vec<f32>>>> {
        let mut means: Vec<Mean> = texts.texts.iter().map(|_| Mean::default()).collect();
        self.in_batches(texts.windows(&self.tokenizer), |model, batch, windows| {
            let values = finite(&forward(model, batch)?)?; // [B, C]
            for (window, row) in windows.iter().zip(values.chunks_exact(values.len() / windows.len())) {
                means[window.text].add(row, window.own);
            }
            Ok(())
        })?;
        Ok(Reported { value: means.into_iter().map(Mean::into_row).collect(), report: texts.report })
    }

    /// Calls `run` with batches of about [`BATCH_TOKENS`] tokens, or of a single window, without recording a graph.
    pub(super) fn in_batches(
        &self,
        windows: impl Iterator<Item = Window>,
        mut run: impl FnMut(&M, &Batch, &[Window]) -> Result<()>,
    ) -> Result<()> {
        let mut run = |windows: &[Window]| {
            let parts: Vec<_> =
                windows.iter().map(|window| (&window.encoding.ids, &window.encoding.token_types)).collect();
            run(&self.model, &Batch::new(&parts)?, windows)
        };
        let run_all = || {
            let (mut batch, mut tokens) = (Vec::new(), 0);
            for window in windows {
                if tokens + window.encoding.len() > BATCH_TOKENS && !batch.is_empty() {
                    run(&batch)?;
                    batch.clear();
                    tokens = 0;
                }
                tokens += window.encoding.len();
                batch.push(window);
            }
            if batch.is_empty() { Ok(()) } else { run(&batch) }
        };
        no_grad(|| self.precision.scope(run_all))
    }
}

/// Returns a text behind a prompt.
pub(super) fn prompted<'t>(prompt: &str, text: &'t str) -> Cow<'t, str> {
    if prompt.is_empty() { text.into() } else { format!("{prompt}{text}").into() }
}

/// The mean of rows with weights.
#[derive(Default)]
struct Mean {
    /// The first row, which is the mean if there is no other.
    first: Vec<f32>,
    first_weight: usize,
    /// The weighted sums of all rows, if there are several.
    sums: Vec<f64>,
    weight: f64,
}

impl Mean {
    fn add(&mut self, row: &[f32], weight: usize) {
        let weighted = |row: &[f32], weight: usize| row.iter().map(move |&x| f64::from(x) * weight as f64).collect();
        if self.first.is_empty() {
            (self.first, self.first_weight) = (row.to_vec(), weight);
            return;
        }
        if self.sums.is_empty() {
            (self.sums, self.weight) = (weighted(&self.first, self.first_weight), self.first_weight as f64);
        }
        let row: Vec<f64> = weighted(row, weight);
        self.sums.iter_mut().zip(row).for_each(|(sum, x)| *sum += x);
        self.weight += weight as f64;
    }

    fn into_row(self) -> Vec<f32> {
        match self.sums.is_empty() {
            true => self.first,
            false => self.sums.iter().map(|sum| (sum / self.weight) as f32).collect(),
        }
    }
}
