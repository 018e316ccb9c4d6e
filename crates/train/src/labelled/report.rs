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
    /// The number of examples that were split into overlapping windows.
    pub in_windows: usize,
    /// The number of labels without a token: of words that were cut off or have no token, or of answers that no window has
    /// whole.
    pub lost_labels: usize,
}

impl fmt::Display for EncodingReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let EncodingReport { examples, max_length, cut, in_windows, lost_labels } = self;
        write!(f, "{examples} examples of at most {max_length} tokens")?;
        for (count, what) in [
            (cut, "sequence(s) were truncated"),
            (in_windows, "were split into windows"),
            (lost_labels, "label(s) were lost"),
        ] {
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
        (report.cut, report.lost_labels) = (2, 3);
        let expected = "9 examples of at most 128 tokens; 2 sequence(s) were truncated; 3 label(s) were lost";
        assert_eq!(report.to_string(), expected);
    }
}
