//! The training loop: for any model and data set that implement two small traits.

mod batching;
mod checkpoint;
mod data_set;
mod directory;
mod evaluation;
mod progress;
mod run;
mod settings;
mod signals;
mod step;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use cloze_tensor::{Module, Precision};

use crate::{AdamW, Result, Schedule};
use batching::{Batching, Limit};
pub(crate) use checkpoint::Fingerprint;
pub use data_set::{DataSet, Learn, Size, share};
pub use evaluation::{Evaluation, Every};

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
#[derive(Clone, Debug)]
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
    /// Loss of the step, in nats.
    pub loss: f64,
    /// Learning rate.
    pub learning_rate: f64,
    /// Norm of the gradients before clipping.
    pub gradient_norm: f64,
    /// Tokens trained on since training started.
    pub tokens: usize,
    /// Since training started.
    pub elapsed: Duration,
    /// What was found after this step, where it was [time to evaluate](Trainer::evaluate).
    pub evaluation: Option<Evaluation>,
}

/// Why a run ended before its last step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stopped {
    /// [No evaluation was better for long](Trainer::early_stopping).
    Early,
    /// [A signal asked for it](Trainer::stop_on_signals).
    BySignal,
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
    /// Time of the steps, of evaluations and of what callbacks did between them.
    pub elapsed: Duration,
    /// The best evaluation, and after which step it was.
    pub best: Option<(u32, Evaluation)>,
    /// Why it ended before its last step, if it did.
    pub stopped: Option<Stopped>,
}

impl TrainingReport {
    /// Mean loss of the last `steps` steps.
    pub fn mean_of_last(&self, steps: usize) -> f64 {
        let last = &self.losses[self.losses.len().saturating_sub(steps)..];
        last.iter().sum::<f64>() / last.len() as f64
    }
}

type IsFrozen<'m> = Box<dyn Fn(&str) -> bool + 'm>;
type Evaluate<'m, M> = Box<dyn FnMut(&M) -> Result<Evaluation> + 'm>;

