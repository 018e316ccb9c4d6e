//! What ranks agree on during a run, and how the error of one ends the job of all.

use std::time::Duration;

use super::{Evaluation, Trainer};
use crate::communicator::{Communicator, broadcast_bytes};
use crate::{Error, Result};

/// The time for which ranks other than 0 leave it to rank 0 to report an error. All ranks may have the same one.
const RANK_0_FIRST: Duration = Duration::from_millis(500);

/// Ends a job of several ranks after an error of this one, for which the others would wait.
pub(super) fn end_job(ranks: &dyn Communicator, error: &Error) {
    if ranks.size() > 1 {
        if ranks.rank() > 0 {
            std::thread::sleep(RANK_0_FIRST);
        }
        let (message, name) = (error.to_string(), ranks.name(ranks.rank()));
        // An error that all ranks know names its rank already.
        ranks.abort(&if message.starts_with("ranks: ") { message } else { format!("{name}: {message}") });
    }
}

/// Checks that each rank has a part in a step.
pub(super) fn check_steps<E, M>(trainer: &Trainer<'_, M>, step: &[Vec<E>], is_whole: bool) -> Result<()> {
    let ranks = trainer.ranks.size();
    let (count, what) = match is_whole {
        true => {
            (step.len(), "batches in a step; the loss compares the examples of a batch, so ranks take whole batches")
        }
        false => (step.iter().map(Vec::len).sum(), "examples in a step"),
    };
    match count < ranks {
        true => {
            Err(Error::data("ranks", format!("there are {ranks}, but {count} {what}: use fewer ranks or larger steps")))
        }
        false => Ok(()),
    }
}

/// Returns the evaluation of rank 0.
pub(super) fn of_rank_0(ranks: &dyn Communicator, own: Option<Evaluation>) -> Result<Evaluation> {
    if let (1, Some(own)) = (ranks.size(), &own) {
        return Ok(own.clone());
    }
    let broken = |error: serde_json::Error| Error::data("evaluation", error.to_string());
    let text = broadcast_bytes(ranks, serde_json::to_vec(&own).map_err(broken)?, 0)?;
    let evaluation: Option<Evaluation> = serde_json::from_slice(&text).map_err(broken)?;
    // The confusion matrix, which only rank 0 needs, is not part of the text.
    own.or(evaluation).ok_or_else(|| Error::data("evaluation", "rank 0 sent none"))
}
