//! Checkpoints: everything that the rest of a run depends on, as files.
//!
//! Random draws are functions of seed and step, and the order of the examples is a function of seed and epoch. A checkpoint
//! therefore has no generator state, and the position within an epoch is a number.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use cloze_tensor::{Device, Module, Tensor, TensorFile, save_safetensors, write_file_atomically};
use serde::{Deserialize, Serialize};

use super::directory::RunDirectory;
use super::evaluation::{Best, Confusion, Evaluation};
use super::shards;
use crate::communicator::{Communicator, broadcast_bytes};
use crate::files::read_text;
use crate::optimizer::SavedTensors;
use crate::{Error, Optimizer, Result};

const STATE: &str = "state.json";
const TENSORS: &str = "state.safetensors";
/// The prefix of parameter names in the file, which keeps them apart from other tensors.
const PARAMETER: &str = "parameter.";
const LOSSES: &str = "losses";
/// How the values of settings begin that are fingerprints.
pub(super) const FINGERPRINT: &str = "fingerprint";
const VERSION: u32 = 2;
const MOST_TOKENS: u64 = 1 << 60;
/// Over 30,000 years.
const MOST_SECONDS: f64 = 1e12;

/// The state of a run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct State {
    version: u32,
    /// The number of optimizer steps made, and of all steps.
    pub(super) step: u32,
    pub(super) steps: u32,
    /// The epoch of the next step, from 0, and the number of its steps that are made.
    pub(super) epoch: u32,
    pub(super) in_epoch: u32,
    pub(super) tokens: usize,
    pub(super) seconds: f64,
    pub(super) best: Option<Best>,
    /// Every evaluation, with its step.
    #[serde(default)]
    pub(super) evaluations: Vec<(u32, Evaluation)>,
    /// The confusion matrix of the last evaluation, if it has one.
    pub(super) confusion: Option<Confusion>,
    /// The settings that must not change when the run is resumed, by name.
    pub(super) settings: BTreeMap<String, String>,
    #[serde(skip)]
    pub(super) losses: Vec<f64>,
}

impl State {
    pub(super) fn new(steps: u32, settings: BTreeMap<String, String>) -> State {
        State { version: VERSION, steps, settings, ..State::default() }
    }

    pub(super) fn elapsed(&self) -> Duration {
        Duration::from_secs_f64(self.seconds)
    }

    /// Writes this state, the trained parameters of `model` and the [state](Optimizer::state) of `optimizer` to a folder.
    pub(super) fn save(&self, folder: &Path, model: &impl Module, optimizer: &Optimizer) -> Result<()> {
        let mut tensors = optimizer.state()?;
        let parameters = optimizer.parameters(model).into_iter();
        tensors.extend(parameters.map(|(name, tensor)| (format!("{PARAMETER}{name}"), tensor)));
        tensors.push((LOSSES.into(), Tensor::from_slice(&self.losses, &[self.losses.len()], &Device::Cpu)?));
        save_safetensors(folder.join(TENSORS), tensors, &[])?;
        let path = folder.join(STATE);
        let text =
            serde_json::to_string_pretty(self).map_err(|error| Error::io(&path, "cannot write", error.into()))?;
        write_file_atomically(&path, (text + "\n").as_bytes()).map_err(|error| Error::io(&path, "cannot write", error))
    }

    /// Restores the state, `model` and `optimizer` from a checkpoint. With several ranks, rank 0 has the folder, and the
    /// others receive what it reads.
    ///
    /// # Errors
    /// Returns an error if a file cannot be read or is incomplete, or if the run had other `settings`; the error names the
    /// first that differs.
    pub(super) fn restore(
        folder: Option<&Path>,
        settings: &BTreeMap<String, String>,
        model: &mut impl Module,
        optimizer: &mut Optimizer,
        ranks: &dyn Communicator,
    ) -> Result<State> {
        let (own, saved) = folder.map(|folder| State::read(folder, settings)).transpose()?.unzip();
        let state = match ranks.size() {
            1 => own.unwrap_or_default(),
            _ => State::broadcast(own.unwrap_or_default(), ranks)?,
        };
        optimizer.restore(model, saved.as_ref(), PARAMETER, state.step)?;
        Ok(state)
    }

    /// Returns the state of rank 0.
    fn broadcast(own: State, ranks: &dyn Communicator) -> Result<State> {
        let broken = |error: serde_json::Error| Error::data("state of the run", error.to_string());
        let text = broadcast_bytes(ranks, serde_json::to_vec(&own).map_err(broken)?, 0)?;
        let state: State = serde_json::from_slice(&text).map_err(broken)?;
        let mut losses = own.losses;
        losses.resize(state.step as usize, 0.0);
        ranks.broadcast(bytemuck::cast_slice_mut(&mut losses), 0)?;
        Ok(State { losses, ..state })
    }

