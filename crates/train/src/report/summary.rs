//! Summary of a run in names and values.

use crate::RunRecord;
use crate::plot::significant;

/// Number of steps at the end of a run over which the final loss is averaged.
const LAST_STEPS: usize = 20;

/// Names and values.
pub(super) type Entries = Vec<(String, String)>;

/// Returns the results of the last evaluation.
pub(super) fn last_evaluation(record: &RunRecord) -> Entries {
    let values = record.evaluations.last().map(|last| last.values.as_slice()).unwrap_or_default();
    values.iter().map(|(name, value)| (format!("{name}, last evaluation"), significant(*value))).collect()
}

/// Returns the final training loss and the number of steps.
pub(super) fn training(record: &RunRecord) -> Entries {
    let Some(last) = record.steps.last() else { return Vec::new() };
    let recent = &record.steps[record.steps.len().saturating_sub(LAST_STEPS)..];
    let mean = recent.iter().map(|step| step.loss).sum::<f64>() / recent.len() as f64;
    let name =
        if recent.len() > 1 { format!("training loss, last {} steps", recent.len()) } else { "training loss".into() };
    let steps = format!("steps in {} epoch{}", last.epoch, if last.epoch == 1 { "" } else { "s" });
    vec![(name, significant(mean)), (steps, significant(f64::from(last.step)))]
}

/// Returns the training time, then the throughput, then other times and totals.
pub(super) fn time(record: &RunRecord) -> Entries {
    let Some(last) = record.steps.last() else { return Vec::new() };
    let mut lines = vec![("training time".to_string(), duration(last.elapsed))];
    if last.tokens > 0 && last.elapsed > 0.0 {
        let rate = (last.tokens as f64 / last.elapsed).round();
        lines.push(("tokens per second".to_string(), significant(rate)));
        lines.push(("tokens".to_string(), significant(last.tokens as f64)));
    }
    lines.push(("mean time per step".to_string(), duration(last.elapsed / f64::from(last.step.max(1)))));
    lines
}

/// Formats a duration in units that suit its length.
fn duration(seconds: f64) -> String {
    match seconds {
        ..0.9995 => format!("{:.0} ms", seconds * 1e3),
        0.9995..59.95 => format!("{seconds:.1} s"),
        _ => {
            let whole = seconds.round() as u64;
            let (hours, minutes, seconds) = (whole / 3600, whole / 60 % 60, whole % 60);
            if hours > 0 { format!("{hours} h {minutes} min") } else { format!("{minutes} min {seconds} s") }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::duration;

    #[test]
    fn durations() {
        let said = [0.0123, 12.34, 59.99, 125.0, 7322.0].map(duration);
        assert_eq!(said, ["12 ms", "12.3 s", "1 min 0 s", "2 min 5 s", "2 h 2 min"]);
    }
}
