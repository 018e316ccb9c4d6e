//! The training loop, for any model and data set that implement two small traits.

mod alike;
mod batching;
mod budget;
mod checkpoint;
mod checksums;
mod data_set;
mod directory;
mod evaluation;
mod learn;
mod memory;
mod progress;
mod ramp;
mod ranks;
mod run;
mod settings;
mod shards;
mod share;
mod signals;
mod step;

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use cloze_tensor::{DType, Module, Precision};

use crate::communicator::{Alone, Communicator};
use crate::{AdamW, RankMemory, Result, Schedule};
use batching::{Batching, Limit};
pub(crate) use checkpoint::Fingerprint;
pub use data_set::{DataSet, Size};
pub use evaluation::{Evaluation, Every};
pub use learn::{Learn, LossTerm};
pub use ramp::BatchRamp;

/// The length of a run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Budget {
    /// A number of passes over the data.
    Epochs(u32),
    /// A number of optimizer steps.
    Steps(u32),
    /// A time, for as many steps as fit. Steps are timed before training starts, in at most a quarter of it.
    Time(Duration),
}

/// An optimizer step, as a callback sees it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Step {
    /// The number of the step, from 1.
    pub step: u32,
    /// The number of steps of the run.
    pub steps: u32,
    /// The epoch, from 1.
    pub epoch: u32,
    /// Whether this is the last step of its epoch or of the run.
    pub epoch_ends: bool,
    /// The loss of the step, in nats.
    pub loss: f64,
    /// The learning rate.
    pub learning_rate: f64,
    /// The norm of the gradients before clipping.
    pub gradient_norm: f64,
    /// The number of tokens trained on since the run started.
    pub tokens: usize,
    /// The time since the run started.
    pub elapsed: Duration,
    /// The evaluation after this step, if [one was due](Trainer::evaluate).
    pub evaluation: Option<Evaluation>,
}

/// The reason why a run ended before its last step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stopped {
    /// The evaluations stopped improving; see [`Trainer::early_stopping`].
    Early,
    /// The process received a signal; see [`Trainer::stop_on_signals`].
    BySignal,
}

/// The checkpoint that a run continued from. `Display` says so, and why not from a later one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resumed {
    /// The step of the checkpoint.
    pub step: u32,
    /// What is wrong with later checkpoints: the file that is damaged, missing or incomplete.
    pub damages: Vec<String>,
}

impl fmt::Display for Resumed {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "resumed from step {}", self.step)?;
        self.damages.iter().try_for_each(|damage| write!(f, "; {damage}"))
    }
}

/// The result of a run.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct TrainingReport {
    /// The loss of every step, in nats.
    pub losses: Vec<f64>,
    /// The number of epochs. The last one may be incomplete.
    pub epochs: u32,
    /// The number of tokens trained on.
    pub tokens: usize,
    /// The time of steps, evaluations and callbacks.
    pub elapsed: Duration,
    /// Every evaluation with its step, without confusion matrices; also those before the checkpoint that the run continued
    /// from.
    pub evaluations: Vec<(u32, Evaluation)>,
    /// The best of them.
    pub best: Option<(u32, Evaluation)>,
    /// The checkpoint that the run continued from, if it did.
    pub resumed: Option<Resumed>,
    /// The reason why the run ended before its last step, if it did.
    pub stopped: Option<Stopped>,
    /// The memory that the run was predicted to need before it started; `None` without [the check](Trainer::check_memory), and
    /// if the largest batch has no predictions and fails.
    pub predicted_memory: Option<RankMemory>,
    /// The most memory that the process had until the run ended, in bytes, or for a model on a GPU that its tensors had there;
    /// `None` if the system does not say.
    pub peak_memory: Option<u64>,
}

impl TrainingReport {
    /// Returns the mean loss of the last `steps` steps.
    pub fn mean_of_last(&self, steps: usize) -> f64 {
        let last = &self.losses[self.losses.len().saturating_sub(steps)..];
        last.iter().sum::<f64>() / last.len() as f64
    }
}

type IsFrozen<'m> = Box<dyn Fn(&str) -> bool + 'm>;
type Evaluate<'m, M> = Box<dyn FnMut(&M) -> Result<Evaluation> + 'm>;

