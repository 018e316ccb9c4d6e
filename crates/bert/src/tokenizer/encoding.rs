//! Encoded texts: ids in BERT's layout, with the offsets of each token in its text.

use super::pipeline::Encoded;
use super::start::Parts;
use crate::characters::Characters;
use crate::{Error, Result};

/// The text that is truncated when the tokens do not fit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Truncation {
    /// No truncation: a text that is too long is an error.
    #[default]
    None,
    /// The end of the longer text, until both texts are equally long, then the ends of both.
    LongestFirst,
    /// The end of the first text.
    OnlyFirst,
    /// The end of the second text.
    OnlySecond,
}

/// Options for encoding.
///
/// ```
/// use cloze_bert::{EncodeOptions, Truncation};
/// // Windows of 384 tokens over a long context. Consecutive windows share 128 tokens.
/// let options = EncodeOptions::new().max_length(384).truncation(Truncation::OnlySecond).stride(128);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EncodeOptions {
    max_length: Option<usize>,
    truncation: Truncation,
    stride: Option<usize>,
    prefix: usize,
}

impl EncodeOptions {
    /// Creates options with the maximum length of the tokenizer and without truncation.
    pub fn new() -> EncodeOptions {
        EncodeOptions::default()
    }

    /// Sets the maximum number of tokens, special tokens included.
    pub fn max_length(self, tokens: usize) -> EncodeOptions {
        EncodeOptions { max_length: Some(tokens), ..self }
    }

    /// Sets the truncation of a text that is too long.
    pub fn truncation(self, truncation: Truncation) -> EncodeOptions {
        EncodeOptions { truncation, ..self }
    }

    /// Keeps the tokens that truncation removes, as further windows in [`Encoding::overflowing`]. Each window repeats
    /// the last `tokens` tokens of the previous one.
    pub fn stride(self, tokens: usize) -> EncodeOptions {
        EncodeOptions { stride: Some(tokens), ..self }
    }

    /// Returns the most tokens of a text that an encoding has. Windows have them all.
    pub(super) fn most(&self, default_max_length: usize) -> usize {
        if self.stride.is_some() { usize::MAX } else { self.max_length_or(default_max_length) }
    }

    fn max_length_or(&self, default: usize) -> usize {
        self.max_length.unwrap_or(default)
    }

    /// Sets the number of tokens at the start of the first text that each of its windows repeats, such as a prompt.
    pub(crate) fn prefix(self, tokens: usize) -> EncodeOptions {
        EncodeOptions { prefix: tokens, ..self }
    }
}

/// An encoded text or pair of texts: `[CLS] a [SEP]` or `[CLS] a [SEP] b [SEP]`. All vectors except
/// [`overflowing`](Encoding::overflowing) have one element per token.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Encoding {
    /// The token ids.
    pub ids: Vec<u32>,
    /// The token types: 0 for `[CLS] a [SEP]`, 1 for `b [SEP]` unless the tokenizer gives none.
    pub token_types: Vec<u32>,
    /// The tokens, spelled as in the vocabulary. Pieces that continue a word begin with `##`.
    pub tokens: Vec<String>,
    /// The start and end of each token in its text, in characters (Unicode scalar values, as in the fast tokenizers of
    /// `transformers`); (0, 0) for the special tokens of the layout. [`byte_offsets`](Encoding::byte_offsets) has them
    /// in bytes.
    pub offsets: Vec<(usize, usize)>,
    /// Whether a token is a special token of the layout. A `[MASK]` written in the text is not.
    pub special_tokens_mask: Vec<bool>,
    /// The index of the word that a token belongs to; `None` for the special tokens of the layout. Punctuation marks
    /// are words.
    pub word_ids: Vec<Option<u32>>,
    /// The text that a token belongs to: 0 or 1; `None` for the special tokens of the layout.
    pub sequence_ids: Vec<Option<usize>>,
    /// The windows with the tokens that truncation removed, if a [stride](EncodeOptions::stride) is set.
    pub overflowing: Vec<Encoding>,
    /// The number of tokens that truncation removed and no window has.
    pub truncated: usize,
}

