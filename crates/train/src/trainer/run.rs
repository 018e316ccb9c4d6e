//! A run, from its first step or its last checkpoint to its end.

use std::path::Path;
use std::time::{Duration, Instant};

use cloze_tensor::{Module, Tensor};

use super::alike;
use super::batching::Steps;
use super::budget::{budget_steps, epoch_steps};
use super::checkpoint::{self, State};
use super::directory::{RunDirectory, WholeCheckpoint};
use super::evaluation::Best;
use super::memory::predict;
use super::progress::RunProgress;
use super::ranks::{check_steps, end_job, of_rank_0};
use super::settings::settings;
use super::shards;
use super::share::share_of;
use super::signals::Signals;
use super::step::optimizer_step;
use super::{Budget, DataSet, Learn, Resumed, Step, Stopped, Trainer, TrainingReport};
use crate::memory::{Bytes, peak};
use crate::optimizer::{SavedTensors, check_clip_norm};
use crate::{Error, EvaluationRecord, Optimizer, RankMemory, Result, RunLog, RunRecord, RunReport, StepRecord};

/// The file name of the report in a run directory.
const REPORT: &str = "report.html";

type Callback<'c, M> = &'c mut dyn FnMut(&M, &Step) -> Result<()>;

pub(super) fn run<D: DataSet, M: Learn<D::Batch>>(
    trainer: Trainer<'_, M>,
    data: &D,
    after_step: Callback<'_, M>,
) -> Result<TrainingReport> {
    let ranks = trainer.ranks.clone();
    run_rank(trainer, data, after_step).inspect_err(|error| end_job(&*ranks, error))
}

fn run_rank<D: DataSet, M: Learn<D::Batch>>(
    mut trainer: Trainer<'_, M>,
    data: &D,
    after_step: Callback<'_, M>,
) -> Result<TrainingReport> {
    let trainable = prepare(&mut trainer, data)?;
    let predicted = if trainer.check_memory { predict(&mut trainer, data, &trainable)? } else { None };
    let mut optimizer = make_optimizer(&mut trainer, &trainable)?;
    let mut run = Run::start(&mut trainer, data, &mut optimizer, predicted)?;
    run.train(data, after_step)?;
    run.finish()
}

pub(super) fn count_steps<D: DataSet, M: Learn<D::Batch>>(trainer: &mut Trainer<'_, M>, data: &D) -> Result<u32> {
    let mut count = || {
        let trainable = prepare(trainer, data)?;
        let mut optimizer = make_optimizer(trainer, &trainable)?;
        budget_steps(trainer, data, &mut optimizer)
    };
    let counted = count();
    counted.inspect_err(|error| end_job(&*trainer.ranks, error))
}

/// Checks the settings and returns the names of the parameters that train.
fn prepare<D: DataSet, M: Learn<D::Batch>>(trainer: &mut Trainer<'_, M>, data: &D) -> Result<Vec<String>> {
    trainer.batching.check()?;
    check_clip_norm(trainer.clip_norm)?;
    trainer.schedule.check()?;
    trainer.checkpoint.check("checkpoint")?;
    if let Some((every, _)) = &trainer.evaluate {
        every.check("evaluation")?;
    }
    if trainer.keep_best && trainer.evaluate.is_none() {
        return Err(Error::invalid("evaluate", "not set", "set to keep the best model"));
    }
    alike::check(trainer, data)?;
    let first = epoch_steps(trainer, data, 0, 0, 0)?.next()?;
    check_steps(trainer, &first, trainer.model.compares_examples())?;
    let first = &share_of(data, first, (0, 1), false).batches[0];
    let batch = data.batch(&first.examples, 0, &first.sequences)?;
    let is_frozen = |name: &str| trainer.frozen.as_ref().is_some_and(|is_frozen| is_frozen(name));
    let mut trainable = Vec::new();
    trainer.model.visit("", &mut |name, _| {
        if !is_frozen(name) && trainer.model.is_trainable(name, &batch) {
            trainable.push(name.to_string());
        }
    });
    Ok(trainable)
}

fn make_optimizer<M: Module>(trainer: &mut Trainer<'_, M>, trainable: &[String]) -> Result<Optimizer> {
    let is_trainable = |name: &str| trainable.iter().any(|other| other == name);
    let job = (trainer.ranks.clone(), trainer.reduce_dtype);
    let optimizer = Optimizer::make(trainer.adamw.clone(), trainer.model, is_trainable, Some(job))?;
    match trainer.average {
        Some(decay) => optimizer.with_average(decay),
        None => Ok(optimizer),
    }
}

