//! What stands behind a mask?

use cloze_tensor::Precision;

use super::{Asked, Pipeline, check_finite};
use crate::{BertForMaskedLM, Encoding, Error, Mode, Result, Tokenizer};

/// A token that might stand behind a mask.
#[derive(Clone, Debug, PartialEq)]
pub struct Guess {
    /// The token, a word or (after `##`) the continuation of one.
    pub token: String,
    /// Its id.
    pub id: u32,
    /// How probable the model finds it, in [0, 1].
    pub probability: f64,
}

/// A mask, and what might stand behind it.
#[derive(Clone, Debug, PartialEq)]
pub struct FilledMask {
    /// Its position among the tokens, `[CLS]` included.
    pub position: usize,
    /// Most probable first.
    pub guesses: Vec<Guess>,
}

/// Fills masks.
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
    asked: Asked<BertForMaskedLM>,
}

impl Pipeline for FillMask {
    type Model = BertForMaskedLM;

    fn new(model: BertForMaskedLM, tokenizer: Tokenizer) -> Result<FillMask> {
        Ok(FillMask { asked: Asked::new(model, tokenizer)? })
    }

    fn precision(mut self, precision: Precision) -> Self {
        self.asked.precision = precision;
        self
    }
}

impl FillMask {
    /// The `k` most probable tokens for the one `[MASK]` of `text`, most probable first.
    ///
    /// # Errors
    /// When the text has no mask or several (see [`fill`](FillMask::fill)), or more tokens than the model or the
    /// tokenizer takes.
    pub fn top_k(&self, text: &str, k: usize) -> Result<Vec<Guess>> {
        let mut masks = self.fill(&[text], k)?.pop().unwrap_or_default();
        match (masks.pop(), masks.len()) {
            (Some(mask), 0) => Ok(mask.guesses),
            (_, others) => Err(Error::input(format!("{} [MASK] in {text:?}: fill takes several", others + 1))),
        }
    }

    /// For each `[MASK]` of each text the `k` most probable tokens. Each mask is filled as if the others stayed
    /// masked.
    ///
    /// # Errors
    /// When a text has no mask, or more tokens than the model or the tokenizer takes.
    pub fn fill(&self, texts: &[&str], k: usize) -> Result<Vec<Vec<FilledMask>>> {
        self.fill_encoded(&self.asked.encode(texts.iter().map(|text| (*text, None)), false)?, k)
    }

    /// As [`fill`](FillMask::fill), for pairs of texts.
    ///
    /// # Errors
    /// As [`fill`](FillMask::fill).
    pub fn fill_pairs(&self, pairs: &[(&str, &str)], k: usize) -> Result<Vec<Vec<FilledMask>>> {
        self.fill_encoded(&self.asked.encode(pairs.iter().map(|(a, b)| (*a, Some(*b))), false)?, k)
    }

    /// As [`fill`](FillMask::fill), for texts that are encoded already.
    ///
    /// # Errors
    /// As [`fill`](FillMask::fill).
    pub fn fill_encoded(&self, encodings: &[Encoding], k: usize) -> Result<Vec<Vec<FilledMask>>> {
        let tokenizer = &self.asked.tokenizer;
        let masks = |encoding: &Encoding| -> Vec<usize> {
            (0..encoding.len()).filter(|&at| encoding.ids[at] == tokenizer.mask_id()).collect()
        };
        if let Some(index) = encodings.iter().position(|encoding| masks(encoding).is_empty()) {
            let tokens: Vec<&str> = encodings[index].tokens.iter().take(12).map(String::as_str).collect();
            return Err(Error::input(format!("no [MASK] in text {index}: {} ...", tokens.join(" "))));
        }
        let mut filled = Vec::with_capacity(encodings.len());
        self.asked.in_batches(encodings, |model, batch, encodings| {
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
        // A model may have more rows than its tokenizer has tokens.
        let token = self.asked.tokenizer.token(id).map_or_else(|| format!("[{id}]"), str::to_string);
        Guess { token, id, probability }
    }
}
