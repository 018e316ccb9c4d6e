//! What encoding did to texts that are too long.

use std::fmt;

/// What encoding did to examples that are too long, and what was lost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct EncodingReport {
    /// Examples given.
    pub examples: usize,
    /// The most tokens of a sequence, special tokens included.
    pub max_length: usize,
    /// Sequences that had more, and were cut.
    pub cut: usize,
    /// Examples that had more, and are read in overlapping windows.
    pub in_windows: usize,
    /// Labels that no token has: of words that were cut off or have no token; of answers that no window has whole.
    pub lost_labels: usize,
}

impl fmt::Display for EncodingReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let EncodingReport { examples, max_length, cut, in_windows, lost_labels } = self;
        write!(f, "{examples} examples of at most {max_length} tokens")?;
        for (count, what) in [
            (cut, "sequence(s) were longer and were cut"),
            (in_windows, "were longer and are read in windows"),
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
    fn says_what_happened() {
        let mut report = EncodingReport { examples: 9, max_length: 128, ..EncodingReport::default() };
        assert_eq!(report.to_string(), "9 examples of at most 128 tokens");
        (report.cut, report.lost_labels) = (2, 3);
        let expected = "9 examples of at most 128 tokens; 2 sequence(s) were longer and were cut; 3 label(s) were lost";
        assert_eq!(report.to_string(), expected);
    }
}
