//! Rows dropped from a data set, and why.

use std::collections::BTreeMap;
use std::fmt;

use crate::{Error, ErrorKind, Result};

/// Number of dropped rows whose sample is kept.
pub(super) const SHOWN: usize = 5;

/// How to handle rows that cannot be used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum BadRows {
    /// Drop them.
    #[default]
    Drop,
    /// Return an error that names the first.
    Fail,
}

/// Why a row was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum DropReason {
    /// The reader could not make a row of the line, such as one with another number of columns.
    Malformed,
    /// The text is `null`, or its column is missing.
    Null,
    /// The text is NaN.
    NaN,
    /// The text is a list that contains no text.
    NoText,
    /// The text is empty or only white space.
    Blank,
    /// The label is neither an integer nor a name; or, if labels are numbers, not a finite number.
    BadLabel,
    /// The label, `-` or -1, says that the row has no gold label.
    NoLabel,
    /// The label is an integer or a name, but not of a known class.
    UnknownClass,
    /// The answer is missing, blank or not at its stated position in the context.
    Misplaced,
}

impl fmt::Display for DropReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            DropReason::Malformed => "malformed row",
            DropReason::Null => "null",
            DropReason::NaN => "NaN",
            DropReason::NoText => "no text",
            DropReason::Blank => "blank",
            DropReason::BadLabel => "bad label",
            DropReason::NoLabel => "no gold label",
            DropReason::UnknownClass => "unknown class",
            DropReason::Misplaced => "answer not found",
        })
    }
}

/// A row that was dropped.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DroppedRow {
    /// The [line](crate::Row::line) of the row, or the number of the question, from 1.
    pub line: usize,
    /// Why the row was dropped.
    pub reason: DropReason,
    /// The offending text, shortened; or text and label, if the label is at fault.
    pub sample: String,
}

/// A report of the rows dropped from a data set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Dropped {
    /// The name of the data set, such as `train`.
    pub name: String,
    /// The number of rows dropped for each reason.
    pub counts: BTreeMap<DropReason, usize>,
    /// The first five dropped rows.
    pub first: Vec<DroppedRow>,
}

impl Dropped {
    /// Returns the number of dropped rows.
    pub fn total(&self) -> usize {
        self.counts.values().sum()
    }

    pub(crate) fn push(&mut self, line: usize, reason: DropReason, sample: impl FnOnce() -> String) {
        *self.counts.entry(reason).or_default() += 1;
        if self.first.len() < SHOWN {
            self.first.push(DroppedRow { line, reason, sample: sample() });
        }
    }
}

/// ```text
/// [train] 7 sample(s) dropped as invalid.
///   #1 reason=NaN  sample=nan  line=3
///   ...
///   and 2 more; in total: NaN 4, bad label 3
/// ```
impl fmt::Display for Dropped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{}] {} sample(s) dropped as invalid.", self.name, self.total())?;
        for (number, DroppedRow { line, reason, sample }) in (1..).zip(&self.first) {
            write!(f, "\n  #{number} reason={reason}  sample={sample}  line={line}")?;
        }
        match self.total() - self.first.len() {
            0 => Ok(()),
            more => write!(f, "\n  and {more} more; in total: {}", self.counts_by_reason()),
        }
    }
}

impl Dropped {
    /// Checks that a data set with `kept` rows left can be used.
    ///
    /// # Errors
    /// Returns an error if no row is left, or if a row was dropped and `bad` is [`BadRows::Fail`].
    pub(crate) fn check(&self, kept: usize, bad: BadRows) -> Result<()> {
        let (name, total) = (&self.name, self.total());
        if let (BadRows::Fail, Some(DroppedRow { line, reason, sample })) = (bad, self.first.first()) {
            let of = total + kept;
            let why = format!("{name}: {total} of {of} cannot be used, the first because of: {reason}: {sample}");
            return Err(ErrorKind::Data { what: "rows", why, path: None, line: Some(*line) }.into());
        }
        match (kept, total) {
            (0, 0) => Err(Error::data("rows", format!("{name}: no rows"))),
            (0, _) => {
                let why = format!("{name}: all {total} were dropped: {}", self.counts_by_reason());
                Err(Error::data("rows", why))
            }
            _ => Ok(()),
        }
    }

    fn counts_by_reason(&self) -> String {
        let counts: Vec<String> = self.counts.iter().map(|(reason, n)| format!("{reason} {n}")).collect();
        counts.join(", ")
    }
}