/// Trains a model. Every knob is a builder method; the defaults are BERT's.
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
///     .directory("runs/sst2")      // checkpoints; with `resume` it goes on where they end
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
}

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
            batching: Batching { limit: Limit::Examples(32), by_length: false, accumulate: 1 },
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

    /// Examples in a batch.
    pub fn batch_size(mut self, examples: usize) -> Trainer<'m, M> {
        self.batching.limit = Limit::Examples(examples);
        self
    }

    /// In the place of a number of examples: as many in a batch as have at most so many tokens together, but at least
    /// one. Steps then take about the same time and memory, whatever the lengths are.
    pub fn batch_tokens(mut self, tokens: usize) -> Trainer<'m, M> {
        self.batching.limit = Limit::Tokens(tokens);
        self
    }

    /// Puts examples of about the same length into a batch. Nothing is padded here, so it saves no time but in
    /// attention; it is for recipes that have it.
    pub fn group_by_length(mut self) -> Trainer<'m, M> {
        self.batching.by_length = true;
        self
    }

    /// Makes a step of so many batches: it is a step of a batch of their sum, in the memory of one. The last step of an
    /// epoch has what is left.
    pub fn accumulate(mut self, batches: usize) -> Trainer<'m, M> {
        self.batching.accumulate = batches;
        self
    }

    /// How long to train.
    pub fn budget(self, budget: Budget) -> Trainer<'m, M> {
        Trainer { budget, ..self }
    }

    /// Trains for this many passes over the data. How many steps that is, is counted by going through the order of each.
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

    /// Leaves parameters as they are: those whose name `is_frozen`, as `|name| name.starts_with("bert.embeddings.")`.
    pub fn freeze(self, is_frozen: impl Fn(&str) -> bool + 'm) -> Trainer<'m, M> {
        Trainer { frozen: Some(Box::new(is_frozen)), ..self }
    }

    /// Keeps an exponential moving average of the parameters, of which each step keeps the part `decay`. It is what is
    /// evaluated, and what the model has at the end ([`Optimizer::with_average`](crate::Optimizer::with_average)).
    pub fn average(self, decay: f64) -> Trainer<'m, M> {
        Trainer { average: Some(decay), ..self }
    }

    /// Another setting that the run depends on and the trainer cannot see, as the dropout of the model: the report shows it,
    /// and to [resume](Trainer::resume) the run with another value is an error. A name that the trainer has itself, as
    /// `seed`, stays its own.
    pub fn setting(mut self, name: impl Into<String>, value: impl ToString) -> Trainer<'m, M> {
        self.settings.insert(name.into(), value.to_string());
        self
    }

    /// Evaluates the model now and then. Callbacks, the display and the report see what was found.
    pub fn evaluate(self, every: Every, evaluate: impl FnMut(&M) -> Result<Evaluation> + 'm) -> Trainer<'m, M> {
        Trainer { evaluate: Some((every, Box::new(evaluate))), ..self }
    }

    /// At the end the model is the one of the best evaluation, by its first number.
    pub fn keep_best(self) -> Trainer<'m, M> {
        Trainer { keep_best: true, ..self }
    }

    /// Ends the run when so many evaluations, one after the other, were no better than the best before them; and
    /// [keeps the best](Trainer::keep_best).
    pub fn early_stopping(self, patience: u32) -> Trainer<'m, M> {
        Trainer { patience: Some(patience), keep_best: true, ..self }
    }

    /// The directory of the run, which is made if need be. In it are the checkpoints, a [log](crate::RunLog) of every step
    /// and evaluation (`metrics.jsonl`, and files for TensorBoard) and, when the run has ended, `report.html`, a page with
    /// its curves, settings and times. One run at a time.
    pub fn directory(self, path: impl AsRef<Path>) -> Trainer<'m, M> {
        Trainer { directory: Some(path.as_ref().to_path_buf()), ..self }
    }

    /// Where the [report](crate::RunReport) goes when the run has ended, an HTML page, in the place of the directory's
    /// `report.html`. Without a directory it is of what this call of [`run`](Trainer::run) trained.
    pub fn report(self, path: impl AsRef<Path>) -> Trainer<'m, M> {
        Trainer { report: Some(path.as_ref().to_path_buf()), ..self }
    }

    /// When a checkpoint is written to the directory; if nothing is said, after each epoch. The last `keep` are kept, and
    /// the best parameters beside them.
    pub fn checkpoint(self, every: Every, keep: usize) -> Trainer<'m, M> {
        Trainer { checkpoint: every, keep_checkpoints: keep, ..self }
    }

    /// Whether the run goes on from the last checkpoint of its directory, if there is one: it gives the bits of a run that
    /// was never stopped. Otherwise a directory that has one is an error.
    pub fn resume(self, resume: bool) -> Trainer<'m, M> {
        Trainer { resume, ..self }
    }

    /// At SIGINT (Ctrl-C) or SIGTERM finishes the step, writes a checkpoint if there is a directory, and ends; at a second
    /// one the process ends at once. Until the run is over these signals do nothing else in the process.
    pub fn stop_on_signals(self) -> Trainer<'m, M> {
        Trainer { signals: true, ..self }
    }

    /// Whether it is shown on standard error how far the run is: a line that is drawn anew where that is a terminal, one
    /// every half minute otherwise.
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
    /// When a setting makes no sense, the data are empty or do not fit the model, the evaluation or the callback fails;
    /// when the loss or a gradient is no finite number: says in which step, of which examples, and which operation was the
    /// first to give what is none. When the directory cannot be written, another run has it, or what is to be resumed
    /// there had other data, another model or other settings.
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

    /// How many steps [`Trainer::run`] would make on `data`. Asked for by number, they are the same run.
    ///
    /// # Errors
    /// As [`Trainer::run_with`].
    pub fn count_steps<D: DataSet>(&mut self, data: &D) -> Result<u32>
    where
        M: Learn<D::Batch>,
    {
        run::count_steps(self, data)
    }
}
