//! All that the rest of a run depends on, as files.
//!
//! Random draws are functions of seed and step, and the order of the examples one of seed and epoch: so there is no state
//! of a generator to keep, and where in an epoch a run is, is a number.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use cloze_tensor::{Device, Module, Tensor, TensorFile, save_safetensors, write_file_atomically};
use serde::{Deserialize, Serialize};

use super::directory::RunDirectory;
use super::evaluation::{Best, Confusion};
use crate::files::read_text;
use crate::{Error, Optimizer, Result};

const STATE: &str = "state.json";
const TENSORS: &str = "state.safetensors";
/// What names of parameters begin with in the file, so that none can be the name of anything else.
const PARAMETER: &str = "parameter.";
const LOSSES: &str = "losses";
const VERSION: u32 = 1;

/// Where a run is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct State {
    version: u32,
    /// Optimizer steps that were made, and of how many.
    pub(super) step: u32,
    pub(super) steps: u32,
    /// The epoch that the next step is in, from 0, and steps of it that were made.
    pub(super) epoch: u32,
    pub(super) in_epoch: u32,
    pub(super) tokens: usize,
    pub(super) seconds: f64,
    pub(super) best: Option<Best>,
    /// Of the last evaluation, where it had one.
    pub(super) confusion: Option<Confusion>,
    /// What must not change in a run, by name.
    pub(super) settings: BTreeMap<String, String>,
    #[serde(skip)]
    pub(super) losses: Vec<f64>,
}

impl State {
    pub(super) fn new(steps: u32, settings: BTreeMap<String, String>) -> State {
        State { version: VERSION, steps, settings, ..State::default() }
    }

    pub(super) fn elapsed(&self) -> Duration {
        Duration::try_from_secs_f64(self.seconds).unwrap_or_default()
    }

    /// Writes this, and `model` and `optimizer` as they are, into a folder.
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

    /// Reads a checkpoint, and puts `model` and `optimizer` into its state.
    ///
    /// # Errors
    /// When a file cannot be read or is not whole; when the run that it is of had other `settings`: says which.
    pub(super) fn restore(
        folder: &Path,
        settings: &BTreeMap<String, String>,
        model: &mut impl Module,
        optimizer: &mut Optimizer,
    ) -> Result<State> {
        let path = folder.join(STATE);
        let state: State = serde_json::from_str(&read_text(&path)?)
            .map_err(|error| Error::data_in(&path, "checkpoint", format!("cannot be read: {error}")))?;
        if state.version != VERSION {
            let why = format!("is of version {}, this library reads {VERSION}", state.version);
            return Err(Error::data_in(&path, "checkpoint", why));
        }
        state.check_settings(folder, settings)?;
        let file = TensorFile::open(folder.join(TENSORS))?;
        let losses = file.tensor(LOSSES, &Device::Cpu)?.to_vec::<f64>()?;
        if losses.len() != state.step as usize {
            let why = format!("has {} losses, but {} steps were made", losses.len(), state.step);
            return Err(Error::data_in(file.path(), "checkpoint", why));
        }
        optimizer.set_parameters(model, &file, PARAMETER)?;
        optimizer.restore(&file, state.step)?;
        Ok(State { losses, ..state })
    }

    fn check_settings(&self, folder: &Path, settings: &BTreeMap<String, String>) -> Result<()> {
        let names = self.settings.keys().chain(settings.keys());
        for name in names {
            let (then, now) = (self.settings.get(name), settings.get(name));
            if then != now {
                let shown = |value: Option<&String>| value.map_or("none", String::as_str).to_string();
                let why = format!(
                    "{name} is {}, but the run here was begun with {}: resume it as it was, or choose another directory",
                    shown(now),
                    shown(then)
                );
                return Err(Error::data_in(folder, "resume", why));
            }
        }
        Ok(())
    }
}

/// Writes the parameters as they are, those of the best evaluation.
pub(super) fn save_best(directory: &RunDirectory, model: &impl Module, optimizer: &Optimizer) -> Result<()> {
    Ok(save_safetensors(directory.best(), optimizer.parameters(model), &[])?)
}

/// A number that another sequence of bytes would not have (FNV-1a, eight bytes at a time).
pub(crate) struct Fingerprint(u64);

impl Fingerprint {
    pub(crate) fn new() -> Fingerprint {
        Fingerprint(0xcbf2_9ce4_8422_2325)
    }

    /// Takes bytes in, and how many they are.
    pub(crate) fn add(&mut self, bytes: &[u8]) {
        self.mix(bytes.len() as u64);
        for part in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..part.len()].copy_from_slice(part);
            self.mix(u64::from_le_bytes(word));
        }
    }

    fn mix(&mut self, word: u64) {
        // The rotation lets high bits come down to low ones, which multiplication alone does not.
        self.0 = (self.0 ^ word).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(29);
    }

    pub(crate) fn finish(&self) -> u64 {
        self.0
    }
}