impl Encoding {
    /// Returns the number of tokens, special tokens included.
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// Returns whether there are no tokens. The encoding of an empty text still has `[CLS]` and `[SEP]`.
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// Returns the start and end of each token in its text, in bytes, so that `text[start..end]` is what the token stands
    /// for; (0, 0) for the special tokens of the layout. `texts` are those that were encoded: one, or the two of a pair.
    ///
    /// ```
    /// use cloze_bert::{Tokenizer, TrainOptions};
    /// let tokenizer = Tokenizer::train(["o pão é bom"], 60, &TrainOptions::new())?;
    /// let text = "O pão 🍞 é bom.";
    /// let encoding = tokenizer.encode(text)?;
    /// let parts = encoding.byte_offsets(&[text])?.into_iter().map(|(start, end)| &text[start..end]);
    /// assert_eq!(parts.collect::<Vec<_>>(), ["", "O", "pão", "🍞", "é", "bom", ".", ""]);
    /// # Ok::<(), cloze_bert::Error>(())
    /// ```
    ///
    /// # Errors
    /// Returns an error if `texts` has fewer texts than were encoded, or a text is shorter than the one that was.
    pub fn byte_offsets(&self, texts: &[&str]) -> Result<Vec<(usize, usize)>> {
        let texts: Vec<Characters> = texts.iter().map(|text| Characters::new(text)).collect();
        let offsets = self.offsets.iter().zip(&self.sequence_ids).map(|(&(start, end), sequence)| {
            let Some(sequence) = *sequence else { return Ok((0, 0)) };
            let Some(text) = texts.get(sequence) else {
                let (given, needed) = (texts.len(), sequence + 1);
                return Err(Error::input(format!("{given} text(s) given: the encoding has {needed}")));
            };
            let found = text.byte(start).zip(text.byte(end));
            found.ok_or_else(|| {
                Error::input(format!("text {sequence} ends before character {end}: another was encoded"))
            })
        });
        offsets.collect()
    }

    fn special(&mut self, (token, id): (&str, u32), token_type: u32) {
        self.ids.push(id);
        self.token_types.push(token_type);
        self.tokens.push(token.to_string());
        self.offsets.push((0, 0));
        self.special_tokens_mask.push(true);
        self.word_ids.push(None);
        self.sequence_ids.push(None);
    }

    fn text(&mut self, part: &Encoded, (start, end): (usize, usize), sequence: usize, token_type: u32) {
        let length = end - start;
        self.ids.extend_from_slice(&part.ids[start..end]);
        self.token_types.extend(std::iter::repeat_n(token_type, length));
        self.tokens.extend_from_slice(&part.tokens[start..end]);
        self.offsets.extend_from_slice(&part.offsets[start..end]);
        self.special_tokens_mask.extend(std::iter::repeat_n(false, length));
        self.word_ids.extend(part.words[start..end].iter().copied().map(Some));
        self.sequence_ids.extend(std::iter::repeat_n(Some(sequence), length));
    }
}

/// The special tokens of the layout.
pub(super) struct Frame<'a> {
    pub(super) cls: (&'a str, u32),
    pub(super) sep: (&'a str, u32),
    /// Whether the second text of a pair has another token type than the first.
    pub(super) typed: bool,
}

/// Which tokens of one or two texts each window has.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Layout {
    covers: [Cover; 2],
    texts: usize,
    /// The number of tokens that no window has.
    pub(crate) cut: usize,
}

impl Layout {
    /// Lays out texts of these numbers of tokens.
    ///
    /// # Errors
    /// Returns an error like [`Tokenizer::encode_with`](super::Tokenizer::encode_with).
    pub(crate) fn new(lengths: &[usize], default_max_length: usize, options: &EncodeOptions) -> Result<Layout> {
        let kept = truncate(lengths, options.max_length_or(default_max_length), options.truncation)?;
        let mut layout = Layout { covers: [Cover::default(); 2], texts: lengths.len(), cut: 0 };
        let prefixes = [options.prefix, 0];
        for (text, (&length, &kept)) in lengths.iter().zip(&kept).enumerate() {
            let prefix = prefixes[text];
            layout.covers[text] = match options.stride {
                Some(stride) if kept < length => {
                    Cover::new(prefix, length.saturating_sub(prefix), kept.saturating_sub(prefix), stride)?
                }
                _ => Cover { length: kept, width: kept, ..Cover::default() },
            };
            layout.cut += if options.stride.is_some() { 0 } else { length - kept };
        }
        if layout.covers.iter().filter(|cover| cover.count() > 1).count() > 1 {
            return Err(Error::tokenizer(
                "both texts are too long for a stride: truncate only the first or only the second",
            ));
        }
        Ok(layout)
    }

    /// Returns the number of windows.
    pub(crate) fn count(&self) -> usize {
        self.covers.iter().map(Cover::count).max().unwrap_or(1)
    }