/// Trains a model. Every setting is a builder method; the defaults are BERT's.
///
/// ```no_run
/// # use cloze_train::*;
/// # use cloze_bert::BertForSequenceClassification;
/// # fn f(mut model: BertForSequenceClassification, data: LabelledData<i64>, held_out: LabelledData<i64>) -> Result<()> {
/// let report = Trainer::new(&mut model)
///     .optimizer(AdamW::new(5e-5).layer_decay(0.95))
///     .batch_size(32)
///     .epochs(3)
///     .evaluate(Every::Epoch, |model| {
///         let found = ClassificationEvaluation::run(model, &held_out, 32)?;
///         Ok(Evaluation::maximize("accuracy", found.accuracy()?).and("loss", found.loss))
///     })
///     .keep_best()
///     .directory("runs/sst2")      // checkpoints; `resume` continues from the last one
///     .resume(true)
///     .stop_on_signals()
///     .run(&data)?;
/// # Ok(()) }
/// ```
pub struct Trainer<'m, M> {
    model: &'m mut M,
    adamw: AdamW,
    schedule: Schedule,
    clip_norm: Option<f64>,
    precision: Precision,
    ranks: Arc<dyn Communicator>,
    reduce_dtype: DType,
    batching: Batching,
    budget: Budget,
    seed: u64,
    average: Option<f64>,
    settings: BTreeMap<String, String>,
    frozen: Option<IsFrozen<'m>>,
    evaluate: Option<(Every, Evaluate<'m, M>)>,
    keep_best: bool,
    patience: Option<u32>,
    directory: Option<PathBuf>,
    report: Option<PathBuf>,
    checkpoint: Every,
    keep_checkpoints: usize,
    resume: bool,
    signals: bool,
    progress: bool,
    check_memory: bool,
}

impl<'m, M: Module> Trainer<'m, M> {
    /// Makes a trainer of `model`: one epoch of batches of 32, AdamW at 1e-4, warm-up over a tenth of the steps and
    /// linear decay, gradients clipped to norm 1.
    pub fn new(model: &'m mut M) -> Trainer<'m, M> {
        Trainer {
            model,
            adamw: AdamW::new(1e-4),
            schedule: Schedule::default(),
            clip_norm: Some(1.0),
            precision: Precision::F32,
            ranks: Arc::new(Alone),
            reduce_dtype: DType::F32,
            batching: Batching { limit: Limit::Examples(32), by_length: false, accumulate: 1, ramp: None },
            budget: Budget::Epochs(1),
            seed: 0,
            average: None,
            settings: BTreeMap::new(),
            frozen: None,
            evaluate: None,
            keep_best: false,
            patience: None,
            directory: None,
            report: None,
            checkpoint: Every::Epoch,
            keep_checkpoints: 2,
            resume: false,
            signals: false,
            progress: true,
            check_memory: true,
        }
    }

    /// Sets the optimizer.
    pub fn optimizer(self, adamw: AdamW) -> Trainer<'m, M> {
        Trainer { adamw, ..self }
    }

