//! The trainer, on a tiny model and corpus.

mod common;

use std::cell::Cell;
use std::time::Duration;

use cloze_bert::{BertConfig, BertForPreTraining, Mode, PreTrainedModel, Tokenizer, TrainOptions};
use cloze_tensor::random::{Purpose, Stream};
use cloze_tensor::{Module, module};
use cloze_train::{
    AdamW, Budget, Corpus, DataSet, Learn, LossTerm, MaskedExample, Masking, PreTraining, PreTrainingBatch,
    PreTrainingEvaluation, Schedule, Trainer, Unigram,
};

use common::device;

type Result<T = ()> = std::result::Result<T, Box<dyn std::error::Error>>;

/// Makes documents of invented words in which each word determines the next one.
fn data() -> Result<(PreTraining, BertConfig)> {
    let mut stream = Stream::new(1, Purpose::User, 0, 0, 0);
    let mut sentence = || {
        let first = stream.below(12);
        (0..6).map(|i| format!("w{}", (first + i) % 12)).collect::<Vec<_>>().join(" ")
    };
    let documents: Vec<Vec<String>> = (0..4).map(|_| (0..20).map(|_| sentence()).collect()).collect();
    let tokenizer = Tokenizer::train(documents.concat(), 80, &TrainOptions::new())?;
    let data = PreTraining::new(&Corpus::from_documents(documents)?, &tokenizer)?.seq_len(24).seed(2);
    let config = BertConfig {
        hidden_size: 16,
        num_hidden_layers: 1,
        num_attention_heads: 2,
        intermediate_size: 32,
        max_position_embeddings: 24,
        ..BertConfig::tiny(tokenizer.vocab_size())
    };
    Ok((data, config))
}

/// A model that counts its forward passes, and whose loss is NaN from one of them on.
struct Watched {
    model: BertForPreTraining,
    forwards: Cell<u32>,
    broken_from: u32,
}
module!(Watched { model });

impl Watched {
    fn new(config: &BertConfig) -> Result<Watched> {
        let model = BertForPreTraining::new(config, &device(), 1)?;
        Ok(Watched { model, forwards: Cell::new(0), broken_from: u32::MAX })
    }
}

impl Learn<PreTrainingBatch> for Watched {
    fn total_weights(&self, batch: &PreTrainingBatch) -> Vec<f64> {
        Learn::total_weights(&self.model, batch)
    }

    fn loss_terms(&self, batch: &PreTrainingBatch, mode: Mode) -> cloze_train::Result<Vec<LossTerm>> {
        let number = self.forwards.replace(self.forwards.get() + 1);
        let mut terms = self.model.loss_terms(batch, mode)?;
        if let LossTerm::CrossEntropy { logits, .. } = &mut terms[0]
            && number >= self.broken_from
        {
            *logits = logits.mul_scalar(f64::NAN)?;
        }
        Ok(terms)
    }
}

fn trainer<M: Module>(model: &mut M) -> Trainer<'_, M> {
    Trainer::new(model).optimizer(AdamW::new(3e-3)).batch_size(8).seed(3).progress(false)
}

fn bits(model: &impl Module) -> Result<Vec<u32>> {
    let mut bits = Vec::new();
    for (_, tensor) in model.named_parameters() {
        bits.extend(tensor.to_vec::<f32>()?.into_iter().map(f32::to_bits));
    }
    Ok(bits)
}

#[test]
fn a_run_with_a_time_budget_equals_one_with_as_many_steps() -> Result {
    let (data, config) = data()?;
    let mut timed = BertForPreTraining::new(&config, &device(), 1)?;
    let mut steps = 0;
    let time = Budget::Time(Duration::from_millis(250));
    let report = trainer(&mut timed).budget(time).run_with(&data, |_, step| {
        steps = step.steps;
        Ok(())
    })?;
    assert_eq!(report.losses.len(), steps as usize);
    let mut counted = BertForPreTraining::new(&config, &device(), 1)?;
    assert_eq!(trainer(&mut counted).steps(steps).run(&data)?.losses, report.losses);
    assert_eq!(bits(&timed)?, bits(&counted)?);
    Ok(())
}

#[test]
fn a_zero_time_budget_makes_one_timed_step_and_one_step() -> Result {
    let (data, config) = data()?;
    let mut model = Watched::new(&config)?;
    let report = trainer(&mut model).check_memory(false).budget(Budget::Time(Duration::ZERO)).run(&data)?;
    assert_eq!((model.forwards.get(), report.losses.len()), (2, 1));
    Ok(())
}

#[test]
fn a_batch_is_at_most_all_examples() -> Result {
    let (data, config) = data()?;
    for budget in [Budget::Time(Duration::from_millis(40)), Budget::Epochs(2), Budget::Steps(3)] {
        let mut model = BertForPreTraining::new(&config, &device(), 1)?;
        let report = trainer(&mut model).batch_size(usize::MAX).budget(budget).run(&data)?;
        assert!(!report.losses.is_empty());
    }
    Ok(())
}

