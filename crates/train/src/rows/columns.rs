//! The columns to read.

use serde_json::{Map, Value};

use super::{Cell, Row};

/// Default names of the text column, in order of preference.
const TEXT: &[&str] = &["sentence", "text", "content"];
const LABEL: &[&str] = &["label"];

/// Number of columns listed in the error for a missing one.
const LISTED: usize = 20;
/// Number of characters listed of each: in a file of another format, a name may be as long as the file.
const LONGEST: usize = 60;

/// The columns to read, by name. By default, the text is in the first of `sentence`, `text` and `content` that exists,
/// the label is in `label`, and no second text is read.
///
/// ```
/// use cloze_train::Columns;
/// let of_pairs = Columns::new().text("premise").second_text("hypothesis").label("gold_label");
/// let of_sts_b = Columns::numbered().second_text("2").label("3"); // CSV without a header
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Columns {
    text: Option<String>,
    second_text: Option<String>,
    label: Option<String>,
    labels: Vec<String>,
    numbered: bool,
    separator: Option<char>,
}

/// The indices of the wanted columns among those of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ColumnIndices {
    pub(super) text: usize,
    pub(super) second_text: Option<usize>,
    pub(super) label: LabelColumns,
}

/// The column of the label, or a column for each label with its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum LabelColumns {
    One(usize),
    Each(Vec<(String, usize)>),
}

impl ColumnIndices {
    /// Returns the indices, each at least once.
    #[cfg(feature = "parquet")]
    pub(super) fn all(&self) -> Vec<usize> {
        let labels = match &self.label {
            LabelColumns::One(column) => vec![*column],
            LabelColumns::Each(columns) => columns.iter().map(|(_, column)| *column).collect(),
        };
        [vec![self.text], self.second_text.into_iter().collect(), labels].concat()
    }

    /// Makes a row of the cells of its columns.
    pub(super) fn row(&self, line: usize, cell: impl Fn(usize) -> Cell, label: impl Fn(usize) -> Cell) -> Row {
        let value = |column: usize| match label(column) {
            Cell::Json(value) => value,
            Cell::NonFinite(_) | Cell::Malformed(_) => Value::Null,
        };
        let label = match &self.label {
            LabelColumns::One(column) => label(*column),
            LabelColumns::Each(columns) => {
                let by_name: Map<_, _> = columns.iter().map(|(name, column)| (name.clone(), value(*column))).collect();
                Value::Object(by_name).into()
            }
        };
        Row { line, text: cell(self.text), second_text: self.second_text.map(&cell), label }
    }
}

impl Columns {
    /// Returns the default columns.
    pub fn new() -> Columns {
        Columns::default()
    }

    /// Returns the columns of TSV or CSV without a header, named by their numbers `1`, `2`, ... By default, the text is
    /// in the first column and the label in the last.
    pub fn numbered() -> Columns {
        Columns { numbered: true, ..Columns::default() }
    }

    /// Returns whether TSV and CSV files begin with the names of the columns.
    pub(super) fn has_header(&self) -> bool {
        !self.numbered
    }

    /// Sets the column of texts.
    pub fn text(self, name: impl Into<String>) -> Columns {
        Columns { text: Some(name.into()), ..self }
    }

    /// Sets the column of second texts, for data that consist of pairs.
    pub fn second_text(self, name: impl Into<String>) -> Columns {
        Columns { second_text: Some(name.into()), ..self }
    }

    /// Sets the column of labels.
    pub fn label(self, name: impl Into<String>) -> Columns {
        Columns { label: Some(name.into()), ..self }
    }

