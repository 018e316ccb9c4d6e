//! The checks before ranks train together: ranks with other settings, files or programs would train another model.

use std::collections::BTreeMap;

use cloze_tensor::Module;
use twox_hash::XxHash3_64;

use super::checkpoint::{FINGERPRINT, Fingerprint};
use super::settings::settings;
use super::{DataSet, Learn, Trainer};
use crate::communicator::{Communicator, gather_bytes};
use crate::{Error, Result};

/// Checks that all ranks run the same program with the same settings, data and initial weights.
///
/// # Errors
/// Returns an error that names the first setting that differs, with both values and their ranks.
pub(super) fn check<D: DataSet, M: Learn<D::Batch>>(trainer: &Trainer<'_, M>, data: &D) -> Result<()> {
    let ranks = &*trainer.ranks;
    if ranks.size() == 1 {
        return Ok(());
    }
    let mut own = settings(trainer, data);
    let mut set = |name: &str, value: String| own.insert(name.to_string(), value);
    set("program", program()?);
    set("initial weights", weights(trainer.model)?);
    set("budget", format!("{:?}", trainer.budget));
    set("checkpoints", trainer.directory.as_ref().map_or("none".into(), |_| trainer.checkpoint.to_string()));
    set("best parameters", if trainer.keep_best { "kept" } else { "not kept" }.to_string());
    let own = serde_json::to_vec(&own).map_err(|error| Error::data("settings", error.to_string()))?;
    let mut all = Vec::new();
    for bytes in gather_bytes(ranks, &own)? {
        all.push(serde_json::from_slice(&bytes).map_err(|error| Error::data("settings", error.to_string()))?);
    }
    compare(ranks, &all)
}

/// Compares the settings of all ranks with those of rank 0.
fn compare(ranks: &dyn Communicator, all: &[BTreeMap<String, String>]) -> Result<()> {
    let first = &all[0];
    for (rank, settings) in all.iter().enumerate() {
        let differs = |name: &&String| first.get(*name) != settings.get(*name);
        let mut names: Vec<&String> = first.keys().chain(settings.keys()).collect();
        // Another seed, for example, is other data too: the setting says more than the fingerprint.
        names.sort_by_key(|&name| first.get(name).is_some_and(|value| value.starts_with(FINGERPRINT)));
        if let Some(name) = names.into_iter().find(differs) {
            let shown =
                |settings: &BTreeMap<String, String>| settings.get(name).map_or("none", String::as_str).to_string();
            let why = format!(
                "{name} is {} on {} but {} on {}: start all ranks with the same program, settings and files",
                shown(settings),
                ranks.name(rank),
                shown(first),
                ranks.name(0)
            );
            return Err(Error::data("ranks", why));
        }
    }
    Ok(())
}

/// Returns the version and a hash of the running program.
fn program() -> Result<String> {
    let path = std::env::current_exe().unwrap_or_default();
    let bytes = std::fs::read(&path).map_err(|error| Error::io(&path, "cannot read the running program", error))?;
    Ok(format!("version {}, fingerprint {:016x}", env!("CARGO_PKG_VERSION"), XxHash3_64::oneshot(&bytes)))
}

/// Returns a hash of all parameters.
fn weights(model: &impl Module) -> Result<String> {
    let (mut print, mut problem) = (Fingerprint::new(), Ok(()));
    model.visit("", &mut |_, parameter| match parameter.to_vec::<f32>() {
        Ok(values) => print.add(bytemuck::cast_slice(&values)),
        Err(error) => problem = Err(error),
    });
    problem?;
    Ok(format!("{FINGERPRINT} {:016x}", print.finish()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::communicator::Threads;

    #[test]
    fn what_differs_is_named() {
        let settings = |pairs: &[(&str, &str)]| {
            pairs.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect::<BTreeMap<_, _>>()
        };
        let ranks = Threads::new(3, std::time::Duration::ZERO).remove(0);
        let one = settings(&[("data", "fingerprint a"), ("seed", "1")]);
        assert!(compare(&ranks, &[one.clone(), one.clone(), one.clone()]).is_ok());
        for (other, expected) in [
            (
                settings(&[("data", "fingerprint b"), ("seed", "1")]),
                "data is fingerprint b on rank 2 but fingerprint a on",
            ),
            (settings(&[("data", "fingerprint b"), ("seed", "2")]), "seed is 2 on rank 2 but 1 on rank 0"),
            (settings(&[("data", "fingerprint a")]), "seed is none on rank 2 but 1 on rank 0"),
            (settings(&[("data", "fingerprint a"), ("seed", "1"), ("x", "y")]), "x is y on rank 2 but none on rank 0"),
        ] {
            let error = compare(&ranks, &[one.clone(), one.clone(), other]).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
