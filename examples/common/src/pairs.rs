//! Pairs of texts with a score, from files.

use std::path::PathBuf;

use cloze::prelude::*;
use cloze::train::{BadRows, Row, Sanitized, sanitize_scores};

use crate::{HELD_OUT, HeldOutArgument, Result, rows, say_decimal_commas};

/// Pairs of texts with their scores.
pub type Pairs = Sanitized<f32>;

/// The arguments `--train` and `--validation`, and how to read the files.
#[derive(clap::Args, serde::Serialize)]
pub struct PairsArgument {
    /// Pairs to train on, .tsv, .csv, .jsonl or .parquet [default: built-in pairs]
    #[arg(long, value_name = "FILE", requires = HELD_OUT)]
    train: Option<PathBuf>,
    #[command(flatten)]
    #[expect(missing_docs, reason = "clap would take it for the description of the command")]
    pub held_out: HeldOutArgument,
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
    /// Returns the usable pairs to train on and to evaluate on, and prints how many were dropped. `columns` are the names
    /// of the columns with the two texts and the score, and default to `names` if empty. `split` divides the rows of one
    /// file, and `built_in` returns the pairs without files.
    ///
    /// # Errors
    /// Returns an error if a file cannot be read or split, or a row cannot be used and `--drop-bad` is not given.
    pub fn read(
        &self,
        columns: &[String],
        names: [&str; 3],
        split: impl FnOnce(Vec<Row>, f64) -> cloze::train::Result<(Vec<Row>, Vec<Row>)>,
        built_in: impl FnOnce() -> (Vec<Row>, Vec<Row>),
    ) -> Result<[Pairs; 2]> {
        let (training, validation) = match &self.train {
            Some(train) => {
                let columns = self.columns(columns, names)?;
                self.held_out.read(train, |path| rows(path, columns.clone(), self.separator), split)?
            }
            None => {
                println!("No --train: using built-in pairs.");
                built_in()
            }
        };
        let (training, validation) = (self.clean("train", training)?, self.clean("validation", validation)?);
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
