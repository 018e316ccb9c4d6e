//! One optimizer step over one or more batches.

use cloze_bert::Mode;
use cloze_tensor::{Tensor, check_finite};

use super::share::{Share, share_of};
use super::{DataSet, Learn, Trainer};
use crate::communicator::{Communicator, gather_bytes, gather_values};
use crate::{Error, Optimizer, Result};

/// The most examples of a batch that an error lists.
const LISTED: usize = 16;

/// The results of an optimizer step.
pub(super) struct StepResult {
    pub(super) loss: f64,
    pub(super) gradient_norm: f64,
    pub(super) tokens: usize,
    /// Whether a rank was asked to stop.
    pub(super) stops: bool,
}

/// A batch of a step.
pub(super) struct StepBatch<D: DataSet> {
    pub(super) examples: Vec<D::Example>,
    pub(super) batch: D::Batch,
    pub(super) weights: Vec<f64>,
}

/// Runs forward and backward on the share of this rank in every batch of a step, then updates the parameters. `stops` tells
/// whether this rank was asked to stop.
pub(super) fn optimizer_step<D: DataSet, M: Learn<D::Batch>>(
    trainer: &mut Trainer<'_, M>,
    data: &D,
    examples: Vec<Vec<D::Example>>,
    (step, learning_rate, stops): (u32, f64, bool),
    optimizer: &mut Optimizer,
) -> Result<StepResult> {
    let ranks = trainer.ranks.clone();
    ranks.at_step(step + 1);
    let whole = trainer.model.compares_examples();
    let share = share_of(data, examples, (ranks.rank(), ranks.size()), whole);
    let (tokens, is_split) = (share.tokens, ranks.size() > 1 || share.batches.len() > 1);
    let mut batches = step_batches(&*trainer.model, data, share, step)?;
    let (of_step, stops) = of_all_ranks(&*ranks, totals(&batches), stops)?;
    // A batch without predictions has no part in a step that has some.
    if is_split && of_step.iter().any(|&weight| weight > 0.0) {
        batches.retain(|batch| batch.weights.iter().any(|&weight| weight > 0.0));
    }
    let (mode, precision) = (Mode::Train { seed: trainer.seed, step }, trainer.precision);
    let device = optimizer.device().clone();
    let (shares, gradient_norm) = device.as_graph(|| -> Result<_> {
        let mut shares = Vec::with_capacity(batches.len());
        for (batch, left) in batches.iter().zip((0..batches.len()).rev()) {
            let share = precision.scope(|| loss_share(&*trainer.model, batch, &of_step, mode))?;
            if left > 0 { optimizer.backward(&share) } else { optimizer.backward_last(&share) }?;
            shares.push(share.detach());
        }
        Ok((shares, optimizer.update(trainer.model, learning_rate, trainer.clip_norm)?))
    })??;
    // Reading the losses here makes the host wait for the device once per step. If a loss is not finite, the gradients are
    // not finite either, and the optimizer has left the parameters alone.
    let mut problem = None;
    let mut own = 0.0;
    for (share, batch) in shares.iter().zip(&batches) {
        let value = share.item()?;
        if !value.is_finite() && problem.is_none() {
            let first = check_finite(|| precision.scope(|| loss_share(&*trainer.model, batch, &of_step, mode)));
            let first = first.map_or_else(|error| format!(" (first: {error})"), |_| String::new());
            let rows = listed_names(data, &batch.examples);
            let why = format!("it is {value} in optimizer step {}{rows}{first}: lower the learning rate", step + 1);
            problem = Some(Error::data("loss", why));
        }
        own += value;
    }
    let loss = gather_values(&*ranks, own)?.iter().sum::<f64>();
    if !(loss.is_finite() && gradient_norm.is_finite()) {
        let is_own = problem.is_some() || optimizer.first_not_finite(trainer.model).is_some();
        let problem = problem.map_or_else(|| optimizer.check_norm(trainer.model, gradient_norm), Err);
        return Err(first_problem(&*ranks, problem, is_own)?);
    }
    Ok(StepResult { loss, gradient_norm, tokens, stops })
}

/// Makes the batches of a rank's share of a step.
fn step_batches<D: DataSet, M: Learn<D::Batch>>(
    model: &M,
    data: &D,
    share: Share<D::Example>,
    step: u32,
) -> Result<Vec<StepBatch<D>>> {
    let batch = |part: super::share::Numbered<D::Example>| {
        let batch = data.batch(&part.examples, step, &part.sequences)?;
        let weights = model.total_weights(&batch);
        Ok(StepBatch { examples: part.examples, batch, weights })
    };
    share.batches.into_iter().map(batch).collect()
}

/// Returns the weight of the predictions of all batches, per term of the loss.
fn totals<D: DataSet>(batches: &[StepBatch<D>]) -> Vec<f64> {
    add_weights(batches.iter().map(|batch| &batch.weights[..]))
}

/// Adds weights per term of the loss. A rank without a batch knows of no term.
fn add_weights<'w>(weights: impl Iterator<Item = &'w [f64]>) -> Vec<f64> {
    let mut sums = Vec::new();
    for weights in weights {
        sums.resize(sums.len().max(weights.len()), 0.0);
        sums.iter_mut().zip(weights).for_each(|(sum, weight)| *sum += weight);
    }
    sums
}

/// Adds up the weights of the predictions of all ranks, and returns whether any rank stops.
fn of_all_ranks(ranks: &dyn Communicator, own: Vec<f64>, stops: bool) -> Result<(Vec<f64>, bool)> {
    if ranks.size() == 1 {
        return Ok((own, stops));
    }
    let message: Vec<f64> = std::iter::once(f64::from(u8::from(stops))).chain(own).collect();
    let all = gather_bytes(ranks, bytemuck::cast_slice(&message))?;
    let numbers = |bytes: &Vec<u8>| bytes.as_chunks().0.iter().map(|&word| f64::from_ne_bytes(word)).collect();
    let all: Vec<Vec<f64>> = all.iter().map(numbers).collect();
    let stops = all.iter().any(|message| message[0] > 0.0);
    Ok((add_weights(all.iter().map(|message| &message[1..])), stops))
}

/// Returns the error of the first rank that has its `own` problem, with the name of the rank. All ranks know that there is a
/// problem, and all return this error.
fn first_problem(ranks: &dyn Communicator, problem: Result<()>, is_own: bool) -> Result<Error> {
    let error = problem.err().unwrap_or_else(|| Error::data("loss", "is not finite"));
    if ranks.size() == 1 {
        return Ok(error);
    }
    let owners = gather_values(ranks, u8::from(is_own))?;
    let messages = gather_bytes(ranks, error.to_string().as_bytes())?;
    let rank = owners.iter().position(|&is_own| is_own == 1).unwrap_or(0);
    Ok(Error::data("ranks", format!("{}: {}", ranks.name(rank), String::from_utf8_lossy(&messages[rank]))))
}

/// Runs the forward pass of a batch and returns its share of the loss of the step.
pub(super) fn loss_share<D: DataSet, M: Learn<D::Batch>>(
    model: &M,
    batch: &StepBatch<D>,
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
