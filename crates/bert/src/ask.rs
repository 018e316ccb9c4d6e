//! Asking a pre-trained model: what stands behind a mask, and does one sentence follow another?

use std::path::Path;

use cloze_tensor::{Device, no_grad};

use crate::{Batch, BertForPreTraining, Encoding, Error, Mode, PreTrainedModel, Result, Rows, Tokenizer};

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

impl BertForPreTraining {
    /// The `k` most probable tokens for position `position` of an encoded text, most probable first: their
    /// ids and probabilities.
    ///
    /// # Errors
    /// When the text has no such position, or is longer than the model takes.
    pub fn most_probable(&self, encoding: &Encoding, position: usize, k: usize) -> Result<Vec<(u32, f64)>> {
        if position >= encoding.len() {
            return Err(Error::batch(format!("position {position} asked of a text of {} tokens", encoding.len())));
        }
        let batch = Batch::new(&[(&encoding.ids, &encoding.token_types)])?;
        no_grad(|| {
            let position = [position as u32];
            let hidden = self.bert.forward_rows(&batch, &Rows::some(batch.sequences(), &position), Mode::Eval)?;
            let probabilities = self.mlm_logits(&hidden)?.softmax()?;
            let best = probabilities.top_k(k)?.into_iter().flatten();
            Ok(best.map(|(id, probability)| (id as u32, probability)).collect())
        })
    }

    /// The probability that the second text of an encoded pair follows the first.
    ///
    /// # Errors
    /// When the pair is longer than the model takes.
    pub fn is_next(&self, encoding: &Encoding) -> Result<f64> {
        let batch = Batch::new(&[(&encoding.ids, &encoding.token_types)])?;
        no_grad(|| {
            let hidden = self.bert.forward_rows(&batch, &Rows::some(batch.sequences(), &[0]), Mode::Eval)?;
            let probabilities = self.nsp_logits(&hidden)?.softmax()?;
            Ok(probabilities.narrow(1, 0, 1)?.item()?)
        })
    }
}

/// Fills masks: a model with its tokenizer.
///
/// ```no_run
/// use cloze_bert::FillMask;
/// let model = FillMask::open("models/mini-en")?;
/// for guess in model.top_k("the cat sat on the [MASK].", 5)? {
///     println!("{:<12} p={:.4}", guess.token, guess.probability);
/// }
/// # Ok::<(), cloze_bert::Error>(())
/// ```
pub struct FillMask {
    model: BertForPreTraining,
    tokenizer: Tokenizer,
}

impl FillMask {
    /// The model and tokenizer in folder `dir`, on the CPU.
    ///
    /// # Errors
    /// When a file cannot be read or is not what it should be, or the two do not belong together.
    pub fn open(dir: impl AsRef<Path>) -> Result<FillMask> {
        let (model, _) = BertForPreTraining::open(&dir, &Device::Cpu)?;
        FillMask::new(model, Tokenizer::open(dir)?)
    }

    /// A model and its tokenizer.
    ///
    /// # Errors
    /// When the vocabulary is larger than the model's.
    pub fn new(model: BertForPreTraining, tokenizer: Tokenizer) -> Result<FillMask> {
        tokenizer.check_vocab_size(model.config())?;
        let max_length = tokenizer.max_length().min(model.config().max_position_embeddings);
        let tokenizer = tokenizer.with_max_length(max_length);
        Ok(FillMask { model, tokenizer })
    }

    /// The `k` most probable tokens for the first `[MASK]` of `text`, most probable first.
    ///
    /// # Errors
    /// When the text has no mask, or more tokens than the model or the tokenizer takes.
    pub fn top_k(&self, text: &str, k: usize) -> Result<Vec<Guess>> {
        let encoding = self.tokenizer.encode(text)?;
        let mask = encoding.ids.iter().position(|&id| id == self.tokenizer.mask_id());
        let position = mask.ok_or_else(|| Error::batch(format!("no [MASK] in {text:?}")))?;
        let best = self.model.most_probable(&encoding, position, k)?.into_iter();
        Ok(best.map(|(id, probability)| Guess { token: token_of(&self.tokenizer, id), id, probability }).collect())
    }
}

fn token_of(tokenizer: &Tokenizer, id: u32) -> String {
    // A model may have more rows than its tokenizer has tokens.
    tokenizer.token(id).map_or_else(|| format!("[{id}]"), str::to_string)
}
