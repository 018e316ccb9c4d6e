//! Labelled texts: from files, or built-in reviews: the rows of the course's section 5.6, with more to
//! train on, and evaluated on the course's four.

use std::path::{Path, PathBuf};

use cloze::prelude::*;
use cloze::train::{
    Cell, Row, Sanitized, declared_label_names, multi_label_names, sanitize_multi_label, split_rows, stream_rows,
};
use serde_json::Value;

use crate::{HELD_OUT, HeldOutArgument, Result};

const TRAIN: [&str; 3] = [
    include_str!("../../data/course-train.tsv"),
    include_str!("../../data/reviews-train.tsv"),
    include_str!("../../data/reviews-validation.tsv"),
];
const VALIDATION: [&str; 1] = [include_str!("../../data/course-validation.tsv")];

/// The arguments `--train` and `--validation`, and which columns of the files to read.
#[derive(clap::Args, serde::Serialize)]
pub struct TextsArgument {
    /// Rows to train on, .tsv, .csv, .jsonl, .json or .parquet [default: a few built-in reviews]
    #[arg(long, value_name = "FILE", requires = HELD_OUT)]
    train: Option<PathBuf>,
    #[command(flatten)]
    #[expect(missing_docs, reason = "clap would take it for the description of the command")]
    pub held_out: HeldOutArgument,
    /// Column with the texts [default: sentence, text or content]
    #[arg(long, value_name = "NAME")]
    text_column: Option<String>,
    /// Column with the labels
    #[arg(long, value_name = "NAME", default_value = "label")]
    label_column: String,
    /// Character between the columns of .tsv and .csv files [default: found out]
    #[arg(long, value_name = "CHARACTER")]
    separator: Option<char>,
    /// Names of classes 0, 1, ..., separated by commas [default: taken from the labels]
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    labels: Vec<String>,
}

/// Cleaned rows with labels `L`, and the names of their labels.
pub struct LabelledTexts<L = i64> {
    /// Rows to train on.
    pub training: Sanitized<L>,
    /// Rows to evaluate on.
    pub validation: Sanitized<L>,
    /// Names of the labels: the classes, or those of which any number may apply.
    pub labels: Vec<String>,
}

/// The rows of the two files.
pub struct Rows {
    /// Rows to train on.
    pub training: Vec<Row>,
    /// Rows to evaluate on.
    pub validation: Vec<Row>,
}

impl Rows {
    /// Returns whether a label is a list of other than one label.
    pub fn have_lists(&self) -> bool {
        have_lists(&self.training)
    }
}

fn have_lists(rows: &[Row]) -> bool {
    rows.iter().any(|row| matches!(&row.label, Cell::Json(Value::Array(labels)) if labels.len() != 1))
}

impl TextsArgument {
    /// Returns whether the texts are the built-in reviews.
    pub fn is_built_in(&self) -> bool {
        self.train.is_none()
    }

    /// Reads and cleans the rows, and prints how many were dropped. `seed` selects those of `--split`.
    ///
    /// # Errors
    /// Returns an error if a file cannot be read, a label is unknown, or fewer than two classes or no rows are left.
    pub fn read(&self, seed: u64) -> Result<LabelledTexts> {
        self.classes(self.rows(&self.columns(), false, seed)?, &self.columns())
    }

    /// Returns the columns to read.
    pub fn columns(&self) -> Columns {
        let columns = Columns::new().label(&self.label_column);
        match &self.text_column {
            Some(name) => columns.text(name),
            None => columns,
        }
    }

    /// Reads the rows. `--split`, which `seed` selects the rows of, holds out the same fraction of each class, unless
    /// `several_labels` may apply.
    ///
    /// # Errors
    /// Returns an error if a file cannot be read or split.
    pub fn rows(&self, columns: &Columns, several_labels: bool, seed: u64) -> Result<Rows> {
        let Some(train) = &self.train else {
            return Ok(Rows { training: built_in(&TRAIN), validation: built_in(&VALIDATION) });
        };
        let split = |rows: Vec<Row>, fraction| match several_labels || have_lists(&rows) {
            true => split_rows(rows, fraction, seed),
            false => split_by_class(rows, fraction, seed, |row| row.label.to_string()),
        };
        let read = |path: &Path| rows(path, columns.clone(), self.separator);
        let (training, validation) = self.held_out.read(train, read, split)?;
        Ok(Rows { training, validation })
    }