#[test]
fn the_loss_falls_and_callbacks_see_every_step() -> Result {
    let (data, config) = data()?;
    let config = BertConfig { hidden_dropout_prob: 0.0, attention_probs_dropout_prob: 0.0, ..config };
    let mut model = BertForPreTraining::new(&config, &device(), 1)?;
    let mut seen = Vec::new();
    let report = trainer(&mut model).steps(150).run_with(&data, |_, step| {
        seen.push((step.step, step.steps, step.loss));
        Ok(())
    })?;
    let expected: Vec<_> = (1..).zip(&report.losses).map(|(step, &loss)| (step, 150, loss)).collect();
    assert_eq!(seen, expected);
    let first = report.losses[..20].iter().sum::<f64>() / 20.0;
    assert!(report.mean_of_last(20) < first - 0.3, "from {first} to {}", report.mean_of_last(20));
    Ok(())
}

#[test]
fn an_epoch_ends_with_its_last_step_and_with_the_run() -> Result {
    let (data, config) = data()?;
    let count = data.epoch(0)?.len();
    let batch_size = count.div_ceil(3);
    let ends = |budget| -> Result<Vec<(u32, bool)>> {
        let mut model = BertForPreTraining::new(&config, &device(), 1)?;
        let mut seen = Vec::new();
        trainer(&mut model).batch_size(batch_size).budget(budget).run_with(&data, |_, step| {
            seen.push((step.epoch, step.epoch_ends));
            Ok(())
        })?;
        Ok(seen)
    };
    let two = [(1, false), (1, false), (1, true), (2, false), (2, false), (2, true)];
    assert_eq!(ends(Budget::Epochs(2))?, two);
    assert_eq!(ends(Budget::Steps(5))?, [&two[..4], &[(2, true)]].concat());
    Ok(())
}

#[test]
fn a_head_without_labels_is_not_trained() -> Result {
    let (data, config) = data()?;
    let data = data.next_sentence(false);
    let mut model = BertForPreTraining::new(&config, &device(), 1)?;
    let head = |model: &BertForPreTraining| (bits(&model.cls.seq_relationship), bits(&model.bert.pooler));
    let before = (head(&model), bits(&model.cls.predictions)?);
    trainer(&mut model).steps(5).run(&data)?;
    let after = head(&model);
    assert_eq!(before.0.0?, after.0?);
    assert_eq!(before.0.1?, after.1?);
    assert_ne!(before.1, bits(&model.cls.predictions)?);
    Ok(())
}

/// A model that fails from one of its forward passes on, for a reason that a pass without values finds too.
struct Mismatched {
    model: BertForPreTraining,
    forwards: Cell<u32>,
    fails_from: u32,
}
module!(Mismatched { model });

impl Learn<PreTrainingBatch> for Mismatched {
    fn total_weights(&self, batch: &PreTrainingBatch) -> Vec<f64> {
        Learn::total_weights(&self.model, batch)
    }

    fn loss_terms(&self, batch: &PreTrainingBatch, mode: Mode) -> cloze_train::Result<Vec<LossTerm>> {
        let number = self.forwards.replace(self.forwards.get() + 1);
        if number >= self.fails_from {
            self.model.bert.embeddings.word_embeddings.weight.reshape(&[7, 1])?;
        }
        self.model.loss_terms(batch, mode)
    }
}

#[test]
fn a_step_that_fails_without_values_is_refused_before_training() -> Result {
    let (data, config) = data()?;
    let model = |fails_from| -> Result<Mismatched> {
        Ok(Mismatched { model: BertForPreTraining::new(&config, &device(), 1)?, forwards: Cell::new(0), fails_from })
    };
    let mut steps = 0;
    let mut count = |model: &mut Mismatched, checks: bool| {
        steps = 0;
        let report = trainer(model).check_memory(checks).steps(3).run_with(&data, |_, _| {
            steps += 1;
            Ok(())
        });
        (report.map(|report| report.predicted_memory.is_some()).map_err(|error| error.to_string()), steps)
    };
    let (before, mut failing) = (bits(&model(0)?)?, model(0)?);
    let (refused, steps) = count(&mut failing, true);
    let error = refused.err().ok_or("it trains")?;
    assert!(error.starts_with("memory: a step without values, which predicts it, failed: reshape: "), "{error}");
    let remedy = ": if a step with values works, check_memory(false) trains without a prediction";
    assert!(error.ends_with(remedy) && !error.contains('\n'), "{error}");
    assert_eq!((steps, bits(&failing)?), (0, before));
    // Without the check, the run gets as far as it can, and says what failed.
    let (failed, steps) = count(&mut model(2)?, false);
    let error = failed.err().ok_or("it trains")?;
    assert!(error.starts_with("reshape: "), "{error}");
    assert_eq!(steps, 2);
    assert_eq!(count(&mut model(u32::MAX)?, true), (Ok(true), 3));
    Ok(())
}

