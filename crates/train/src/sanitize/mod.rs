//! Cleaning of rows: converts the cells of a file to texts and labels.
//!
//! Anything that can be read as text is. The rest is dropped, and reported.

mod dropped;
mod label;
mod text;

use cloze_bert::Tokenizer;

pub use dropped::{BadRows, DropReason, Dropped, DroppedRow};
pub(crate) use label::label_name;

use crate::rows::{Cell, Row};
use crate::{EncodingReport, LabelledData, Result};
use label::{Classes, applying, score};
use text::text;

/// Number of characters of a text or a label shown in a sample.
const SHOWN_CHARACTERS: usize = 80;

/// Rows that passed the checks. Labels are classes (`i64`), numbers (`f32`) or the labels that apply
/// (`Vec<bool>`).
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Sanitized<L = i64> {
    /// The trimmed, non-blank texts.
    pub texts: Vec<String>,
    /// The second text of each pair; empty if rows are single texts.
    pub second_texts: Vec<String>,
    /// The label of each row.
    pub labels: Vec<L>,
    /// The report of dropped rows.
    pub dropped: Dropped,
    /// The number of labels that are numbers with a decimal comma, such as `0,85`.
    pub decimal_commas: usize,
}

impl<L> Sanitized<L> {
    /// Returns the rows unchanged if some are left and, for [`BadRows::Fail`], none was dropped.
    ///
    /// ```
    /// use cloze_train::{BadRows, Row, sanitize};
    /// let rows = [Row::new(2, "good", 1), Row::new(3, "bad", "?")];
    /// let error = sanitize("train", rows, None).check(BadRows::Fail).unwrap_err();
    /// let expected = "line 3: rows: train: 1 of 2 cannot be used, the first because of: bad label: (\"bad\", \"?\")";
    /// assert_eq!(error.to_string(), expected);
    /// ```
    ///
    /// # Errors
    /// Returns an error if no row is left, or if a row was dropped and `bad` is [`BadRows::Fail`] (names the first).
    pub fn check(self, bad: BadRows) -> Result<Sanitized<L>> {
        self.dropped.check(self.texts.len(), bad)?;
        Ok(self)
    }

    /// Tokenizes the rows as [texts](LabelledData::of_texts) or [pairs](LabelledData::of_pairs) of at most `max_length`
    /// tokens.
    ///
    /// # Errors
    /// Returns an error if there are no rows, only some rows are pairs, or `max_length` has no room for special tokens.
    pub fn encode(self, tokenizer: &Tokenizer, max_length: usize) -> Result<(LabelledData<L>, EncodingReport)> {
        self.dropped.check(self.texts.len(), BadRows::Drop)?;
        match self.second_texts.is_empty() {
            true => LabelledData::of_texts(&self.texts, self.labels, tokenizer, max_length),
            false => LabelledData::of_pairs(&self.texts, &self.second_texts, self.labels, tokenizer, max_length),
        }
    }
}

/// Keeps the rows that have a text (or two, for pairs) and a class, and reports the others. `name` identifies the data
/// in the report.
///
/// Texts are read from
/// - a string;
/// - a number or boolean, as JSON writes it;
/// - an object: its string `text`, `sentence` or `content`, whichever is found first, otherwise the object as JSON;
/// - a list: the texts of its items and of nested lists, joined by blanks. Blank and missing items are skipped.
///
/// Texts are trimmed. Rows whose text is `null`, NaN, blank or a list without text are dropped.
///
/// A label is the name of a class in `label_names`, or an integer by the rules of Python's `int`: `1`, `1.0`, `1.5`,
/// `"1"` and `true` are 1, while `"1.0"`, `"x"`, `null` and NaN are not integers. With `label_names`, an integer must
/// be the name of a class, or, if the names are not integers, the index of one; without, any integer is accepted.
/// Labels `-` and -1 that are not names of classes are reported as no gold label, as SNLI, MultiNLI and `datasets` use them.
///
/// Rows that the reader found [malformed](Cell::Malformed) are dropped too.
///
/// ```
/// use cloze_train::{Row, sanitize};
/// use serde_json::json;
/// let rows = [(json!({"text": " good "}), json!(1)), (json!(null), json!(0)), (json!(["so", ["so"]]), json!("0"))];
/// let rows = (1..).zip(rows).map(|(line, (text, label))| Row::new(line, text, label));
/// let clean = sanitize("train", rows, None);
/// assert_eq!((clean.texts, clean.labels), (vec!["good".to_string(), "so so".to_string()], vec![1, 0]));
/// assert_eq!(
///     clean.dropped.to_string(),
///     "[train] 1 sample(s) dropped as invalid.\n  #1 reason=null  sample=null  line=2",
/// );
/// ```
pub fn sanitize(name: &str, rows: impl IntoIterator<Item = Row>, label_names: Option<&[String]>) -> Sanitized {
    let classes = label_names.map(Classes::new);
    sanitize_by(name, rows, |label| label::class(label, classes.as_ref()))
}