/// A run in progress.
struct Run<'r, 'm, M> {
    trainer: &'r mut Trainer<'m, M>,
    optimizer: &'r mut Optimizer,
    directory: Option<RunDirectory>,
    log: Option<RunLog>,
    /// The record for the report of a run without a directory, which has no log to read it from.
    record: RunRecord,
    state: State,
    resumed: Option<Resumed>,
    /// The best parameters of a run without a directory.
    best: Option<Tensor>,
    stopped: Option<Stopped>,
    start: Instant,
    predicted: Option<RankMemory>,
    /// The time that the run took before it was resumed.
    elapsed_before: Duration,
}

impl<'r, 'm, M: Module> Run<'r, 'm, M> {
    /// Starts a run, or resumes it from the last checkpoint of its directory.
    fn start<D: DataSet>(
        trainer: &'r mut Trainer<'m, M>,
        data: &D,
        optimizer: &'r mut Optimizer,
        predicted: Option<RankMemory>,
    ) -> Result<Run<'r, 'm, M>>
    where
        M: Learn<D::Batch>,
    {
        let path = trainer.directory.as_deref().filter(|_| trainer.ranks.rank() == 0);
        let directory = path.map(RunDirectory::open).transpose()?;
        let (state, resumed) = first_state(trainer, data, optimizer, directory.as_ref())?;
        if let Some(resumed) = resumed.as_ref().filter(|resumed| trainer.progress && !resumed.damages.is_empty()) {
            eprintln!("{resumed}");
        }
        let log = directory.as_ref().map(|directory| RunLog::resume(directory.path(), state.step)).transpose()?;
        Ok(Run {
            trainer,
            optimizer,
            directory,
            log,
            record: RunRecord::default(),
            elapsed_before: state.elapsed(),
            state,
            resumed,
            best: None,
            stopped: None,
            start: Instant::now(),
            predicted,
        })
    }

