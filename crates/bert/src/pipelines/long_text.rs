//! Texts with more tokens than a model reads at once: what happens to them, and the report of it.

use std::fmt;
use std::ops::Deref;

use crate::{Error, Result};

/// The handling of texts with more tokens than the model or the tokenizer allows.
///
/// Pipelines that answer about whole texts truncate by default, as the libraries in Python do; pipelines that answer
/// about tokens read windows by default. Each answer is [`Reported`] with what happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LongText {
    /// Removes the end of the text. Of a pair, removes the end of the longer text, until both are equally long, then
    /// the ends of both.
    Truncate,
    /// Returns an error that names the text.
    Refuse,
    /// Reads the text in overlapping windows. Consecutive windows share a quarter of the tokens that fit in one.
    ///
    /// In a pair, the longer text is split into windows, and each is read together with the whole other text. Every
    /// window repeats the prompt, if there is one. Answers about whole texts are the mean over the windows: of the vectors or of the
    /// logits. Each window counts by the number of its tokens, without those that all windows have. Answers about a
    /// token come from the window where it has the most context.
    Windows,
    /// Reads the text in [`Windows`](LongText::Windows). Consecutive windows share this number of tokens, which must be
    /// smaller than the number that fits in one.
    WindowsWithStride(usize),
}

impl LongText {
    /// Returns the number of tokens that consecutive windows share if `room` tokens fit in each.
    ///
    /// # Errors
    /// Returns an error if the caller set a number that does not fit.
    pub(super) fn stride(self, room: usize) -> Result<usize> {
        match self {
            LongText::WindowsWithStride(stride) if stride >= room => Err(Error::input(format!(
                "the stride of the windows is {stride}: must be below {room}, the number of tokens that fit in one"
            ))),
            LongText::WindowsWithStride(stride) => Ok(stride),
            _ => Ok(room / 4),
        }
    }
}

/// A value that a pipeline computed from texts, with a report of those that were too long. It dereferences to the
/// value.
///
/// ```no_run
/// use cloze_bert::{Pipeline, SentenceEmbedder};
/// let vectors = SentenceEmbedder::open("models/all-MiniLM-L6-v2")?.embed(&["a boat", "a river"])?;
/// println!("{} vectors of {} numbers; {}", vectors.len(), vectors[0].len(), vectors.report);
/// let vectors: Vec<Vec<f32>> = vectors.value;
/// # Ok::<(), cloze_bert::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Reported<T> {
    /// The value.
    pub value: T,
    /// The texts that were too long.
    pub report: LongTextReport,
}

impl<T> Reported<T> {
    /// Changes the value.
    pub(super) fn map<U>(self, change: impl FnOnce(T) -> U) -> Reported<U> {
        Reported { value: change(self.value), report: self.report }
    }
}

impl<T> Deref for Reported<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T: IntoIterator> IntoIterator for Reported<T> {
    type Item = T::Item;
    type IntoIter = T::IntoIter;

    fn into_iter(self) -> T::IntoIter {
        self.value.into_iter()
    }
}

impl<'a, T> IntoIterator for &'a Reported<T>
where
    &'a T: IntoIterator,
{
    type Item = <&'a T as IntoIterator>::Item;
    type IntoIter = <&'a T as IntoIterator>::IntoIter;

    fn into_iter(self) -> Self::IntoIter {
        self.value.into_iter()
    }
}

/// How texts that are too long were handled. The vectors have an element per text, in the order in which the texts
/// were given; a pair is one text. Prints as one line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct LongTextReport {
    /// The number of tokens that fit, special tokens included.
    pub max_length: usize,
    /// The number of tokens of each text that were cut.
    pub cut: Vec<usize>,
    /// The number of windows that each text was read in, 1 if it fits.
    pub windows: Vec<usize>,
}

impl LongTextReport {
    /// Returns whether every text was read whole and at once.
    pub fn all_fit(&self) -> bool {
        self.too_long() == 0
    }

    /// Returns the number of texts that did not fit.
    pub fn too_long(&self) -> usize {
        self.cut.iter().zip(&self.windows).filter(|&(&cut, &windows)| cut > 0 || windows > 1).count()
    }

    /// Returns the number of tokens that were cut from all texts.
    pub fn cut_tokens(&self) -> usize {
        self.cut.iter().sum()
    }
}

impl fmt::Display for LongTextReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (texts, too_long, limit) = (self.cut.len(), self.too_long(), self.max_length);
        let windows: usize = self.windows.iter().filter(|&&windows| windows > 1).sum();
        match (too_long, self.cut_tokens()) {
            (0, _) => write!(f, "all texts fit in {limit} tokens"),
            (_, 0) => write!(f, "{too_long} of {texts} texts did not fit in {limit} tokens: read in {windows} windows"),
            (_, 1) => write!(f, "{too_long} of {texts} texts did not fit in {limit} tokens: 1 token was cut"),
            (_, cut) => write!(f, "{too_long} of {texts} texts did not fit in {limit} tokens: {cut} tokens were cut"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn display() {
        let mut report = LongTextReport { max_length: 128, cut: vec![0, 50, 7], windows: vec![1, 1, 1] };
        assert_eq!(report.to_string(), "2 of 3 texts did not fit in 128 tokens: 57 tokens were cut");
        assert_eq!((report.too_long(), report.cut_tokens(), report.all_fit()), (2, 57, false));
        (report.cut, report.windows) = (vec![0; 3], vec![4, 1, 2]);
        assert_eq!(report.to_string(), "2 of 3 texts did not fit in 128 tokens: read in 6 windows");
        report.windows = vec![1; 3];
        assert_eq!(report.to_string(), "all texts fit in 128 tokens");
        assert!(report.all_fit());
    }
}
