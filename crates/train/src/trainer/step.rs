//! One optimizer step over one or more batches.

use cloze_bert::Mode;
use cloze_tensor::{Tensor, check_finite};

use super::{DataSet, Learn, Trainer};
use crate::{Error, Optimizer, Result};

/// The most examples of a batch that an error lists.
const LISTED: usize = 16;

/// The results of an optimizer step.
pub(super) struct StepResult {
    pub(super) loss: f64,
    pub(super) gradient_norm: f64,
    pub(super) tokens: usize,
}

/// A batch of a step.
struct StepBatch<'e, D: DataSet> {
    examples: &'e [D::Example],
    batch: D::Batch,
    weights: Vec<f64>,
}

/// Runs forward and backward on every batch of a step, then updates the parameters.
pub(super) fn optimizer_step<D: DataSet, M: Learn<D::Batch>>(
    trainer: &mut Trainer<'_, M>,
    data: &D,
    examples: &[Vec<D::Example>],
    step: u32,
    learning_rate: f64,
    optimizer: &mut Optimizer,
) -> Result<StepResult> {
    let (mut batches, tokens) = step_batches(&*trainer.model, data, examples, step)?;
    let of_step = totals(&batches);
    // A batch without predictions has no part in a step that has some.
    if batches.len() > 1 && of_step.iter().any(|&weight| weight > 0.0) {
        batches.retain(|batch| batch.weights.iter().any(|&weight| weight > 0.0));
    }
    let (mode, precision) = (Mode::Train { seed: trainer.seed, step }, trainer.precision);
    let device = optimizer.device().clone();
    let (shares, stepped) = device.as_graph(|| -> Result<_> {
        let mut shares = Vec::with_capacity(batches.len());
        for batch in &batches {
            let share = precision.scope(|| loss_share(&*trainer.model, batch, &of_step, mode))?;
            optimizer.backward(&share)?;
            shares.push(share.detach());
        }
        Ok((shares, optimizer.step(trainer.model, learning_rate, trainer.clip_norm)))
    })??;
    // Reading the losses here makes the host wait for the device once per step. If a loss is not finite, the gradients are
    // not finite either, and the optimizer has left the parameters alone.
    let mut loss = 0.0;
    for (share, batch) in shares.iter().zip(&batches) {
        let value = share.item()?;
        if !value.is_finite() {
            let first = check_finite(|| precision.scope(|| loss_share(&*trainer.model, batch, &of_step, mode)));
            let first = first.map_or_else(|error| format!(" (first: {error})"), |_| String::new());
            let rows = listed_names(data, batch.examples);
            let why = format!("it is {value} in optimizer step {}{rows}{first}: lower the learning rate", step + 1);
            return Err(Error::data("loss", why));
        }
        loss += value;
    }
    Ok(StepResult { loss, gradient_norm: stepped?, tokens })
}

/// Makes the batches of a step and counts its tokens.
fn step_batches<'e, D: DataSet, M: Learn<D::Batch>>(
    model: &M,
    data: &D,
    examples: &'e [Vec<D::Example>],
    step: u32,
) -> Result<(Vec<StepBatch<'e, D>>, usize)> {
    let (mut batches, mut sequences, mut tokens) = (Vec::with_capacity(examples.len()), 0u32, 0);
    for examples in examples {
        let batch = data.batch(examples, step, sequences)?;
        let weights = model.total_weights(&batch);
        batches.push(StepBatch { examples, batch, weights });
        for size in examples.iter().map(|example| data.size(example)) {
            sequences = sequences.wrapping_add(size.sequences as u32);
            tokens += size.tokens;
        }
    }
    Ok((batches, tokens))
}

/// Returns the weight of the predictions of all batches, per term of the loss.
fn totals<D: DataSet>(batches: &[StepBatch<'_, D>]) -> Vec<f64> {
    let terms = batches.iter().map(|batch| batch.weights.len()).max().unwrap_or(0);
    (0..terms).map(|term| batches.iter().filter_map(|batch| batch.weights.get(term)).sum()).collect()
}

/// Runs the forward pass of a batch and returns its share of the loss of the step.
fn loss_share<D: DataSet, M: Learn<D::Batch>>(
    model: &M,
    batch: &StepBatch<'_, D>,
    of_step: &[f64],
    mode: Mode,
) -> Result<Tensor> {
    let terms = model.loss_terms(&batch.batch, mode)?;
    if terms.len() != batch.weights.len() {
        let why = format!("the model returned {} loss terms but {} weights", terms.len(), batch.weights.len());
        return Err(Error::data("loss", why));
    }
    let mut share: Option<Tensor> = None;
    for ((term, &own), &of_step) in terms.into_iter().zip(&batch.weights).zip(of_step) {
        let term = term.per_step(own, of_step)?;
        share = Some(match share {
            Some(share) => share.add(&term)?,
            None => term,
        });
    }
    share.ok_or_else(|| Error::data("loss", "the model returned no loss term"))
}

/// Returns the names of the examples of a batch, for an error.
fn listed_names<D: DataSet>(data: &D, examples: &[D::Example]) -> String {
    let names: Vec<String> = examples.iter().filter_map(|example| data.name(example)).collect();
    match names.len() {
        0 => String::new(),
        count if count <= LISTED => format!(", of rows {}", names.join(", ")),
        count => format!(", of rows {} and {} more", names[..LISTED].join(", "), count - LISTED),
    }
}
