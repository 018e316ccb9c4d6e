//! The training loop: for any model and data set that implement two small traits.

mod progress;

use std::time::{Duration, Instant};

use cloze_bert::Mode;
use cloze_tensor::{Module, Precision, Tensor};

use crate::optimizer::check_clip_norm;
use crate::{AdamW, Error, Optimizer, Result, Schedule};
use progress::Progress;

/// A model that learns from batches `B`.
pub trait Learn<B>: Module {
    /// The loss of a batch, as a number with a graph.
    ///
    /// # Errors
    /// When the batch does not fit the model.
    fn loss(&self, batch: &B, mode: Mode) -> Result<Tensor>;

    /// Whether the parameter `name` is trained on batches like `batch`. All are, unless this says otherwise.
    fn is_trainable(&self, _name: &str, _batch: &B) -> bool {
        true
    }
}

/// Examples, in an order that depends on the epoch, and the batches made of them.
pub trait DataSet {
    /// What is shuffled.
    type Example;
    /// What a model learns from.
    type Batch;

    /// The examples of an epoch, in the order of training.
    ///
    /// # Errors
    /// When a setting makes no sense.
    fn epoch(&self, epoch: u32) -> Result<Vec<Self::Example>>;

    /// The batch of some of them. `first_sequence` numbers the first within optimizer step `step`.
    ///
    /// # Errors
    /// When a setting makes no sense.
    fn batch(&self, examples: &[Self::Example], step: u32, first_sequence: u32) -> Result<Self::Batch>;

    /// Number of tokens in a batch, for the display.
    fn tokens(batch: &Self::Batch) -> usize;
}

/// How long to train.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Budget {
    /// Passes over the data.
    Epochs(u32),
    /// Optimizer steps.
    Steps(u32),
    /// As many steps as fit: measured before training starts, in at most a quarter of the time.
    Time(Duration),
}

/// One step, as a callback sees it.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Step {
    /// Number of the step, from 1.
    pub step: u32,
    /// Number of steps of the run.
    pub steps: u32,
    /// Epoch, from 1.
    pub epoch: u32,
    /// Whether it is the last step of its epoch, or of the run: the time to evaluate.
    pub epoch_ends: bool,
    /// Loss of the batch, in nats.
    pub loss: f64,
    /// Learning rate.
    pub learning_rate: f64,
    /// Norm of the gradients before clipping.
    pub gradient_norm: f64,
    /// Since training started.
    pub elapsed: Duration,
}

/// What a run did.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct TrainingReport {
    /// Loss of every step, in nats.
    pub losses: Vec<f64>,
    /// Epochs, the last one perhaps not whole.
    pub epochs: u32,
    /// Tokens trained on.
    pub tokens: usize,
    /// Time of the steps and of what callbacks did between them.
    pub elapsed: Duration,
}

impl TrainingReport {
    /// Mean loss of the last `steps` steps.
    pub fn mean_of_last(&self, steps: usize) -> f64 {
        let last = &self.losses[self.losses.len().saturating_sub(steps)..];
        last.iter().sum::<f64>() / last.len() as f64
    }
}

/// Trains a model. Every knob is a builder method; the defaults are BERT's.
pub struct Trainer<'m, M> {
    model: &'m mut M,
    adamw: AdamW,
    schedule: Schedule,
    clip_norm: Option<f64>,
    precision: Precision,
    batch_size: usize,
    budget: Budget,
    seed: u64,
    progress: bool,
}

/// Most steps that are timed to find how many fit into a time.
const TIMED_STEPS: usize = 20;

/// The examples of an epoch, of which there must be some.
fn examples_of<D: DataSet>(data: &D, epoch: u32) -> Result<Vec<D::Example>> {
    let examples = data.epoch(epoch)?;
    match examples.is_empty() {
        true => Err(Error::data("examples", format!("there is none to train on in epoch {}", epoch + 1))),
        false => Ok(examples),
    }
}

type Callback<'c, M> = &'c mut dyn FnMut(&M, &Step) -> Result<()>;

impl<'m, M: Module> Trainer<'m, M> {
    /// A trainer of `model`: one epoch of batches of 32, AdamW at 1e-4, warm-up over a tenth of the steps and
    /// linear decay, gradients clipped to norm 1.
    pub fn new(model: &'m mut M) -> Trainer<'m, M> {
        Trainer {
            model,
            adamw: AdamW::new(1e-4),
            schedule: Schedule::default(),
            clip_norm: Some(1.0),
            precision: Precision::F32,
            batch_size: 32,
            budget: Budget::Epochs(1),
            seed: 0,
            progress: true,
        }
    }

    /// The optimizer's settings.
    pub fn optimizer(self, adamw: AdamW) -> Trainer<'m, M> {
        Trainer { adamw, ..self }
    }

