//! Pairs of texts with a score, from files.

use std::path::{Path, PathBuf};

use cloze::prelude::*;
use cloze::train::{BadRows, Row, Sanitized, sanitize_scores};

use crate::{Result, rows, say_decimal_commas};

/// Pairs of texts with their scores.
pub type Pairs = Sanitized<f32>;

/// The arguments `--train` and `--validation`, and how to read the files.
#[derive(clap::Args, serde::Serialize)]
pub struct PairsArgument {
    /// Pairs to train on, .tsv, .csv, .jsonl or .parquet [default: built-in pairs]
    #[arg(long, value_name = "FILE", requires = "validation")]
    train: Option<PathBuf>,
    /// Pairs to evaluate on
    #[arg(long, value_name = "FILE", requires = "train")]
    validation: Option<PathBuf>,
    /// The files have no header; columns are named 1, 2, 3
    #[arg(long)]
    no_header: bool,
    /// Character between the columns of .tsv and .csv files [default: found out]
    #[arg(long, value_name = "CHARACTER")]
    separator: Option<char>,
    /// Drop unusable rows, instead of failing at the first
    #[arg(long)]
    drop_bad: bool,
}

impl PairsArgument {
    /// Returns the file of `--validation`.
    pub fn validation(&self) -> Option<&Path> {
        self.validation.as_deref()
    }

    /// Returns the usable pairs to train on and to evaluate on, and prints how many were dropped. `columns` are the names
    /// of the columns with the two texts and the score; if it is empty, they are `names`. Without files, the pairs are
    /// those that `built_in` returns.
    ///
    /// # Errors
    /// Returns an error if a file cannot be read, or a row cannot be used and `--drop-bad` is not given.
    pub fn read(
        &self,
        columns: &[String],
        names: [&str; 3],
        built_in: impl FnOnce() -> [Vec<Row>; 2],
    ) -> Result<[Pairs; 2]> {
        let [training, validation] = match (&self.train, &self.validation) {
            (Some(training), Some(validation)) => {
                let columns = self.columns(columns, names)?;
                [training, validation].map(|path| rows(path, columns.clone(), self.separator))
            }
            _ => {
                println!("No --train and --validation: using built-in pairs.");
                built_in().map(Ok)
            }
        };
        let (training, validation) = (self.clean("train", training?)?, self.clean("validation", validation?)?);
        println!("{} pairs to train on, {} to evaluate on", training.texts.len(), validation.texts.len());
        Ok([training, validation])
    }

    fn columns(&self, columns: &[String], names: [&str; 3]) -> Result<Columns> {
        let all = if self.no_header { Columns::numbered() } else { Columns::new() };
        let [first, second, score] = match (columns, self.no_header) {
            ([first, second, score], _) => [first, second, score].map(String::as_str),
            ([], true) => ["1", "2", "3"],
            ([], false) => names,
            (columns, _) => return Err(format!("--columns has {} names, it takes three", columns.len()).into()),
        };
        Ok(all.text(first).second_text(second).label(score))
    }

    fn clean(&self, name: &str, rows: Vec<Row>) -> Result<Pairs> {
        let bad = if self.drop_bad { BadRows::Drop } else { BadRows::Fail };
        let clean = sanitize_scores(name, rows).check(bad)?;
        say_decimal_commas(&clean);
        if clean.dropped.total() > 0 {
            println!("{}", clean.dropped);
        }
        Ok(clean)
    }
}