    /// Sets a column for each of several labels, which has 1 in the rows to which the label applies and 0 in the
    /// others. The label of a row becomes an object with these values by name, for
    /// [`sanitize_multi_label`](crate::sanitize_multi_label).
    ///
    /// ```
    /// use cloze_train::{Columns, multi_label_names, read_rows, sanitize_multi_label};
    /// let dir = tempfile::tempdir()?;
    /// let path = dir.path().join("train.csv");
    /// std::fs::write(&path, "text,rude,toxic\na,0,1\nb,1,1\n")?;
    /// let rows = read_rows(&path, &Columns::new().labels(["rude", "toxic"]))?;
    /// let clean = sanitize_multi_label("train", rows, &["rude".into(), "toxic".into()]);
    /// assert_eq!(clean.labels, [[false, true], [true, true]]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn labels<S: AsRef<str>>(self, names: impl IntoIterator<Item = S>) -> Columns {
        Columns { labels: names.into_iter().map(|name| name.as_ref().to_string()).collect(), ..self }
    }

    /// Sets the character between the columns of TSV and CSV files. By default, it is found out from the file. Between
    /// tabs, quotation marks have no special meaning, unless all names in the header are quoted.
    pub fn separator(self, separator: char) -> Columns {
        Columns { separator: Some(separator), ..self }
    }

    pub(super) fn chosen_separator(&self) -> Option<char> {
        self.separator
    }

    /// Returns the largest number among the named columns, and whether the label is named too, so that it is not in the
    /// last column, whichever that is.
    pub(super) fn width(&self) -> (usize, bool) {
        let names = [&self.text, &self.second_text, &self.label].into_iter().flatten().chain(&self.labels);
        let largest = names.filter_map(|name| name.parse().ok()).max().unwrap_or(1);
        (largest, self.label.is_some() || !self.labels.is_empty())
    }

    /// Finds the wanted columns among those of a file. The error names the missing column and those that exist.
    pub(super) fn find(&self, there: &[impl AsRef<str>]) -> Result<ColumnIndices, String> {
        let find = |name: &Option<String>, defaults: &[&str]| {
            let wanted = name.as_ref().map_or_else(|| defaults.to_vec(), |name| vec![name.as_str()]);
            let places = |name: &str| {
                (0..there.len()).filter(|&at| there[at].as_ref().trim() == name.trim()).collect::<Vec<_>>()
            };
            let found = wanted.iter().map(|name| (*name, places(name))).find(|(_, places)| !places.is_empty());
            match found {
                Some((_, places)) if places.len() == 1 => Ok(places[0]),
                Some((name, places)) => Err(format!("{} columns are named {name}: rename all but one", places.len())),
                None => Err(format!("no column {}: the file has {}", either(&wanted), list(there))),
            }
        };
        let last = there.len().to_string();
        let (text, label) = if self.numbered { (&["1"][..], &[last.as_str()][..]) } else { (TEXT, LABEL) };
        let each = |name: &String| Ok((name.clone(), find(&Some(name.clone()), &[])?));
        Ok(ColumnIndices {
            text: find(&self.text, text)?,
            second_text: self.second_text.is_some().then(|| find(&self.second_text, &[])).transpose()?,
            label: match self.labels.is_empty() {
                true => LabelColumns::One(find(&self.label, label)?),
                false => LabelColumns::Each(self.labels.iter().map(each).collect::<Result<_, String>>()?),
            },
        })
    }
}

fn either(names: &[&str]) -> String {
    match names {
        [others @ .., last] if !others.is_empty() => format!("{} or {last}", others.join(", ")),
        _ => names.concat(),
    }
}

/// Lists the first names of columns, and the number of others.
pub(super) fn list(columns: &[impl AsRef<str>]) -> String {
    let names: Vec<String> =
        columns.iter().take(LISTED).map(|name| name.as_ref().chars().take(LONGEST).collect()).collect();
    match columns.len().saturating_sub(LISTED) {
        0 if names.is_empty() => "none".to_string(),
        0 => names.join(", "),
        more => format!("{} and {more} more", names.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_and_names() {
        let found = |text, second_text, label| Ok(ColumnIndices { text, second_text, label: LabelColumns::One(label) });
        assert_eq!(Columns::new().find(&["label", "content", "text"]), found(2, None, 0));
        assert_eq!(Columns::new().find(&["text", "sentence", "label"]), found(1, None, 2));
        let pairs = Columns::new().text("b").second_text("a").label("c");
        assert_eq!(pairs.find(&["a", "b", "c", "label", "text"]), found(1, Some(0), 2));
        assert_eq!(Columns::numbered().find(&["1", "2", "3"]), found(0, None, 2));
        let each = LabelColumns::Each(vec![("c".into(), 2), ("b".into(), 1)]);
        let several = Columns::new().labels(["c", "b"]).find(&["text", "b", "c"]);
        assert_eq!(several, Ok(ColumnIndices { text: 0, second_text: None, label: each }));
        assert_eq!(Columns::numbered().second_text("3").label("2").find(&["1", "2", "3"]), found(0, Some(2), 1));
    }

    #[test]
    fn errors_name_the_missing_column_and_those_that_exist() {
        let said = |columns: Columns, there: &[String]| columns.find(there).unwrap_err();
        let there = ["id".to_string(), "text".to_string()];
        assert_eq!(said(Columns::new(), &there), "no column label: the file has id, text");
        let why = "no column sentence, text or content: the file has id";
        assert_eq!(said(Columns::new(), &there[..1]), why);
        let blanks = ColumnIndices { text: 1, second_text: None, label: LabelColumns::One(0) };
        assert_eq!(Columns::new().text("tweet ").find(&["label ", " tweet"]), Ok(blanks));
        let twice = ["label", "text", "other", "other", "label"].map(String::from);
        assert_eq!(said(Columns::new(), &twice), "2 columns are named label: rename all but one");
        assert_eq!(said(Columns::new().text("tweet"), &there), "no column tweet: the file has id, text");
        let second = said(Columns::new().second_text("b").label("id"), &there);
        assert_eq!(second, "no column b: the file has id, text");
        let many: Vec<String> = (0..25).map(|number| number.to_string()).collect();
        assert!(said(Columns::new(), &many).ends_with("18, 19 and 5 more"));
        let long = said(Columns::new().text("x"), &["a".repeat(1000)]);
        assert_eq!(long, format!("no column x: the file has {}", "a".repeat(60)));
    }
}
