//! Runs that are split, stopped and resumed, on tiny models and data.

mod common;

use std::cell::Cell;
use std::path::Path;

use cloze_bert::{BertConfig, BertForSequenceClassification, BertForTokenClassification, Mode, PreTrainedModel};
use cloze_tensor::{Module, no_grad};
use cloze_train::{
    AdamW, Evaluation, Every, LabelledData, ParameterGroup, Schedule, Sequence, Stopped, Trainer, TrainingReport,
};

use common::device;

type Result<T = ()> = std::result::Result<T, Box<dyn std::error::Error>>;

fn config(labels: &[&str]) -> BertConfig {
    BertConfig {
        hidden_size: 16,
        num_hidden_layers: 2,
        num_attention_heads: 2,
        intermediate_size: 32,
        max_position_embeddings: 16,
        ..BertConfig::tiny(40)
    }
    .with_labels(labels.iter().map(|label| label.to_string()))
}

fn model() -> Result<BertForSequenceClassification> {
    Ok(BertForSequenceClassification::new(&config(&["even", "odd"]), &device(), 1)?)
}

/// Sequences of different lengths, labelled by whether most of their ids are odd.
fn data(count: usize) -> Result<LabelledData<i64>> {
    let ids = |n: usize| -> Vec<u32> { (0..3 + n * 7 % 11).map(|at| ((n * 31 + at * 17) % 40) as u32).collect() };
    let sequences: Vec<Sequence> =
        (0..count).map(ids).map(|ids| Sequence { token_types: vec![0; ids.len()], ids }).collect();
    let label = |s: &Sequence| i64::from(2 * s.ids.iter().filter(|&&id| id % 2 == 1).count() > s.ids.len());
    let labels = sequences.iter().map(label).collect();
    Ok(LabelledData::new(sequences, labels)?.seed(5))
}

fn trainer<M: Module>(model: &mut M) -> Trainer<'_, M> {
    Trainer::new(model).optimizer(AdamW::new(3e-3)).batch_size(8).seed(3).progress(false)
}

fn values(model: &impl Module) -> Result<Vec<f32>> {
    let mut values = Vec::new();
    for (_, tensor) in model.named_parameters() {
        values.extend(tensor.to_vec::<f32>()?);
    }
    Ok(values)
}

fn bits(model: &impl Module) -> Result<Vec<u32>> {
    Ok(values(model)?.into_iter().map(f32::to_bits).collect())
}

/// Returns the largest difference between the parameters of two models, relative to the largest parameter.
fn distance(a: &impl Module, b: &impl Module) -> Result<f32> {
    let (a, b) = (values(a)?, values(b)?);
    let largest = a.iter().fold(0f32, |largest, x| largest.max(x.abs()));
    Ok(a.iter().zip(&b).fold(0f32, |most, (a, b)| most.max((a - b).abs())) / largest)
}

/// AdamW settings that amount to SGD. With the usual eps, gradients that are 0 except for rounding would move weights as
/// much as any other.
fn plain() -> AdamW {
    AdamW::new(200.0).eps(1e3).weight_decay(0.0)
}

#[test]
fn accumulated_batches_are_one_batch() -> Result {
    check_accumulation(&data(40)?)
}

/// The loss of a step is divided by the weights of all its labels, however they are spread over its batches.
#[test]
fn accumulated_class_weights_are_those_of_one_batch() -> Result {
    let weighted = data(40)?.class_weights(vec![0.25, 3.0]).label_smoothing(0.2);
    check_accumulation(&weighted)?;
    // Without dropout, the first loss is that of the formula.
    let config = BertConfig { hidden_dropout_prob: 0.0, attention_probs_dropout_prob: 0.0, ..config(&["even", "odd"]) };
    let mut model = BertForSequenceClassification::new(&config, &device(), 1)?;
    let before = model.clone();
    let losses = trainer(&mut model).batch_size(40).epochs(1).run(&weighted)?.losses;
    let batch = weighted.batches(40)?.next().ok_or("no batch")??;
    let logits = no_grad(|| before.forward(&batch.batch, Mode::Eval))?.log_softmax()?.to_vec::<f32>()?;
    let (mut sum, mut weights) = (0.0, 0.0);
    for (row, &label) in logits.chunks(2).zip(weighted.labels()) {
        let target = |class: usize| if class as i64 == label { 0.9 } else { 0.1 };
        sum -= [0, 1].map(|class| target(class) * [0.25, 3.0][class] * f64::from(row[class])).iter().sum::<f64>();
        weights += [0.25, 3.0][label as usize];
    }
    assert!((losses[0] - sum / weights).abs() < 1e-5, "{}, not {}", losses[0], sum / weights);
    Ok(())
}