    /// Cleans rows with a class each, and prints how many were dropped.
    ///
    /// # Errors
    /// Returns an error if a label is unknown, or fewer than two classes or no rows are left.
    pub fn classes(&self, rows: Rows, columns: &Columns) -> Result<LabelledTexts> {
        let labels = match self.labels.is_empty() {
            true => self.class_names(&rows.training, columns)?,
            false => self.given_names(),
        };
        check_labels(&labels)?;
        let clean = |name, rows| cleaned(name, sanitize(name, rows, Some(&labels)));
        let (training, validation) = (clean("train", rows.training)?, clean("validation", rows.validation)?);
        Ok(LabelledTexts { training, validation, labels })
    }

    /// Cleans rows to which several labels may apply, and prints how many were dropped.
    ///
    /// # Errors
    /// Returns an error if no rows are left.
    pub fn several_labels(&self, rows: Rows) -> Result<LabelledTexts<Vec<bool>>> {
        let labels = match self.labels.is_empty() {
            true => multi_label_names(&rows.training).map_err(|error| format!("train: {error}"))?,
            false => self.given_names(),
        };
        let clean = |name, rows| cleaned(name, sanitize_multi_label(name, rows, &labels));
        let (training, validation) = (clean("train", rows.training)?, clean("validation", rows.validation)?);
        Ok(LabelledTexts { training, validation, labels })
    }

    fn given_names(&self) -> Vec<String> {
        self.labels.iter().map(|label| label.trim().to_string()).collect()
    }

    /// Returns the names of the classes: those that the file declares, or else those that occur.
    fn class_names(&self, training: &[Row], columns: &Columns) -> Result<Vec<String>> {
        let declared = match &self.train {
            Some(path) => declared_label_names(path, columns)?,
            None => None,
        };
        Ok(declared.map_or_else(|| label_names(training), Ok).map_err(|error| format!("train: {error}"))?)
    }
}

/// Reads the rows of a file, and prints the separator of its columns if its name promises another.
///
/// # Errors
/// Returns the errors of [`read_rows`].
pub fn rows(path: &Path, columns: Columns, separator: Option<char>) -> Result<Vec<Row>> {
    let columns = separator.map_or(columns.clone(), |separator| columns.separator(separator));
    let usual =
        if path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("tsv")) { '\t' } else { ',' };
    if let Some(found) = stream_rows(path, &columns)?.separator().filter(|&found| found != usual) {
        println!("{}: the separator is {found:?}", path.display());
    }
    Ok(read_rows(path, &columns)?)
}

/// Prints how many scores were read with a decimal comma, if any.
pub fn say_decimal_commas(scores: &Sanitized<f32>) {
    if scores.decimal_commas > 0 {
        println!(
            "[{}] {} score(s) have a decimal comma: 0,5 is read as 0.5",
            scores.dropped.name, scores.decimal_commas
        );
    }
}

/// Rejects a single class: there is nothing to learn, and the library takes one label for regression.
fn check_labels(labels: &[String]) -> Result {
    if labels.iter().any(String::is_empty) {
        return Err("--labels has a name that is empty".into());
    }
    if let [only] = labels {
        return Err(format!("{only} is the only class: classification needs at least two (--labels names them)").into());
    }
    match (1..labels.len()).find(|&at| labels[..at].contains(&labels[at])) {
        Some(at) => Err(format!("--labels names {} twice", labels[at]).into()),
        None => Ok(()),
    }
}

fn built_in(files: &[&str]) -> Vec<Row> {
    let rows = files.iter().flat_map(|text| text.lines().skip(1)).filter_map(|row| row.split_once('\t'));
    (1..).zip(rows).map(|(number, (text, label))| Row::new(number, text, label)).collect()
}

/// Returns the usable rows, and prints how many were dropped.
fn cleaned<L>(name: &str, clean: Sanitized<L>) -> Result<Sanitized<L>> {
    if clean.dropped.total() > 0 {
        println!("{}", clean.dropped);
    }
    match clean.texts.is_empty() {
        true => Err(format!("{name}: no row is left after cleaning").into()),
        false => Ok(clean),
    }
}