    /// Returns the number of texts.
    pub(crate) fn texts(&self) -> usize {
        self.texts
    }

    /// Returns the first and the exclusive last token of a text in a window. The prefix comes before them.
    pub(crate) fn range(&self, text: usize, window: usize) -> (usize, usize) {
        let cover = &self.covers[text];
        cover.window(window.min(cover.count() - 1))
    }

    /// Returns the window in which a token of a text is farthest from the ends of the text in the window, the first of
    /// several. `None` if no window has it. There must not be a prefix.
    pub(crate) fn best_window(&self, text: usize, token: usize) -> Option<usize> {
        let cover = &self.covers[text];
        let step = (cover.width - cover.stride).max(1);
        let first = (token + 1).saturating_sub(cover.width).div_ceil(step);
        let windows = (first..cover.count()).map(|window| (window, cover.window(window)));
        let with_token = windows.take_while(|(_, (start, _))| *start <= token).filter(|(_, (_, end))| token < *end);
        let margins = with_token.map(|(window, (start, end))| (window, (token - start).min(end - 1 - token)));
        margins.reduce(|best, next| if next.1 > best.1 { next } else { best }).map(|(window, _)| window)
    }

    /// Makes a window in BERT's layout.
    pub(super) fn encoding(&self, frame: &Frame, texts: &mut [Tokens], window: usize) -> Encoding {
        let mut encoding = Encoding::default();
        encoding.special(frame.cls, 0);
        for (sequence, text) in texts.iter_mut().enumerate() {
            let (start, end) = self.range(sequence, window);
            let token_type = if frame.typed { sequence as u32 } else { 0 };
            text.read(start, end);
            encoding.text(&text.held, (0, text.prefix.min(start)), sequence, token_type);
            encoding.text(&text.held, (start - text.dropped, end - text.dropped), sequence, token_type);
            encoding.special(frame.sep, token_type);
        }
        encoding.truncated = if window == 0 { self.cut } else { 0 };
        encoding
    }
}

/// The tokens of a text that the next windows need.
pub(super) struct Tokens<'t> {
    held: Encoded,
    /// The number of tokens at the start that every window repeats.
    prefix: usize,
    /// The number of tokens behind them that are dropped.
    dropped: usize,
    rest: Option<Parts<'t>>,
}

impl<'t> Tokens<'t> {
    /// Holds all tokens of a text.
    pub(super) fn all(held: Encoded, options: &EncodeOptions, text: usize) -> Tokens<'t> {
        Tokens { held, prefix: if text == 0 { options.prefix } else { 0 }, dropped: 0, rest: None }
    }

    /// Holds none yet.
    pub(super) fn none(rest: Parts<'t>, options: &EncodeOptions, text: usize) -> Tokens<'t> {
        Tokens { rest: Some(rest), ..Tokens::all(Encoded::default(), options, text) }
    }

    /// Reads the tokens before `end`, and may drop those before `start`.
    fn read(&mut self, start: usize, end: usize) {
        while self.dropped + self.held.ids.len() < end
            && let Some(part) = self.rest.as_mut().and_then(Iterator::next)
        {
            let gone = start.min(self.dropped + self.held.ids.len()).saturating_sub(self.prefix + self.dropped);
            if gone > 0 {
                self.held.remove(self.prefix..self.prefix + gone);
                self.dropped += gone;
            }
            self.held.append(part);
        }
    }
}

/// Returns the number of tokens of each text that are kept.
fn truncate(lengths: &[usize], max_length: usize, truncation: Truncation) -> Result<Vec<usize>> {
    let special = 1 + lengths.len();
    let total: usize = lengths.iter().sum();
    if total + special <= max_length {
        return Ok(lengths.to_vec());
    }
    let Some(room) = max_length.checked_sub(special) else {
        return Err(Error::tokenizer(format!(
            "max_length is {max_length}: must be at least {special}, the number of special tokens"
        )));
    };
    let too_long = || Err(crate::ErrorKind::TooLong { text: None, tokens: total + special, limit: max_length }.into());
    let cut_one = |which: usize| {
        let others = total - lengths[which];
        // As in `transformers`, a token of the truncated text must remain if there is room for any.
        if others >= room.max(1) {
            return too_long();
        }
        let mut kept = lengths.to_vec();
        kept[which] = room - others;
        Ok(kept)
    };
    match (truncation, lengths) {
        (Truncation::None, _) => too_long(),
        (Truncation::OnlyFirst, _) | (Truncation::LongestFirst, [_]) => cut_one(0),
        (Truncation::OnlySecond, [_]) => Err(Error::tokenizer("truncation is OnlySecond, but there is no second text")),
        (Truncation::OnlySecond, _) => cut_one(1),
        (Truncation::LongestFirst, _) => {
            // An odd token goes to the longer text, or to the second if both are equally long.
            let longer = usize::from(lengths[1] >= lengths[0]);
            let mut kept = lengths.to_vec();
            kept[1 - longer] = lengths[1 - longer].min(room / 2);
            kept[longer] = room - kept[1 - longer];
            Ok(kept)
        }
    }
}