    fn train<D: DataSet>(&mut self, data: &D, after_step: Callback<'_, M>) -> Result<()>
    where
        M: Learn<D::Batch>,
    {
        let signals = Signals::watch(self.trainer.signals)?;
        let before = (self.state.step, self.state.tokens);
        let ranks = self.trainer.ranks.clone();
        let mut progress = RunProgress::new(self.state.steps, before, self.trainer.progress && ranks.rank() == 0);
        let mut epoch = None;
        while self.state.step < self.state.steps && !self.is_patience_over() {
            let mut steps = match epoch.take() {
                Some(steps) => steps,
                None => self.rest_of_epoch(data)?,
            };
            let (step, stops) = self.step(data, &mut steps, signals.arrived())?;
            if !step.epoch_ends {
                epoch = Some(steps);
            }
            self.write_down(&step)?;
            progress.update(&step);
            progress.aside(|| after_step(self.trainer.model, &step))?;
            // Several ranks must stop after the same step, so a signal counts from the start of the next one.
            let has_signal = if ranks.size() == 1 { signals.arrived() } else { stops };
            let is_last = step.step == step.steps;
            let ends = is_last || self.is_patience_over();
            if has_signal || self.trainer.checkpoint.is_due(step.step, step.epoch_ends, ends) {
                self.save()?;
            }
            if has_signal {
                self.stopped = (!is_last).then_some(Stopped::BySignal);
                break;
            }
        }
        if self.state.step < self.state.steps && self.stopped.is_none() {
            self.stopped = Some(Stopped::Early);
        }
        let has_trained = self.state.step > before.0;
        progress.finish(&if has_trained { self.memory_line() } else { String::new() });
        Ok(())
    }

    /// Returns the most memory that the process had so far or, for a model on a GPU, its tensors there.
    fn peak_memory(&self) -> Option<u64> {
        let device = self.optimizer.device();
        if device.is_cpu() { peak() } else { Some(device.memory_use().peak as u64) }
    }

    /// Says the memory of the run, as far as it is known.
    fn memory_line(&self) -> String {
        let peak = self.peak_memory().map(|bytes| format!("peak memory {}", Bytes(bytes)));
        let predicted = self.predicted.map(|memory| format!("predicted {}", Bytes(memory.total())));
        peak.into_iter().chain(predicted).collect::<Vec<_>>().join(", ")
    }

    /// Returns the steps of the current epoch that are not made yet.
    fn rest_of_epoch<'d, D: DataSet>(&self, data: &'d D) -> Result<Steps<'d, D>> {
        let State { step, steps, epoch, in_epoch, .. } = self.state;
        let ramp_steps = self.trainer.batching.ramp_steps(steps);
        let mut steps = epoch_steps(self.trainer, data, epoch, step - in_epoch, ramp_steps)?;
        steps.skip(in_epoch)?;
        Ok(steps)
    }

    /// Makes one optimizer step and evaluates if it is time to. Also returns whether a rank, of which this one `stops` or
    /// not, was asked to stop.
    fn step<D: DataSet>(&mut self, data: &D, steps: &mut Steps<'_, D>, stops: bool) -> Result<(Step, bool)>
    where
        M: Learn<D::Batch>,
    {
        let (examples, number) = (steps.next()?, self.state.step);
        let learning_rate = self.trainer.adamw.learning_rate * self.trainer.schedule.factor(number, self.state.steps);
        let result = optimizer_step(self.trainer, data, examples, (number, learning_rate, stops), self.optimizer)
            .map_err(|error| self.with_last_checkpoint(error))?;

        let state = &mut self.state;
        (state.step, state.in_epoch, state.tokens) = (number + 1, state.in_epoch + 1, state.tokens + result.tokens);
        state.losses.push(result.loss);
        let (epoch, is_last) = (state.epoch + 1, state.step == state.steps);
        let is_epoch_over = steps.is_at_end()?;
        if is_epoch_over {
            (state.epoch, state.in_epoch) = (epoch, 0);
        }
        let evaluation = self.evaluate(is_epoch_over, is_last)?;
        let elapsed = self.elapsed_before + self.start.elapsed();
        self.state.seconds = elapsed.as_secs_f64();
        let step = Step {
            step: self.state.step,
            steps: self.state.steps,
            epoch,
            epoch_ends: is_epoch_over || is_last,
            loss: result.loss,
            learning_rate,
            gradient_norm: result.gradient_norm,
            tokens: self.state.tokens,
            elapsed,
            evaluation,
        };
        Ok((step, result.stops))
    }

    /// Appends a step to the log or, without a directory, to the record for the report.
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

    /// Evaluates the model if it is due, and keeps its parameters if they are the best.
    fn evaluate(&mut self, epoch_ends: bool, is_last: bool) -> Result<Option<super::Evaluation>> {
        let Some((every, evaluate)) = &mut self.trainer.evaluate else { return Ok(None) };
        if !every.is_due(self.state.step, epoch_ends, is_last) {
            return Ok(None);
        }
        let averaged = self.optimizer.swap_average(self.trainer.model)?;
        let ranks = &*self.trainer.ranks;
        let own = if ranks.rank() == 0 { Some(evaluate(self.trainer.model)?) } else { None };
        let evaluation = of_rank_0(ranks, own)?;
        if Best::update(&mut self.state.best, self.state.step, &evaluation) && self.trainer.keep_best {
            match &self.directory {
                Some(directory) => checkpoint::save_best(directory, self.trainer.model, self.optimizer)?,
                // Rank 0 has the file.
                None if self.trainer.directory.is_some() => {}
                None => self.best = Some(self.optimizer.copy_parameters()?),
            }
        }
        if averaged {
            self.optimizer.swap_average(self.trainer.model)?;
        }
        self.state.confusion = evaluation.confusion_matrix().cloned();
        self.state.evaluations.push((self.state.step, evaluation.without_confusion_matrix()));
        Ok(Some(evaluation))
    }

    fn is_patience_over(&self) -> bool {
        let since = self.state.best.as_ref().map_or(0, |best| best.since);
        self.trainer.patience.is_some_and(|patience| since >= patience)
    }

    fn save(&self) -> Result<()> {
        let (step, ranks) = (self.state.step, &*self.trainer.ranks);
        let Some(path) = &self.trainer.directory else { return Ok(()) };
        let Some(directory) = &self.directory else {
            shards::write(&RunDirectory::unfinished(path, step), self.optimizer, ranks)?;
            return Ok(());
        };
        let write = |folder: &Path| {
            let sums = shards::write(folder, self.optimizer, ranks)?;
            self.state.save(folder, self.trainer.model, self.optimizer)?;
            directory.add_best(folder)?;
            Ok(sums)
        };
        // The log goes on from the checkpoint, so it must reach the disk with it.
        self.log.as_ref().map_or(Ok(()), RunLog::sync)?;
        directory.add(step, self.trainer.keep_checkpoints, write)?;
        Ok(())
    }

    /// Adds the last checkpoint to an error, if there is one.
    fn with_last_checkpoint(&self, error: Error) -> Error {
        match self.directory.as_ref().map_or(Ok(None), RunDirectory::last_checkpoint) {
            Ok(Some((step, folder))) => {
                error.with_note(format!("the last checkpoint is of step {step}: {}", folder.display()))
            }
            _ => error,
        }
    }

    /// Writes the report if the run has a path for it.
    fn write_report(&self) -> Result<()> {
        if self.trainer.ranks.rank() > 0 {
            return Ok(());
        }
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
        if let Some(resumed) = self.resumed.as_ref().filter(|resumed| !resumed.damages.is_empty()) {
            report = report.note(format!("The run {resumed}."));
        }
        let memory = self.memory_line();
        if !memory.is_empty() {
            report = report.note(format!("Memory: {memory}."));
        }
        if let Some((labels, counts)) = &self.state.confusion {
            report = report.confusion(labels, counts);
        }
        report.save(path)
    }

    /// Gives the model its final parameters, unless a signal stopped the run and it can be resumed.
    fn finish(self) -> Result<TrainingReport> {
        self.write_report()?;
        let (peak_memory, predicted_memory) = (self.peak_memory(), self.predicted);
        let (state, model) = (self.state, &mut *self.trainer.model);
        if self.stopped != Some(Stopped::BySignal) {
            // The ranks without the file receive the parameters from rank 0.
            let file = self.directory.as_ref().map_or(Ok(None), RunDirectory::existing_best)?;
            match (self.trainer.keep_best && state.best.is_some(), file, self.best) {
                (true, Some(file), _) => {
                    let saved = SavedTensors::open(&file, std::slice::from_ref(&file))?;
                    self.optimizer.set_parameters(model, &saved, "")?;
                }
                (true, None, Some(best)) => self.optimizer.paste_parameters(model, &best)?,
                _ => {
                    self.optimizer.swap_average(model)?;
                }
            }
        }
        self.optimizer.broadcast_parameters(model)?;
        Ok(TrainingReport {
            epochs: state.epoch + u32::from(state.in_epoch > 0),
            tokens: state.tokens,
            elapsed: state.elapsed(),
            best: state.best.map(|best| (best.step, best.evaluation)),
            evaluations: state.evaluations,
            losses: state.losses,
            resumed: self.resumed,
            stopped: self.stopped,
            predicted_memory,
            peak_memory,
        })
    }
}