    /// Sets the learning rate schedule.
    pub fn schedule(self, schedule: Schedule) -> Trainer<'m, M> {
        Trainer { schedule, ..self }
    }

    /// Sets the norm to which the gradients of all parameters together are clipped.
    pub fn clip_norm(self, norm: f64) -> Trainer<'m, M> {
        Trainer { clip_norm: Some(norm), ..self }
    }

    /// Sets the precision of matrix products. Parameters and optimizer state are always f32.
    pub fn precision(self, precision: Precision) -> Trainer<'m, M> {
        Trainer { precision, ..self }
    }

    /// Trains on the ranks of a job, which [`communicator::open`](crate::communicator::open) returns. All ranks must make the
    /// same trainer, and have the same data.
    ///
    /// Each rank computes its part of every batch, in about `1 / ranks` of the time and memory, and the run equals that of one
    /// process up to rounding. The same number of ranks gives the same bits. Rank 0 alone evaluates, shows progress and writes
    /// the run directory; a run resumes on any number of ranks. A signal to one of them stops all.
    ///
    /// If a rank fails, its error ends the job. Ranks wait for evaluations and checkpoints, so the timeout of the communicator
    /// must be longer than they take.
    pub fn communicator(self, ranks: Arc<dyn Communicator>) -> Trainer<'m, M> {
        Trainer { ranks, ..self }
    }

    /// Sets the type in which ranks exchange gradients: [`DType::F32`], the default, or [`DType::BF16`], which is half as long.
    /// They are added in f32.
    pub fn reduce_dtype(self, dtype: DType) -> Trainer<'m, M> {
        Trainer { reduce_dtype: dtype, ..self }
    }

    /// Sets the number of examples per batch.
    pub fn batch_size(mut self, examples: usize) -> Trainer<'m, M> {
        self.batching.limit = Limit::Examples(examples);
        self
    }

    /// Fills each batch with examples of at most `tokens` tokens together (at least one example), instead of a fixed
    /// number of examples. Steps then take about the same time and memory for any lengths.
    pub fn batch_tokens(mut self, tokens: usize) -> Trainer<'m, M> {
        self.batching.limit = Limit::Tokens(tokens);
        self
    }

    /// Groups examples of similar length into batches, for recipes that do so. Batches are never padded here, so this only
    /// saves time in attention.
    pub fn group_by_length(mut self) -> Trainer<'m, M> {
        self.batching.by_length = true;
        self
    }

    /// Accumulates gradients over `batches` batches per optimizer step, in the memory of one batch. Up to rounding, the step
    /// equals one with a single batch of all their examples. The last step of an epoch may have fewer batches.
    pub fn accumulate(mut self, batches: usize) -> Trainer<'m, M> {
        self.batching.accumulate = batches;
        self
    }

    /// Makes the first steps smaller: the number of examples or tokens of a step, over all its batches, grows to the full
    /// number. A step then has fewer batches, and its last one may be smaller. Not with
    /// [`group_by_length`](Trainer::group_by_length).
    pub fn batch_ramp(mut self, ramp: BatchRamp) -> Trainer<'m, M> {
        self.batching.ramp = Some(ramp);
        self
    }

    /// Sets the length of the run.
    pub fn budget(self, budget: Budget) -> Trainer<'m, M> {
        Trainer { budget, ..self }
    }

    /// Trains for this many passes over the data. The trainer counts their steps first, by iterating over each epoch.
    pub fn epochs(self, epochs: u32) -> Trainer<'m, M> {
        self.budget(Budget::Epochs(epochs))
    }

    /// Trains for this many optimizer steps.
    pub fn steps(self, steps: u32) -> Trainer<'m, M> {
        self.budget(Budget::Steps(steps))
    }

    /// Sets the seed of dropout.
    pub fn seed(self, seed: u64) -> Trainer<'m, M> {
        Trainer { seed, ..self }
    }

    /// Freezes the parameters for whose name `is_frozen` returns true: `|name| name.starts_with("bert.embeddings.")`.
    pub fn freeze(self, is_frozen: impl Fn(&str) -> bool + 'm) -> Trainer<'m, M> {
        Trainer { frozen: Some(Box::new(is_frozen)), ..self }
    }

    /// Keeps an exponential moving average of the parameters with this `decay` per step. Evaluations use the average, and
    /// the model has it at the end; see [`Optimizer::with_average`](crate::Optimizer::with_average).
    pub fn average(self, decay: f64) -> Trainer<'m, M> {
        Trainer { average: Some(decay), ..self }
    }

    /// Records a setting that the trainer cannot see, such as the dropout of the model. The report shows it, and
    /// [resuming](Trainer::resume) with another value is an error. The trainer's own settings, such as `seed`, take
    /// precedence.
    pub fn setting(mut self, name: impl Into<String>, value: impl ToString) -> Trainer<'m, M> {
        self.settings.insert(name.into(), value.to_string());
        self
    }

    /// Evaluates the model at intervals. Callbacks, progress lines and the report get the results.
    pub fn evaluate(self, every: Every, evaluate: impl FnMut(&M) -> Result<Evaluation> + 'm) -> Trainer<'m, M> {
        Trainer { evaluate: Some((every, Box::new(evaluate))), ..self }
    }

    /// Restores the parameters of the best evaluation at the end. The first number of an evaluation decides.
    pub fn keep_best(self) -> Trainer<'m, M> {
        Trainer { keep_best: true, ..self }
    }

    /// Ends the run when `patience` evaluations in a row are no better than the best one, and
    /// [keeps the best](Trainer::keep_best).
    pub fn early_stopping(self, patience: u32) -> Trainer<'m, M> {
        Trainer { patience: Some(patience), keep_best: true, ..self }
    }

    /// Sets the run directory, which is created if missing. It gets the checkpoints, a [log](crate::RunLog) of every step
    /// and evaluation (`metrics.jsonl` and files for TensorBoard) and, at the end, `report.html` with curves, settings and
    /// times. Only one run can use it at a time.
    pub fn directory(self, path: impl AsRef<Path>) -> Trainer<'m, M> {
        Trainer { directory: Some(path.as_ref().to_path_buf()), ..self }
    }

    /// Sets the path of the [report](crate::RunReport), an HTML page; the default is `report.html` in the run directory.
    /// Without a run directory, the report only covers this call of [`run`](Trainer::run).
    pub fn report(self, path: impl AsRef<Path>) -> Trainer<'m, M> {
        Trainer { report: Some(path.as_ref().to_path_buf()), ..self }
    }

    /// Sets when a checkpoint is written to the run directory, after each epoch by default. The last `keep` checkpoints and
    /// the best parameters are kept.
    pub fn checkpoint(self, every: Every, keep: usize) -> Trainer<'m, M> {
        Trainer { checkpoint: every, keep_checkpoints: keep, ..self }
    }

    /// Resumes from the last checkpoint of the run directory, if there is one; the result is bit-identical to that of an
    /// uninterrupted run. Checkpoints have checksums; instead of a damaged one, the one before is taken, which
    /// [`TrainingReport::resumed`] says. Without `resume`, a directory with a checkpoint is an error.
    pub fn resume(self, resume: bool) -> Trainer<'m, M> {
        Trainer { resume, ..self }
    }

    /// Handles SIGINT (Ctrl-C), SIGTERM and SIGUSR1 during the run: the first signal finishes the step, writes a checkpoint if
    /// there is a run directory, and ends the run; the second one ends the process. Of several ranks, one suffices that
    /// receives a signal.
    pub fn stop_on_signals(self) -> Trainer<'m, M> {
        Trainer { signals: true, ..self }
    }

    /// Shows progress on stderr: a line that is redrawn on a terminal, or a new line every 30 seconds elsewhere.
    pub fn progress(self, progress: bool) -> Trainer<'m, M> {
        Trainer { progress, ..self }
    }

    /// Refuses to start if the run is predicted to need more memory than the system, the control group of the process or the
    /// GPU has left; this is the default. With `false` it starts anyway, without a prediction.
    ///
    /// The prediction is for the largest batch of the first 10,000 steps, and counts neither evaluations nor callbacks. It comes
    /// from two steps on that batch in a [dry run](cloze_tensor::DryRun), whose errors refuse the run, too. A model whose loss
    /// fails because of values that it reads, which are arbitrary there, needs `false`.
    pub fn check_memory(self, check: bool) -> Trainer<'m, M> {
        Trainer { check_memory: check, ..self }
    }

    /// Trains the model.
    ///
    /// # Errors
    /// Returns the errors of [`Trainer::run_with`].
    pub fn run<D: DataSet>(self, data: &D) -> Result<TrainingReport>
    where
        M: Learn<D::Batch>,
    {
        self.run_with(data, |_, _| Ok(()))
    }

    /// Trains the model and calls `after_step` with it after every step. The callback may print; the progress line makes
    /// room. With several [ranks](Trainer::communicator), it is called on each.
    ///
    /// # Errors
    /// Returns an error if
    /// - a setting is invalid, the data are empty or do not fit the model, or the evaluation or the callback fails;
    /// - the loss or a gradient is not finite; the error names the step, the examples and the first operation;
    /// - ranks differ in program, settings or data, there are more of them than examples in a step, or one has left the job;
    /// - the run directory cannot be written, another run uses it, or the run to resume has other data, another model or
    ///   other settings.
    pub fn run_with<D: DataSet>(
        self,
        data: &D,
        mut after_step: impl FnMut(&M, &Step) -> Result<()>,
    ) -> Result<TrainingReport>
    where
        M: Learn<D::Batch>,
    {
        run::run(self, data, &mut after_step)
    }

    /// Returns the number of steps that [`Trainer::run`] would make on `data`. A run of that many
    /// [steps](Trainer::steps) is the same run.
    ///
    /// # Errors
    /// Returns the errors of [`Trainer::run_with`].
    pub fn count_steps<D: DataSet>(&mut self, data: &D) -> Result<u32>
    where
        M: Learn<D::Batch>,
    {
        run::count_steps(self, data)
    }
}
