//! Training or evaluation mode.

use cloze_tensor::{Dropout, Error, Result};

/// Whether a forward pass trains or evaluates. It is an argument of every forward pass, not a state of the model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// Evaluation: no dropout.
    #[default]
    Eval,
    /// Training: dropout with the probabilities of the configuration and masks drawn from `seed` and `step`.
    Train {
        /// The seed of all dropout masks of a run.
        seed: u64,
        /// The number of the optimizer step.
        step: u32,
    },
}

impl Mode {
    /// Returns the dropout with probability `p` at `site`, a number that identifies the dropout within a model.
    ///
    /// # Errors
    /// Returns an error if the model trains with a probability that would be rounded to 0 or 1.
    pub(crate) fn dropout(self, p: f64, site: u32) -> Result<Dropout> {
        match self {
            Mode::Eval => Ok(Dropout::NONE),
            Mode::Train { .. } if p > 0.0 && p < 1.0 / 256.0 => {
                let reason = format!("probability {p} would be rounded to 0: train with 0, or with 1/256 or more");
                Err(Error::invalid("dropout", reason))
            }
            Mode::Train { seed, step } => Dropout::new(p, seed, site, step),
        }
    }
}
