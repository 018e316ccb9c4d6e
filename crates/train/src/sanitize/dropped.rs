//! What was left out of some data, and why.

use std::collections::BTreeMap;
use std::fmt;

use crate::{Error, ErrorKind, Result};

/// Of so many dropped rows the sample is kept.
pub(super) const SHOWN: usize = 5;

/// What to do about rows that are not fit to use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum BadRows {
    /// Leave them out.
    #[default]
    Drop,
    /// Stop: an error that names the first.
    Fail,
}

/// Why a row was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum DropReason {
    /// The text is `null`, or its column was not there.
    Null,
    /// The text is not a number.
    NaN,
    /// The text is a list with no text in it.
    NoText,
    /// The text is white space.
    Blank,
    /// The label is no class: not an integer, nor a name; or, where numbers are wanted, not a finite number.
    BadLabel,
    /// The label is an integer or a name that no class has, as one that training has not seen.
    UnknownClass,
    /// The answer is blank, or does not stand in the context where it is said to stand.
    Misplaced,
}

impl fmt::Display for DropReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            DropReason::Null => "null",
            DropReason::NaN => "NaN",
            DropReason::NoText => "no text",
            DropReason::Blank => "blank",
            DropReason::BadLabel => "bad label",
            DropReason::UnknownClass => "unknown class",
            DropReason::Misplaced => "answer not there",
        })
    }
}

/// A row that was dropped.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DroppedRow {
    /// Its [line](crate::Row::line); of questions, its number from 1.
    pub line: usize,
    /// Why.
    pub reason: DropReason,
    /// What was wrong, shortened: the text; or the text and the label, where that is what was wrong.
    pub sample: String,
}

/// What was dropped of some data.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Dropped {
    /// What the rows are for: `train`.
    pub name: String,
    /// How many were dropped for each reason.
    pub counts: BTreeMap<DropReason, usize>,
    /// The first five.
    pub first: Vec<DroppedRow>,
}

impl Dropped {
    /// How many were dropped.
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
///   and 2 more; in all: NaN 4, bad label 3
/// ```
impl fmt::Display for Dropped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{}] {} sample(s) dropped as invalid.", self.name, self.total())?;
        for (number, DroppedRow { line, reason, sample }) in (1..).zip(&self.first) {
            write!(f, "\n  #{number} reason={reason}  sample={sample}  line={line}")?;
        }
        match self.total() - self.first.len() {
            0 => Ok(()),
            more => write!(f, "\n  and {more} more; in all: {}", self.counts_said()),
        }
    }
}

impl Dropped {
    /// Whether what is left, `kept` rows, will do.
    ///
    /// # Errors
    /// When nothing is left; when something was dropped and `bad` is [`BadRows::Fail`].
    pub(crate) fn check(&self, kept: usize, bad: BadRows) -> Result<()> {
        let (name, total) = (&self.name, self.total());
        if let (BadRows::Fail, Some(DroppedRow { line, reason, sample })) = (bad, self.first.first()) {
            let of = total + kept;
            let why = format!("{name}: {total} of {of} cannot be used, this one because of: {reason}: {sample}");
            return Err(ErrorKind::Data { what: "rows", why, path: None, line: Some(*line) }.into());
        }
        match (kept, total) {
            (0, 0) => Err(Error::data("rows", format!("{name}: there is none"))),
            (0, _) => Err(Error::data(
                "rows",
                format!("{name}: none is left, as all {total} were dropped; {}", self.counts_said()),
            )),
            _ => Ok(()),
        }
    }

    fn counts_said(&self) -> String {
        let counts: Vec<String> = self.counts.iter().map(|(reason, n)| format!("{reason} {n}")).collect();
        counts.join(", ")
    }
}
