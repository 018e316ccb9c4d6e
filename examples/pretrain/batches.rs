//! Writes down what is trained and evaluated on, for another library to train on the same.

use std::io::Write;
use std::path::Path;

use cloze::prelude::*;
use cloze::train::{DataSet, LengthWarmup, PairExample, PreTrainingBatch};
use serde_json::{Value, json};

use crate::common::Result;

/// Sequences of an evaluated batch.
const EVALUATED: usize = 32;

/// Writes the batches of `steps` optimizer steps to a file, one a line, as JSON, and then those to evaluate on.
pub fn write(
    path: &Path,
    training: &LengthWarmup,
    (steps, batch_size): (u32, usize),
    (held_out, evaluation): (&PreTraining, &[PairExample]),
) -> Result {
    let file = std::fs::File::create(path).map_err(|error| format!("{}: cannot write: {error}", path.display()))?;
    let mut file = std::io::BufWriter::new(file);
    let mut line = |batch: &PreTrainingBatch, kind| writeln!(file, "{}", as_json(batch, kind));
    let (mut step, mut epoch) = (0, 0);
    while step < steps {
        let mut examples = training.epoch(epoch)?;
        while step < steps {
            let of_step = examples.by_ref().take(batch_size).collect::<cloze::train::Result<Vec<_>>>()?;
            if of_step.is_empty() {
                break;
            }
            line(&training.batch(&of_step, step, 0)?, "step")?;
            step += 1;
        }
        epoch += 1;
    }
    for batch in held_out.evaluation_batches(evaluation, EVALUATED)? {
        line(&batch?, "held out")?;
    }
    file.flush()?;
    Ok(())
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