    /// How the learning rate changes.
    pub fn schedule(self, schedule: Schedule) -> Trainer<'m, M> {
        Trainer { schedule, ..self }
    }

    /// The most that the norm of all gradients together may be.
    pub fn clip_norm(self, norm: f64) -> Trainer<'m, M> {
        Trainer { clip_norm: Some(norm), ..self }
    }

    /// What matrix products are computed in; f32 or bf16. Parameters and the optimizer's state are f32 in any case.
    pub fn precision(self, precision: Precision) -> Trainer<'m, M> {
        Trainer { precision, ..self }
    }

    /// Sequences in a batch.
    pub fn batch_size(self, sequences: usize) -> Trainer<'m, M> {
        Trainer { batch_size: sequences, ..self }
    }

    /// How long to train.
    pub fn budget(self, budget: Budget) -> Trainer<'m, M> {
        Trainer { budget, ..self }
    }

    /// Trains for this many passes over the data.
    pub fn epochs(self, epochs: u32) -> Trainer<'m, M> {
        self.budget(Budget::Epochs(epochs))
    }

    /// Trains for this many optimizer steps.
    pub fn steps(self, steps: u32) -> Trainer<'m, M> {
        self.budget(Budget::Steps(steps))
    }

    /// Key of the dropout masks.
    pub fn seed(self, seed: u64) -> Trainer<'m, M> {
        Trainer { seed, ..self }
    }

    /// Whether a progress bar is drawn, where standard error is a terminal.
    pub fn progress(self, progress: bool) -> Trainer<'m, M> {
        Trainer { progress, ..self }
    }

    /// Trains.
    ///
    /// # Errors
    /// As [`Trainer::run_with`].
    pub fn run<D: DataSet>(self, data: &D) -> Result<TrainingReport>
    where
        M: Learn<D::Batch>,
    {
        self.run_with(data, |_, _| Ok(()))
    }

    /// Trains, calling `after_step` after every step with the model as it then is. What it prints does not
    /// disturb the progress bar.
    ///
    /// # Errors
    /// When a setting makes no sense, the data are empty or do not fit the model, the loss stops being a
    /// number, or the callback fails.
    pub fn run_with<D: DataSet>(
        mut self,
        data: &D,
        mut after_step: impl FnMut(&M, &Step) -> Result<()>,
    ) -> Result<TrainingReport>
    where
        M: Learn<D::Batch>,
    {
        let (examples, mut optimizer) = self.start(data)?;
        let steps = self.budget_steps(data, &examples, &mut optimizer)?;
        self.train(data, examples, steps, &mut optimizer, &mut after_step)
    }

    /// How many steps [`Trainer::run`] would make on `data`. Asked for by number, they are the same run.
    ///
    /// # Errors
    /// As [`Trainer::run_with`].
    pub fn count_steps<D: DataSet>(&mut self, data: &D) -> Result<u32>
    where
        M: Learn<D::Batch>,
    {
        let (examples, mut optimizer) = self.start(data)?;
        self.budget_steps(data, &examples, &mut optimizer)
    }

    fn budget_steps<D: DataSet>(&mut self, data: &D, examples: &[D::Example], optimizer: &mut Optimizer) -> Result<u32>
    where
        M: Learn<D::Batch>,
    {
        match self.budget {
            Budget::Steps(steps) => Ok(steps),
            Budget::Epochs(epochs) => u32::try_from(examples.len().div_ceil(self.batch_size))
                .ok()
                .and_then(|steps| steps.checked_mul(epochs))
                .ok_or_else(|| Error::invalid("epochs", epochs, "fewer: there are 2^32 steps or more")),
            Budget::Time(time) => self.time_steps(time, data, examples, optimizer),
        }
    }

    /// Checks the settings, and gives the first epoch's examples and an optimizer.
    fn start<D: DataSet>(&mut self, data: &D) -> Result<(Vec<D::Example>, Optimizer)>
    where
        M: Learn<D::Batch>,
    {
        if self.batch_size == 0 {
            return Err(Error::invalid("batch size", 0, "at least 1"));
        }
        check_clip_norm(self.clip_norm)?;
        self.schedule.check()?;
        let examples = examples_of(data, 0)?;
        self.batch_size = self.batch_size.min(examples.len());
        let first = data.batch(&examples[..self.batch_size], 0, 0)?;
        let trainable: Vec<(String, bool)> = {
            let mut names = Vec::new();
            self.model.visit("", &mut |name, _| names.push((name.to_string(), self.model.is_trainable(name, &first))));
            names
        };
        let is_trainable = |name: &str| trainable.iter().any(|(other, trained)| *trained && other == name);
        let optimizer = Optimizer::new(self.adamw, self.model, is_trainable)?;
        Ok((examples, optimizer))
    }

    fn train<D: DataSet>(
        &mut self,
        data: &D,
        mut examples: Vec<D::Example>,
        steps: u32,
        optimizer: &mut Optimizer,
        after_step: Callback<'_, M>,
    ) -> Result<TrainingReport>
    where
        M: Learn<D::Batch>,
    {
        let start = Instant::now();
        let mut progress = Progress::new(steps, self.progress);
        let mut report = TrainingReport::default();
        let mut at = 0;
        for step in 0..steps {
            if at >= examples.len() {
                report.epochs += 1;
                (examples, at) = (examples_of(data, report.epochs)?, 0);
            }
            let end = (at + self.batch_size).min(examples.len());
            let batch = data.batch(&examples[at..end], step, 0)?;
            at = end;
            let learning_rate = self.adamw.learning_rate * self.schedule.factor(step, steps);
            let (loss, gradient_norm) = self.step::<D>(&batch, step, learning_rate, optimizer)?;
            report.losses.push(loss);
            report.tokens += D::tokens(&batch);
            let (epoch, elapsed) = (report.epochs + 1, start.elapsed());
            let (step, epoch_ends) = (step + 1, at >= examples.len() || step + 1 == steps);
            let step = Step { step, steps, epoch, epoch_ends, loss, learning_rate, gradient_norm, elapsed };
            progress.update(&step, report.tokens);
            progress.aside(|| after_step(self.model, &step))?;
        }
        progress.finish();
        report.epochs += u32::from(steps > 0);
        report.elapsed = start.elapsed();
        Ok(report)
    }

    /// Forward, backward, update; gives the loss and the norm of its gradients.
    fn step<D: DataSet>(
        &mut self,
        batch: &D::Batch,
        step: u32,
        learning_rate: f64,
        optimizer: &mut Optimizer,
    ) -> Result<(f64, f64)>
    where
        M: Learn<D::Batch>,
    {
        let mode = Mode::Train { seed: self.seed, step };
        let loss = self.precision.scope(|| self.model.loss(batch, mode))?;
        optimizer.backward(&loss)?;
        let value = loss.item()?;
        drop(loss);
        if !value.is_finite() {
            let why = format!("it is {value} in optimizer step {}: lower the learning rate", step + 1);
            return Err(Error::data("loss", why));
        }
        let norm = optimizer.step(self.model, learning_rate, self.clip_norm)?;
        Ok((value, norm))
    }

    /// Times some steps at learning rate 0, which change nothing, and gives how many fit into what is left of
    /// `time`. So a run of this many steps, asked for by number, is the same run.
    fn time_steps<D: DataSet>(
        &mut self,
        time: Duration,
        data: &D,
        examples: &[D::Example],
        optimizer: &mut Optimizer,
    ) -> Result<u32>
    where
        M: Learn<D::Batch>,
    {
        let start = Instant::now();
        let mut seconds: Vec<f64> = Vec::new();
        while seconds.len() < TIMED_STEPS && (seconds.is_empty() || start.elapsed() < time / 4) {
            let (number, begun) = (seconds.len(), Instant::now());
            let at = number * self.batch_size % examples.len();
            let end = (at + self.batch_size).min(examples.len());
            let batch = data.batch(&examples[at..end], number as u32, 0)?;
            self.step::<D>(&batch, number as u32, 0.0, optimizer)?;
            seconds.push(begun.elapsed().as_secs_f64());
        }
        optimizer.reset();
        // The first steps fill caches and pools.
        let warm = &seconds[seconds.len() / 4..];
        let a_step = (warm.iter().sum::<f64>() / warm.len() as f64).max(1e-9);
        let left = time.saturating_sub(start.elapsed()).as_secs_f64();
        Ok((left / a_step).clamp(1.0, f64::from(u32::MAX)) as u32)
    }
}
