//! The report of an encoding.

use std::fmt;

/// The effect of an encoding on examples that are too long, and the labels it lost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct EncodingReport {
    /// The number of examples given.
    pub examples: usize,
    /// The largest number of tokens of a sequence, special tokens included.
    pub max_length: usize,
    /// The number of sequences that were truncated.
    pub cut: usize,
    /// The number of tokens that were cut from them.
    pub cut_tokens: usize,
    /// The number of examples that were split into overlapping windows.
    pub in_windows: usize,
    /// The number of labels without a token: of words that were cut off or have no token, or of answers that no window has
    /// whole.
    pub lost_labels: usize,
}

impl EncodingReport {
    /// Adds the number of tokens that were cut from each sequence.
    pub(super) fn with_cut(self, tokens: impl IntoIterator<Item = usize>) -> EncodingReport {
        let cut = tokens.into_iter().filter(|&tokens| tokens > 0);
        cut.fold(self, |report, tokens| EncodingReport {
            cut: report.cut + 1,
            cut_tokens: report.cut_tokens + tokens,
            ..report
        })
    }
}

impl fmt::Display for EncodingReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let EncodingReport { examples, max_length, cut, cut_tokens, in_windows, lost_labels } = self;
        write!(f, "{examples} examples of at most {max_length} tokens")?;
        if *cut > 0 {
            write!(f, "; {cut_tokens} token(s) of {cut} sequence(s) were cut")?;
        }
        for (count, what) in [(in_windows, "were split into windows"), (lost_labels, "label(s) were lost")] {
            if *count > 0 {
                write!(f, "; {count} {what}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn display() {
        let mut report = EncodingReport { examples: 9, max_length: 128, ..EncodingReport::default() };
        assert_eq!(report.to_string(), "9 examples of at most 128 tokens");
        (report.cut, report.cut_tokens, report.lost_labels) = (2, 57, 3);
        let expected = "9 examples of at most 128 tokens; 57 token(s) of 2 sequence(s) were cut; 3 label(s) were lost";
        assert_eq!(report.to_string(), expected);
    }
}