#[test]
fn a_nan_loss_ends_the_run_and_leaves_the_model_unchanged() -> Result {
    let (data, config) = data()?;
    let mut model = Watched { broken_from: 3, ..Watched::new(&config)? };
    let error = trainer(&mut model).check_memory(false).steps(10).run(&data).err().ok_or("no error")?.to_string();
    assert!(error.contains("loss") && error.contains("NaN") && error.contains("step 4"), "{error}");
    assert!(error.contains("(first: cls.predictions: mul_scalar: the result has NaN at element 0)"), "{error}");

    let mut until_then = BertForPreTraining::new(&config, &device(), 1)?;
    let mut after_three = Vec::new();
    trainer(&mut until_then).steps(10).run_with(&data, |model, step| {
        if step.step == 3 {
            after_three = bits(model).map_err(|error| cloze_train::Error::data("test", error.to_string()))?;
        }
        Ok(())
    })?;
    assert_eq!(bits(&model.model)?, after_three);

    let folder = tempfile::tempdir()?;
    model.model.save(folder.path())?;
    let read = BertForPreTraining::open(folder.path(), &device())?;
    let batch = data.batch(&data.evaluation()?[..4], 0, 0)?;
    assert!(read.loss(batch.batch(), batch.targets(), Mode::Eval)?.loss.item()?.is_finite());
    Ok(())
}

#[test]
fn invalid_settings_are_named() -> Result {
    let (data, config) = data()?;
    let mut model = BertForPreTraining::new(&config, &device(), 1)?;
    let before = bits(&model)?;
    let mut said = |change: fn(Trainer<'_, BertForPreTraining>) -> Trainer<'_, BertForPreTraining>| -> Result<String> {
        Ok(change(trainer(&mut model).steps(2)).run(&data).err().ok_or("no error")?.to_string())
    };
    assert_eq!(said(|trainer| trainer.batch_size(0))?, "batch size is 0, must be at least 1");
    assert_eq!(said(|trainer| trainer.clip_norm(f64::NAN))?, "clip_norm is NaN, must be above 0 and finite");
    assert_eq!(said(|trainer| trainer.clip_norm(0.0))?, "clip_norm is 0, must be above 0 and finite");
    let warmup = said(|trainer| trainer.schedule(Schedule::Linear { warmup: f64::NAN }))?;
    assert_eq!(warmup, "warmup is NaN, must be a fraction below 1 or a whole number of steps");
    let rate = said(|trainer| trainer.optimizer(AdamW::new(-1.0)))?;
    assert_eq!(rate, "learning rate is -1, must be at least 0 and finite");
    assert_eq!(bits(&model)?, before);
    Ok(())
}

/// A data set whose examples have no targets.
struct NoTargets(PreTraining);

impl DataSet for NoTargets {
    type Example = cloze_train::PairExample;
    type Batch = PreTrainingBatch;

    fn epoch(&self, epoch: u32) -> cloze_train::Result<impl Iterator<Item = cloze_train::Result<Self::Example>> + '_> {
        DataSet::epoch(&self.0, epoch)
    }

    fn batch(&self, examples: &[Self::Example], step: u32, numbers: &[u32]) -> cloze_train::Result<PreTrainingBatch> {
        let masked = examples.iter().zip(numbers).map(|(example, &sequence)| self.0.example(example, step, sequence));
        let masked = masked.map(|example| Ok(MaskedExample { targets: Vec::new(), ..example? }));
        PreTrainingBatch::numbered(&masked.collect::<cloze_train::Result<Vec<_>>>()?, numbers)
    }

    fn size(&self, example: &Self::Example) -> cloze_train::Size {
        self.0.size(example)
    }
}

#[test]
fn a_batch_without_targets_is_not_blamed_on_the_learning_rate() -> Result {
    let (data, config) = data()?;
    let mut model = BertForPreTraining::new(&config, &device(), 1)?;
    let error = trainer(&mut model).steps(2).run(&NoTargets(data)).err().ok_or("no error")?.to_string();
    assert!(error.contains("all 0 targets are ignored") && !error.contains("learning rate"), "{error}");
    Ok(())
}

#[test]
fn an_evaluation_without_masked_targets_is_refused() -> Result {
    let (data, config) = data()?;
    let model = BertForPreTraining::new(&config, &device(), 1)?;
    let unigram = Unigram::fit(data.corpus().ids(), config.vocab_size)?;
    let evaluate = |data: &PreTraining, count: usize| -> Result<PreTrainingEvaluation> {
        Ok(PreTrainingEvaluation::run(&model, data, &data.evaluation()?[..count], &unigram, 4)?)
    };
    assert!(evaluate(&data, 8)?.masked_loss.is_finite());
    let unmasked = data.clone().masking(Masking::bert().replacement(0.0, 1.0));
    for (data, count) in [(&unmasked, 8), (&data, 0)] {
        let error = evaluate(data, count).err().ok_or("evaluated")?.to_string();
        assert!(error.starts_with("evaluation: none of the") && error.contains("[MASK]"), "{error}");
    }
    Ok(())
}
