//! Writes all training and evaluation batches to a file, so that another library can train on the same.

use std::io::Write;
use std::path::Path;

use cloze::train::{DataSet, LengthWarmup, PreTrainingBatch};
use cloze_examples::Result;
use serde_json::{Value, json};

use crate::held_out::HeldOutText;

/// Writes the batches of `steps` optimizer steps, then those of the final evaluation, as JSON Lines. `batch_size` returns the
/// number of sequences in a step.
pub fn write(
    path: &Path,
    training: &LengthWarmup,
    steps: u32,
    batch_size: impl Fn(u32) -> usize,
    held_out: &HeldOutText,
) -> Result {
    cloze_examples::write_file(path, |file| {
        let written = write_to(file, training, steps, batch_size, held_out);
        written.map_err(|error| std::io::Error::other(error.to_string()))
    })
}

fn write_to(
    file: &mut dyn Write,
    training: &LengthWarmup,
    steps: u32,
    batch_size: impl Fn(u32) -> usize,
    held_out: &HeldOutText,
) -> Result {
    let (mut step, mut epoch) = (0, 0);
    while step < steps {
        let mut examples = training.epoch(epoch)?;
        while step < steps {
            let batch = examples.by_ref().take(batch_size(step)).collect::<cloze::train::Result<Vec<_>>>()?;
            if batch.is_empty() {
                break;
            }
            let sequences = first_sequences(training, &batch);
            writeln!(file, "{}", as_json(&training.batch(&batch, step, &sequences)?, "step"))?;
            step += 1;
        }
        epoch += 1;
    }
    held_out.final_batches(|batch| Ok(writeln!(file, "{}", as_json(batch, "held out"))?))
}

/// Returns the number within the step of the first sequence of each example.
fn first_sequences<D: DataSet>(data: &D, examples: &[D::Example]) -> Vec<u32> {
    let mut next = 0;
    let first = |example| {
        let first = next;
        next += data.size(example).sequences as u32;
        first
    };
    examples.iter().map(first).collect()
}

fn as_json(batch: &PreTrainingBatch, kind: &str) -> Value {
    let (batch, targets) = (batch.batch(), batch.targets());
    json!({
        "kind": kind,
        "ids": batch.ids(),
        "token_types": batch.token_types(),
        "starts": batch.sequences().cu_seqlens(),
        "target_rows": targets.rows,
        "target_ids": targets.labels,
        "next_sentence": targets.next_sentence,
    })
}
