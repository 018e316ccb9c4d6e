//! Measures of predictions against labels.

mod classification;
mod correlation;

pub use classification::{Average, accuracy, confusion_matrix, f1, matthews};
pub use correlation::{pearson, spearman};

use crate::{Error, Result};

/// Checks that there are as many predictions as labels, and some.
fn check(predictions: usize, labels: usize) -> Result<()> {
    match (predictions, labels) {
        (0, 0) => Err(Error::data("metric", "there is no prediction")),
        (predictions, labels) if predictions == labels => Ok(()),
        _ => Err(Error::data("metric", format!("{predictions} predictions for {labels} labels"))),
    }
}
