//! What a fine-tuning example evaluates on: a file, or a part of the one that it trains on.

use std::path::{Path, PathBuf};

use twox_hash::XxHash3_64;

use crate::Result;

/// The arguments `--validation` and `--split`.
#[derive(clap::Args, serde::Serialize)]
#[group(id = "held out")]
pub struct HeldOutArgument {
    /// File to evaluate on
    #[arg(long, value_name = "FILE", requires = "train")]
    validation: Option<PathBuf>,
    /// Without --validation: the fraction of --train to hold out at random and to evaluate on, such as 0.1
    #[arg(long, value_name = "FRACTION", requires = "train", conflicts_with = "validation")]
    split: Option<f64>,
}

/// The name of the group of both arguments, one of which `--train` needs.
pub const HELD_OUT: &str = "held out";

impl HeldOutArgument {
    /// Reads the examples to train on and to evaluate on: those of both files, or the parts into which `split` divides
    /// those of the file `train`, given the fraction.
    ///
    /// # Errors
    /// Returns the errors of `read` and `split`, and an error if neither argument is given.
    pub fn read<T>(
        &self,
        train: &Path,
        read: impl Fn(&Path) -> Result<T>,
        split: impl FnOnce(T, f64) -> cloze::train::Result<(T, T)>,
    ) -> Result<(T, T)> {
        match (&self.validation, self.split) {
            (Some(validation), _) => Ok((read(train)?, read(validation)?)),
            (None, Some(fraction)) => {
                let named = |error| format!("--split of {}: {error}", train.display());
                Ok(split(read(train)?, fraction).map_err(named)?)
            }
            // The other examples find out when they read their arguments.
            (None, None) => Err("--train needs --validation FILE, --split FRACTION or --split-at ARTICLES".into()),
        }
    }

    /// Describes the data to evaluate on, if they are from files: a run only resumes with the same.
    ///
    /// # Errors
    /// Returns an error if the file cannot be read.
    pub(crate) fn fingerprint(&self) -> Result<Option<String>> {
        Ok(match (&self.validation, self.split) {
            (Some(path), _) => {
                let bytes = std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
                Some(format!("fingerprint {:016x}", XxHash3_64::oneshot(&bytes)))
            }
            (None, Some(fraction)) => Some(format!("{fraction} of the training file")),
            (None, None) => None,
        })
    }
}
