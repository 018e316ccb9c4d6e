//! Predicting masked tokens.

use cloze_tensor::Precision;

use super::Pipeline;
use super::output::check_finite;
use super::runner::Runner;
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
    /// The position of the mask among the tokens, `[CLS]` included.
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
        Ok(FillMask { runner: Runner::new(model, tokenizer)? })
    }

    fn precision(mut self, precision: Precision) -> Self {
        self.runner.precision = precision;
        self
    }
}

impl FillMask {
    /// Returns the `k` most probable tokens for the only `[MASK]` of `text`, most probable first.
    ///
    /// # Errors
    /// Returns an error if the text has no mask or several (use [`fill`](FillMask::fill)), or is longer than the model
    /// or the tokenizer allows.
    pub fn top_k(&self, text: &str, k: usize) -> Result<Vec<Guess>> {
        let mut masks = self.fill(&[text], k)?.pop().unwrap_or_default();
        match (masks.pop(), masks.len()) {
            (Some(mask), 0) => Ok(mask.guesses),
            (_, others) => {
                Err(Error::input(format!("{} [MASK] in {text:?}: top_k expects one, use fill for several", others + 1)))
            }
        }
    }

    /// Returns the `k` most probable tokens for each `[MASK]` of each text. The masks of a text are predicted
    /// independently of each other.
    ///
    /// # Errors
    /// Returns an error if a text has no mask or is longer than the model or the tokenizer allows.
    pub fn fill(&self, texts: &[&str], k: usize) -> Result<Vec<Vec<FilledMask>>> {
        self.fill_encoded(&self.runner.encode(texts.iter().map(|text| (*text, None)), false)?, k)
    }

    /// Fills the masks of pairs of texts, like [`fill`](FillMask::fill).
    ///
    /// # Errors
    /// Returns an error like [`fill`](FillMask::fill).
    pub fn fill_pairs(&self, pairs: &[(&str, &str)], k: usize) -> Result<Vec<Vec<FilledMask>>> {
        self.fill_encoded(&self.runner.encode(pairs.iter().map(|(a, b)| (*a, Some(*b))), false)?, k)
    }

    /// Fills the masks of encoded texts, like [`fill`](FillMask::fill).
    ///
    /// # Errors
    /// Returns an error like [`fill`](FillMask::fill).
    pub fn fill_encoded(&self, encodings: &[Encoding], k: usize) -> Result<Vec<Vec<FilledMask>>> {
        let tokenizer = &self.runner.tokenizer;
        let masks = |encoding: &Encoding| -> Vec<usize> {
            (0..encoding.len()).filter(|&at| encoding.ids[at] == tokenizer.mask_id()).collect()
        };
        if let Some(index) = encodings.iter().position(|encoding| masks(encoding).is_empty()) {
            let tokens: Vec<&str> = encodings[index].tokens.iter().take(12).map(String::as_str).collect();
            return Err(Error::input(format!("no [MASK] in text {index}: {} ...", tokens.join(" "))));
        }
        let mut filled = Vec::with_capacity(encodings.len());
        self.runner.in_batches(encodings, |model, batch, encodings| {
            let positions: Vec<Vec<usize>> = encodings.iter().map(masks).collect();
            let starts = batch.sequences().starts().iter();
            let rows = starts.zip(&positions).flat_map(|(start, at)| at.iter().map(move |&at| start + at as u32));
            let rows: Vec<u32> = rows.collect();
            let probabilities = model.forward(batch, &rows, Mode::Eval)?.softmax()?; // [M, V]
            let best = probabilities.top_k(k)?;
            best.iter().flatten().try_for_each(|&(_, probability)| check_finite(probability))?;
            let mut best = best.into_iter();
            filled.extend(positions.into_iter().map(|at| {
                let mask = |(position, best): (usize, Vec<(usize, f64)>)| FilledMask {
                    position,
                    guesses: best.into_iter().map(|(id, probability)| self.guess(id as u32, probability)).collect(),
                };
                at.into_iter().zip(best.by_ref()).map(mask).collect()
            }));
            Ok(())
        })?;
        Ok(filled)
    }

    fn guess(&self, id: u32, probability: f64) -> Guess {
        // A model may have more word embeddings than its tokenizer has tokens.
        let token = self.runner.tokenizer.token(id).map_or_else(|| format!("[{id}]"), str::to_string);
        Guess { token, id, probability }
    }
}
