//! One optimizer step, of one batch or of several.

use cloze_bert::Mode;
use cloze_tensor::check_finite;

use super::{DataSet, Learn, Trainer};
use crate::{Error, Optimizer, Result};

/// Examples of a batch that are listed in an error.
const LISTED: usize = 16;

/// What an optimizer step found.
pub(super) struct Found {
    pub(super) loss: f64,
    pub(super) gradient_norm: f64,
    pub(super) tokens: usize,
}

/// Forward and backward of every batch of a step, and the update.
pub(super) fn optimizer_step<D: DataSet, M: Learn<D::Batch>>(
    trainer: &mut Trainer<'_, M>,
    data: &D,
    examples: &[Vec<D::Example>],
    step: u32,
    learning_rate: f64,
    optimizer: &mut Optimizer,
) -> Result<Found> {
    let (mut batches, mut sequences, mut tokens) = (Vec::with_capacity(examples.len()), 0u32, 0);
    for examples in examples {
        batches.push(data.batch(examples, step, sequences)?);
        for size in examples.iter().map(|example| data.size(example)) {
            sequences = sequences.wrapping_add(size.sequences as u32);
            tokens += size.tokens;
        }
    }
    let own: Vec<Vec<usize>> = batches.iter().map(|batch| trainer.model.counts(batch)).collect();
    let mut counts = own.first().cloned().unwrap_or_default();
    for more in own.iter().skip(1) {
        counts.iter_mut().zip(more).for_each(|(count, more)| *count += more);
    }
    let (model, mode) = (&*trainer.model, Mode::Train { seed: trainer.seed, step });
    let mut loss = 0.0;
    for ((batch, own), examples) in batches.iter().zip(&own).zip(examples) {
        // A batch without predictions has no part in a step that has some.
        if batches.len() > 1 && own.iter().all(|&count| count == 0) && counts.iter().any(|&count| count > 0) {
            continue;
        }
        let forward = || trainer.precision.scope(|| model.loss(batch, &counts, mode));
        let share = forward()?;
        let value = share.item()?;
        if !value.is_finite() {
            optimizer.clear();
            let first = check_finite(forward).map_or_else(|error| format!(" (first: {error})"), |_| String::new());
            let of = names(data, examples);
            let why = format!("it is {value} in optimizer step {}{of}{first}: lower the learning rate", step + 1);
            return Err(Error::data("loss", why));
        }
        optimizer.backward(&share)?;
        loss += value;
    }
    let gradient_norm = optimizer.step(trainer.model, learning_rate, trainer.clip_norm)?;
    Ok(Found { loss, gradient_norm, tokens })
}

/// What the examples of a batch are called, for an error.
fn names<D: DataSet>(data: &D, examples: &[D::Example]) -> String {
    let names: Vec<String> = examples.iter().filter_map(|example| data.name(example)).collect();
    match names.len() {
        0 => String::new(),
        count if count <= LISTED => format!(", of rows {}", names.join(", ")),
        count => format!(", of rows {} and {} more", names[..LISTED].join(", "), count - LISTED),
    }
}
