//! A run from its first step to its last, or from where it was stopped.

use std::path::Path;
use std::time::{Duration, Instant};

use cloze_tensor::{Module, Tensor};

use super::batching::Steps;
use super::checkpoint::{self, State};
use super::directory::RunDirectory;
use super::evaluation::Best;
use super::progress::Progress;
use super::settings::settings;
use super::signals::Signals;
use super::step::optimizer_step;
use super::{Budget, DataSet, Learn, Step, Stopped, Trainer, TrainingReport};
use crate::optimizer::check_clip_norm;
use crate::{Error, EvaluationRecord, Optimizer, Result, RunLog, RunRecord, RunReport, StepRecord};

/// Most steps that are timed to find how many fit into a time.
const TIMED_STEPS: usize = 20;

/// The page about a run, in its directory.
const REPORT: &str = "report.html";

type Callback<'c, M> = &'c mut dyn FnMut(&M, &Step) -> Result<()>;

pub(super) fn run<D: DataSet, M: Learn<D::Batch>>(
    mut trainer: Trainer<'_, M>,
    data: &D,
    after_step: Callback<'_, M>,
) -> Result<TrainingReport> {
    let mut optimizer = start(&mut trainer, data)?;
    let mut run = Run::begin(&mut trainer, data, &mut optimizer)?;
    run.train(data, after_step)?;
    run.finish()
}

pub(super) fn count_steps<D: DataSet, M: Learn<D::Batch>>(trainer: &mut Trainer<'_, M>, data: &D) -> Result<u32> {
    let mut optimizer = start(trainer, data)?;
    budget_steps(trainer, data, &mut optimizer)
}

/// Checks the settings and makes the optimizer.
fn start<D: DataSet, M: Learn<D::Batch>>(trainer: &mut Trainer<'_, M>, data: &D) -> Result<Optimizer> {
    trainer.batching.check()?;
    check_clip_norm(trainer.clip_norm)?;
    trainer.schedule.check()?;
    trainer.checkpoint.check("checkpoint")?;
    if let Some((every, _)) = &trainer.evaluate {
        every.check("evaluation")?;
    }
    if trainer.keep_best && trainer.evaluate.is_none() {
        return Err(Error::invalid("evaluate", "not set", "set, for the best model to be kept"));
    }
    let first = steps_of(trainer, data, 0)?.next()?;
    let batch = data.batch(&first[0], 0, 0)?;
    let mut trainable = Vec::new();
    let is_frozen = |name: &str| trainer.frozen.as_ref().is_some_and(|is_frozen| is_frozen(name));
    trainer.model.visit("", &mut |name, _| {
        if !is_frozen(name) && trainer.model.is_trainable(name, &batch) {
            trainable.push(name.to_string());
        }
    });
    let is_trainable = |name: &str| trainable.iter().any(|other| other == name);
    let optimizer = Optimizer::new(trainer.adamw.clone(), trainer.model, is_trainable)?;
    match trainer.average {
        Some(decay) => optimizer.with_average(decay),
        None => Ok(optimizer),
    }
}

/// The steps of an epoch, of which there must be some.
fn steps_of<'d, D: DataSet, M>(trainer: &Trainer<'_, M>, data: &'d D, epoch: u32) -> Result<Steps<'d, D>> {
    let mut steps = trainer.batching.steps(data, epoch)?;
    match steps.is_at_end()? {
        true => Err(Error::data("examples", format!("there is none to train on in epoch {}", epoch + 1))),
        false => Ok(steps),
    }
}