/// Like [`sanitize`], for rows whose labels are numbers, such as the scores of STS-B. Numbers and strings that parse as
/// numbers are accepted, also those with a decimal comma, which spreadsheets write in many countries:
/// [`Sanitized::decimal_commas`] counts them. Rows whose label is NaN, infinite or not a number are dropped.
///
/// ```
/// use cloze_train::{Row, sanitize_scores};
/// let rows = [Row::new(1, "a", 4.5), Row::new(2, "b", " 3 "), Row::new(3, "c", "high"), Row::new(4, "d", "0,85")];
/// let clean = sanitize_scores("train", rows);
/// assert_eq!((clean.labels, clean.dropped.total(), clean.decimal_commas), (vec![4.5, 3.0, 0.85], 1, 1));
/// ```
pub fn sanitize_scores(name: &str, rows: impl IntoIterator<Item = Row>) -> Sanitized<f32> {
    let mut decimal_commas = 0;
    let clean = sanitize_by(name, rows, |label| {
        let (score, has_comma) = score(label)?;
        decimal_commas += usize::from(has_comma);
        Ok(score)
    });
    Sanitized { decimal_commas, ..clean }
}

/// Like [`sanitize`], for rows to which several labels may apply. The label of a row is a list of names of
/// `label_names`, a single name, or an object with a 0 or 1 for each name, as
/// [`Columns::labels`](crate::Columns::labels) reads them. Rows with an unknown label, or with neither 0 nor 1 where
/// one is expected, are dropped.
///
/// ```
/// use cloze_train::{Row, multi_label_names, sanitize_multi_label};
/// use serde_json::json;
/// let rows = [Row::new(1, "a", json!(["rude", "toxic"])), Row::new(2, "b", json!({"rude": 0, "toxic": 1}))];
/// let names = multi_label_names(&rows)?;
/// assert_eq!(names, ["rude", "toxic"]);
/// let clean = sanitize_multi_label("train", rows, &names);
/// assert_eq!(clean.labels, [vec![true, true], vec![false, true]]);
/// # Ok::<(), cloze_train::Error>(())
/// ```
pub fn sanitize_multi_label(
    name: &str,
    rows: impl IntoIterator<Item = Row>,
    label_names: &[String],
) -> Sanitized<Vec<bool>> {
    sanitize_by(name, rows, |label| applying(label, label_names))
}

fn sanitize_by<L>(
    name: &str,
    rows: impl IntoIterator<Item = Row>,
    mut label: impl FnMut(&Cell) -> Result<L, DropReason>,
) -> Sanitized<L> {
    let mut clean = Sanitized {
        texts: Vec::new(),
        second_texts: Vec::new(),
        labels: Vec::new(),
        dropped: Dropped { name: name.to_string(), ..Dropped::default() },
        decimal_commas: 0,
    };
    for row in rows {
        let texts = [Some(&row.text), row.second_text.as_ref()].map(|cell| cell.map(|cell| (cell, text(cell))));
        if let Some((cell, reason)) = texts.iter().flatten().find_map(|(cell, text)| Some((cell, text.as_ref().err()?)))
        {
            clean.dropped.push(row.line, *reason, || shortened(cell));
            continue;
        }
        match label(&row.label) {
            Ok(label) => {
                let [first, second] = texts.map(|text| text.and_then(|(_, text)| text.ok()));
                clean.texts.extend(first);
                clean.second_texts.extend(second);
                clean.labels.push(label);
            }
            Err(reason) => {
                let sample = || format!("({}, {})", shortened(&row.text), shortened(&row.label));
                clean.dropped.push(row.line, reason, sample);
            }
        }
    }
    clean
}

/// Formats a cell, cut after [`SHOWN_CHARACTERS`] characters.
fn shortened(cell: &Cell) -> String {
    let whole = cell.to_string();
    match whole.char_indices().nth(SHOWN_CHARACTERS) {
        Some((end, _)) => format!("{}...", &whole[..end]),
        None => whole,
    }
}

#[cfg(test)]
mod tests;