    /// Reads the state of a checkpoint, and opens its tensors.
    fn read(folder: &Path, settings: &BTreeMap<String, String>) -> Result<(State, SavedTensors)> {
        let path = folder.join(STATE);
        let state: State = serde_json::from_str(&read_text(&path)?)
            .map_err(|error| Error::data_in(&path, "checkpoint", format!("cannot be read: {error}")))?;
        if state.version != VERSION {
            let why = format!("has version {}, this library reads version {VERSION}", state.version);
            return Err(Error::data_in(&path, "checkpoint", why));
        }
        state.check_settings(folder, settings)?;
        state.check_counts().map_err(|why| Error::data_in(&path, "checkpoint", why))?;
        let file = TensorFile::open(folder.join(TENSORS))?;
        let losses = file.tensor(LOSSES, &Device::Cpu)?.to_vec::<f64>()?;
        if losses.len() != state.step as usize {
            let why = format!("has {} losses for {} steps", losses.len(), state.step);
            return Err(Error::data_in(file.path(), "checkpoint", why));
        }
        let mut files = vec![folder.join(TENSORS)];
        files.extend(shards::files(folder)?);
        Ok((State { losses, ..state }, SavedTensors::open(folder, &files)?))
    }

    /// Checks that a run can have counted so far. What it adds to the counts is then far below the limits of their types.
    fn check_counts(&self) -> std::result::Result<(), String> {
        let State { step, steps, epoch, in_epoch, tokens, seconds, .. } = *self;
        if step > steps {
            return Err(format!("has made {step} of {steps} steps"));
        }
        // Each epoch over has a step at least.
        if u64::from(epoch) + u64::from(in_epoch) > u64::from(step) {
            return Err(format!("has {epoch} whole epochs and {in_epoch} steps of the next in {step} steps"));
        }
        if tokens as u64 > MOST_TOKENS {
            return Err(format!("has {tokens} tokens, more than 2^60"));
        }
        if !(0.0..=MOST_SECONDS).contains(&seconds) {
            return Err(format!("has taken {seconds} s, must be 0 to {MOST_SECONDS} s"));
        }
        match &self.best {
            // Every evaluation is after a step of its own.
            Some(Best { step: best, since, .. }) if u64::from(*best) + u64::from(*since) > u64::from(step) => {
                Err(format!("has the best evaluation after step {best} and {since} since, in {step} steps"))
            }
            _ => Ok(()),
        }
    }

    fn check_settings(&self, folder: &Path, settings: &BTreeMap<String, String>) -> Result<()> {
        let mut names: Vec<&String> = self.settings.keys().chain(settings.keys()).collect();
        // Other masking, for example, is other data too: the setting says more than the fingerprint.
        names.sort_by_key(|&name| settings.get(name).is_some_and(|value| value.starts_with(FINGERPRINT)));
        for name in names {
            let (then, now) = (self.settings.get(name), settings.get(name));
            if then != now {
                let shown = |value: Option<&String>| value.map_or("none", String::as_str).to_string();
                let why = format!(
                    "{name} is {}, the run was started with {}: use the same value or choose another directory",
                    shown(now),
                    shown(then)
                );
                return Err(Error::data_in(folder, "resume", why));
            }
        }
        Ok(())
    }
}

/// Writes the current parameters as those of the best evaluation.
pub(super) fn save_best(directory: &RunDirectory, model: &impl Module, optimizer: &Optimizer) -> Result<()> {
    Ok(save_safetensors(directory.best(), optimizer.parameters(model), &[])?)
}

/// A hash of a sequence of byte strings (FNV-1a, eight bytes at a time).
pub(crate) struct Fingerprint(u64);

impl Fingerprint {
    pub(crate) fn new() -> Fingerprint {
        Fingerprint(0xcbf2_9ce4_8422_2325)
    }

    /// Adds bytes and their number.
    pub(crate) fn add(&mut self, bytes: &[u8]) {
        self.mix(bytes.len() as u64);
        for part in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..part.len()].copy_from_slice(part);
            self.mix(u64::from_le_bytes(word));
        }
    }

    fn mix(&mut self, word: u64) {
        // Multiplication only carries bits upwards; the rotation brings high bits down.
        self.0 = (self.0 ^ word).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(29);
    }

    pub(crate) fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn impossible_counts_are_refused() {
        let state = State { step: 5, steps: 8, epoch: 2, in_epoch: 1, tokens: 100, seconds: 2.5, ..State::default() };
        let best = |step, since| Some(Best { step, evaluation: Evaluation::minimize("loss", 0.5), since });
        for possible in [
            State { epoch: 4, ..state.clone() },
            State { step: 8, tokens: 1 << 60, seconds: 0.0, ..state.clone() },
            State { best: best(3, 2), ..state.clone() },
        ] {
            assert_eq!(possible.check_counts(), Ok(()));
        }
        for (impossible, why) in [
            (State { steps: 4, ..state.clone() }, "has made 5 of 4 steps"),
            (State { epoch: 5, ..state.clone() }, "has 5 whole epochs and 1 steps of the next in 5 steps"),
            (
                State { epoch: u32::MAX, ..state.clone() },
                "has 4294967295 whole epochs and 1 steps of the next in 5 steps",
            ),
            (State { in_epoch: 6, ..state.clone() }, "has 2 whole epochs and 6 steps of the next in 5 steps"),
            (State { tokens: usize::MAX, ..state.clone() }, "has 18446744073709551615 tokens, more than 2^60"),
            (
                State { seconds: 1e300, ..state.clone() },
                &*format!("has taken {} s, must be 0 to 1000000000000 s", 1e300),
            ),
            (State { seconds: -1.0, ..state.clone() }, "has taken -1 s, must be 0 to 1000000000000 s"),
            (State { best: best(3, 3), ..state }, "has the best evaluation after step 3 and 3 since, in 5 steps"),
        ] {
            assert_eq!(impossible.check_counts(), Err(why.to_string()));
        }
    }
}