fn budget_steps<D: DataSet, M: Learn<D::Batch>>(
    trainer: &mut Trainer<'_, M>,
    data: &D,
    optimizer: &mut Optimizer,
) -> Result<u32> {
    match trainer.budget {
        Budget::Steps(steps) => Ok(steps),
        Budget::Time(time) => time_steps(trainer, time, data, optimizer),
        Budget::Epochs(epochs) => {
            let mut count = 0u32;
            for epoch in 0..epochs {
                let mut steps = steps_of(trainer, data, epoch)?;
                while !steps.next()?.is_empty() {
                    let too_many = || Error::invalid("epochs", epochs, "fewer: there are 2^32 steps or more");
                    count = count.checked_add(1).ok_or_else(too_many)?;
                }
            }
            Ok(count)
        }
    }
}

/// Times some steps at learning rate 0, which change nothing, and gives how many fit into what is left of
/// `time`. So a run of this many steps, asked for by number, is the same run.
fn time_steps<D: DataSet, M: Learn<D::Batch>>(
    trainer: &mut Trainer<'_, M>,
    time: Duration,
    data: &D,
    optimizer: &mut Optimizer,
) -> Result<u32> {
    let start = Instant::now();
    let mut seconds: Vec<f64> = Vec::new();
    let mut steps = steps_of(trainer, data, 0)?;
    while seconds.len() < TIMED_STEPS && (seconds.is_empty() || start.elapsed() < time / 4) {
        if steps.is_at_end()? {
            steps = steps_of(trainer, data, 0)?;
        }
        let (number, begun) = (seconds.len() as u32, Instant::now());
        optimizer_step(trainer, data, &steps.next()?, number, 0.0, optimizer)?;
        seconds.push(begun.elapsed().as_secs_f64());
    }
    optimizer.reset()?;
    // The first steps fill caches and pools.
    let warm = &seconds[seconds.len() / 4..];
    let a_step = (warm.iter().sum::<f64>() / warm.len() as f64).max(1e-9);
    let left = time.saturating_sub(start.elapsed()).as_secs_f64();
    Ok((left / a_step).clamp(1.0, f64::from(u32::MAX)) as u32)
}

/// A run on its way.
struct Run<'r, 'm, M> {
    trainer: &'r mut Trainer<'m, M>,
    optimizer: &'r mut Optimizer,
    directory: Option<RunDirectory>,
    log: Option<RunLog>,
    /// What is reported where there is no log to read it from.
    record: RunRecord,
    state: State,
    /// The best parameters, where there is no directory to keep them in.
    best: Option<Tensor>,
    stopped: Option<Stopped>,
    begun: Instant,
}

impl<'r, 'm, M: Module> Run<'r, 'm, M> {
    /// A run that begins, or goes on from the last checkpoint of its directory.
    fn begin<D: DataSet>(
        trainer: &'r mut Trainer<'m, M>,
        data: &D,
        optimizer: &'r mut Optimizer,
    ) -> Result<Run<'r, 'm, M>>
    where
        M: Learn<D::Batch>,
    {
        let directory = trainer.directory.as_deref().map(RunDirectory::open).transpose()?;
        let settings = settings(trainer, data);
        let last = match &directory {
            Some(directory) => directory.checkpoints()?.pop(),
            None => None,
        };
        let state = match (last, &directory) {
            (Some((_, folder)), _) if trainer.resume => {
                let state = State::restore(&folder, &settings, trainer.model, optimizer)?;
                if !matches!(trainer.budget, Budget::Time(_)) {
                    let steps = budget_steps(trainer, data, optimizer)?;
                    if steps != state.steps {
                        let why =
                            format!("{steps} steps are asked for, but the run here was begun for {}", state.steps);
                        return Err(Error::data_in(folder, "resume", why));
                    }
                }
                state
            }
            (Some((step, _)), Some(directory)) => {
                let why = format!("there is a run already, after step {step}: resume it, or choose another directory");
                return Err(Error::data_in(directory.path(), "run", why));
            }
            _ => State::new(budget_steps(trainer, data, optimizer)?, settings),
        };
        let log = directory.as_ref().map(|directory| RunLog::resume(directory.path(), state.step)).transpose()?;
        let record = RunRecord::default();
        Ok(Run { trainer, optimizer, directory, log, record, state, best: None, stopped: None, begun: Instant::now() })
    }