fn check_accumulation(data: &LabelledData<i64>) -> Result {
    let run = |batch, accumulate| -> Result<(BertForSequenceClassification, TrainingReport)> {
        let mut model = model()?;
        let trainer = trainer(&mut model).optimizer(plain()).batch_size(batch).accumulate(accumulate);
        let report = trainer.epochs(3).schedule(Schedule::Constant { warmup: 0.0 }).run(data)?;
        Ok((model, report))
    };
    let (whole, report) = run(16, 1)?;
    // 40 examples make two steps of 16 and one of 8: four, four and two batches of 4.
    for (batch, accumulate) in [(4, 4), (8, 2), (5, 4)] {
        let (split, of_split) = run(batch, accumulate)?;
        if batch == 5 {
            assert!(distance(&whole, &split)? > 1e-5, "other steps give other weights");
            continue;
        }
        assert_eq!(of_split.losses.len(), report.losses.len());
        for (a, b) in report.losses.iter().zip(&of_split.losses) {
            assert!((a - b).abs() <= 1e-5 * a, "{a} and {b}");
        }
        assert!(distance(&whole, &split)? < 1e-5, "{}", distance(&whole, &split)?);
    }
    Ok(())
}

/// Accumulates batches with many labels and batches without labels.
#[test]
fn accumulated_tokens_count_alike() -> Result {
    let sequences: Vec<Sequence> = (0..16u32).map(|n| Sequence { ids: vec![n; 4], token_types: vec![0; 4] }).collect();
    let labels: Vec<Vec<i64>> =
        (0..16).map(|n| (0..4).map(|at| if at * 4 < n - 3 { n % 2 } else { -100 }).collect()).collect();
    assert!(labels[0].iter().all(|&label| label == -100));
    let data = LabelledData::new(sequences, labels)?;
    for data in [data.clone(), data.class_weights(vec![1.0, 8.0])] {
        let run = |batch, accumulate| -> Result<BertForTokenClassification> {
            let mut model = BertForTokenClassification::new(&config(&["O", "B"]), &device(), 1)?;
            trainer(&mut model).optimizer(plain()).batch_size(batch).accumulate(accumulate).epochs(2).run(&data)?;
            Ok(model)
        };
        assert!(distance(&run(16, 1)?, &run(1, 16)?)? < 1e-5);
    }
    Ok(())
}

/// The batch with the most tokens, of which the memory is predicted, has no label. Another one of its step has.
#[test]
fn the_largest_batch_may_lack_labels() -> Result {
    let sequence = |length: u32| Sequence { ids: (0..length).collect(), token_types: vec![0; length as usize] };
    let labels: Vec<Vec<i64>> = vec![vec![-100; 9], vec![0, 1, 0], vec![1, 0, 1]];
    let data = LabelledData::new(vec![sequence(9), sequence(3), sequence(3)], labels)?;
    let mut model = BertForTokenClassification::new(&config(&["O", "B"]), &device(), 1)?;
    let report = trainer(&mut model).optimizer(plain()).batch_size(1).accumulate(3).epochs(2).run(&data)?;
    assert_eq!((report.losses.len(), report.predicted_memory.is_some()), (2, true));
    Ok(())
}

