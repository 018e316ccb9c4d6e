//! The settings of a run in words. The report shows them, and they must not change when the run is resumed.

use std::collections::BTreeMap;

use cloze_tensor::{DType, Module};

use super::batching::Limit;
use super::checkpoint::{FINGERPRINT, Fingerprint};
use super::{DataSet, Learn, Trainer};

/// Returns the settings by name, without those that are switched off.
pub(super) fn settings<D: DataSet, M: Learn<D::Batch>>(trainer: &Trainer<'_, M>, data: &D) -> BTreeMap<String, String> {
    let mut settings = trainer.settings.clone();
    settings.extend(trainer.adamw.settings());
    let mut set = |name: &str, value: String| settings.insert(name.to_string(), value);
    set("schedule", trainer.schedule.to_string());
    set("precision", trainer.precision.to_string());
    set("seed", trainer.seed.to_string());
    let batching = &trainer.batching;
    let order = if batching.by_length { ", grouped by length" } else { "" };
    let batch = match batching.limit {
        Limit::Examples(examples) => format!("{examples} examples{order}"),
        Limit::Tokens(tokens) => format!("at most {tokens} tokens{order}"),
    };
    set("batch", batch);
    set("batches per step", batching.accumulate.to_string());
    if trainer.reduce_dtype != DType::F32 {
        set("exchanged gradients", trainer.reduce_dtype.to_string());
    }
    if let Some(ramp) = batching.ramp {
        set("batch ramp", ramp.to_string());
    }
    set("clip norm", trainer.clip_norm.map_or("none".into(), |norm| norm.to_string()));
    if let Some(decay) = trainer.average {
        set("parameter average", format!("decay {decay} per step"));
    }
    if let Some((every, _)) = &trainer.evaluate {
        set("evaluation", every.to_string());
    }
    if let Some(patience) = trainer.patience {
        set("early stopping", format!("after {patience} evaluations without improvement"));
    }
    let named = |print: u64| format!("{FINGERPRINT} {print:016x}");
    set("model", named(fingerprint(trainer)));
    set("data", data.fingerprint().map_or("unknown".into(), named));
    settings
}

/// Returns a hash of the names and shapes of the parameters, and of the values of the frozen ones, which no checkpoint has.
fn fingerprint<M: Module>(trainer: &Trainer<'_, M>) -> u64 {
    let mut print = Fingerprint::new();
    trainer.model.visit("", &mut |name, parameter| {
        print.add(name.as_bytes());
        parameter.shape().iter().for_each(|size| print.add(&size.to_le_bytes()));
        if !parameter.tracks_grad()
            && let Ok(values) = parameter.to_vec::<f32>()
        {
            values.iter().for_each(|value| print.add(&value.to_le_bytes()));
        }
    });
    print.finish()
}