/// Returns the state that the run starts from: its last whole checkpoint if it resumes, or that of a new run.
fn first_state<D: DataSet, M: Learn<D::Batch>>(
    trainer: &mut Trainer<'_, M>,
    data: &D,
    optimizer: &mut Optimizer,
    directory: Option<&RunDirectory>,
) -> Result<(State, Option<Resumed>)> {
    let settings = settings(trainer, data);
    let found = with_checkpoint(directory)?;
    if let Some((_, WholeCheckpoint { step, folder, .. })) = found.as_ref().filter(|_| !trainer.resume) {
        let why = format!("the directory has a run already, at step {step}: resume it or choose another directory");
        return Err(Error::data_in(folder, "run", why));
    }
    let mut is_resumed = [u8::from(found.is_some())];
    trainer.ranks.broadcast(&mut is_resumed, 0)?;
    if is_resumed == [0] {
        return Ok((State::new(budget_steps(trainer, data, optimizer)?, settings), None));
    }
    let folder = found.as_ref().map(|(_, checkpoint)| &*checkpoint.folder);
    let state = State::restore(folder, &settings, trainer.model, optimizer, &*trainer.ranks)?;
    if let Some((directory, checkpoint)) = &found {
        directory.restore_best(&checkpoint.folder)?;
        directory.keep_last(checkpoint.step, trainer.keep_checkpoints)?;
    }
    if !matches!(trainer.budget, Budget::Time(_)) {
        let steps = budget_steps(trainer, data, optimizer)?;
        if steps != state.steps {
            let why = format!("the run has {} steps, {steps} were asked for", state.steps);
            return Err(Error::data_in(folder.unwrap_or(Path::new("")), "resume", why));
        }
    }
    let damages = found.iter().flat_map(|(_, checkpoint)| &checkpoint.damages).map(Error::to_string).collect();
    let resumed = Resumed { step: state.step, damages };
    Ok((state, Some(resumed)))
}

/// Returns a run directory with its last whole checkpoint, if it has checkpoints.
fn with_checkpoint(directory: Option<&RunDirectory>) -> Result<Option<(&RunDirectory, WholeCheckpoint)>> {
    let Some(directory) = directory else { return Ok(None) };
    Ok(directory.last_whole_checkpoint()?.map(|checkpoint| (directory, checkpoint)))
}