/// Trains with a checkpoint every third step and a callback that fails after step `fails_after`.
fn run_in(
    directory: &Path,
    model: &mut BertForSequenceClassification,
    data: &LabelledData<i64>,
    fails_after: u32,
) -> cloze_train::Result<TrainingReport> {
    let evaluations = Cell::new(0);
    trainer(model)
        .optimizer(AdamW::new(3e-3).layer_decay(0.9))
        .batch_size(3)
        .accumulate(2)
        .group_by_length()
        .epochs(3)
        .average(0.8)
        .evaluate(Every::Steps(2), |model| {
            evaluations.set(evaluations.get() + 1);
            // Any value that depends on all weights.
            let sum: f32 = values(model).unwrap_or_default().iter().map(|x| x.abs()).sum();
            Ok(Evaluation::maximize("odd", f64::from(sum.to_bits() % 97)))
        })
        .keep_best()
        .directory(directory)
        .checkpoint(Every::Steps(3), 2)
        .resume(true)
        .run_with(data, |_, step| match step.step == fails_after {
            true => Err(cloze_train::Error::data("test", "killed")),
            false => Ok(()),
        })
}

#[test]
fn a_resumed_run_has_the_bits_of_one_never_stopped() -> Result {
    let data = data(40)?;
    let folder = tempfile::tempdir()?;
    let mut whole = model()?;
    let report = run_in(&folder.path().join("whole"), &mut whole, &data, 0)?;
    // 40 examples, 6 per step, make 7 steps per epoch.
    assert_eq!((report.losses.len(), report.epochs), (21, 3));
    for stops in [vec![1], vec![3], vec![7], vec![8, 9], vec![4, 10, 11, 20], vec![21]] {
        let directory = folder.path().join(format!("{stops:?}"));
        for &stop in &stops {
            let error = run_in(&directory, &mut model()?, &data, stop).err().ok_or("not stopped")?.to_string();
            assert!(error.contains("killed"), "{error}");
        }
        let mut resumed = model()?;
        let found = run_in(&directory, &mut resumed, &data, 0)?;
        assert_eq!(bits(&resumed)?, bits(&whole)?, "stopped after {stops:?}");
        assert_eq!(
            (found.losses, found.best, found.evaluations, found.tokens),
            (report.losses.clone(), report.best.clone(), report.evaluations.clone(), report.tokens)
        );
        // Resuming a run that has ended changes nothing.
        let mut again = model()?;
        run_in(&directory, &mut again, &data, 0)?;
        assert_eq!(bits(&again)?, bits(&whole)?);
    }
    Ok(())
}

#[test]
fn a_run_with_nan_evaluations_can_be_resumed() -> Result {
    let (data, folder) = (data(40)?, tempfile::tempdir()?);
    let run = |until: u32| {
        let mut model = model()?;
        let trainer = trainer(&mut model).steps(4).directory(folder.path()).resume(true).checkpoint(Every::Steps(1), 2);
        let trainer = trainer.evaluate(Every::Steps(1), |_| Ok(Evaluation::maximize("Spearman", f64::NAN)));
        Ok::<_, Box<dyn std::error::Error>>(trainer.run_with(&data, |_, step| match step.step == until {
            true => Err(cloze_train::Error::data("test", "killed")),
            false => Ok(()),
        }))
    };
    assert!(run(3)?.is_err());
    let (step, best) = run(0)??.best.ok_or("no best")?;
    assert_eq!((step, best.get("Spearman").map(f64::is_nan)), (1, Some(true)));
    Ok(())
}

#[test]
fn runs_with_other_settings_are_not_resumed() -> Result {
    let (data_40, folder) = (data(40)?, tempfile::tempdir()?);
    let run = |model: &mut BertForSequenceClassification, data: &LabelledData<i64>, seed, resume| {
        trainer(model).epochs(2).seed(seed).directory(folder.path()).resume(resume).run(data)
    };
    run(&mut model()?, &data_40, 3, true)?;
    let said =
        |result: cloze_train::Result<TrainingReport>| result.err().map(|error| error.to_string()).unwrap_or_default();
    let again = said(run(&mut model()?, &data_40, 3, false));
    assert!(
        again.ends_with("run: the directory has a run already, at step 10: resume it or choose another directory"),
        "{again}"
    );
    let seed = said(run(&mut model()?, &data_40, 4, true));
    assert!(seed.contains("resume: seed is 4, the run was started with 3"), "{seed}");
    let other = said(run(&mut model()?, &data(41)?, 3, true));
    assert!(other.contains("resume: data is "), "{other}");
    let mut wider = BertForSequenceClassification::new(&config(&["a", "b", "c"]), &device(), 1)?;
    let other = said(run(&mut wider, &data_40, 3, true));
    assert!(other.contains("resume: model is "), "{other}");
    let with = |value: f64, data: &LabelledData<i64>, model: &mut BertForSequenceClassification| {
        trainer(model).setting("dropout", value).directory(folder.path().join("with")).resume(true).run(data)
    };
    with(0.1, &data_40, &mut model()?)?;
    // The setting is named before the fingerprint of the data, which differs too.
    let other = said(with(0.2, &data(41)?, &mut model()?));
    assert!(other.contains("resume: dropout is 0.2, the run was started with 0.1"), "{other}");
    let longer = said(trainer(&mut model()?).epochs(3).directory(folder.path()).resume(true).run(&data_40));
    assert!(longer.contains("the run has 10 steps, 15 were asked for"), "{longer}");
    Ok(())
}

