//! Labelled texts: from files, or a few built-in reviews.

use std::path::{Path, PathBuf};

use cloze::prelude::*;
use cloze::train::{Row, Sanitized};

use crate::Result;

const TRAIN: &str = include_str!("../../data/reviews-train.tsv");
const VALIDATION: &str = include_str!("../../data/reviews-validation.tsv");

/// The arguments `--train` and `--validation`, and which columns of the files to read.
#[derive(clap::Args, serde::Serialize)]
pub struct TextsArgument {
    /// Rows to train on, .tsv, .csv or .jsonl [default: a few built-in reviews]
    #[arg(long, value_name = "FILE", requires = "validation")]
    train: Option<PathBuf>,
    /// Rows to evaluate on
    #[arg(long, value_name = "FILE", requires = "train")]
    validation: Option<PathBuf>,
    /// Column with the texts [default: sentence, text or content]
    #[arg(long, value_name = "NAME")]
    text_column: Option<String>,
    /// Column with the labels
    #[arg(long, value_name = "NAME", default_value = "label")]
    label_column: String,
    /// Names of classes 0, 1, ..., separated by commas [default: taken from the labels]
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    labels: Vec<String>,
}

/// Cleaned rows, and the names of their classes.
pub struct LabelledTexts {
    /// Rows to train on.
    pub training: Sanitized,
    /// Rows to evaluate on.
    pub validation: Sanitized,
    /// Names of the classes.
    pub labels: Vec<String>,
}

impl TextsArgument {
    /// Returns whether the texts are the built-in reviews.
    pub fn is_built_in(&self) -> bool {
        self.train.is_none()
    }

    /// Reads and cleans the rows, and prints how many were dropped.
    ///
    /// # Errors
    /// Returns an error if a file cannot be read, a label is unknown, or fewer than two classes or no rows are left.
    pub fn read(&self) -> Result<LabelledTexts> {
        let (training, validation) = match (&self.train, &self.validation) {
            (Some(training), Some(validation)) => (self.rows(training)?, self.rows(validation)?),
            _ => (built_in(TRAIN), built_in(VALIDATION)),
        };
        let labels = match self.labels.is_empty() {
            true => label_names(&training).map_err(|error| format!("train: {error}"))?,
            false => self.labels.iter().map(|label| label.trim().to_string()).collect(),
        };
        check_labels(&labels)?;
        let (training, validation) = (clean("train", training, &labels)?, clean("validation", validation, &labels)?);
        Ok(LabelledTexts { training, validation, labels })
    }

    fn rows(&self, path: &Path) -> Result<Vec<Row>> {
        let columns = Columns::new().label(&self.label_column);
        let columns = match &self.text_column {
            Some(name) => columns.text(name),
            None => columns,
        };
        Ok(read_rows(path, &columns)?)
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

fn built_in(text: &str) -> Vec<Row> {
    let rows = (2..).zip(text.lines().skip(1)).filter_map(|(line, row)| Some((line, row.split_once('\t')?)));
    rows.map(|(line, (text, label))| Row::new(line, text, label)).collect()
}

/// Returns the usable rows, and prints how many were dropped.
fn clean(name: &str, rows: Vec<Row>, labels: &[String]) -> Result<Sanitized> {
    let clean = sanitize(name, rows, Some(labels));
    if clean.dropped.total() > 0 {
        println!("{}", clean.dropped);
    }
    match clean.texts.is_empty() {
        true => Err(format!("{name}: no row is left after cleaning").into()),
        false => Ok(clean),
    }
}
