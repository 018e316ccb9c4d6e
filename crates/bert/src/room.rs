//! The memory for parameters that are drawn, checked before it is taken.

use std::sync::LazyLock;

use crate::{BertConfig, Error, Result};

/// The memory of this machine that parameters have not taken yet. Where its size is unknown, nothing is refused.
pub(crate) struct Room {
    machine: Option<u64>,
    left: Option<u64>,
}

impl Room {
    /// Returns the memory of this machine, whoever else uses it.
    pub(crate) fn of_machine() -> Room {
        static MACHINE: LazyLock<Option<u64>> = LazyLock::new(machine);
        Room { machine: *MACHINE, left: *MACHINE }
    }

    /// Checks that a new model has room.
    ///
    /// # Errors
    /// Returns an error with the sizes of the model if its parameters need more than the memory of this machine.
    pub(crate) fn check(&self, config: &BertConfig) -> Result<()> {
        let head = (config.labels.len() as u64).saturating_mul(config.hidden_size as u64);
        let needed = config.parameter_counts().pre_training().saturating_add(head).saturating_mul(BYTES);
        match self.machine {
            Some(machine) if needed > machine => Err(Error::config(format!(
                "{} parameters need {} in f32, this machine has {}: choose a smaller hidden_size ({}), num_hidden_layers ({}), \
                 intermediate_size ({}), vocab_size ({}), max_position_embeddings ({}) or number of labels ({})",
                needed / BYTES,
                shown(needed),
                shown(machine),
                config.hidden_size,
                config.num_hidden_layers,
                config.intermediate_size,
                config.vocab_size,
                config.max_position_embeddings,
                config.labels.len(),
            ))),
            _ => Ok(()),
        }
    }

    /// Takes the memory of a parameter.
    ///
    /// # Errors
    /// Returns an error if the parameters so far need more than the memory of this machine.
    pub(crate) fn take(&mut self, name: &str, shape: &[usize]) -> Result<()> {
        let needed = shape.iter().fold(BYTES, |bytes, &size| bytes.saturating_mul(size as u64));
        let (Some(machine), Some(left)) = (self.machine, self.left) else { return Ok(()) };
        self.left = left.checked_sub(needed);
        match self.left {
            Some(_) => Ok(()),
            None => Err(Error::config(format!(
                "{name}, which is not in the file, has shape {shape:?} and needs {} in f32, this machine has {}: check \
                 config.json",
                shown(needed),
                shown(machine),
            ))),
        }
    }
}

/// The bytes of a parameter in f32.
const BYTES: u64 = 4;

fn shown(bytes: u64) -> String {
    format!("{:.1} GB", bytes as f64 / 1e9)
}

/// Returns the size of the physical memory in bytes.
fn machine() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim().strip_suffix(" kB")?.parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_machine_has_is_refused() {
        let room = || Room { machine: Some(1_000_000_000), left: Some(1_000_000_000) };
        room().check(&BertConfig::base()).unwrap();
        let config = BertConfig { hidden_size: 3 << 18, num_hidden_layers: 1 << 14, ..BertConfig::base() };
        config.validate().unwrap();
        let said = room().check(&config).unwrap_err().to_string();
        let counted = format!("{} parameters need ", config.parameter_counts().pre_training() + 2 * (3 << 18));
        let rest =
            " GB in f32, this machine has 1.0 GB: choose a smaller hidden_size (786432), num_hidden_layers (16384)";
        assert!(said.starts_with(&counted) && said.contains(rest), "{said}");
        let mut room = room();
        room.take("a", &[100_000_000]).unwrap();
        let said = room.take("classifier.weight", &[1 << 20, 768]).unwrap_err().to_string();
        assert!(
            said.starts_with("classifier.weight, which is not in the file, has shape [1048576, 768] and needs 3.2 GB"),
            "{said}"
        );
        let mut unknown = Room { machine: None, left: None };
        assert!(unknown.check(&config).is_ok() && unknown.take("a", &[usize::MAX; 3]).is_ok());
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn the_memory_of_this_machine_is_known() {
        assert!(machine().unwrap() > 100_000_000);
    }
}