#[test]
fn the_checkpoint_before_replaces_a_damaged_one() -> Result {
    let (data, folder) = (data(40)?, tempfile::tempdir()?);
    let mut whole = model()?;
    let report = run_in(&folder.path().join("whole"), &mut whole, &data, 0)?;
    assert_eq!(report.resumed, None);
    for file in ["state.json", "state.safetensors", "best.safetensors", "checksums.xxh128"] {
        let directory = folder.path().join(file);
        run_in(&directory, &mut model()?, &data, 13).err().ok_or("not stopped")?;
        let path = directory.join("checkpoint-00000012").join(file);
        let mut bytes = std::fs::read(&path)?;
        let middle = bytes.len() / 2;
        bytes[middle] ^= 4;
        // Not in place, because the best parameters are links.
        std::fs::remove_file(&path)?;
        std::fs::write(&path, bytes)?;
        let mut resumed = model()?;
        let found = run_in(&directory, &mut resumed, &data, 0)?;
        assert_eq!(bits(&resumed)?, bits(&whole)?, "{file}");
        assert_eq!((&found.losses, &found.best), (&report.losses, &report.best));
        assert_eq!(found.evaluations, report.evaluations);
        let from = found.resumed.ok_or("not resumed")?;
        assert_eq!((from.step, from.damages.len()), (9, 1));
        assert!(from.damages[0].contains("checkpoint-00000012/") && from.damages[0].contains(file), "{from}");
    }
    Ok(())
}

#[test]
fn early_stopping_restores_the_best_parameters() -> Result {
    let data = data(40)?;
    let mut model = model()?;
    let mut seen: Vec<Vec<u32>> = Vec::new();
    let scores = [0.1, 0.5, 0.3, 0.5, 0.4, 0.9];
    let report = trainer(&mut model)
        .epochs(9)
        .evaluate(Every::Epoch, |model| {
            seen.push(bits(model).unwrap_or_default());
            Ok(Evaluation::maximize("score", scores[seen.len() - 1]))
        })
        .early_stopping(3)
        .run(&data)?;
    assert_eq!((report.stopped, report.losses.len()), (Some(Stopped::Early), 25));
    assert_eq!(report.best, Some((10, Evaluation::maximize("score", 0.5))));
    assert_eq!(bits(&model)?, seen[1]);
    Ok(())
}

#[test]
fn the_average_is_evaluated_and_kept() -> Result {
    let data = data(24)?;
    let mut plain = model()?;
    let mut average: Vec<f64> = Vec::new();
    trainer(&mut plain).epochs(3).run_with(&data, |model, step| {
        let values = values(model).unwrap_or_default();
        match step.step {
            1 => average = values.iter().map(|&x| f64::from(x)).collect(),
            _ => average.iter_mut().zip(&values).for_each(|(average, &x)| *average += 0.25 * (f64::from(x) - *average)),
        }
        Ok(())
    })?;
    let mut averaged = model()?;
    let mut evaluated = Vec::new();
    trainer(&mut averaged)
        .epochs(3)
        .average(0.75)
        .evaluate(Every::Epoch, |model| {
            evaluated = values(model).unwrap_or_default();
            Ok(Evaluation::minimize("nothing", 0.0))
        })
        .run(&data)?;
    let found = values(&averaged)?;
    assert_eq!(found, evaluated);
    assert!(found.iter().zip(&average).all(|(&a, b)| (f64::from(a) - b).abs() < 1e-6));
    assert!(distance(&plain, &averaged)? > 1e-4);
    Ok(())
}