/// Windows of `width` tokens that cover `length` tokens behind a prefix. Each shares `stride` tokens with the one before.
#[derive(Clone, Copy, Debug, Default)]
struct Cover {
    prefix: usize,
    length: usize,
    width: usize,
    stride: usize,
}

impl Cover {
    fn new(prefix: usize, length: usize, width: usize, stride: usize) -> Result<Cover> {
        if length > width && stride >= width {
            return Err(Error::tokenizer(format!("stride is {stride}: must be below the {width} tokens of a window")));
        }
        Ok(Cover { prefix, length, width, stride })
    }

    fn count(&self) -> usize {
        match self.length <= self.width {
            true => 1,
            false => 1 + (self.length - self.width).div_ceil(self.width - self.stride),
        }
    }

    fn window(&self, number: usize) -> (usize, usize) {
        // A single window has no stride.
        let start = if number == 0 { 0 } else { number * (self.width - self.stride) };
        (self.prefix + start, self.prefix + self.length.min(start + self.width))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn truncation_follows_the_options() {
        let cut = |lengths: &[usize], most, truncation| truncate(lengths, most, truncation).map_err(|e| e.to_string());
        assert_eq!(cut(&[5, 5], 13, Truncation::None).unwrap(), [5, 5]);
        assert_eq!(cut(&[10, 3], 10, Truncation::LongestFirst).unwrap(), [4, 3]);
        assert_eq!(cut(&[10, 20], 10, Truncation::LongestFirst).unwrap(), [3, 4]);
        assert_eq!(cut(&[20, 10], 10, Truncation::LongestFirst).unwrap(), [4, 3]);
        assert_eq!(cut(&[10, 4], 10, Truncation::OnlyFirst).unwrap(), [3, 4]);
        assert_eq!(cut(&[4, 10], 10, Truncation::OnlySecond).unwrap(), [4, 3]);
        assert_eq!(cut(&[4, 10], 3, Truncation::LongestFirst).unwrap(), [0, 0]);
        assert!(cut(&[4], 4, Truncation::None).unwrap_err().contains("6 tokens"));
        assert!(cut(&[9, 1], 10, Truncation::OnlySecond).unwrap_err().contains("13 tokens"));
        assert!(cut(&[9, 4], 12, Truncation::OnlySecond).unwrap_err().contains("16 tokens"));
        assert_eq!(cut(&[4], 2, Truncation::OnlyFirst).unwrap(), [0]);
        assert!(cut(&[9], 5, Truncation::OnlySecond).unwrap_err().contains("no second text"));
        assert!(
            cut(&[1, 1], 2, Truncation::LongestFirst).unwrap_err().contains("at least 3, the number of special tokens")
        );
    }

    proptest! {
        #[test]
        fn windows_cover_and_overlap(length in 0usize..200, width in 1usize..50, stride in 0usize..50) {
            match Cover::new(0, length, width, stride) {
                Err(_) => prop_assert!(stride >= width && length > width),
                Ok(cover) => {
                    let windows: Vec<(usize, usize)> = (0..cover.count()).map(|number| cover.window(number)).collect();
                    prop_assert_eq!(windows[0].0, 0);
                    prop_assert_eq!(windows.last().unwrap().1, length);
                    for pair in windows.windows(2) {
                        prop_assert_eq!(pair[0].1 - pair[1].0, stride);
                    }
                    prop_assert!(windows.iter().all(|(start, end)| end - start <= width));
                }
            }
        }

        #[test]
        fn truncation_fills_the_room(a in 0usize..100, b in 0usize..100, most in 3usize..100) {
            let kept = truncate(&[a, b], most, Truncation::LongestFirst).unwrap();
            prop_assert!(kept[0] <= a && kept[1] <= b);
            prop_assert_eq!(kept[0] + kept[1], (a + b).min(most - 3));
        }
    }
}
