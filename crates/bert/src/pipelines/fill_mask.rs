//! Predicting masked tokens.

use std::collections::{BTreeSet, HashMap};

use cloze_tensor::Precision;

use super::Pipeline;
use super::long_text::{LongText, Reported};
use super::output::check_finite;
use super::runner::{Readings, Runner};
use crate::{BertForMaskedLM, Encoding, Error, Mode, PreTrainedModel as _, Result, Tokenizer};

/// A token predicted for a mask.
#[derive(Clone, Debug, PartialEq)]
pub struct Guess {
    /// The token: a word, or after `##` the continuation of one.
    pub token: String,
    /// Its id.
    pub id: u32,
    /// Its probability, in [0, 1].
    pub probability: f64,
}

/// A mask and the tokens predicted for it.
#[derive(Clone, Debug, PartialEq)]
pub struct FilledMask {
    /// The position of the mask among the tokens of its whole text, `[CLS]` included.
    pub position: usize,
    /// The predicted tokens, most probable first.
    pub guesses: Vec<Guess>,
}

/// A pipeline that predicts masked tokens.
///
/// ```no_run
/// use cloze_bert::{FillMask, Pipeline};
/// let model = FillMask::open("models/tiny")?;
/// for guess in model.top_k("the cat sat on the [MASK].", 5)? {
///     println!("{:<12} p={:.4}", guess.token, guess.probability);
/// }
/// # Ok::<(), cloze_bert::Error>(())
/// ```
pub struct FillMask {
    runner: Runner<BertForMaskedLM>,
}

impl Pipeline for FillMask {
    type Model = BertForMaskedLM;

    fn new(model: BertForMaskedLM, tokenizer: Tokenizer) -> Result<FillMask> {
        if !tokenizer.has_mask() && tokenizer.mask_id() as usize >= model.config().vocab_size {
            let mask = tokenizer.token(tokenizer.mask_id()).unwrap_or_default();
            return Err(Error::tokenizer(format!("the vocabulary has no {mask}, whose token FillMask predicts")));
        }
        Ok(FillMask { runner: Runner::new(model, tokenizer, LongText::Windows)? })
    }

    fn precision(mut self, precision: Precision) -> Self {
        self.runner.precision = precision;
        self
    }
}

/// A mask, and where the model reads it.
struct Place {
    /// The position of the mask among the tokens of its text.
    position: usize,
    /// The index of the encoding that has the mask, and the position there.
    read_at: (usize, usize),
}

impl FillMask {
    /// Sets what happens to texts that are too long, [`LongText::Windows`] by default: each mask is predicted in the
    /// window where it has the most context. A mask that is cut is an error.
    pub fn long_texts(mut self, long_texts: LongText) -> FillMask {
        self.runner.long_texts = long_texts;
        self
    }

    /// Returns the `k` most probable tokens for the only `[MASK]` of `text`, most probable first.
    ///
    /// # Errors
    /// Returns an error like [`fill`](FillMask::fill), or if the text has several masks.
    pub fn top_k(&self, text: &str, k: usize) -> Result<Reported<Vec<Guess>>> {
        let filled = self.fill(&[text], k)?;
        match filled[0].len() {
            1 => Ok(filled.map(|mut masks| masks.remove(0).remove(0).guesses)),
            masks => Err(Error::input(format!("{masks} [MASK] in {text:?}: top_k expects one, use fill for several"))),
        }
    }

    /// Returns the `k` most probable tokens for each `[MASK]` of each text. The masks of a text are predicted
    /// independently of each other.
    ///
    /// # Errors
    /// Returns an error if a text has no mask, if a mask is cut, or if a text is too long and
    /// [refused](LongText::Refuse).
    pub fn fill(&self, texts: &[&str], k: usize) -> Result<Reported<Vec<Vec<FilledMask>>>> {
        self.run(&texts.iter().map(|text| (*text, None)).collect::<Vec<_>>(), k)
    }

    /// Fills the masks of pairs of texts, like [`fill`](FillMask::fill).
    ///
    /// # Errors
    /// Returns an error like [`fill`](FillMask::fill).
    pub fn fill_pairs(&self, pairs: &[(&str, &str)], k: usize) -> Result<Reported<Vec<Vec<FilledMask>>>> {
        self.run(&pairs.iter().map(|(first, second)| (*first, Some(*second))).collect::<Vec<_>>(), k)
    }

    /// Fills the masks of encoded texts, like [`fill`](FillMask::fill).
    ///
    /// # Errors
    /// Returns an error if a text has no mask, or is longer than the model allows.
    pub fn fill_encoded(&self, encodings: &[Encoding], k: usize) -> Result<Vec<Vec<FilledMask>>> {
        let places = |(index, encoding)| self.places(index, encoding, |at| Some((index, at)));
        let places = encodings.iter().enumerate().map(places).collect::<Result<Vec<_>>>()?;
        self.fill_places(encodings, &places, k)
    }

