//! Whether a forward trains or evaluates.

use cloze_tensor::{Dropout, Result};

/// Whether a forward trains or evaluates. Given to every forward, never hidden in the model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// Nothing is dropped.
    #[default]
    Eval,
    /// Dropout as the configuration says, drawn for this seed and optimizer step.
    Train {
        /// Key of all draws of a run.
        seed: u64,
        /// Number of the optimizer step.
        step: u32,
    },
}

impl Mode {
    /// The dropout with probability `p` at `site`, a number that differs between the dropouts of a model.
    pub(crate) fn dropout(self, p: f64, site: u32) -> Result<Dropout> {
        match self {
            Mode::Eval => Ok(Dropout::NONE),
            Mode::Train { seed, step } => Dropout::new(p, seed, site, step),
        }
    }
}
