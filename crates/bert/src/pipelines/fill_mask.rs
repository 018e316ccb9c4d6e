//! Predicting masked tokens.

use std::collections::{BTreeSet, HashMap};

use cloze_tensor::Precision;

use super::Pipeline;
use super::long_text::{LongText, Reported};
use super::output::check_finite;
use super::runner::{Reading, Readings, Runner, Window};
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

    fn model(&self) -> &BertForMaskedLM {
        &self.runner.model
    }

    fn tokenizer(&self) -> &Tokenizer {
        &self.runner.tokenizer
    }
}

/// A mask, and where the model reads it.
struct Place {
    /// The position of the mask among the tokens of its text.
    position: usize,
    /// The window that has the mask, and the position there.
    read_at: (usize, usize),
}

/// The masks of each text.
type Places = Vec<Vec<Place>>;

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
    pub fn fill(&self, texts: &[impl AsRef<str>], k: usize) -> Result<Reported<Vec<Vec<FilledMask>>>> {
        self.run(&texts.iter().map(|text| (text.as_ref(), None)).collect::<Vec<_>>(), k)
    }

    /// Fills the masks of pairs of texts, like [`fill`](FillMask::fill).
    ///
    /// # Errors
    /// Returns an error like [`fill`](FillMask::fill).
    pub fn fill_pairs(
        &self,
        pairs: &[(impl AsRef<str>, impl AsRef<str>)],
        k: usize,
    ) -> Result<Reported<Vec<Vec<FilledMask>>>> {
        self.run(&pairs.iter().map(|(first, second)| (first.as_ref(), Some(second.as_ref()))).collect::<Vec<_>>(), k)
    }

    /// Fills the masks of encoded texts, like [`fill`](FillMask::fill).
    ///
    /// # Errors
    /// Returns an error if a text has no mask, or is longer than the model allows.
    pub fn fill_encoded(&self, encodings: &[Encoding], k: usize) -> Result<Vec<Vec<FilledMask>>> {
        let of_encoding = |(index, encoding): (usize, &Encoding)| {
            let masks = (0..encoding.len()).filter(|&at| encoding.ids[at] == self.runner.tokenizer.mask_id());
            let places: Vec<Place> = masks.map(|at| Place { position: at, read_at: (0, at) }).collect();
            if places.is_empty() { Err(no_mask(index, encoding)) } else { Ok(places) }
        };
        let places: Places = encodings.iter().enumerate().map(of_encoding).collect::<Result<_>>()?;
        let windows = encodings.iter().enumerate().map(|(index, encoding)| Window::whole(index, encoding.clone()));
        self.fill_places(windows, &places, k)
    }

    /// Runs the model on the windows in which a mask is predicted.
    fn run(&self, texts: &[(&str, Option<&str>)], k: usize) -> Result<Reported<Vec<Vec<FilledMask>>>> {
        let Readings { texts, report } = self.runner.read(texts.iter().copied())?;
        let places: Places =
            texts.iter().enumerate().map(|(index, text)| self.places(index, text)).collect::<Result<_>>()?;
        let windows = texts.iter().zip(&places).enumerate().flat_map(|(index, (text, places))| {
            let numbers: BTreeSet<usize> = places.iter().map(|place| place.read_at.0).collect();
            text.windows(&self.runner.tokenizer, index, numbers)
        });
        Ok(Reported { value: self.fill_places(windows, &places, k)?, report })
    }

    /// Returns the masks of a text, each in the window where it has the most context.
    fn places(&self, index: usize, text: &Reading) -> Result<Vec<Place>> {
        let tokenizer = &self.runner.tokenizer;
        let (mut places, mut before) = (Vec::new(), 0);
        for (sequence, part) in [Some(&*text.text), text.second].into_iter().flatten().enumerate() {
            // Before each text is a special token.
            before += 1;
            for mask in tokenizer.positions(part, tokenizer.mask_id()) {
                let position = before + mask;
                let Some(window) = text.layout.best_window(sequence, mask) else {
                    return Err(Error::input(format!(
                        "text {index}: its [MASK] at position {position} is cut: read the text in windows, or shorten it"
                    )));
                };
                let range = |sequence| text.layout.range(sequence, window);
                let other = if sequence == 0 { 0 } else { 1 + range(0).1 - range(0).0 };
                places.push(Place { position, read_at: (window, 1 + other + mask - range(sequence).0) });
            }
            before += if text.second.is_some() && sequence == 0 { tokenizer.count(part) } else { 0 };
        }
        if places.is_empty()
            && let Some(window) = text.windows(tokenizer, index, [0]).next()
        {
            return Err(no_mask(index, &window.encoding));
        }
        Ok(places)
    }

    /// Predicts the masks of each text, which are in these windows.
    fn fill_places(
        &self,
        windows: impl Iterator<Item = Window>,
        places: &Places,
        k: usize,
    ) -> Result<Vec<Vec<FilledMask>>> {
        let of_text = |(text, places): (usize, &Vec<Place>)| -> Vec<(usize, usize, usize)> {
            places.iter().map(|Place { read_at: (window, at), .. }| (text, *window, *at)).collect()
        };
        let read_at: BTreeSet<(usize, usize, usize)> = places.iter().enumerate().flat_map(of_text).collect();
        let mut guesses = HashMap::new();
        self.runner.in_batches(windows, |model, batch, windows| {
            let (mut rows, mut masks) = (Vec::new(), Vec::new());
            for (start, window) in batch.sequences().starts().iter().zip(windows) {
                let (text, number) = (window.text, window.number);
                for &mask in read_at.range((text, number, 0)..(text, number + 1, 0)) {
                    rows.push(start + mask.2 as u32);
                    masks.push(mask);
                }
            }
            let best = model.forward(batch, &rows, Mode::Eval)?.softmax()?.top_k(k)?; // k of [M, V]
            best.iter().flatten().try_for_each(|&(_, probability)| check_finite(probability))?;
            guesses.extend(masks.into_iter().zip(best));
            Ok(())
        })?;
        let guessed = |text: usize, Place { position, read_at: (window, at) }: &Place| FilledMask {
            position: *position,
            guesses: guesses[&(text, *window, *at)]
                .iter()
                .map(|&(id, probability)| self.guess(id as u32, probability))
                .collect(),
        };
        let of_text = |(text, places): (usize, &Vec<Place>)| places.iter().map(|place| guessed(text, place)).collect();
        Ok(places.iter().enumerate().map(of_text).collect())
    }

    fn guess(&self, id: u32, probability: f64) -> Guess {
        // A model may have more word embeddings than its tokenizer has tokens.
        let token = self.runner.tokenizer.token(id).map_or_else(|| format!("[{id}]"), str::to_string);
        Guess { token, id, probability }
    }
}

fn no_mask(index: usize, start: &Encoding) -> Error {
    let tokens: Vec<&str> = start.tokens.iter().take(12).map(String::as_str).collect();
    Error::input(format!("no [MASK] in text {index}: {} ...", tokens.join(" ")))
}