    fn run(&self, texts: &[(&str, Option<&str>)], k: usize) -> Result<Reported<Vec<Vec<FilledMask>>>> {
        let Readings { encodings, report, .. } = self.runner.read(texts.iter().copied())?;
        let (mut places, mut first) = (Vec::with_capacity(texts.len()), 0);
        for (index, (&(text, second), &count)) in texts.iter().zip(&report.windows).enumerate() {
            let windows = &encodings[first..first + count];
            places.push(match count == 1 && report.cut[index] == 0 {
                true => self.places(index, &windows[0], |at| Some((first, at)))?,
                false => {
                    let whole = self.runner.whole(text, second)?;
                    let read_at = |position| find(&whole, position, windows).map(|(window, at)| (first + window, at));
                    self.places(index, &whole, read_at)?
                }
            });
            first += count;
        }
        Ok(Reported { value: self.fill_places(&encodings, &places, k)?, report })
    }

    /// Returns the masks of a text. `read_at` returns where the model reads a position, `None` if it is cut.
    fn places(
        &self,
        index: usize,
        text: &Encoding,
        read_at: impl Fn(usize) -> Option<(usize, usize)>,
    ) -> Result<Vec<Place>> {
        let place = |position| match read_at(position) {
            Some(read_at) => Ok(Place { position, read_at }),
            None => Err(Error::input(format!(
                "text {index}: its [MASK] at position {position} is cut: read the text in windows, or shorten it"
            ))),
        };
        let masks = (0..text.len()).filter(|&at| text.ids[at] == self.runner.tokenizer.mask_id());
        let places = masks.map(place).collect::<Result<Vec<_>>>()?;
        if places.is_empty() {
            let tokens: Vec<&str> = text.tokens.iter().take(12).map(String::as_str).collect();
            return Err(Error::input(format!("no [MASK] in text {index}: {} ...", tokens.join(" "))));
        }
        Ok(places)
    }

    /// Predicts the masks of each text. Encodings in which no mask is read are skipped.
    fn fill_places(&self, encodings: &[Encoding], places: &[Vec<Place>], k: usize) -> Result<Vec<Vec<FilledMask>>> {
        let read_at: BTreeSet<(usize, usize)> = places.iter().flatten().map(|place| place.read_at).collect();
        let mut indices: Vec<usize> = read_at.iter().map(|&(encoding, _)| encoding).collect();
        indices.dedup();
        let encodings: Vec<Encoding> = indices.iter().map(|&index| encodings[index].clone()).collect();
        let (mut indices, mut guesses) = (indices.into_iter(), HashMap::new());
        self.runner.in_batches(&encodings, |model, batch, _| {
            let (mut rows, mut masks) = (Vec::new(), Vec::new());
            for (start, index) in batch.sequences().starts().iter().zip(indices.by_ref()) {
                for &(encoding, at) in read_at.range((index, 0)..(index + 1, 0)) {
                    rows.push(start + at as u32);
                    masks.push((encoding, at));
                }
            }
            let best = model.forward(batch, &rows, Mode::Eval)?.softmax()?.top_k(k)?; // k of [M, V]
            best.iter().flatten().try_for_each(|&(_, probability)| check_finite(probability))?;
            guesses.extend(masks.into_iter().zip(best));
            Ok(())
        })?;
        let guessed = |place: &Place| FilledMask {
            position: place.position,
            guesses: guesses[&place.read_at]
                .iter()
                .map(|&(id, probability)| self.guess(id as u32, probability))
                .collect(),
        };
        Ok(places.iter().map(|places| places.iter().map(guessed).collect()).collect())
    }

    fn guess(&self, id: u32, probability: f64) -> Guess {
        // A model may have more word embeddings than its tokenizer has tokens.
        let token = self.runner.tokenizer.token(id).map_or_else(|| format!("[{id}]"), str::to_string);
        Guess { token, id, probability }
    }
}

/// Returns the window in which the token at `position` of a text has the most context, and its position there.
fn find(text: &Encoding, position: usize, windows: &[Encoding]) -> Option<(usize, usize)> {
    let token = |encoding: &Encoding, at: usize| (encoding.sequence_ids[at], encoding.offsets[at]);
    let found = windows.iter().enumerate().filter_map(|(number, window)| {
        let at = (0..window.len()).find(|&at| token(window, at) == token(text, position))?;
        Some((margin(window, at), number, at))
    });
    // If several windows give the same context, takes the first.
    found.rev().max_by_key(|(margin, ..)| *margin).map(|(_, number, at)| (number, at))
}

/// Returns the distance of a token to the nearer end of its text in a window.
fn margin(window: &Encoding, at: usize) -> usize {
    let same = |&other: &usize| window.sequence_ids[other] == window.sequence_ids[at];
    let (before, after) = ((0..at).rev().take_while(same).count(), (at + 1..window.len()).take_while(same).count());
    before.min(after)
}
