//! All heads: logits, losses, and the gradient of every parameter.

use std::fs;

use cloze::prelude::*;
use cloze::tensor::{TensorFile, save_safetensors};
use serde_json::{Map, Value};
use tempfile::TempDir;

use crate::Result;
use crate::fixture::{BERTS, Fixture, device, folder};

/// Returns a folder as written by transformers for a model with this head.
fn saved_by_transformers(fixture: &Fixture, head: &str) -> Result<TempDir> {
    let mut config: Map<String, Value> =
        serde_json::from_str(&fs::read_to_string(fixture.folder().join("config.json"))?)?;
    let family = config["model_type"].as_str().ok_or("no model_type")?.to_string();
    let heads: Value = serde_json::from_str(&fs::read_to_string(folder("heads.json"))?)?;
    let instead = &heads[family][head];
    config.extend(instead["config"].as_object().ok_or("no config")?.clone());
    let without: Vec<&str> =
        instead["without"].as_array().ok_or("no without")?.iter().flat_map(Value::as_str).collect();

    let base = TensorFile::open(fixture.folder().join("model.safetensors"))?;
    let kept = base.names().into_iter().filter(|name| !without.iter().any(|part| name.starts_with(part)));
    let mut tensors =
        kept.map(|name| Ok((name.clone(), base.tensor(&name, &Device::Cpu)?))).collect::<Result<Vec<_>>>()?;
    let prefix = format!("{head}.weight.");
    for name in fixture.names() {
        if let Some(parameter) = name.strip_prefix(&prefix) {
            tensors.push((parameter.to_string(), fixture.tensor(&name)?));
        }
    }
    let dir = tempfile::tempdir()?;
    fs::write(dir.path().join("config.json"), serde_json::to_string(&config)?)?;
    save_safetensors(dir.path().join("model.safetensors"), tensors, &[("format", "pt")])?;
    Ok(dir)
}

/// Returns the norm of a gradient, and its dot product with the fixed vector of `models.py`.
fn summary(gradient: &[f32]) -> [f64; 2] {
    let fixed = |index: usize| (index * 40503 % 65536) as f64 / 32768.0 - 1.0;
    let norm = gradient.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>().sqrt();
    [norm, gradient.iter().enumerate().map(|(index, &x)| f64::from(x) * fixed(index)).sum()]
}

const DISTILBERT: &str = "distilbert";
const ALL: [&str; 4] = [BERTS[0], BERTS[1], BERTS[2], DISTILBERT];

/// Opens the models with this head, and checks the logits and the loss that `run` computes, and all gradients.
fn check<M: PreTrainedModel>(
    fixtures: &[&str],
    head: &str,
    run: impl Fn(&M, &Fixture, &str) -> Result<[Tensor; 2]>,
) -> Result {
    for name in fixtures {
        let fixture = Fixture::open(name)?;
        let (model, report) =
            M::open_reported(saved_by_transformers(&fixture, head)?.path(), &device(), &OpenOptions::new())?;
        assert!(report.missing.is_empty() && report.unexpected.is_empty(), "{name}: {head}: {report}");
        let [logits, loss] = run(&model, &fixture, &format!("{head}.labels"))?;
        fixture.check(&format!("{head}.logits"), &logits, 5e-6)?;
        fixture.check(&format!("{head}.loss"), &loss.reshape(&[1])?, 2e-6)?;
        check_gradients(&fixture, head, &model, &loss.backward()?)?;
    }
    Ok(())
}

fn check_gradients(fixture: &Fixture, head: &str, model: &impl Module, gradients: &Gradients) -> Result {
    let is_encoder = |name: &str| name.starts_with("bert.");
    fixture.check_gradients(&format!("{head}.grad"), model, gradients, |name| !is_encoder(name))?;
    let mut encoder = model.named_parameters();
    encoder.retain(|(name, _)| is_encoder(name));
    encoder.sort_by(|(a, _), (b, _)| a.cmp(b));
    let expected = fixture.floats(&format!("{head}.grads"))?;
    assert_eq!(expected.len(), 2 * encoder.len(), "{head}");
    for ((parameter, tensor), expected) in encoder.iter().zip(expected.chunks(2)) {
        let gradient = gradients.get(tensor).ok_or_else(|| format!("{parameter} has no gradient"))?;
        let computed = summary(&gradient.to_vec()?).map(|x| x as f32);
        // Relative to the norm, and absolute for gradients that are zero mathematically.
        fixture.near(&format!("{head}.grads {parameter}"), &computed, expected, (2e-6 * expected[0]).max(1e-6));
    }
    Ok(())
}

#[test]
fn masked_lm() -> Result {
    check(&ALL, "masked_lm", |model: &BertForMaskedLM, fixture, labels| {
        let (batch, rows, labels) = (&fixture.batch, fixture.target_rows()?, fixture.integers(labels)?);
        Ok([model.forward(batch, &rows, Mode::Eval)?, model.loss(batch, &rows, &labels, Mode::Eval)?])
    })
}

#[test]
fn next_sentence() -> Result {
    check(&BERTS, "next_sentence", |model: &BertForNextSentencePrediction, fixture, labels| {
        let (batch, labels) = (&fixture.batch, fixture.integers(labels)?);
        Ok([model.forward(batch, Mode::Eval)?, model.loss(batch, &labels, Mode::Eval)?])
    })
}

#[test]
fn sequence_classification() -> Result {
    type Labels = fn(&Fixture, &str) -> Result<SequenceLabels>;
    let values: Labels = |fixture, name| Ok(SequenceLabels::Values(fixture.floats(name)?));
    let kinds: [(&[&str], &str, Labels); 4] = [
        (&ALL, "classes", |fixture, name| Ok(SequenceLabels::Classes(fixture.integers(name)?))),
        (&ALL, "multi_label", |fixture, name| Ok(SequenceLabels::MultiLabel(fixture.floats(name)?))),
        (&ALL, "one_value", values),
        (&BERTS, "values", values),
    ];
    kinds.into_iter().try_for_each(|(fixtures, head, read)| {
        check(fixtures, head, |model: &BertForSequenceClassification, fixture, labels| {
            let (batch, labels) = (&fixture.batch, read(fixture, labels)?);
            Ok([model.forward(batch, Mode::Eval)?, model.loss(batch, &labels, Mode::Eval)?])
        })
    })
}

#[test]
fn token_classification() -> Result {
    check(&ALL, "token_classes", |model: &BertForTokenClassification, fixture, labels| {
        let (batch, labels) = (&fixture.batch, fixture.integers(labels)?);
        Ok([model.forward(batch, Mode::Eval)?, model.loss(batch, &labels, Mode::Eval)?])
    })
}

#[test]
fn question_answering() -> Result {
    check(&ALL, "question_answering", |model: &BertForQuestionAnswering, fixture, labels| {
        let (batch, ends) = (&fixture.batch, fixture.integers(labels)?);
        let span = |ends: &[i64]| Some((u32::try_from(ends[0]).ok()?, u32::try_from(ends[1]).ok()?));
        let spans: Vec<_> = ends.chunks(2).map(span).collect();
        Ok([model.forward(batch, Mode::Eval)?, model.loss(batch, &spans, Mode::Eval)?])
    })
}

#[test]
fn multiple_choice() -> Result {
    check(&BERTS, "multiple_choice", |model: &BertForMultipleChoice, fixture, labels| {
        let (batch, labels) = (&fixture.batch, fixture.integers(labels)?);
        Ok([model.forward(batch, 2, Mode::Eval)?, model.loss(batch, 2, &labels, Mode::Eval)?])
    })
}
