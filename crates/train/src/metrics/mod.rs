//! Metrics that compare predictions with labels.

mod classification;
mod correlation;
mod multi_label;
mod perplexity;
mod precision_recall;
mod ranking;
mod seqeval;
mod spans;
mod squad;
#[cfg(test)]
mod test_stream;

pub use classification::{Average, accuracy, confusion_matrix, f1, matthews};
pub use cloze_bert::tags::TagSpan;
pub use correlation::{pearson, spearman};
pub use multi_label::{MultiLabelScores, multi_label};
pub use perplexity::perplexity;
pub use precision_recall::{PrecisionRecall, precision_recall};
pub use ranking::{RankingScores, average_precision, ranking};
pub use spans::{SpanMode, SpanScores, span_scores, spans};
pub use squad::{SquadScores, SquadVersion, squad_exact_match, squad_f1, squad_normalize};

use crate::{Error, Result};

/// Checks that there are predictions, and a label for each.
fn check(predictions: usize, labels: usize) -> Result<()> {
    match (predictions, labels) {
        (0, 0) => Err(Error::data("metric", "no predictions")),
        (predictions, labels) if predictions == labels => Ok(()),
        _ => {
            let why = format!("the number of predictions ({predictions}) differs from the number of labels ({labels})");
            Err(Error::data("metric", why))
        }
    }
}