    fn train<D: DataSet>(&mut self, data: &D, after_step: Callback<'_, M>) -> Result<()>
    where
        M: Learn<D::Batch>,
    {
        let signals = Signals::watch(self.trainer.signals)?;
        let before = self.state.elapsed();
        let shown = self.trainer.progress;
        let mut progress = Progress::new(self.state.steps, (self.state.step, self.state.tokens), shown);
        let mut steps = None;
        while self.state.step < self.state.steps && !self.is_patience_over() {
            let mut of_epoch = match steps.take() {
                Some(steps) => steps,
                None => {
                    let mut steps = steps_of(self.trainer, data, self.state.epoch)?;
                    steps.skip(self.state.in_epoch)?;
                    steps
                }
            };
            let examples = of_epoch.next()?;
            let number = self.state.step;
            let factor = self.trainer.schedule.factor(number, self.state.steps);
            let learning_rate = self.trainer.adamw.learning_rate * factor;
            let found = optimizer_step(self.trainer, data, &examples, number, learning_rate, self.optimizer);
            let found = found.map_err(|error| self.with_last_checkpoint(error))?;

            let state = &mut self.state;
            (state.step, state.in_epoch, state.tokens) = (number + 1, state.in_epoch + 1, state.tokens + found.tokens);
            state.losses.push(found.loss);
            let (epoch, is_last) = (state.epoch + 1, state.step == state.steps);
            let ends = of_epoch.is_at_end()?;
            if ends {
                (state.epoch, state.in_epoch) = (epoch, 0);
            } else {
                steps = Some(of_epoch);
            }
            let evaluation = self.evaluate(ends, is_last)?;
            let elapsed = before + self.begun.elapsed();
            self.state.seconds = elapsed.as_secs_f64();
            let step = Step {
                step: self.state.step,
                steps: self.state.steps,
                epoch,
                epoch_ends: ends || is_last,
                loss: found.loss,
                learning_rate,
                gradient_norm: found.gradient_norm,
                tokens: self.state.tokens,
                elapsed,
                evaluation,
            };
            self.write_down(&step)?;
            progress.update(&step);
            progress.aside(|| after_step(self.trainer.model, &step))?;
            let stops = signals.came();
            if stops || self.trainer.checkpoint.is_due(step.step, ends, is_last || self.is_patience_over()) {
                self.save()?;
            }
            if stops {
                self.stopped = (!is_last).then_some(Stopped::BySignal);
                break;
            }
        }
        if self.state.step < self.state.steps && self.stopped.is_none() {
            self.stopped = Some(Stopped::Early);
        }
        progress.finish();
        Ok(())
    }

    /// Adds a step to the log of the directory, or to what is reported without one.
    fn write_down(&mut self, step: &Step) -> Result<()> {
        let record = StepRecord {
            step: step.step,
            epoch: step.epoch,
            loss: step.loss,
            learning_rate: step.learning_rate,
            gradient_norm: step.gradient_norm,
            tokens: step.tokens as u64,
            elapsed: step.elapsed.as_secs_f64(),
        };
        let metrics = step.evaluation.as_ref().map(super::Evaluation::metrics);
        if let Some(log) = &mut self.log {
            log.step(&record)?;
            metrics.map_or(Ok(()), |metrics| log.evaluation(step.step, metrics))?;
        } else if self.trainer.report.is_some() {
            self.record.steps.push(record);
            let evaluation = metrics.map(|metrics| EvaluationRecord { step: step.step, values: metrics.to_vec() });
            self.record.evaluations.extend(evaluation);
        }
        Ok(())
    }

    /// Evaluates, if it is time to.
    fn evaluate(&mut self, epoch_ends: bool, is_last: bool) -> Result<Option<super::Evaluation>> {
        let Some((every, evaluate)) = &mut self.trainer.evaluate else { return Ok(None) };
        if !every.is_due(self.state.step, epoch_ends, is_last) {
            return Ok(None);
        }
        let averaged = self.optimizer.swap_average(self.trainer.model)?;
        let evaluation = evaluate(self.trainer.model)?;
        if Best::update(&mut self.state.best, self.state.step, &evaluation) && self.trainer.keep_best {
            match &self.directory {
                Some(directory) => checkpoint::save_best(directory, self.trainer.model, self.optimizer)?,
                None => self.best = Some(self.optimizer.copy_parameters()?),
            }
        }
        if averaged {
            self.optimizer.swap_average(self.trainer.model)?;
        }
        self.state.confusion = evaluation.confusion_matrix().cloned();
        Ok(Some(evaluation))
    }

    fn is_patience_over(&self) -> bool {
        let since = self.state.best.as_ref().map_or(0, |best| best.since);
        self.trainer.patience.is_some_and(|patience| since >= patience)
    }

    fn save(&self) -> Result<()> {
        let Some(directory) = &self.directory else { return Ok(()) };
        let write = |folder: &std::path::Path| self.state.save(folder, self.trainer.model, self.optimizer);
        directory.add(self.state.step, self.trainer.keep_checkpoints, write)?;
        Ok(())
    }

    /// Where to go on after an error, if there is a checkpoint.
    fn with_last_checkpoint(&self, error: Error) -> Error {
        let last = self.directory.as_ref().and_then(|directory| directory.checkpoints().ok()?.pop());
        match last {
            Some((step, folder)) => {
                error.with_note(format!("the last checkpoint is of step {step}: {}", folder.display()))
            }
            None => error,
        }
    }

    /// Writes the page about the run, if there is a place for it.
    fn write_report(&self) -> Result<()> {
        let directory = self.directory.as_ref().map(RunDirectory::path);
        let path = match (&self.trainer.report, directory) {
            (Some(path), _) => path.clone(),
            (None, Some(directory)) => directory.join(REPORT),
            (None, None) => return Ok(()),
        };
        let logged = directory.map(RunLog::read).transpose()?;
        let record = logged.as_ref().unwrap_or(&self.record);
        let name = directory.map_or_else(|| path.file_stem(), Path::file_name);
        let title = name.map_or("run".into(), |name| name.to_string_lossy().into_owned());
        let settings = self.state.settings.iter().map(|(name, value)| (name.clone(), value.clone()));
        let mut report = RunReport::new(title, record).settings(settings);
        if let Some(best) = &self.state.best {
            report = report.note(format!("The best evaluation was after step {}: {}.", best.step, best.evaluation));
        }
        if let Some((labels, counts)) = &self.state.confusion {
            report = report.confusion(labels, counts);
        }
        report.save(path)
    }

    /// Gives the model what it is to have at the end, unless the run is to be resumed.
    fn finish(self) -> Result<TrainingReport> {
        self.write_report()?;
        let (state, model) = (self.state, &mut *self.trainer.model);
        if self.stopped != Some(Stopped::BySignal) {
            let file = self.directory.as_ref().map(RunDirectory::best).filter(|path| path.exists());
            match (self.trainer.keep_best && state.best.is_some(), file, self.best) {
                (true, Some(file), _) => {
                    self.optimizer.set_parameters(model, &cloze_tensor::TensorFile::open(file)?, "")?;
                }
                (true, None, Some(best)) => self.optimizer.paste_parameters(model, &best)?,
                _ => {
                    self.optimizer.swap_average(model)?;
                }
            }
        }
        Ok(TrainingReport {
            epochs: state.epoch + u32::from(state.in_epoch > 0),
            tokens: state.tokens,
            elapsed: state.elapsed(),
            best: state.best.map(|best| (best.step, best.evaluation)),
            losses: state.losses,
            stopped: self.stopped,
        })
    }
}