#[test]
fn frozen_parameters_stay_and_groups_have_their_rate() -> Result {
    let data = data(16)?;
    let before = model()?.named_parameters();
    let mut model = model()?;
    let adamw = AdamW::new(1e-3).weight_decay(0.0).group(ParameterGroup::of("classifier").learning_rate_factor(0.0));
    let trainer = trainer(&mut model).optimizer(adamw).epochs(1);
    trainer.freeze(|name| name.starts_with("bert.embeddings.") || name.contains("layer.0.")).run(&data)?;
    for ((name, before), (_, after)) in before.into_iter().zip(model.named_parameters()) {
        let stays = ["bert.embeddings.", "layer.0.", "classifier"].iter().any(|part| name.contains(part));
        let same = before.to_vec::<f32>()? == after.to_vec::<f32>()?;
        assert_eq!(same, stays, "{name}");
    }
    Ok(())
}

#[test]
fn gradient_checkpointing_gives_the_same_bits() -> Result {
    let data = data(24)?;
    let run = |on: bool| -> Result<Vec<u32>> {
        let mut model = model()?;
        model.bert_mut().encoder.gradient_checkpointing = on;
        trainer(&mut model).epochs(2).run(&data)?;
        bits(&model)
    };
    assert_eq!(run(false)?, run(true)?);
    Ok(())
}

#[test]
fn a_loss_that_is_infinite_names_rows_and_operation() -> Result {
    let data = data(12)?;
    let mut model = model()?;
    let mut broken = Ok(());
    model.visit_mut("", &mut |name, parameter| {
        if name == "bert.encoder.layer.1.intermediate.dense.bias" {
            match parameter.mul_scalar(f64::NAN) {
                Ok(tensor) => *parameter = tensor.detach().requires_grad(),
                Err(error) => broken = Err(error),
            }
        }
    });
    broken?;
    let error = trainer(&mut model).batch_size(4).run(&data).err().ok_or("no error")?.to_string();
    assert!(error.starts_with("loss: it is NaN in optimizer step 1, of rows "), "{error}");
    assert!(error.contains("(first: bert.encoder.layer.1"), "{error}");
    assert!(error.contains(": feed_forward: the result has NaN at element 0)"), "{error}");
    Ok(())
}

#[test]
fn batches_of_tokens() -> Result {
    let data = data(40)?;
    let mut model = model()?;
    let mut tokens = 0;
    let report = trainer(&mut model).batch_tokens(30).epochs(2).run_with(&data, |_, step| {
        assert!(step.tokens - tokens <= 30, "step {}", step.step);
        tokens = step.tokens;
        Ok(())
    })?;
    let all: usize = data.sequences().iter().map(|sequence| sequence.ids.len()).sum();
    assert_eq!((report.tokens, report.epochs), (2 * all, 2));
    Ok(())
}

#[test]
fn a_report_needs_no_directory() -> Result {
    let (data, folder) = (data(40)?, tempfile::tempdir()?);
    let page = folder.path().join("page.html");
    let evaluation = || Evaluation::maximize("score", 0.5).and("loss", 0.25);
    let train = |trainer: Trainer<'_, BertForSequenceClassification>| {
        trainer.epochs(2).evaluate(Every::Epoch, |_| Ok(evaluation())).report(&page).run(&data)
    };
    train(trainer(&mut model()?))?;
    let alone = std::fs::read_to_string(&page)?;
    train(trainer(&mut model()?).directory(folder.path().join("run")))?;
    assert!(!folder.path().join("run/report.html").exists());
    for written in [alone, std::fs::read_to_string(&page)?] {
        for said in ["Learning rate", "Evaluation: score", "<dt>steps in 2 epochs</dt>", "AdamW, betas 0.9 and 0.999"] {
            assert!(written.contains(said), "{said}");
        }
    }
    Ok(())
}
