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
    let (mode, precision) = (Mode::Train { seed: trainer.seed, step }, trainer.precision);
    // A batch without predictions has no part in a step that has some.
    let has_part = |own: &Vec<usize>| {
        batches.len() == 1 || own.iter().any(|&count| count > 0) || counts.iter().all(|&count| count == 0)
    };
    let parts: Vec<usize> = (0..batches.len()).filter(|&at| has_part(&own[at])).collect();
    let device = optimizer.device().clone();
    let (shares, stepped) = device.as_graph(|| -> Result<_> {
        let mut shares = Vec::with_capacity(parts.len());
        for &at in &parts {
            let share = precision.scope(|| trainer.model.loss(&batches[at], &counts, mode))?;
            optimizer.backward(&share)?;
            shares.push(share.detach());
        }
        Ok((shares, optimizer.step(trainer.model, learning_rate, trainer.clip_norm)))
    })??;
    // Only now, so that a step waits for its device once. A loss that is not finite has such gradients, which change nothing.
    let mut loss = 0.0;
    for (share, &at) in shares.iter().zip(&parts) {
        let value = share.item()?;
        if !value.is_finite() {
            let again = || precision.scope(|| trainer.model.loss(&batches[at], &counts, mode));
            let first = check_finite(again).map_or_else(|error| format!(" (first: {error})"), |_| String::new());
            let of = names(data, &examples[at]);
            let why = format!("it is {value} in optimizer step {}{of}{first}: lower the learning rate", step + 1);
            return Err(Error::data("loss", why));
        }
        loss += value;
    }
    Ok(Found { loss, gradient_norm: stepped?, tokens })
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
